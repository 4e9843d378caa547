//! Overlays as flannel lays them, with one thing wrong at a time.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use super::{
    diagnosis::{Diagnosis, HOLD},
    finding::{Diagnosed, Fault},
    overlay::{Overlay, PeerEntry, PeerSource, Tables},
    traffic::{
        Direction, DropCount, ErrorCount, IcmpError, IcmpErrorKind, Layer, Traffic, VxlanCount, VxlanDrop,
        VxlanStream,
    },
};
use crate::network::{Device, ForwardingEntry, Mac, Neighbour, Reachability, Route, Vxlan};
use crate::rule::{Action, CandidateRule, Tool, samples::iptables};

pub(super) const UNDERLAY: u32 = 2;
pub(super) const FLANNEL: u32 = 3;
pub(super) const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub(super) const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
const SECOND: u64 = 1_000_000_000;

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn device(index: u32, name: &str, mtu: u32) -> Device {
    Device {
        index,
        name: name.to_owned(),
        up: true,
        ethernet: true,
        mtu,
        mac: Some(OURS),
        controller: None,
        bridge: false,
        received: 0,
        sent: 0,
        send_failures: 0,
        vxlan: None,
        xdp: None,
    }
}

/// A node 192.168.88.11 with one peer, 192.168.88.12.
pub(super) fn tables() -> Tables {
    let mut flannel = device(FLANNEL, "flannel.1", 1450);
    flannel.vxlan = Some(Vxlan {
        vni: 1,
        port: 8472,
        local: Some(ip("192.168.88.11")),
        underlay: Some(UNDERLAY),
        ..Vxlan::default()
    });
    let route = |prefix: &str, gateway: Option<&str>, device| Route {
        prefix: prefix.parse().unwrap(),
        gateway: gateway.map(ip),
        device: Some(device),
        metric: 0,
        ..Route::default()
    };
    Tables {
        devices: vec![device(UNDERLAY, "eth0", 1500), flannel],
        addresses: vec![(UNDERLAY, ip("192.168.88.11")), (FLANNEL, ip("10.244.1.0"))],
        routes: vec![
            route("192.168.88.0/24", None, UNDERLAY),
            route("10.244.2.0/24", Some("10.244.2.0"), FLANNEL),
        ],
        neighbours: vec![
            Neighbour {
                device: FLANNEL,
                address: ip("10.244.2.0"),
                mac: Some(THEIRS),
                state: Reachability::Permanent,
            },
            Neighbour {
                device: UNDERLAY,
                address: ip("192.168.88.12"),
                mac: Some(THEIRS),
                state: Reachability::Known,
            },
        ],
        forwarding: vec![ForwardingEntry {
            device: FLANNEL,
            mac: THEIRS,
            peer: ip("192.168.88.12"),
            permanent: true,
        }],
        ..Tables::default()
    }
}

pub(super) fn stream(direction: Direction) -> VxlanStream {
    VxlanStream {
        local: ip("192.168.88.11"),
        peer: ip("192.168.88.12"),
        vni: 1,
        port: 8472,
        underlay: UNDERLAY,
        direction,
    }
}

pub(super) fn count(packets: u64, at_ns: u64) -> VxlanCount {
    VxlanCount {
        packets,
        frames: packets,
        last_ns: at_ns,
        asks: packets / 2,
        answers: packets / 2,
        source_mac: THEIRS,
        destination_mac: OURS,
        ..VxlanCount::default()
    }
}

/// Traffic both ways, and drops that say nothing.
pub(super) fn traffic(now_ns: u64) -> Traffic {
    let packets = now_ns / SECOND * 10;
    let mut noise = dropped("NO_TX_TARGET");
    noise.place = Layer::Inner;
    noise.device = FLANNEL;
    noise.destination = ip("ff02::2");
    noise.ethertype = 0x86dd;
    let mut traffic = Traffic {
        now_ns,
        streams: vec![
            (stream(Direction::In), count(packets, now_ns)),
            (stream(Direction::Out), count(packets, now_ns)),
        ],
        ..Traffic::default()
    };
    drop_packets(&mut traffic, noise);
    drop_packets(&mut traffic, dropped("SOCKET_FILTER"));
    traffic
}

