//! Any bytes as a line of etcd's log: nothing panics, nothing is found where nothing is told, what is found is of the line.
#![no_main]

use jiff::{Timestamp, tz::TimeZone};
use libfuzzer_sys::fuzz_target;
use probe_user::model::etcd_log::{Line, REJECTED, Reader};

fuzz_target!(|bytes: &[u8]| {
    let line = String::from_utf8_lossy(bytes);
    let now = Timestamp::from_second(1_795_000_000).unwrap();
    let found = Reader::new(TimeZone::UTC, now).read(&line);
    if !line.contains(REJECTED) {
        assert_eq!(found, Line::Other);
    }
    if let Line::Rejected(rejected) = found {
        // Each escape is longer than what it stands for.
        assert!(rejected.error.len() + rejected.server_name.len() <= line.len());
        assert_eq!(rejected.peer.ip(), rejected.peer.ip().to_canonical());
    }
});
