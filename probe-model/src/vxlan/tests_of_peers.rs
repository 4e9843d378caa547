//! Peers: what two must not share, and the commands that set lost entries again.

use super::{
    finding::{Diagnosed, Fault},
    overlay::Tables,
    tests::{FLANNEL, OURS, Run, THEIRS, count, faults, found, ip, stream, tables, vxlan},
    traffic::Direction,
};
use crate::network::{ForwardingEntry, Mac, Neighbour, Reachability, Route};

/// Lays what flannel lays for one more peer.
fn add_peer(tables: &mut Tables, gateway: &str, mac: Mac, vtep: &str) {
    tables.routes.push(Route {
        prefix: format!("{gateway}/24").parse().unwrap(),
        gateway: Some(ip(gateway)),
        device: Some(FLANNEL),
        ..Route::default()
    });
    tables.neighbours.push(Neighbour {
        device: FLANNEL,
        address: ip(gateway),
        mac: Some(mac),
        state: Reachability::Permanent,
    });
    // The kernel has one entry for each link layer address.
    tables.forwarding.retain(|entry| entry.mac != mac);
    tables.forwarding.push(ForwardingEntry {
        device: FLANNEL,
        mac,
        peer: ip(vtep),
        permanent: true,
    });
}

fn commands(findings: &[Diagnosed]) -> Vec<String> {
    findings
        .iter()
        .flat_map(|finding| &finding.fixes)
        .filter(|fix| matches!(fix, crate::finding::Fix::Command { .. }))
        .map(ToString::to_string)
        .collect()
}

const THIRD: Mac = Mac([2, 0, 0, 0, 0, 3]);

#[test]
fn what_two_peers_must_not_share() {
    type Change = fn(&mut Tables);
    let table: [(&str, Change, &[Fault]); 5] = [
        (
            "a third node",
            |t| add_peer(t, "10.244.3.0", THIRD, "192.168.88.13"),
            &[],
        ),
        (
            "MAC address",
            |t| add_peer(t, "10.244.3.0", THEIRS, "192.168.88.13"),
            &[Fault::DuplicateMac],
        ),
        (
            "VTEP",
            |t| add_peer(t, "10.244.3.0", THIRD, "192.168.88.12"),
            &[Fault::DuplicateVtep],
        ),
        (
            "MAC address of this node",
            |t| add_peer(t, "10.244.3.0", OURS, "192.168.88.13"),
            &[Fault::DuplicateMac],
        ),
        (
            "one node with IPv4 and IPv6",
            |t| {
                add_peer(t, "10.244.3.0", THIRD, "192.168.88.13");
                t.neighbours.push(Neighbour {
                    device: FLANNEL,
                    address: ip("fd00:3::"),
                    mac: Some(THIRD),
                    state: Reachability::Permanent,
                });
                t.routes.push(Route {
                    prefix: "fd00:3::/64".parse().unwrap(),
                    gateway: Some(ip("fd00:3::")),
                    device: Some(FLANNEL),
                    ..Route::default()
                });
            },
            &[],
        ),
    ];
    for (name, change, expected) in table {
        let mut tables = tables();
        change(&mut tables);
        let findings = found(&tables, |traffic| traffic.streams.clear());
        assert_eq!(faults(&findings), expected, "{name}");
        if expected == [Fault::DuplicateMac] {
            let mac = tables.forwarding.last().unwrap().mac.to_string();
            assert!(findings[0].what.contains(&mac), "{}", findings[0].what);
        }
        if name == "MAC address" {
            let what = &findings[0].what;
            assert!(what.contains("10.244.2.0 and 10.244.3.0"), "{what}");
        }
    }
}

#[test]
fn two_senders_of_one_mac_address_are_one_finding() {
    let mut tables = tables();
    add_peer(&mut tables, "10.244.3.0", THEIRS, "192.168.88.13");
    let findings = found(&tables, |traffic| {
        let mut other = stream(Direction::In);
        other.peer = ip("192.168.88.13");
        traffic.streams.push((other, count(9, traffic.now_ns)));
    });
    assert_eq!(faults(&findings), [Fault::DuplicateMac]);
    let evidence = findings[0].evidence.join("\n");
    assert!(evidence.contains("192.168.88.12 and 192.168.88.13"), "{evidence}");
}

