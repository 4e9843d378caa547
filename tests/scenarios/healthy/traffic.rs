//! Traffic that must get through.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{JoinHandle, park_timeout},
    time::Duration,
};

use probe_lab::{Netns, accept_all, patience};

const PAUSE: Duration = Duration::from_millis(100);

/// Connections or queries from one network namespace to one address, until it is dropped.
pub struct Client {
    what: String,
    stop: Arc<AtomicBool>,
    through: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// A connection every 100 ms, with a request.
    pub fn connects(from: &Netns, to: &str) -> Self {
        let address: SocketAddr = to.parse().unwrap();
        Self::new(from, to, move || {
            let within = Duration::from_secs(5) * patience();
            let Ok(mut stream) = TcpStream::connect_timeout(&address, within) else {
                return false;
            };
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").is_ok()
        })
    }

    /// A DNS query every 100 ms, from a port of its own.
    pub fn queries(from: &Netns, to: &str) -> Self {
        let address: SocketAddr = to.parse().unwrap();
        Self::new(from, to, move || {
            let Ok(socket) = UdpSocket::bind("0.0.0.0:0") else {
                return false;
            };
            let _ = socket.set_read_timeout(Some(Duration::from_secs(5) * patience()));
            socket.send_to(QUERY, address).is_ok() && socket.recv(&mut [0; 512]).is_ok()
        })
    }

    fn new(from: &Netns, to: &str, mut attempt: impl FnMut() -> bool + Send + 'static) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (through, failed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (stopped, counts) = (Arc::clone(&stop), [Arc::clone(&failed), Arc::clone(&through)]);
        let thread = from
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let [failed, through] = &counts;
                    let count = if attempt() { through } else { failed };
                    count.fetch_add(1, Ordering::Relaxed);
                    park_timeout(PAUSE);
                }
            })
            .unwrap();
        Self {
            what: format!("{} → {to}", from.name()),
            stop,
            through,
            failed,
            thread: Some(thread),
        }
    }

    /// How many got through since; none failed.
    pub fn got_through(&self) -> u64 {
        let failed = self.failed.load(Ordering::Relaxed);
        let through = self.through.load(Ordering::Relaxed);
        assert!(
            failed == 0 && through > 0,
            "{}: {through} got through, {failed} failed",
            self.what
        );
        through
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A query for the addresses of web.shop.
const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03web\x04shop\0\0\x01\0\x01";

/// Accepts at an address.
pub fn serve(host: &Netns, address: &str) {
    let address = address.to_owned();
    accept_all(host.enter(move || TcpListener::bind(address).unwrap()).unwrap());
}

/// A DNS server without records: NOERROR, no answer. UDP and TCP.
pub fn serve_dns(host: &Netns, address: &str) {
    let (udp, tcp) = host
        .enter(|| {
            (
                UdpSocket::bind(address).unwrap(),
                TcpListener::bind(address).unwrap(),
            )
        })
        .unwrap();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut query) {
            let answer = answer(&query[..length]);
            let _ = udp.send_to(&answer, from);
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let _ = stream.read(&mut [0; 512]);
        }
    });
}

fn answer(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    if let Some(flags) = answer.get_mut(2..4) {
        flags.copy_from_slice(&[0x81, 0x80]);
    }
    answer
}
