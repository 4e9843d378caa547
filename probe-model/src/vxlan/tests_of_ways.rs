//! The way to a peer: route lookups, routes around the device, ports, drops by others than the packet filter.

use std::net::IpAddr;

use super::{
    filters::{DeviceFilter, FilterHook, FilterKind},
    finding::{Diagnosed, Fault, is_loss},
    overlay::{Overlay, Tables},
    tests::{
        FLANNEL, Run, UNDERLAY, count, device, drop_packets, dropped, faults, found, ip, stream, tables,
        vxlan,
    },
    traffic::{Direction, Traffic, VxlanStream},
};
use crate::network::{MAIN_TABLE, Reachability, Route, RouteKind, RouteLookup, Vxlan};

pub(super) fn route(prefix: &str, gateway: Option<&str>, device: Option<u32>) -> Route {
    Route {
        prefix: prefix.parse().unwrap(),
        gateway: gateway.map(ip),
        device,
        table: MAIN_TABLE,
        ..Route::default()
    }
}

pub(super) fn set_way(tables: &mut Tables, way: RouteLookup) {
    let local = vxlan(tables).local;
    tables.lookups.insert((local, ip("192.168.88.12")), way);
}

pub(super) fn printed(findings: &[Diagnosed]) -> String {
    let all = findings.iter().map(|finding| {
        format!(
            "{}\n{}\n{}\n",
            finding.what,
            finding.evidence.join("\n"),
            finding.fixes_in_one_line()
        )
    });
    all.collect()
}

#[test]
fn route_lookups() {
    type Change = fn(&mut Tables);
    let sent = |device| RouteLookup::Sent {
        device,
        gateway: None,
    };
    let table: [(&str, RouteLookup, Change, Option<Fault>, &str); 9] = [
        ("underlay", sent(UNDERLAY), |_| {}, None, ""),
        (
            "another device",
            sent(9),
            |t| t.devices.push(device(9, "eth1", 1500)),
            None,
            "",
        ),
        (
            "own",
            RouteLookup::Own,
            |_| {},
            Some(Fault::OwnAddress),
            "own address 192.168.88.12",
        ),
        (
            "into itself",
            sent(FLANNEL),
            |t| {
                t.routes
                    .push(route("192.168.88.12/32", Some("10.244.2.0"), Some(FLANNEL)));
            },
            Some(Fault::UnderlayRoute),
            "ip route del 192.168.88.12/32 via 10.244.2.0 dev flannel.1",
        ),
        (
            "blackhole",
            RouteLookup::Rejected(RouteKind::Blackhole),
            |t| {
                t.routes.push(Route {
                    kind: RouteKind::Blackhole,
                    table: 100,
                    ..route("192.168.88.12/32", None, None)
                });
            },
            Some(Fault::UnderlayRoute),
            "ip route del blackhole 192.168.88.12/32 table 100",
        ),
        (
            "wider than the peer",
            RouteLookup::Rejected(RouteKind::Blackhole),
            |t| {
                t.routes.push(Route {
                    kind: RouteKind::Prohibit,
                    ..route("192.168.88.0/28", None, None)
                });
            },
            Some(Fault::UnderlayRoute),
            "(prohibit)",
        ),
        (
            "by a rule",
            RouteLookup::Rejected(RouteKind::Unreachable),
            |_| {},
            Some(Fault::UnderlayRoute),
            "ip rule",
        ),
        (
            "none",
            RouteLookup::NoRoute,
            |_| {},
            Some(Fault::UnderlayRoute),
            "no route to 192.168.88.12",
        ),
        (
            "its own address is gone",
            RouteLookup::Rejected(RouteKind::Blackhole),
            |t| t.addresses.retain(|(index, _)| *index != UNDERLAY),
            Some(Fault::MissingAddress),
            "192.168.88.11, which this node does not have",
        ),
    ];
    for (name, way, change, fault, text) in table {
        let mut tables = tables();
        change(&mut tables);
        set_way(&mut tables, way);
        let findings = found(&tables, |traffic| traffic.streams.clear());
        assert_eq!(faults(&findings), Vec::from_iter(fault), "{name}");
        let printed = printed(&findings);
        assert!(printed.contains(text), "{name}: {printed}");
        // The command for more than the peer alone would be somebody's loss.
        assert!(!printed.contains("route del 192.168.88.0/28"), "{printed}");
    }
}

