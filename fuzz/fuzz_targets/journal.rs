//! Any bytes as lines of a journal: nothing panics, what is told is bounded and of the lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use probe_user::{host::journal::parse, model::doctor::journal::tell};

fuzz_target!(|bytes: &[u8]| {
    let entries: Vec<_> = bytes.split(|byte| *byte == b'\n').filter_map(parse).collect();
    for lines in tell(&entries).values() {
        assert!((1..=3).contains(&lines.len()));
        for line in lines {
            assert!(line.chars().count() < 400);
        }
    }
});
