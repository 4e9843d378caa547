//! The devices under a VXLAN device, which carry its packets.

use ipnet::IpNet;

use super::overlay::{Peer, Tables, route_to};
use crate::network::{RouteKind, RouteLookup, Vxlan};

/// Underlay devices of one VXLAN device.
const UNDERLAYS: usize = 8;

/// A device that VXLAN packets leave or arrive by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    pub ethernet: bool,
}

/// The devices that its packets leave or arrive by: the one that the device is bound to, where the routes to its peers lead,
/// and the one with its address.
pub(super) fn underlays(tables: &Tables, index: u32, vxlan: &Vxlan, peers: &[Peer]) -> Vec<Underlay> {
    if vxlan.elsewhere {
        return Vec::new();
    }
    let mut found: Vec<u32> = vxlan.underlay.into_iter().collect();
    let ways = peers.iter().filter_map(|peer| match peer.way? {
        RouteLookup::Sent { device, .. } => Some(device),
        RouteLookup::Own | RouteLookup::Rejected(_) | RouteLookup::NoRoute => None,
    });
    found.extend(ways);
    if vxlan.external {
        let encaps = tables.routes.iter().filter(|route| route.device == Some(index));
        found.extend(
            encaps.filter_map(|route| match tables.lookups.get(&(vxlan.local, route.encap?))? {
                RouteLookup::Sent { device, .. } => Some(*device),
                RouteLookup::Own | RouteLookup::Rejected(_) | RouteLookup::NoRoute => None,
            }),
        );
    }
    if let Some(local) = vxlan.local {
        let with_address = tables.addresses.iter().filter(|(_, address)| *address == local);
        found.extend(with_address.map(|(index, _)| *index));
    }
    // Without an address of its own it sends from, and receives at, whatever device the routes of either side choose.
    if vxlan.local.is_none() && vxlan.underlay.is_none() {
        let vtep = peers.iter().find_map(|peer| peer.vtep);
        found.extend(vtep.and_then(|vtep| route_to(tables, index, vtep)?.device));
        if vxlan.external || vtep.is_some() {
            found.extend(towards_others(tables));
        }
    }
    let mut underlays: Vec<Underlay> = Vec::new();
    for candidate in found {
        let device = tables.devices.iter().find(|device| device.index == candidate);
        let Some(device) = device.filter(|device| device.index != index && device.vxlan.is_none()) else {
            continue;
        };
        // An address on the loopback device is reached by others through another one.
        let is_known = underlays.iter().any(|underlay| underlay.index == candidate);
        if is_known || underlays.len() == UNDERLAYS || (device.name == "lo" && !underlays.is_empty()) {
            continue;
        }
        underlays.push(Underlay {
            index: device.index,
            name: device.name.clone(),
            mtu: device.mtu,
            ethernet: device.ethernet,
        });
    }
    underlays
}

/// The devices that lead to other hosts, those of the default routes first. Who is told its peers packet by packet may send to
/// any of them. A bridge without a gateway behind it is the pods'.
fn towards_others(tables: &Tables) -> Vec<u32> {
    let is_v6_link_local = |net: &IpNet| matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local());
    let routes = || {
        let routes = tables
            .routes
            .iter()
            .filter(|route| route.kind == RouteKind::Unicast);
        routes.filter(|route| !is_v6_link_local(&route.prefix))
    };
    let bridge = |index: u32| {
        tables
            .devices
            .iter()
            .any(|device| device.index == index && device.bridge)
    };
    let with_gateway = routes().filter(|route| route.gateway.is_some());
    let mut gateways: Vec<_> = with_gateway.collect();
    gateways.sort_by_key(|route| route.prefix.prefix_len());
    let on_link = routes().filter(|route| {
        route.gateway.is_none()
            && route.prefix.prefix_len() < route.prefix.max_prefix_len()
            && route.device.is_some_and(|device| !bridge(device))
    });
    gateways
        .into_iter()
        .chain(on_link)
        .filter_map(|route| route.device)
        .collect()
}