#[test]
fn a_device_of_another_network_namespace_has_no_ways_here() {
    let mut tables = tables();
    vxlan(&mut tables).elsewhere = true;
    tables.addresses.clear();
    assert!(tables.needed_lookups().is_empty());
    assert_eq!(Overlay::all(&tables)[0].underlay, None);
    assert_eq!(faults(&found(&tables, |traffic| traffic.streams.clear())), []);
}

#[test]
fn routes_around_the_device() {
    type Change = fn(&mut Tables);
    // What replaces the route to the peer's pods, and whether the pods are still reached.
    let table: [(&str, Change, bool); 8] = [
        ("nothing", |_| {}, false),
        (
            "Calico CrossSubnet, host-gw",
            |t| {
                t.routes
                    .push(route("10.244.2.0/24", Some("192.168.88.12"), Some(UNDERLAY)));
            },
            true,
        ),
        (
            "by a router",
            |t| {
                t.routes
                    .push(route("10.244.2.0/26", Some("192.168.88.1"), Some(UNDERLAY)));
            },
            true,
        ),
        (
            "WireGuard, for all pods",
            |t| {
                let mut tunnel = device(9, "wireguard.cali", 1420);
                tunnel.ethernet = false;
                t.devices.push(tunnel);
                t.routes.push(Route {
                    table: 1,
                    ..route("10.244.0.0/16", None, Some(9))
                });
            },
            true,
        ),
        (
            "the default route",
            |t| {
                t.routes
                    .push(route("0.0.0.0/0", Some("192.168.88.1"), Some(UNDERLAY)));
            },
            false,
        ),
        (
            "a network of the company",
            |t| {
                t.routes
                    .push(route("10.0.0.0/8", Some("192.168.88.1"), Some(UNDERLAY)));
            },
            false,
        ),
        (
            "the pods' own bridge",
            |t| t.routes.push(route("10.244.0.0/16", None, Some(UNDERLAY))),
            false,
        ),
        (
            "a blackhole",
            |t| {
                t.routes.push(Route {
                    kind: RouteKind::Blackhole,
                    ..route("10.244.2.0/24", None, None)
                });
            },
            false,
        ),
    ];
    for (name, change, is_direct) in table {
        let mut tables = tables();
        tables.routes.truncate(1);
        change(&mut tables);
        let silent = found(&tables, |traffic| traffic.streams.clear());
        let expected = if is_direct {
            vec![]
        } else {
            vec![Fault::MissingRoute]
        };
        assert_eq!(faults(&silent), expected, "{name}");
        // What it sends through VXLAN gets its answers another way.
        let heard = found(&tables, |_| {});
        assert_eq!(faults(&heard), [Fault::MissingRoute], "{name}");
    }
}

#[test]
fn networks_that_overlap() {
    let table: [(&str, Option<u32>, bool, bool); 6] = [
        ("10.244.0.0/16", Some(UNDERLAY), false, true),
        ("10.244.2.128/25", Some(UNDERLAY), false, true),
        ("10.244.3.0/24", Some(UNDERLAY), false, false),
        // A bridge with another node's subnet, and one with a prefix that is too wide.
        ("10.244.2.0/24", Some(9), true, true),
        ("10.244.0.0/16", Some(9), true, false),
        ("10.244.2.7/32", Some(9), true, false),
    ];
    for (prefix, index, is_bridge, is_found) in table {
        let mut tables = tables();
        let mut bridge = device(9, "cni0", 1450);
        bridge.bridge = is_bridge;
        tables.devices.push(bridge);
        tables.routes.push(route(prefix, None, index));
        let expected = if is_found {
            vec![Fault::PrefixOverlap]
        } else {
            vec![]
        };
        assert_eq!(faults(&found(&tables, |_| {})), expected, "{prefix} {index:?}");
    }
}

#[test]
fn underlays_are_those_of_the_routes() {
    let mut tables = tables();
    tables.devices.push(device(9, "eth1", 1400));
    tables.devices.push(device(1, "lo", 65_536));
    let gateway = Some(ip("192.168.88.1"));
    set_way(&mut tables, RouteLookup::Sent { device: 9, gateway });
    let names = |tables: &Tables| {
        let overlay = Overlay::all(tables).swap_remove(0);
        overlay
            .underlays()
            .map(|underlay| underlay.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&tables), ["eth0", "eth1"]);
    // Packets leave by the narrow one, and its gateway does not answer.
    tables.neighbours[1].address = ip("192.168.88.1");
    tables.neighbours[1].state = Reachability::Failed;
    assert_eq!(faults(&found(&tables, |_| {})), [Fault::DeadVtep, Fault::Mtu]);
    // Bound to none, with an address of the loopback device.
    vxlan(&mut tables).underlay = None;
    tables.addresses[0].0 = 1;
    assert_eq!(names(&tables), ["eth1"]);
}