/// From the peer, outside.
pub(super) fn dropped(reason: &str) -> VxlanDrop {
    VxlanDrop {
        place: Layer::Outer,
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        device: UNDERLAY,
        source: ip("192.168.88.12"),
        destination: ip("192.168.88.11"),
        vni: 1,
        port: 8472,
        ethertype: 0x0800,
    }
}

pub(super) fn drop_packets(traffic: &mut Traffic, dropped: VxlanDrop) {
    let count = DropCount {
        packets: 12,
        last_ns: traffic.now_ns,
    };
    traffic.drops.push((dropped, count));
}

/// Looks of one run, a second apart.
pub(super) struct Run {
    diagnosis: Diagnosis,
    now_ns: u64,
}

impl Run {
    pub(super) fn new() -> Self {
        Self {
            diagnosis: Diagnosis::new(false),
            now_ns: 100 * SECOND,
        }
    }

    pub(super) fn look(&mut self, tables: &Tables, change: impl FnOnce(&mut Traffic)) -> Vec<Diagnosed> {
        self.now_ns += SECOND;
        let mut traffic = traffic(self.now_ns);
        change(&mut traffic);
        let own: HashSet<IpAddr> = tables.addresses.iter().map(|(_, address)| *address).collect();
        self.diagnosis.look(&Overlay::all(tables), &own, &traffic)
    }
}

#[test]
fn a_dead_peer_without_reasons() {
    let mut tables = tables();
    tables.neighbours[1].state = Reachability::Asked;
    let findings = found(&tables, |traffic| {
        let (source, destination) = (ip("192.168.88.11"), ip("192.168.88.12"));
        let unreasoned = VxlanDrop {
            reason: None,
            source,
            destination,
            ..dropped("")
        };
        drop_packets(traffic, unreasoned);
    });
    assert_eq!(faults(&findings), [Fault::DeadVtep]);
    assert!(!findings[0].certain);
}

pub(super) fn faults(findings: &[Diagnosed]) -> Vec<Fault> {
    findings.iter().map(|finding| finding.fault).collect()
}

/// What the second look at such tables and traffic finds.
pub(super) fn found(tables: &Tables, change: impl Fn(&mut Traffic)) -> Vec<Diagnosed> {
    let mut run = Run::new();
    run.look(tables, &change);
    run.look(tables, &change)
}

#[test]
fn a_healthy_overlay_has_no_finding() {
    let mut run = Run::new();
    for _ in 0..600 {
        let findings = run.look(&tables(), |_| {});
        assert_eq!(findings, []);
    }
}

#[test]
fn faults_of_tables() {
    type Change = fn(&mut Tables);
    let table: [(&str, Change, &[Fault]); 9] = [
        ("route", |t| t.routes.truncate(1), &[Fault::MissingRoute]),
        (
            "neighbour",
            |t| t.neighbours.retain(|neighbour| neighbour.device != FLANNEL),
            &[Fault::MissingNeighbour],
        ),
        (
            "forwarding",
            |t| t.forwarding.clear(),
            &[Fault::MissingForwarding],
        ),
        ("down", |t| t.devices[1].up = false, &[Fault::DeviceDown]),
        ("mtu", |t| t.devices[1].mtu = 1500, &[Fault::Mtu]),
        ("underlay's mtu", |t| t.devices[0].mtu = 1499, &[Fault::Mtu]),
        (
            "dead",
            |t| t.neighbours[1].state = Reachability::Failed,
            &[Fault::DeadVtep],
        ),
        ("asked", |t| t.neighbours[1].state = Reachability::Asked, &[]),
        (
            "our address",
            |t| t.devices[1].mac = Some(Mac([2, 9, 9, 9, 9, 9])),
            &[Fault::StaleMac],
        ),
    ];
    for (name, change, expected) in table {
        let mut tables = tables();
        change(&mut tables);
        assert_eq!(faults(&found(&tables, |_| {})), expected, "{name}");
        let once = Run::new().look(&tables, |_| {});
        assert_eq!(once, [], "{name}: an entry that is being made is no fault");
    }
}

