//! A server that does the least: accepts, and closes after its client.

use std::{
    io::Read,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use crate::process::Stream;

/// Accepts, waits for the client's FIN and closes, as long as the test runs; counts those it closed.
pub fn accept_all(listener: TcpListener) -> Arc<AtomicU64> {
    let closed = Arc::<AtomicU64>::default();
    let count = Arc::clone(&closed);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten().map(Stream::from) {
            let _ = stream.read(&mut [0; 64]);
            drop(stream);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    closed
}