#[test]
fn underlays_of_external_devices() {
    let mut tables = tables();
    let external = vxlan(&mut tables);
    *external = Vxlan {
        external: true,
        port: 8472,
        ..Vxlan::default()
    };
    tables.forwarding.clear();
    let mut bridge = device(8, "cni0", 1450);
    bridge.bridge = true;
    tables
        .devices
        .extend([device(9, "eth1", 1500), device(10, "eth2", 1500), bridge]);
    tables.routes.push(route("0.0.0.0/0", Some("10.9.0.1"), Some(9)));
    tables.routes.push(route("10.244.1.0/24", None, Some(8)));
    let mut encap = route("10.244.9.0/24", None, Some(FLANNEL));
    encap.encap = Some(ip("172.16.0.9"));
    tables.routes.push(encap);
    assert_eq!(tables.needed_lookups(), [(None, ip("172.16.0.9"))]);
    let way = RouteLookup::Sent {
        device: 10,
        gateway: None,
    };
    tables.lookups.insert((None, ip("172.16.0.9")), way);
    let overlay = Overlay::all(&tables).swap_remove(0);
    let names: Vec<_> = overlay
        .underlays()
        .map(|underlay| underlay.name.as_str())
        .collect();
    assert_eq!(names, ["eth2", "eth1", "eth0"]);
}

#[test]
fn who_has_the_port() {
    type Set = fn(&mut Vxlan);
    type Change = fn(&mut Tables, &mut Vec<(u16, String)>);
    let other = |change: Set| {
        let mut other = device(9, "cilium_vxlan", 1450);
        let mut of = Vxlan {
            port: 8472,
            vni: 7,
            ..Vxlan::default()
        };
        change(&mut of);
        other.vxlan = Some(of);
        other
    };
    let table: [(&str, Set, bool, Change, Fault); 6] = [
        (
            "external",
            |v| v.external = true,
            true,
            |_, _| {},
            Fault::PortTaken,
        ),
        ("GBP", |v| v.options.gbp = true, true, |_, _| {}, Fault::PortTaken),
        (
            "external, but down",
            |v| v.external = true,
            false,
            |_, _| {},
            Fault::DeviceDown,
        ),
        (
            "external, another port",
            |v| (v.external, v.port) = (true, 4789),
            true,
            |_, _| {},
            Fault::DeviceDown,
        ),
        // The same options: both share one socket, which is no obstacle.
        (
            "shared",
            |_| {},
            true,
            |_, holders| holders.push((8472, "a socket".to_owned())),
            Fault::DeviceDown,
        ),
        ("nobody", |v| v.port = 4789, true, |_, _| {}, Fault::DeviceDown),
    ];
    for (name, change, up, more, fault) in table {
        let mut tables = tables();
        tables.devices[1].up = false;
        let mut device = other(change);
        device.up = up;
        tables.devices.push(device);
        let mut holders = Vec::new();
        more(&mut tables, &mut holders);
        let findings = found(&tables, |traffic| {
            traffic.streams.clear();
            traffic.holders.clone_from(&holders);
        });
        let of_flannel: Vec<_> = findings
            .iter()
            .filter(|finding| finding.device.as_deref() == Some("flannel.1"))
            .map(|finding| finding.fault)
            .collect();
        assert_eq!(of_flannel, [fault], "{name}");
        let is_named = findings.iter().any(|finding| {
            finding.device.as_deref() == Some("flannel.1") && finding.what.contains("cilium_vxlan")
        });
        assert_eq!(is_named, fault == Fault::PortTaken, "{name}");
    }
}

#[test]
fn a_port_that_somebody_listens_on_is_no_mismatch() {
    let swarm = |traffic: &mut Traffic| {
        let other = VxlanStream {
            port: 4789,
            vni: 4097,
            ..stream(Direction::In)
        };
        traffic.streams.push((other, count(9, traffic.now_ns)));
    };
    assert_eq!(faults(&found(&tables(), swarm)), [Fault::PortMismatch]);
    let listening = |traffic: &mut Traffic| {
        swarm(traffic);
        traffic.listening.insert(4789);
    };
    assert_eq!(faults(&found(&tables(), listening)), []);
}

