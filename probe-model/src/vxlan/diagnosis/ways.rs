//! Faults in the way to a peer: the kernel's own route lookup for its VTEP, and networks that overlap.

use std::net::IpAddr;

use super::{Observation, manager};
use crate::finding::{Fix, Severity};
use crate::network::{MAIN_TABLE, Route, RouteKind, RouteLookup};
use crate::vxlan::{
    finding::Fault,
    overlay::{Overlay, Peer},
    peer_name,
    traffic::Direction,
};

impl Observation<'_> {
    /// Peers to which the kernel has no way, or one that leads back here.
    pub(super) fn ways(&mut self, overlay: &Overlay) {
        if !overlay.device.up {
            return;
        }
        if overlay.lacks_address {
            self.missing_address(overlay);
        }
        let mut done: Vec<IpAddr> = Vec::new();
        for peer in &overlay.peers {
            let Some(vtep) = peer.vtep.filter(|vtep| !done.contains(vtep)) else {
                continue;
            };
            done.push(vtep);
            // A node in the same subnet whose pods are routed without VXLAN needs none, unless something goes there.
            let is_used = self.traffic.streams.iter().any(|(stream, count)| {
                stream.peer == vtep && stream.direction == Direction::Out && self.holds(count.last_ns)
            });
            if peer.is_direct() && !is_used {
                continue;
            }
            match peer.way {
                Some(RouteLookup::Own) => self.own_address(overlay, vtep),
                None if self.own.contains(&vtep) => self.own_address(overlay, vtep),
                Some(RouteLookup::Sent { device, .. }) if device == overlay.device.index => {
                    self.way_into_itself(overlay, peer, vtep);
                }
                // Without its own address the device gets no route to any peer.
                Some(RouteLookup::Rejected(_) | RouteLookup::NoRoute) if overlay.lacks_address => {}
                Some(RouteLookup::Rejected(kind)) => self.rejected_way(overlay, peer, vtep, kind),
                Some(RouteLookup::NoRoute) => self.no_way(overlay, vtep),
                Some(RouteLookup::Sent { .. }) | None => {}
            }
        }
    }

    fn no_way(&mut self, overlay: &Overlay, vtep: IpAddr) {
        let name = &overlay.device.name;
        let mut what = format!("This node has no route to {vtep}: {name} can't send to that peer");
        let mut evidence = vec![format!(
            "the kernel's route lookup for {vtep}: network is unreachable"
        )];
        let mut fixes = Vec::new();
        if let Some(underlay) = &overlay.underlay_down {
            what.push_str(&format!(", and {underlay} is down"));
            evidence.push(format!("{underlay}, the device under {name}, is not up"));
            fixes.push(Fix::run(
                ["ip", "link", "set", underlay, "up"],
                "and set the routes again that went with it, such as the default route",
            ));
        } else {
            fixes.push(Fix::text(format!(
                "Add the route to {vtep}, or the default route that this node had."
            )));
        }
        what.push('.');
        fixes.push(Fix::run(
            ["ip", "route", "get", &vtep.to_string()],
            "prints the route once there is one",
        ));
        let finding = self.find(Fault::UnderlayRoute, overlay, Some(vtep), what, evidence, fixes);
        finding.detail = "none".to_owned();
    }

    /// Routes that reject packets to some of a peer's pods.
    pub(super) fn rejected_pods(&mut self, overlay: &Overlay) {
        if !overlay.device.up {
            return;
        }
        let name = &overlay.device.name;
        for peer in &overlay.peers {
            let who = peer_name(peer.vtep);
            for route in &peer.rejections {
                let rejected = written(route, None);
                let what = format!(
                    "Packets to {} do not reach the pods of {who} by {name}: a route on this node rejects them.",
                    route.prefix
                );
                let mut evidence = vec![format!("route {rejected}")];
                let of_pods = peer.routes.iter().find(|pods| pods.contains(&route.prefix));
                evidence.extend(of_pods.map(|pods| format!("route {pods} dev {name}")));
                let fixes = [
                    if route.prefix.prefix_len() == route.prefix.max_prefix_len() {
                        Fix::run(del(route, None), "and find what added it")
                    } else {
                        let kind = route.kind.name();
                        let why = "lists such routes: remove this one where it is configured";
                        Fix::run(["ip", "route", "show", "table", "all", "type", kind], why)
                    },
                    Fix::text(
                        "If the route blocks these addresses on purpose, exclude them from the pod network.",
                    ),
                ];
                let finding = self.find(Fault::MissingRoute, overlay, peer.vtep, what, evidence, fixes);
                finding.detail = rejected;
            }
        }
    }

    fn missing_address(&mut self, overlay: &Overlay) {
        let name = &overlay.device.name;
        let Some(local) = overlay.vxlan.local else { return };
        let what = format!(
            "{name} sends from {local}, which this node does not have: the kernel sends none of its packets."
        );
        let evidence = vec![format!("{name} has local address {local}; no device has it")];
        let fixes = [Fix::text(format!(
            "Restore {local} on the node, or restart {} on it: it creates {name} again with the node's \
             address.",
            manager(name)
        ))];
        self.find(Fault::MissingAddress, overlay, None, what, evidence, fixes);
    }

    fn own_address(&mut self, overlay: &Overlay, vtep: IpAddr) {
        let name = &overlay.device.name;
        let what = format!(
            "A peer of {name} has this node's own address {vtep} as its VTEP: packets to its pods return to \
             this node."
        );
        let mut evidence = vec![format!(
            "{vtep} is an address of this node, and a forwarding entry of {name} sends to it"
        )];
        if overlay.vxlan.local == Some(vtep) {
            evidence.push(format!(
                "{name} itself sends from {vtep}: two nodes published the same address"
            ));
        }
        let fixes = [Fix::text(format!(
            "Let {} publish a reachable address on every node (flanneld: --iface or --public-ip). On \
             machines with NAT, such as Vagrant's, the first interface has the same address everywhere.",
            manager(name)
        ))];
        self.find(Fault::OwnAddress, overlay, Some(vtep), what, evidence, fixes);
    }

    fn way_into_itself(&mut self, overlay: &Overlay, peer: &Peer, vtep: IpAddr) {
        let name = &overlay.device.name;
        let what = format!(
            "The route to the VTEP {vtep} leads into {name} itself: the kernel drops its packets as a loop."
        );
        let mut evidence = vec![format!("the kernel's route lookup for {vtep}: dev {name}")];
        evidence.extend(
            peer.way_route
                .as_ref()
                .map(|route| format!("by the route {}", written(route, Some(name)))),
        );
        let fixes = undo(peer.way_route.as_ref(), vtep, Some(name));
        let finding = self.find(Fault::UnderlayRoute, overlay, Some(vtep), what, evidence, fixes);
        finding.detail = "loop".to_owned();
    }

    fn rejected_way(&mut self, overlay: &Overlay, peer: &Peer, vtep: IpAddr, kind: RouteKind) {
        let name = &overlay.device.name;
        let kind = peer.way_route.as_ref().map_or(kind, |route| route.kind);
        let what = format!("This node's routing rejects packets of {name} to {vtep} ({kind}).");
        let mut evidence = vec![format!("the kernel's route lookup for {vtep} fails")];
        match &peer.way_route {
            Some(route) => evidence.push(format!("by the route {}", written(route, None))),
            None => evidence.push("no route does that: a routing rule does (ip rule)".to_owned()),
        }
        let fixes = undo(peer.way_route.as_ref(), vtep, None);
        let finding = self.find(Fault::UnderlayRoute, overlay, Some(vtep), what, evidence, fixes);
        finding.detail = "rejected".to_owned();
    }

    /// Networks of pods that other networks of this node have addresses in common with.
    pub(super) fn overlapping(&mut self, overlay: &Overlay) {
        let name = &overlay.device.name;
        for overlap in &overlay.overlaps {
            let (pods, network, device) = (overlap.pods, overlap.network, &overlap.device);
            let who = peer_name(overlap.peer);
            let what = if overlap.is_underlay {
                format!(
                    "The pods of {who} ({pods}) and the network of the nodes ({network} at {device}) have addresses in common."
                )
            } else {
                format!(
                    "The pods of {who} ({pods}) and {device} of this node ({network}) have addresses in common."
                )
            };
            let evidence = vec![
                format!("route {pods} dev {name}"),
                format!("route {network} dev {device}"),
            ];
            let fixes = [Fix::text(if overlap.is_underlay {
                "Choose a pod network outside the nodes' network; it is set when the cluster is \
                 created."
                    .to_owned()
            } else {
                format!(
                    "Move one of the two to another network: each node has its own pod subnet (podCIDR), \
                     and {device} must be outside it."
                )
            })];
            let finding = self.find(Fault::PrefixOverlap, overlay, overlap.peer, what, evidence, fixes);
            // Both work beside each other until an address of both is used.
            finding.severity = Severity::Warning;
            finding.certain = !overlap.is_underlay;
            finding.detail = format!("{pods} {network}");
        }
    }
}

