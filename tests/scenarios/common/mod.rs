//! What scenarios share: a server, and what they ask of records.

#![allow(dead_code, reason = "each scenario is a program of its own and uses a part")]

use std::{
    io::Read,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use probe_lab::Run;
use serde_json::Value;

/// Accepts, waits for the client's FIN and closes, as long as the test runs; counts those it closed.
pub fn accept_all(listener: TcpListener) -> Arc<AtomicU64> {
    let closed = Arc::<AtomicU64>::default();
    let count = Arc::clone(&closed);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 64]);
            drop(stream);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    closed
}

/// `source` or `destination` of a record.
pub fn end(record: &Value, name: &str) -> Option<SocketAddr> {
    let end = &record[name];
    let ip = end["address"].as_str()?.parse().ok()?;
    Some(SocketAddr::new(
        ip,
        end["port"].as_u64().unwrap_or(0).try_into().ok()?,
    ))
}

/// The one record of a connection at one end; panics when there is none or more.
pub fn the_record<'a>(run: &'a Run, role: &str, source: SocketAddr) -> &'a Value {
    let all: Vec<&Value> = run
        .records
        .iter()
        .filter(|record| is(record, role, source))
        .collect();
    assert_eq!(all.len(), 1, "{role} {source} in {:#?}", run.records);
    all[0]
}

/// Whether a record speaks of this end.
pub fn is(record: &Value, role: &str, source: SocketAddr) -> bool {
    record["role"] == role && end(record, "source") == Some(source)
}