#[test]
fn a_vni_of_another_network_namespace_is_no_mismatch() {
    let shares = |traffic: &mut Traffic| {
        traffic.has_vni_reason = true;
        let other = VxlanStream {
            vni: 100,
            ..stream(Direction::In)
        };
        traffic.streams.push((other, count(9, traffic.now_ns)));
    };
    assert_eq!(faults(&found(&tables(), shares)), []);
    let unknown = |traffic: &mut Traffic| {
        shares(traffic);
        let mut of_vni = dropped("VXLAN_VNI_NOT_FOUND");
        of_vni.vni = 100;
        drop_packets(traffic, of_vni);
    };
    assert_eq!(faults(&found(&tables(), unknown)), [Fault::VniMismatch]);
}

#[test]
fn loss_is_a_share() {
    for (dropped, of, expected) in [
        (0, 0, false),
        (2, 2, false),
        (3, 3, true),
        (5, 5, true),
        (5, 10, true),
        (5, 11, false),
        (9, 100, false),
        (10, 1000, true),
        (10, 1001, false),
        (12, 1_000_000, false),
        (20_000, 1_000_000, true),
    ] {
        assert_eq!(is_loss(dropped, of), expected, "{dropped} of {of}");
    }
}

#[test]
fn what_drops_besides_the_packet_filter_is_named() {
    for (reason, texts) in [
        (
            "TC_INGRESS",
            vec![
                "tc filter or BPF program",
                "tc ingress of eth0: BPF program id 7 guard",
                "bpftool prog show id 7",
            ],
        ),
        (
            "TC_EGRESS",
            vec!["tc filter or BPF program", "no filter or program is there now"],
        ),
        ("XDP", vec!["XDP program (BPF)"]),
        (
            "IP_RPFILTER",
            vec!["rp_filter", "sysctl -w net.ipv4.conf.eth0.rp_filter=2"],
        ),
        ("QDISC_DROP", vec!["qdisc"]),
        ("reason 99", vec!["reason 99"]),
    ] {
        let findings = found(&tables(), |traffic| {
            drop_packets(traffic, dropped(reason));
            traffic.filters.push(DeviceFilter {
                device: UNDERLAY,
                device_name: "eth0".to_owned(),
                hook: FilterHook::Ingress,
                kind: FilterKind::Bpf {
                    id: Some(7),
                    name: "guard".to_owned(),
                },
            });
        });
        assert_eq!(faults(&findings), [Fault::Dropped], "{reason}");
        let printed = printed(&findings);
        for text in texts {
            assert!(printed.contains(text), "{reason}: {text}: {printed}");
        }
    }
}

#[test]
fn filters_are_listed_by_their_own_tool() {
    let filter = |hook, kind| DeviceFilter {
        device: UNDERLAY,
        device_name: "eth0".to_owned(),
        hook,
        kind,
    };
    let classifier = FilterKind::Classifier {
        kind: "matchall".to_owned(),
        priority: 10,
        handle: 1,
    };
    for (filter, text, command) in [
        (
            filter(FilterHook::Egress, classifier),
            "tc egress of eth0: matchall filter, pref 10, handle 0x1",
            "tc -s filter show dev eth0 egress",
        ),
        (
            filter(
                FilterHook::Xdp,
                FilterKind::Bpf {
                    id: None,
                    name: String::new(),
                },
            ),
            "XDP of eth0: BPF program",
            "ip -d link show dev eth0",
        ),
        (
            filter(FilterHook::Ingress, FilterKind::Unread("why".to_owned())),
            "tc ingress of eth0: not read (why)",
            "tc -s filter show dev eth0 ingress",
        ),
    ] {
        assert_eq!(filter.to_string(), text);
        assert_eq!(filter.listed_by().join(" "), command);
    }
}

#[test]
fn a_peer_with_two_network_cards() {
    // It sends from another address than its VTEP, and answers what is asked of that.
    let other: IpAddr = ip("172.16.0.12");
    let mut run = Run::new();
    let mut last = Vec::new();
    for round in 1..6 {
        last = run.look(&tables(), |traffic| {
            traffic.streams[0].0.peer = other;
            traffic.streams[1].1.asks = 5 * round;
            traffic.streams[0].1.answers = 5 * round;
        });
    }
    assert_eq!(faults(&last), []);
    // Unless the VTEP itself is heard with the same link layer address: then they are two.
    let two = found(&tables(), |traffic| {
        let elsewhere = VxlanStream {
            peer: other,
            ..stream(Direction::In)
        };
        traffic.streams.push((elsewhere, count(9, traffic.now_ns)));
    });
    assert_eq!(faults(&two), [Fault::MissingForwarding]);
}
