//! The first stage: what the kernel's ring has, decoded.

use crate::{capture::connection::Side, model::summary::Tally};

/// Bytes in, one side of a connection out; what can't be read is counted.
#[derive(Default)]
pub struct Decoder {
    decoded: u64,
    malformed: u64,
}

impl Decoder {
    pub fn decode(&mut self, bytes: &[u8]) -> Option<Side> {
        let side = Side::ended(bytes);
        self.decoded += 1;
        self.malformed += u64::from(side.is_err());
        side.ok()
    }

    /// How many were, malformed ones too.
    pub fn decoded(&self) -> u64 {
        self.decoded
    }

    pub fn losses(&self) -> [Tally; 1] {
        [Tally {
            name: "malformed",
            what: "records that could not be read",
            count: self.malformed,
        }]
    }
}