#[test]
fn faults_of_packets() {
    type Change = fn(&mut Traffic);
    let table: [(&str, Change, &[Fault]); 17] = [
        ("port", |t| t.streams[0].0.port = 4789, &[Fault::PortMismatch]),
        ("VNI", |t| t.streams[0].0.vni = 2, &[Fault::VniMismatch]),
        ("passing through", |t| t.streams[0].0.local = ip("10.9.9.9"), &[]),
        (
            "their address",
            |t| t.streams[0].1.source_mac = Mac([2, 9, 9, 9, 9, 9]),
            &[Fault::StaleMac],
        ),
        (
            "stranger",
            |t| {
                t.streams.push((
                    VxlanStream {
                        peer: ip("192.168.88.13"),
                        ..stream(Direction::In)
                    },
                    count(9, t.now_ns),
                ));
            },
            &[Fault::MissingForwarding],
        ),
        (
            "malformed",
            |t| {
                t.streams[0].1.malformed = t.now_ns;
                t.streams[0].1.malformed_header = 0;
            },
            &[Fault::MalformedHeader],
        ),
        (
            "fragments",
            |t| t.streams[0].1.fragments = t.now_ns,
            &[Fault::Mtu],
        ),
        (
            "rule",
            |t| drop_packets(t, dropped("NETFILTER_DROP")),
            &[Fault::Filtered],
        ),
        (
            "checksum",
            |t| drop_packets(t, dropped("UDP_CSUM")),
            &[Fault::BadChecksum],
        ),
        (
            "checksum, no reasons",
            |t| {
                t.checksum_errors = t.now_ns;
                drop_packets(t, dropped(""));
            },
            &[Fault::BadChecksum],
        ),
        ("no reasons", |t| drop_packets(t, dropped("")), &[Fault::Dropped]),
        (
            "queue",
            |t| drop_packets(t, dropped("QDISC_DROP")),
            &[Fault::Dropped],
        ),
        (
            "neighbour failed",
            |t| {
                let out = VxlanDrop {
                    source: ip("192.168.88.11"),
                    destination: ip("192.168.88.12"),
                    ..dropped("NEIGH_FAILED")
                };
                drop_packets(t, out);
            },
            &[Fault::DeadVtep],
        ),
        ("refused", |t| complain(t, IcmpErrorKind::Port), &[Fault::Refused]),
        (
            "prohibited",
            |t| complain(t, IcmpErrorKind::Prohibited),
            &[Fault::Refused],
        ),
        (
            "unreachable",
            |t| complain(t, IcmpErrorKind::Host),
            &[Fault::DeadVtep],
        ),
        ("too big", |t| complain(t, IcmpErrorKind::TooBig), &[Fault::Mtu]),
    ];
    for (name, change, expected) in table {
        assert_eq!(faults(&found(&tables(), change)), expected, "{name}");
    }
}

fn complain(traffic: &mut Traffic, kind: IcmpErrorKind) {
    let error = IcmpError {
        reporter: ip("192.168.88.12"),
        source: ip("192.168.88.11"),
        destination: ip("192.168.88.12"),
        port: 8472,
        kind,
        direction: Direction::In,
    };
    let count = ErrorCount {
        packets: 3,
        last_ns: traffic.now_ns,
        mtu: 1400,
    };
    traffic.errors.push((error, count));
}

#[test]
fn what_packets_showed_is_over_after_a_while() {
    let mut run = Run::new();
    let seen_ns = run.now_ns + SECOND;
    let mut held = 0;
    for _ in 0..HOLD.as_secs() + 5 {
        let findings = run.look(&tables(), |traffic| {
            let mut dropped = (
                dropped("NETFILTER_DROP"),
                DropCount {
                    packets: 1,
                    last_ns: seen_ns,
                },
            );
            dropped.1.packets = 1;
            traffic.drops.push(dropped);
        });
        held += u64::from(!findings.is_empty());
    }
    assert_eq!(held, HOLD.as_secs() + 1);
}

