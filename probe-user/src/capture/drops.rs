//! Entries of the drops object into the model.

use std::collections::HashMap;

use probe_ebpf::contract::drops as raw;

use super::{clock::Clock, reason::named};
use crate::model::{cause::dropped::DroppedPackets, connection::socket_address};

const SYN: u64 = 2;

/// `reasons`: this kernel's names for them, if it reports reasons at all. `at`: the function that dropped them.
pub fn dropped(
    key: &raw::Key,
    count: &raw::Count,
    clock: &Clock,
    reasons: Option<&HashMap<u32, String>>,
    at: Option<&str>,
) -> DroppedPackets {
    DroppedPackets {
        source: socket_address(key.source, key.source_port),
        destination: socket_address(key.destination, key.destination_port),
        netns: key.netns,
        reason: named(key.reason, reasons),
        at: at.map(str::to_owned),
        input: (key.input != 0).then_some(key.input),
        packets: count.packets,
        syn: count.flags & SYN != 0,
        first: clock.time(count.first_ns),
        last: clock.time(count.last_ns),
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn names_and_times() {
        let clock = Clock::new(1_700_000_000_000_000_000, 5_000);
        let key = raw::Key {
            reason: 7,
            ..raw::Key::zeroed()
        };
        let count = raw::Count {
            flags: 0x12,
            first_ns: 5_000,
            ..raw::Count::zeroed()
        };
        let names = HashMap::from([(7, "NETFILTER_DROP".to_owned())]);
        let told = dropped(&key, &count, &clock, Some(&names), Some("nf_hook_slow"));
        assert_eq!(told.reason.as_deref(), Some("NETFILTER_DROP"));
        assert_eq!((told.input, told.syn), (None, true));
        assert_eq!(told.first.as_second(), 1_700_000_000);
        let other = HashMap::from([(1, "CONSUMED".to_owned())]);
        let told = dropped(&key, &count, &clock, Some(&other), None);
        assert_eq!(told.reason.as_deref(), Some("reason 7"));
        assert_eq!(dropped(&key, &count, &clock, None, None).reason, None);
    }
}
