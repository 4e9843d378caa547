//! Any bytes as a line of a recording: nothing panics, and what was read can be asked for.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use probe_user::{model::flow::Flows, recording::read};

fuzz_target!(|bytes: &[u8]| {
    let mut flows = Flows::default();
    let mut asked = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(Some(recorded)) = read::line(line) {
            asked.push((recorded.source, recorded.ended, recorded.client.is_some()));
            flows.add(recorded);
        }
    }
    for (source, at, is_client) in asked {
        let found = flows.find(source, Some(at), Duration::MAX);
        assert!(found.is_ok() || !is_client || flows.near(source, Some(at)).len() > 1);
    }
});