#[test]
fn since_when() {
    let mut run = Run::new();
    let mut since = HashSet::new();
    for _ in 0..4 {
        let findings = run.look(&tables(), |traffic| {
            drop_packets(traffic, dropped("NETFILTER_DROP"));
        });
        since.extend(findings.iter().map(|finding| finding.since_ns));
    }
    assert_eq!(since, HashSet::from([101 * SECOND]));
}

#[test]
fn questions_without_an_answer() {
    // Answers, acknowledgements received, and questions, each second.
    for (answers, acks, asks, expected) in [
        (0, 0, 2, true),
        (1, 0, 2, false),
        (0, 50, 2, false),
        (0, 1, 2, true),
        (0, 0, 0, false),
    ] {
        let mut run = Run::new();
        let mut last = Vec::new();
        for round in 1..6 {
            last = run.look(&tables(), |traffic| {
                let (received, sent) = (&mut traffic.streams[0].1, 1);
                received.answers = answers * round;
                received.asks = 0;
                received.acks = acks * round;
                // Which say nothing.
                received.packets = 99 * round;
                traffic.streams[sent].1.asks = asks * round;
            });
        }
        assert_eq!(
            faults(&last).contains(&Fault::NoAnswer),
            expected,
            "{answers} {acks} {asks}"
        );
    }
}

#[test]
fn one_look_at_all_of_a_run_forgets_nothing() {
    let tables = tables();
    let mut diagnosis = Diagnosis::new(true);
    let own = HashSet::from([ip("192.168.88.11")]);
    let overlays = Overlay::all(&tables);
    let mut traffic = traffic(1000 * SECOND);
    traffic.drops.push((
        dropped("NETFILTER_DROP"),
        DropCount {
            packets: 1,
            last_ns: SECOND,
        },
    ));
    assert_eq!(
        faults(&diagnosis.look(&overlays, &own, &traffic)),
        [Fault::Filtered]
    );
}

#[test]
fn a_port_that_somebody_else_has() {
    let mut tables = tables();
    tables.devices[1].up = false;
    let findings = found(&tables, |traffic| {
        traffic.holders.push((8472, "nc (pid 7)".to_owned()));
    });
    assert_eq!(faults(&findings), [Fault::PortTaken]);
    assert!(findings[0].what.contains("nc (pid 7)"), "{}", findings[0].what);
}

#[test]
fn candidate_rules() {
    let drop_rule = |certain: bool| CandidateRule {
        certain,
        packets: certain.then_some(4),
        ..iptables(
            Tool::IptablesNft,
            "filter",
            Action::Drop,
            &["INPUT", &certain.to_string()],
        )
    };
    for (rules, fault, word) in [
        (vec![], Fault::Filtered, "its packet filter"),
        (
            vec![drop_rule(false)],
            Fault::Filtered,
            "perhaps by a rule: iptables-nft: filter INPUT rule 3: -A INPUT false",
        ),
        (
            vec![drop_rule(false), drop_rule(true)],
            Fault::Filtered,
            "by a rule: iptables-nft: filter INPUT rule 3: -A INPUT true",
        ),
    ] {
        let mut findings = found(&tables(), |traffic| {
            drop_packets(traffic, dropped("NETFILTER_DROP"));
        });
        assert!(findings[0].explain(rules));
        assert_eq!(findings[0].fault, fault);
        assert!(findings[0].what.contains(word), "{}", findings[0].what);
    }
    // Without a reason it takes a rule to say that it was one.
    let mut findings = found(&tables(), |traffic| drop_packets(traffic, dropped("")));
    assert!(findings[0].explain(Vec::new()), "many packets");
    findings[0].filtered.as_mut().unwrap().packets = 1;
    assert!(!findings[0].explain(Vec::new()), "a single packet");
    assert_eq!(findings[0].fault, Fault::Dropped);
    assert!(findings[0].explain(vec![drop_rule(true)]));
    assert_eq!((findings[0].fault, findings[0].certain), (Fault::Filtered, false));
}

