//! Traffic between two pods, both ways, until it is dropped.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, park_timeout},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::cluster::Pod;

const PORT: u16 = 8080;
/// Between two connections of one pod.
const PAUSE: Duration = Duration::from_millis(100);
/// More than one packet holds.
const PAYLOAD: usize = 3000;

/// Connections from each pod to the other, a new one every 100 ms, each with 3000 bytes; and datagrams.
#[derive(Debug)]
pub struct Chatter {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Chatter {
    pub fn between(one: &Pod, other: &Pod) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let mut threads = Vec::new();
        for (pod, peer) in [(one, other), (other, one)] {
            let listener = pod.netns.enter(|| TcpListener::bind(("0.0.0.0", PORT)))?;
            let listener = listener.context("can't listen in a pod")?;
            listener.set_nonblocking(true)?;
            let (stopped, server) = (Arc::clone(&stop), listener);
            threads.push(pod.netns.spawn(move || serve(&server, &stopped))?);
            let (stopped, address) = (Arc::clone(&stop), IpAddr::from(peer.address));
            threads.push(pod.netns.spawn(move || dial(address, &stopped))?);
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for Chatter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.set_nonblocking(false);
            let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
        } else {
            park_timeout(Duration::from_millis(5));
        }
    }
}

fn dial(peer: IpAddr, stop: &AtomicBool) {
    let address = SocketAddr::new(peer, PORT);
    let datagrams = UdpSocket::bind("0.0.0.0:0").ok();
    while !stop.load(Ordering::Relaxed) {
        if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(400)) {
            let _ = stream.set_write_timeout(Some(Duration::from_millis(400)));
            let _ = stream.write_all(&[b'x'; PAYLOAD]);
        }
        if let Some(datagrams) = &datagrams {
            // Answered with an ICMP error, which the next call tells.
            let _ = datagrams.send_to(b"x", (peer, 9));
        }
        park_timeout(PAUSE);
    }
}
