//! Where pods' packets go besides the VXLAN device: routes around it by design, routes that reject, networks that overlap.

use std::net::IpAddr;

use ipnet::IpNet;

use super::overlay::{Overlay, Peer, Tables};
use crate::network::{MAIN_TABLE, Route, RouteKind};

/// The shortest prefix that still is the pods' subnet of one node, where no other peer's route shows its length.
const SHORTEST: (u8, u8) = (20, 56);

/// Routes of one peer's pods that are listed.
const REJECTIONS: usize = 8;

/// The way of packets to a peer's pods that does not lead through the VXLAN device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRoute {
    pub prefix: IpNet,
    pub gateway: Option<IpAddr>,
    /// The device's name; `None` where they are rejected.
    pub device: Option<String>,
    pub kind: RouteKind,
}

/// A pods' network and another one that have addresses in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// Pods behind this peer.
    pub pods: IpNet,
    pub peer: Option<IpAddr>,
    /// The network at the device.
    pub network: IpNet,
    pub device: String,
    /// The device leads to other hosts; else to this node's own pods or containers.
    pub is_underlay: bool,
}

/// The route to the pods of a peer that has none through the device `index`; `None`: there is none, or only one that is for much
/// more than these pods, such as the default route. `shortest`: prefix lengths of other peers' routes, of IPv4 and IPv6.
pub(super) fn detour(
    tables: &Tables,
    index: u32,
    peer: &Peer,
    shortest: (Option<u8>, Option<u8>),
) -> Option<PodRoute> {
    let device = |route: &Route| {
        tables
            .devices
            .iter()
            .find(|device| Some(device.index) == route.device)
    };
    let route = match peer.gateway {
        Some(gateway) => tables
            .routes
            .iter()
            .filter(|route| route.device != Some(index) && route.prefix.prefix_len() > 0)
            .filter(|route| route.prefix.contains(&gateway))
            .max_by_key(|route| (route.prefix.prefix_len(), std::cmp::Reverse(route.metric)))?,
        // Of its pods nothing is known, but whatever goes by way of it.
        None => tables.routes.iter().find(|route| {
            route.kind == RouteKind::Unicast && route.gateway.is_some() && route.gateway == peer.vtep
        })?,
    };
    let is_of_pods = || {
        let least = match route.prefix {
            IpNet::V4(_) => shortest.0.unwrap_or(SHORTEST.0),
            IpNet::V6(_) => shortest.1.unwrap_or(SHORTEST.1),
        };
        route.gateway.is_some() && route.prefix.prefix_len() >= least
    };
    let is_tunnel = || device(route).is_some_and(|device| !device.ethernet);
    let by_peer = route.gateway.is_some() && route.gateway == peer.vtep;
    (route.kind != RouteKind::Unicast || by_peer || is_tunnel() || is_of_pods()).then(|| PodRoute {
        prefix: route.prefix,
        gateway: route.gateway,
        device: device(route).map(|device| device.name.clone()),
        kind: route.kind,
    })
}

/// Routes of table main that reject packets to some of a peer's pods, which its own route is for: they have longer prefixes, or come first.
/// One that leaves out addresses of this node, as Calico's for its own block does, is no such route.
pub(super) fn rejections(tables: &Tables, peer: &Peer) -> Vec<Route> {
    let beats = |route: &Route, pods: &IpNet| match pods.prefix_len() == route.prefix.prefix_len() {
        true => tables.routes.iter().all(|other| {
            other.kind != RouteKind::Unicast || other.prefix != *pods || other.metric > route.metric
        }),
        false => true,
    };
    let is_of_this_node = |route: &Route| {
        let own = tables
            .addresses
            .iter()
            .any(|(_, address)| route.prefix.contains(address));
        let mut inside = tables.routes.iter().filter(|other| {
            other.kind == RouteKind::Unicast
                && other.prefix != route.prefix
                && route.prefix.contains(&other.prefix)
        });
        own || inside.next().is_some()
    };
    let rejects = |route: &&Route| {
        route.kind != RouteKind::Unicast
            && matches!(route.table, MAIN_TABLE | 0)
            && peer
                .routes
                .iter()
                .any(|pods| pods.contains(&route.prefix) && beats(route, pods))
            && !is_of_this_node(route)
    };
    tables
        .routes
        .iter()
        .filter(rejects)
        .take(REJECTIONS)
        .cloned()
        .collect()
}

/// The peers' pod networks that have addresses in common with a network at another device of this node.
pub(super) fn overlaps(tables: &Tables, overlay: &Overlay) -> Vec<Overlap> {
    let mut found: Vec<Overlap> = Vec::new();
    let underlays: Vec<_> = overlay.underlays().map(|underlay| underlay.index).collect();
    for route in &tables.routes {
        let on_link = route.kind == RouteKind::Unicast && route.gateway.is_none() && route.encap.is_none();
        let is_network = (1..route.prefix.max_prefix_len()).contains(&route.prefix.prefix_len());
        let device = tables
            .devices
            .iter()
            .find(|device| Some(device.index) == route.device);
        let Some(device) = device.filter(|device| on_link && is_network && device.vxlan.is_none()) else {
            continue;
        };
        let is_underlay = underlays.contains(&device.index);
        for peer in &overlay.peers {
            let overlapping = peer.routes.iter().find(|pods| {
                let is_network = pods.prefix_len() < pods.max_prefix_len();
                // A wider network at a bridge gives way to the longer prefix of the peer's pods.
                is_network && (pods.contains(&route.prefix) || is_underlay && route.prefix.contains(*pods))
            });
            let known = |pods: &IpNet| {
                found
                    .iter()
                    .any(|known| known.pods == *pods && known.device == device.name)
            };
            if let Some(pods) = overlapping.filter(|pods| !known(pods)) {
                found.push(Overlap {
                    pods: *pods,
                    peer: peer.vtep,
                    network: route.prefix,
                    device: device.name.clone(),
                    is_underlay,
                });
            }
        }
    }
    found
}
