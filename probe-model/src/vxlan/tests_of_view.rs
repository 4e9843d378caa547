//! What a snapshot says of each peer, and what the doctor makes of it.

use std::{collections::HashMap, time::Duration};

use super::{
    overlay::{Overlay, Tables},
    tests::{UNDERLAY, found, ip, tables, traffic},
    traffic::{Direction, Traffic},
    view::View,
};
use crate::{
    Verdict,
    doctor::{CheckVerdict, vxlan::judge},
    network::Route,
};

fn view(tables: &Tables, change: impl Fn(&mut Traffic)) -> View {
    let mut traffic = traffic(100_000_000_000);
    change(&mut traffic);
    View {
        time: jiff::Timestamp::UNIX_EPOCH,
        overlays: Overlay::all(tables),
        devices: HashMap::new(),
        names: HashMap::new(),
        traffic,
        findings: found(tables, change),
        unread: Vec::new(),
    }
}

/// A peer that so much was asked, and that nothing was received from.
pub(super) fn silent(asked: u64) -> View {
    view(&tables(), |traffic| {
        traffic
            .streams
            .retain(|(stream, _)| stream.direction == Direction::Out);
        for (_, count) in &mut traffic.streams {
            (count.packets, count.asks) = (asked, asked);
        }
    })
}

fn direct(tables: &mut Tables) {
    tables.routes.truncate(1);
    tables.routes.push(Route {
        prefix: "10.244.2.0/24".parse().unwrap(),
        gateway: Some(ip("192.168.88.12")),
        device: Some(UNDERLAY),
        ..Route::default()
    });
}

#[test]
fn peers_that_were_not_heard_are_not_verified() {
    type Change = fn(&mut Tables);
    type Seen = fn(&mut Traffic);
    let silent: Seen = |traffic| traffic.streams.clear();
    let table: [(&str, Change, Seen, &str, CheckVerdict, &str); 6] = [
        ("healthy", |_| {}, |_| {}, "ok", CheckVerdict::Ok, ""),
        (
            "idle",
            |_| {},
            silent,
            "idle",
            CheckVerdict::Unknown,
            "peer 192.168.88.12 of flannel.1: no traffic in 5 s; not verified (--active pings it)",
        ),
        (
            "sent only",
            |_| {},
            |traffic| {
                traffic
                    .streams
                    .retain(|(stream, _)| stream.direction == Direction::Out);
                for (_, count) in &mut traffic.streams {
                    (count.packets, count.asks) = (2, 0);
                }
            },
            "not verified",
            CheckVerdict::Unknown,
            "peer 192.168.88.12 of flannel.1: 2 packets sent, none received in 5 s; not verified",
        ),
        (
            "routed without VXLAN",
            direct,
            silent,
            "direct",
            CheckVerdict::Ok,
            "",
        ),
        (
            "down",
            |tables| tables.devices[1].up = false,
            silent,
            "device-down",
            CheckVerdict::Failed,
            "",
        ),
        (
            "down, port taken",
            |tables| tables.devices[1].up = false,
            |traffic| {
                traffic.streams.clear();
                traffic.holders.push((8472, "nc (pid 7)".to_owned()));
            },
            "port-taken",
            CheckVerdict::Failed,
            "",
        ),
    ];
    for (name, change, seen, state, verdict, unknown) in table {
        let mut tables = tables();
        change(&mut tables);
        let view = view(&tables, seen);
        let states: Vec<_> = view.peers().iter().map(super::view::PeerView::state).collect();
        assert_eq!(states, [state], "{name}");
        let answer = judge(&view, Duration::from_secs(5));
        assert_eq!(answer.verdict, verdict, "{name}");
        // The snapshot, its device and the peer have the same verdict, as there is one of each.
        let peers = view.peers();
        let verdicts = [
            view.verdict(),
            view.verdict_of(&view.overlays[0], &peers),
            peers[0].verdict(),
        ];
        assert_eq!(verdicts, [verdict.verdict(); 3], "{name}");
        assert_eq!(answer.unknown.join("\n"), unknown, "{name}");
    }
}

#[test]
fn without_a_device_nothing_is_verified() {
    let view = view(&Tables::default(), |_| {});
    assert_eq!((view.verdict(), view.findings.len()), (Verdict::Unknown, 0));
}
