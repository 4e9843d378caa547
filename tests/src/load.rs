//! As much traffic between two pods as the machine can make.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::cluster::Pod;

/// Bytes written at once.
const CHUNK: usize = 256 << 10;
/// Datagrams sent before the first of them is awaited. The receiver's buffer holds 48 of the largest.
const BURST: u64 = 32;

/// A TCP connection from one pod to the other.
#[derive(Debug)]
pub struct Bulk {
    sender: TcpStream,
    receiver: TcpStream,
}

impl Bulk {
    pub fn between(from: &Pod, to: &Pod) -> Result<Self> {
        let listener = to
            .netns
            .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        let address = (to.address, listener.local_addr()?.port());
        let sender = from
            .netns
            .enter(|| TcpStream::connect(address))?
            .context("can't connect from pod to pod")?;
        let (receiver, _) = listener.accept()?;
        Ok(Self { sender, receiver })
    }

    /// Sends so many bytes; returns how long it took until they had arrived.
    pub fn run(&mut self, bytes: u64) -> Result<Duration> {
        let start = Instant::now();
        let chunk = vec![0; CHUNK];
        let (sender, receiver) = (&mut self.sender, &mut self.receiver);
        thread::scope(|scope| {
            let sending = scope.spawn(move || -> Result<()> {
                let mut left = bytes;
                while left > 0 {
                    let part = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                    sender.write_all(chunk.get(..part).unwrap_or_default())?;
                    left -= part as u64;
                }
                Ok(())
            });
            let mut buffer = vec![0; CHUNK];
            let mut left = bytes;
            while left > 0 {
                let read = receiver.read(&mut buffer)?;
                ensure!(read > 0, "the sender has closed");
                left = left.saturating_sub(read as u64);
            }
            sending.join().map_err(|_| anyhow!("the sender panicked"))?
        })?;
        Ok(start.elapsed())
    }
}

/// Datagrams from one pod to the other, of one thread: nobody is woken, and every packet is waited for.
#[derive(Debug)]
pub struct Datagrams {
    sender: UdpSocket,
    receiver: UdpSocket,
    payload: usize,
}

impl Datagrams {
    /// `payload`: bytes of a datagram.
    pub fn between(from: &Pod, to: &Pod, payload: usize) -> Result<Self> {
        let bind = |pod: &Pod| pod.netns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
        let (sender, receiver) = (bind(from)??, bind(to)??);
        sender.connect((to.address, receiver.local_addr()?.port()))?;
        receiver.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self {
            sender,
            receiver,
            payload,
        })
    }

    /// Sends so many; returns how long it took until all had arrived.
    pub fn run(&self, count: u64) -> Result<Duration> {
        let (payload, mut buffer) = (vec![0; self.payload], [0; 2048]);
        let start = Instant::now();
        let mut left = count;
        while left > 0 {
            let burst = left.min(BURST);
            for _ in 0..burst {
                self.sender.send(&payload)?;
            }
            for _ in 0..burst {
                self.receiver
                    .recv(&mut buffer)
                    .context("a datagram was lost on the way")?;
            }
            left -= burst;
        }
        Ok(start.elapsed())
    }
}