#[test]
fn peers_are_joined_from_the_tables() {
    let mut tables = tables();
    let peer = |tables: &Tables| Overlay::all(tables)[0].peers.clone();
    let whole = peer(&tables);
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].vtep, Some(ip("192.168.88.12")));
    assert_eq!(whole[0].mac, Some(THEIRS));
    assert_eq!(whole[0].lacks, []);
    // The one entry that no neighbour leads to is the one peer's that has none.
    let neighbour = tables.neighbours.remove(0);
    let without = peer(&tables);
    assert_eq!(without[0].vtep, Some(ip("192.168.88.12")));
    assert_eq!(without[0].lacks, [PeerEntry::Neighbour]);
    tables.neighbours.push(neighbour);
    tables.forwarding.push(ForwardingEntry {
        device: FLANNEL,
        mac: Mac([2, 0, 0, 0, 0, 3]),
        peer: ip("192.168.88.13"),
        permanent: true,
    });
    let more = peer(&tables);
    assert_eq!(more[1].lacks, [PeerEntry::Route, PeerEntry::Neighbour]);
}

#[test]
fn kinds_of_devices() {
    type Change = fn(&mut Tables);
    let table: [(&str, Change, PeerSource); 5] = [
        ("as flannel", |_| {}, PeerSource::Entries),
        ("learning", |t| vxlan(t).learning = true, PeerSource::Learning),
        (
            "group",
            |t| vxlan(t).group = Some(ip("239.1.1.1")),
            PeerSource::Learning,
        ),
        (
            "floods",
            |t| t.forwarding[0].mac = Mac::default(),
            PeerSource::Learning,
        ),
        ("external", |t| vxlan(t).external = true, PeerSource::External),
    ];
    for (name, change, kind) in table {
        let mut tables = tables();
        change(&mut tables);
        assert_eq!(Overlay::all(&tables)[0].kind, kind, "{name}");
        if kind != PeerSource::Entries {
            tables.routes.truncate(1);
            tables.neighbours.remove(0);
            assert_eq!(found(&tables, |_| {}), [], "{name}: what is missing may come");
        }
    }
}

pub(super) fn vxlan(tables: &mut Tables) -> &mut Vxlan {
    tables.devices[1].vxlan.as_mut().unwrap()
}

#[test]
fn the_underlay_is_found_without_being_named() {
    let mut tables = tables();
    for (local, expected) in [(Some("192.168.88.11"), Some(UNDERLAY)), (None, Some(UNDERLAY))] {
        vxlan(&mut tables).underlay = None;
        vxlan(&mut tables).local = local.map(ip);
        let underlay = Overlay::all(&tables)[0].underlay.clone();
        assert_eq!(underlay.map(|underlay| underlay.index), expected, "{local:?}");
    }
}

#[test]
fn an_ipv6_underlay_takes_more_of_the_mtu() {
    let mut tables = tables();
    assert_eq!(Overlay::all(&tables)[0].overhead(), 50);
    vxlan(&mut tables).local = Some(ip("fd00::11"));
    tables.addresses.push((UNDERLAY, ip("fd00::11")));
    assert_eq!(Overlay::all(&tables)[0].overhead(), 70);
    assert_eq!(
        faults(&found(&tables, |traffic| traffic.streams.clear())),
        [Fault::Mtu]
    );
}

#[test]
fn kinds_of_icmp_errors() {
    for (six, kind, code, expected) in [
        (false, 3, 3, IcmpErrorKind::Port),
        (true, 1, 4, IcmpErrorKind::Port),
        (false, 3, 1, IcmpErrorKind::Host),
        (true, 1, 3, IcmpErrorKind::Host),
        (false, 3, 13, IcmpErrorKind::Prohibited),
        (true, 1, 1, IcmpErrorKind::Prohibited),
        (false, 3, 4, IcmpErrorKind::TooBig),
        (true, 2, 0, IcmpErrorKind::TooBig),
        (false, 3, 99, IcmpErrorKind::Other),
    ] {
        assert_eq!(IcmpErrorKind::of(six, kind, code), expected);
    }
    assert!(HOLD > Duration::from_secs(5));
}
