//! Counters of VXLAN peers that sent and received nothing for long: they are moved out of the kernel's table, which has places for
//! so many peers and no more, and are added to what is counted if the peer comes back. So a total never falls.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use probe_ebpf::contract::vxlan::{Counters, Key};

/// After so long without a packet a peer's place is free for another.
const IDLE: Duration = Duration::from_secs(600);
/// Kept for each place of the kernel's table.
const FOR_EACH: usize = 4;

/// What was moved out of the kernel's table.
#[derive(Debug)]
pub struct GonePeers {
    kept: HashMap<Key, Counters>,
    most: usize,
    forgotten: u64,
}

impl GonePeers {
    /// Beside a table of so many places.
    pub fn beside(places: u32) -> Self {
        Self {
            kept: HashMap::new(),
            most: FOR_EACH * places as usize,
            forgotten: 0,
        }
    }

    /// Whether a place can be freed.
    pub fn is_idle(counters: &Counters, now_ns: u64) -> bool {
        Duration::from_nanos(now_ns.saturating_sub(counters.last_ns)) > IDLE
    }

    /// Keeps what was counted in a place that is free now.
    pub fn take(&mut self, key: Key, counters: Counters) {
        let sum = self.added(&key, counters);
        self.kept.insert(key, sum);
        if self.kept.len() > self.most {
            let oldest = self.kept.iter().min_by_key(|(_, counters)| counters.last_ns);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.kept.remove(&oldest);
                self.forgotten += 1;
            }
        }
    }

    /// All that was ever counted of a peer, with what the kernel has now.
    pub fn added(&self, key: &Key, counters: Counters) -> Counters {
        self.kept
            .get(key)
            .map_or(counters, |before| add(*before, counters))
    }

    pub fn has(&self, key: &Key) -> bool {
        self.kept.contains_key(key)
    }

    /// Those that the kernel has no place for now.
    pub fn without<'a>(&'a self, present: &'a HashSet<Key>) -> impl Iterator<Item = (Key, Counters)> + 'a {
        let kept = self.kept.iter().filter(|(key, _)| !present.contains(key));
        kept.map(|(key, counters)| (*key, *counters))
    }

    /// Peers whose counters were given up for those of others.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

/// Of two CPUs, or of two times.
pub fn add(one: Counters, other: Counters) -> Counters {
    let latest = if one.last_ns >= other.last_ns { one } else { other };
    let macs = [latest.macs, one.macs, other.macs];
    let macs = macs.into_iter().find(|macs| *macs != [0; 3]).unwrap_or_default();
    Counters {
        packets: one.packets + other.packets,
        frames: one.frames + other.frames,
        bytes: one.bytes + other.bytes,
        last_ns: latest.last_ns,
        syn: one.syn + other.syn,
        syn_ack: one.syn_ack + other.syn_ack,
        rst: one.rst + other.rst,
        asks: one.asks + other.asks,
        answers: one.answers + other.answers,
        acks: one.acks + other.acks,
        fragments: one.fragments + other.fragments,
        malformed: one.malformed + other.malformed,
        macs,
        malformed_header: if one.malformed_header == 0 {
            other.malformed_header
        } else {
            one.malformed_header
        },
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;

    fn key(vni: u32) -> Key {
        Key { vni, ..Key::zeroed() }
    }

    fn counted(packets: u64, last_ns: u64) -> Counters {
        Counters {
            packets,
            last_ns,
            ..Counters::zeroed()
        }
    }

    #[test]
    fn when_a_place_is_free() {
        let second = 1_000_000_000;
        for (last, now, expected) in [
            (0, 600 * second, false),
            (0, 601 * second, true),
            (700 * second, 600 * second, false),
        ] {
            assert_eq!(
                GonePeers::is_idle(&counted(1, last), now),
                expected,
                "{last} {now}"
            );
        }
    }

    #[test]
    fn totals_never_fall() {
        let mut gone = GonePeers::beside(1);
        assert_eq!(gone.added(&key(1), counted(7, 1)).packets, 7);
        gone.take(key(1), counted(7, 1));
        // It comes back: the kernel counts from zero.
        let back = gone.added(&key(1), counted(2, 9));
        assert_eq!((back.packets, back.last_ns), (9, 9));
        let present = HashSet::from([key(1)]);
        assert_eq!(gone.without(&present).count(), 0);
        // And goes again.
        gone.take(key(1), counted(2, 9));
        let kept: Vec<_> = gone
            .without(&HashSet::new())
            .map(|(_, counters)| counters.packets)
            .collect();
        assert_eq!(kept, [9]);
    }

    #[test]
    fn those_gone_for_longest_are_forgotten() {
        let mut gone = GonePeers::beside(1);
        for number in 0..=FOR_EACH as u32 {
            gone.take(key(number), counted(1, 100 - u64::from(number)));
        }
        assert_eq!((gone.kept.len(), gone.forgotten()), (FOR_EACH, 1));
        assert!(gone.has(&key(0)) && !gone.has(&key(FOR_EACH as u32)));
    }
}
