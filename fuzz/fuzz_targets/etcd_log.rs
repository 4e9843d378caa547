//! Any bytes as a line of a log, with lines before and after it: nothing panics, nothing is found where nothing is told, what is
//! found is of the lines.
#![no_main]

use jiff::{Timestamp, tz::TimeZone};
use libfuzzer_sys::fuzz_target;
use probe_user::model::etcd_log::{
    Excerpt, Line, Reader, ServerKind,
    advice::{advice, kind},
};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(3, |byte| *byte == 0xff);
    let line = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let (before, after) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let now = Timestamp::from_second(1_795_000_000).unwrap();
    let etcd = Reader::new(TimeZone::UTC, now);
    let all = etcd.clone().with_kinds(&ServerKind::ALL);
    for reader in [&etcd, &all] {
        let mut lines = Vec::new();
        let extent = reader.read_excerpt(&Excerpt { before, line: &line, after, more: false }, &mut lines);
        assert!(!extent.wants_more);
        if !reader.patterns().iter().any(|pattern| line.contains(pattern)) {
            assert_eq!(lines, []);
        }
        for found in lines {
            if let Line::Rejected(rejected) = found {
                // Each escape is longer than what it stands for, and the words of sshd's lines are probe's own.
                let around = before.len() + after.len() + 64;
                assert!(rejected.error.len() + rejected.server_name.len() <= 3 * (line.len() + around));
                assert_eq!(rejected.peer.ip(), rejected.peer.ip().to_canonical());
                let error = kind(&rejected.error);
                assert!(!advice(&error, !rejected.server_name.is_empty(), rejected.logged_by).is_empty());
                // A kind is its own kind.
                assert_eq!(kind(&error), error);
            }
        }
    }
    let _ = all.time(&line);
});
