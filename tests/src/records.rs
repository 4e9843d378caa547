//! What scenarios ask of probe's records.

use std::net::SocketAddr;

use serde_json::Value;

use crate::Run;

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
