//! Routes that reject pods' packets, and an underlay that is down.

use super::{
    finding::Fault,
    tests::{UNDERLAY, faults, found, tables},
    tests_of_ways::{printed, route, set_way},
};
use crate::network::{Route, RouteKind, RouteLookup};

#[test]
fn routes_that_reject_some_of_a_peers_pods() {
    let reject = |kind, prefix: &str| Route {
        kind,
        ..route(prefix, None, None)
    };
    for (name, more, expected) in [
        ("none", vec![], None),
        (
            "one pod",
            vec![reject(RouteKind::Prohibit, "10.244.2.7/32")],
            Some("ip route del prohibit 10.244.2.7/32"),
        ),
        (
            "all, behind the route through the device",
            vec![Route {
                metric: 100,
                ..reject(RouteKind::Blackhole, "10.244.2.0/24")
            }],
            None,
        ),
        (
            "of others",
            vec![reject(RouteKind::Blackhole, "10.244.9.0/24")],
            None,
        ),
        (
            "wider than the pods",
            vec![reject(RouteKind::Unreachable, "10.244.0.0/16")],
            None,
        ),
        // Calico's, for a block that this node has of a pool.
        (
            "this node's own block",
            vec![
                reject(RouteKind::Blackhole, "10.244.2.64/26"),
                route("10.244.2.70/32", None, Some(9)),
            ],
            None,
        ),
        (
            "of another table",
            vec![Route {
                table: 100,
                ..reject(RouteKind::Blackhole, "10.244.2.7/32")
            }],
            None,
        ),
    ] {
        let mut tables = tables();
        tables.routes.extend(more);
        let findings = found(&tables, |_| {});
        match expected {
            None => assert_eq!(faults(&findings), [], "{name}"),
            Some(command) => {
                assert_eq!(faults(&findings), [Fault::MissingRoute], "{name}");
                assert!(
                    printed(&findings).contains(command),
                    "{name}: {}",
                    printed(&findings)
                );
            }
        }
    }
}

#[test]
fn an_underlay_that_is_down() {
    let mut tables = tables();
    set_way(&mut tables, RouteLookup::NoRoute);
    for device in &mut tables.devices {
        device.up &= device.index != UNDERLAY;
    }
    let findings = found(&tables, |_| {});
    assert_eq!(faults(&findings), [Fault::UnderlayRoute]);
    let text = printed(&findings);
    assert!(
        text.contains("and eth0 is down.") && text.contains("ip link set eth0 up"),
        "{text}"
    );
}
