//! Any segments in any order: nothing panics, what is kept is bounded, and what is said is of what came.
#![no_main]

use std::num::NonZeroUsize;

use libfuzzer_sys::fuzz_target;
use probe_user::{
    model::{
        Role,
        tls::{Key, FirstMessage, Segment, TlsStreams, Totals, Way},
    },
    report,
};

/// Of a segment, before its payload: connection and way, distance in the stream (two), length.
const HEAD: usize = 4;
const MOST_BYTES: usize = 1 << 16;

fn key(number: u8) -> Key {
    Key {
        local: ([10, 0, 0, 1], 1000 + u16::from(number)).into(),
        peer: ([10, 0, 0, 2], 443).into(),
        netns: 1,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut talks = TlsStreams::bounded(NonZeroUsize::new(4).unwrap(), MOST_BYTES);
    let (mut rest, mut total) = (bytes, 0);
    while let Some((head, payload)) = rest.split_at_checked(HEAD) {
        let length = usize::from(head[3]).max(1).min(payload.len());
        let (captured, next) = payload.split_at(length);
        rest = next;
        let first = u32::MAX - 100;
        let at = u32::from(u16::from_le_bytes([head[1], head[2]]) & 0x7fff);
        talks.push(
            key(head[0] & 7),
            &Segment {
                time_ns: 1,
                socket: u64::from(head[0] >> 3 & 1),
                way: if head[0] & 16 == 0 { Way::Sent } else { Way::Received },
                sequence: first.wrapping_add(at),
                first: if head[0] & 32 == 0 { first } else { first.wrapping_add(at) },
                length: length as u32 + u32::from(head[0] >> 6),
                captured,
            },
        );
        total += length;
        assert!(talks.bytes() <= MOST_BYTES.min(total));
    }
    for number in 0..8 {
        let Some(tls) = talks.take(&key(number), 0, Role::Client, Totals::default()) else {
            continue;
        };
        if let FirstMessage::Hello(hello) = &tls.client {
            // Replaced where it was no UTF-8, by three bytes for one.
            let name = hello.server_name.as_deref().unwrap_or_default();
            assert!(name.len() <= 3 * bytes.len());
        }
        assert!(!report::tls::text(&tls).is_empty());
    }
    assert_eq!(talks.bytes(), 0);
});