fn table(route: &Route) -> Option<String> {
    (route.table != MAIN_TABLE && route.table != 0).then(|| route.table.to_string())
}

/// As ip route prints it. `device`: the name of the one that it leads through.
fn words(route: &Route, device: Option<&str>) -> Vec<String> {
    let mut words = Vec::new();
    if route.kind != RouteKind::Unicast {
        words.push(route.kind.name().to_owned());
    }
    words.push(route.prefix.to_string());
    if let Some(gateway) = route.gateway {
        words.extend(["via".to_owned(), gateway.to_string()]);
    }
    words.extend(
        device
            .into_iter()
            .flat_map(|device| ["dev".to_owned(), device.to_owned()]),
    );
    words.extend(
        table(route)
            .into_iter()
            .flat_map(|table| ["table".to_owned(), table]),
    );
    words
}

fn written(route: &Route, device: Option<&str>) -> String {
    words(route, device).join(" ")
}

/// The command that takes a route away.
fn del(route: &Route, device: Option<&str>) -> Vec<String> {
    let family = if route.prefix.addr().is_ipv6() {
        Some("-6")
    } else {
        None
    };
    let ip = ["ip"].into_iter().chain(family).chain(["route", "del"]);
    ip.map(str::to_owned).chain(words(route, device)).collect()
}

/// A route for the VTEP alone is deleted; a wider one stays, and a route for the VTEP alone is added.
fn undo(route: Option<&Route>, vtep: IpAddr, device: Option<&str>) -> Vec<Fix> {
    let family = if vtep.is_ipv6() { Some("-6") } else { None };
    match route {
        Some(route) if route.prefix.prefix_len() == route.prefix.max_prefix_len() => {
            vec![Fix::run(del(route, device), "and find what added it")]
        }
        Some(route) => vec![Fix::text(format!(
            "The route {} is wider than {vtep}: exclude the nodes where it is configured, or add a route to \
             {vtep} by the underlay.",
            written(route, device)
        ))],
        None => vec![
            Fix::run(
                ["ip"].into_iter().chain(family).chain(["rule", "show"]),
                format!("one of these rules rejects packets to {vtep}"),
            ),
            Fix::text("Exclude the nodes from that rule."),
        ],
    }
}
