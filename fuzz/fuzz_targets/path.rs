//! Any packets at any points: nothing panics, every journey has an end among its hops, and what is told is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use probe_ebpf::contract::path::{Event, Point, SNAP};
use probe_user::{capture::path as capture, model::path::Exchanges};

/// Of an event, before the packet's bytes: point, direction, flow, memory, device, detail, time, length.
const HEAD: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    let known = capture::EventContext {
        reasons: None,
        vxlan_ports: [8472, 4789],
        function: &|_, _| "",
        symbol: &|_| None,
    };
    let mut exchanges = Exchanges::default();
    let (mut rest, mut events, mut now) = (bytes, 0, 0);
    while let Some((head, packet)) = rest.split_at_checked(HEAD) {
        let length = usize::from(head[7]).min(SNAP).min(packet.len());
        let mut snap = [0; SNAP];
        snap[..length].copy_from_slice(&packet[..length]);
        rest = &packet[length..];
        now += u64::from(head[6]) << 16;
        let event = Event {
            time_ns: now,
            flow: u64::from(head[2] & 3),
            skb: u64::from(head[3] & 3),
            location: 0,
            conntrack: u64::from(head[3]),
            netns: u32::from(head[4] & 3),
            device: u32::from(head[4] >> 2 & 3),
            input: u32::from(head[4] >> 4 & 3),
            mark: 0,
            detail: u32::from(head[5]),
            result: i32::from(head[5]) - 2,
            segments: u16::from(head[5]),
            snapped: length as u16,
            point: head[0] % (Point::ALL.len() as u8 + 2),
            direction: head[1] % 3,
            cpu: 0,
            name: [0xff; 16],
            snap,
        };
        if let Ok(Some(event)) = capture::event(&event, &known) {
            exchanges.push(event);
            events += 1;
        }
    }
    let told = exchanges.rest();
    let hops: usize = told.iter().flat_map(|exchange| &exchange.journeys).map(|journey| journey.hops.len()).sum();
    assert!(hops <= events);
    for exchange in &told {
        assert!(!exchange.conclusion(&|netns| netns.to_string()).text.is_empty());
        for journey in &exchange.journeys {
            assert!(journey.end().hop() < journey.hops.len());
            for hop in 0..journey.hops.len() {
                assert!(!journey.words(hop).is_empty());
            }
        }
    }
});
