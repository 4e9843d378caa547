//! Any bytes as a line of a recording: nothing panics, and what was read can be asked for.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use probe_user::{
    model::flow::{Flows, LineKey},
    recording::read,
};

fuzz_target!(|bytes: &[u8]| {
    let mut flows = Flows::default();
    let mut asked = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(Some(recorded)) = read::line(line) {
            asked.push((recorded.source, recorded.ended));
            flows.add(recorded);
        }
    }
    for (source, at) in asked {
        let _ = flows.find(&LineKey::of_client(source), Some(at), Duration::MAX);
        let _ = flows.near(source, Some(at));
    }
});
