//! A socket between a client and a server that lets answers through late, or not at all.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

const HELD: u64 = u64::MAX;
/// How often it looks whether it may go on.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs as long as the test.
#[derive(Debug)]
pub struct Relay {
    path: PathBuf,
    /// Milliseconds that an answer waits.
    delay: Arc<AtomicU64>,
}

impl Relay {
    /// Listens on `path` for who wants to reach `server`.
    pub fn start(path: &Path, server: &Path) -> Result<Self> {
        let listener = UnixListener::bind(path).with_context(|| format!("can't bind {}", path.display()))?;
        let delay = Arc::<AtomicU64>::default();
        let (server, theirs) = (server.to_owned(), Arc::clone(&delay));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(server) = UnixStream::connect(&server) {
                    let _ = relay(client, server, &theirs);
                }
            }
        });
        Ok(Self {
            path: path.to_owned(),
            delay,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on answers come so much later.
    pub fn delay(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).unwrap_or(HELD);
        self.delay.store(delay, Ordering::Relaxed);
    }

    /// From now on no answer comes.
    pub fn hold(&self) {
        self.delay.store(HELD, Ordering::Relaxed);
    }
}

fn relay(client: UnixStream, server: UnixStream, delay: &Arc<AtomicU64>) -> std::io::Result<()> {
    let (asked, answered) = (client.try_clone()?, server.try_clone()?);
    let delay = Arc::clone(delay);
    thread::spawn(move || pass(asked, server, || {}));
    thread::spawn(move || {
        pass(answered, client, || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(delay.load(Ordering::Relaxed)) {
                thread::park_timeout(PAUSE);
            }
        });
    });
    Ok(())
}

fn pass(mut from: UnixStream, mut to: UnixStream, wait: impl Fn()) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        wait();
        if to.write_all(buffer.get(..length).unwrap_or_default()).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}