#[test]
fn lost_entries_are_set_again_by_commands() {
    type Change = fn(&mut Tables);
    // What is lost; whether probe saw it whole before; the commands.
    let route = "ip route replace 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink";
    let neighbour = "ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 nud permanent";
    let forwarding = "bridge fdb replace 02:00:00:00:00:02 dev flannel.1 dst 192.168.88.12";
    let with_length: Change = |t| add_peer(t, "10.244.3.0", THIRD, "192.168.88.13");
    let table: [(&str, Change, bool, Vec<&str>); 7] = [
        (
            "route",
            |t| {
                t.routes.remove(1);
            },
            true,
            vec![route],
        ),
        (
            "route, not seen before",
            |t| {
                t.routes.remove(1);
            },
            false,
            vec![route],
        ),
        (
            "neighbour",
            |t| {
                t.neighbours.remove(0);
            },
            false,
            vec![neighbour],
        ),
        (
            "forwarding",
            |t| {
                t.forwarding.remove(0);
            },
            true,
            vec![forwarding],
        ),
        (
            "forwarding, not seen before",
            |t| {
                t.forwarding.remove(0);
            },
            false,
            vec![],
        ),
        (
            "route and neighbour",
            |t| {
                t.routes.remove(1);
                t.neighbours.remove(0);
            },
            true,
            vec![neighbour, route],
        ),
        (
            "down",
            |t| {
                t.devices[1].up = false;
                t.routes.retain(|route| route.device != Some(FLANNEL));
                t.neighbours.retain(|neighbour| neighbour.device != FLANNEL);
            },
            true,
            vec![
                "ip link set flannel.1 up  # and find out why flanneld, which manages it, did not",
                neighbour,
                route,
                "ip neigh replace 10.244.3.0 lladdr 02:00:00:00:00:03 dev flannel.1 nud permanent",
                "ip route replace 10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink",
            ],
        ),
    ];
    for (name, change, is_known, expected) in table {
        let mut run = Run::new();
        let mut tables = tables();
        with_length(&mut tables);
        let mut silent = |tables: &Tables| run.look(tables, |traffic| traffic.streams.clear());
        if is_known {
            assert_eq!(silent(&tables), []);
        }
        change(&mut tables);
        silent(&tables);
        let findings = silent(&tables);
        assert_eq!(commands(&findings), expected, "{name}");
    }
}

#[test]
fn the_pods_subnet_is_known_by_this_nodes_bridge() {
    let mut tables = tables();
    let mut bridge = super::tests::device(9, "cni0", 1450);
    bridge.bridge = true;
    tables.devices.push(bridge);
    tables.routes.remove(1);
    let silent = |tables: &Tables| found(tables, |traffic| traffic.streams.clear());
    assert_eq!(commands(&silent(&tables)), [""; 0]);
    tables.routes.push(Route {
        prefix: "10.244.1.0/24".parse().unwrap(),
        device: Some(9),
        ..Route::default()
    });
    let expected = "ip route replace 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink";
    assert_eq!(commands(&silent(&tables)), [expected]);
    // A tunnel address that is no subnet's first, as Calico has it.
    tables.neighbours[0].address = ip("10.244.2.77");
    assert_eq!(commands(&silent(&tables)), [""; 0]);
}

#[test]
fn a_lost_vtep_is_the_one_that_conntrack_knows() {
    let mut tables = tables();
    tables.forwarding.clear();
    type Contacts = &'static [(u16, &'static str)];
    let table: [(Contacts, &[&str]); 4] = [
        (
            &[(8472, "192.168.88.11"), (8472, "192.168.88.12")],
            &["bridge fdb replace 02:00:00:00:00:02 dev flannel.1 dst 192.168.88.12"],
        ),
        (&[(4789, "192.168.88.12")], &[]),
        (&[(8472, "192.168.88.12"), (8472, "192.168.88.13")], &[]),
        (&[], &[]),
    ];
    for (contacts, expected) in table {
        let findings = found(&tables, |traffic| {
            traffic.streams.clear();
            traffic.contacts = contacts
                .iter()
                .map(|(port, address)| (*port, ip(address)))
                .collect();
        });
        assert_eq!(faults(&findings), [Fault::MissingForwarding]);
        assert_eq!(commands(&findings), expected, "{contacts:?}");
    }
}

#[test]
fn calico_restarts_its_own() {
    let mut tables = tables();
    tables.devices[1].name = "vxlan.calico".to_owned();
    vxlan(&mut tables).port = 4789;
    tables.forwarding.clear();
    let findings = found(&tables, |traffic| traffic.streams.clear());
    assert!(
        findings[0].fixes_in_one_line().contains("Restart calico-node"),
        "{findings:?}"
    );
}
