//! The first stage: what the kernel's ring has, decoded.

use crate::{capture::connection::Side, model::summary::Tally};

/// Bytes in, one side of a connection out; what can't be read is counted.
#[derive(Default)]
pub struct Decoder {
    malformed: u64,
}

impl Decoder {
    pub fn decode(&mut self, bytes: &[u8]) -> Option<Side> {
        let side = Side::ended(bytes);
        self.malformed += u64::from(side.is_err());
        side.ok()
    }

    pub fn losses(&self) -> [Tally; 1] {
        [Tally {
            name: "malformed",
            what: "records that could not be read",
            count: self.malformed,
        }]
    }
}
