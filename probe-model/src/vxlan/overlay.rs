//! What should be: each VXLAN device with the peers that routes, neighbours and forwarding entries give it.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;

pub use super::underlay::Underlay;
use super::{
    routes::{Overlap, PodRoute, detour, overlaps, rejections},
    underlay::underlays,
};
use crate::network::{
    Device, ForwardingEntry, MAIN_TABLE, Mac, Neighbour, Reachability, Route, RouteKind, RouteLookup, Vxlan,
};

/// Lookups in one snapshot.
const LOOKUPS: usize = 4096;

/// All tables at one moment.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    pub devices: Vec<Device>,
    /// Each with the index of its device.
    pub addresses: Vec<(u32, IpAddr)>,
    pub routes: Vec<Route>,
    pub neighbours: Vec<Neighbour>,
    pub forwarding: Vec<ForwardingEntry>,
    /// What the kernel does with packets of a VXLAN device with this address to this peer, as far as it was queried.
    pub lookups: HashMap<LookupKey, RouteLookup>,
}

/// The VXLAN device's own address, where it has one, and the peer's.
pub type LookupKey = (Option<IpAddr>, IpAddr);

impl Tables {
    /// The lookups that the peers need. The kernel looks up the way to a forwarding entry's peer by the addresses alone: the
    /// device that a VXLAN device is bound to counts only for what it floods (`vxlan_xmit_one`).
    pub fn needed_lookups(&self) -> Vec<LookupKey> {
        let vxlan = |index: u32| {
            let device = self.devices.iter().find(|device| device.index == index)?;
            device.vxlan.as_ref().filter(|vxlan| !vxlan.elsewhere)
        };
        let entries = self
            .forwarding
            .iter()
            .filter(|entry| !entry.peer.is_multicast() && !entry.peer.is_unspecified())
            .filter_map(|entry| Some((vxlan(entry.device)?.local, entry.peer)));
        let encaps = self
            .routes
            .iter()
            .filter_map(|route| Some((vxlan(route.device?)?.local, route.encap?)));
        let mut keys: Vec<_> = entries.chain(encaps).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.truncate(LOOKUPS);
        keys
    }
}

/// A VXLAN device, its underlay and its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    pub device: Device,
    pub vxlan: Vxlan,
    pub underlay: Option<Underlay>,
    /// Further devices by which its packets leave or arrive.
    pub other_underlays: Vec<Underlay>,
    pub kind: PeerSource,
    pub peers: Vec<Peer>,
    /// Another VXLAN device that is up on its UDP port and does not share it.
    pub conflict: Option<String>,
    /// Another VXLAN device that is up shares its UDP port.
    pub is_port_shared: bool,
    /// Its own address is not on this node.
    pub lacks_address: bool,
    /// The name of the device that it is bound to, or that has its address, if that is down.
    pub underlay_down: Option<String>,
    /// Pods' networks that are in the way of others.
    pub overlaps: Vec<Overlap>,
    /// The length of this node's and the peers' pod subnets, where the tables show it.
    pub subnet_length: Option<u8>,
}

crate::names! {
    /// Where the device gets its peers from.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum PeerSource {
        /// Static entries, as flannel and Calico set them: a missing one is not learned.
        Entries = "entries",
        /// It learns from what arrives, or sends to all: entries come and go.
        Learning = "learning",
        /// Somebody else, packet by packet.
        External = "external",
    }
}

/// A peer, joined from the tables: route → gateway → neighbour's address → forwarding entry → VTEP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The peer's VTEP; `None` where the forwarding entry is missing.
    pub vtep: Option<IpAddr>,
    /// The link layer address of its VXLAN device, as this node has it.
    pub mac: Option<Mac>,
    /// Its address inside the overlay.
    pub gateway: Option<IpAddr>,
    /// What is behind it.
    pub routes: Vec<IpNet>,
    pub lacks: Vec<PeerEntry>,
    /// The VTEP, or the gateway to it, did not answer when it was asked for its address on the underlay.
    pub unreachable: bool,
    /// It is being asked for its address on the underlay, and has not answered yet.
    pub asked: bool,
    /// What the kernel does with packets to the VTEP.
    pub way: Option<RouteLookup>,
    /// The route that is used, if it is not one of the underlay.
    pub way_route: Option<Route>,
    /// Packets to its pods go another way than through the device.
    pub detour: Option<PodRoute>,
    /// Routes that reject packets to some of its pods.
    pub rejections: Vec<Route>,
}

impl Peer {
    /// Its pods are routed without this device, as Calico does within a subnet (CrossSubnet), or host-gw, or WireGuard.
    pub fn is_direct(&self) -> bool {
        self.detour
            .as_ref()
            .is_some_and(|detour| detour.kind == RouteKind::Unicast)
    }
}

crate::names! {
    /// An entry that a peer needs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum PeerEntry {
        Route = "route",
        Neighbour = "neighbour",
        Forwarding = "forwarding entry",
    }
}

impl Overlay {
    /// Of every VXLAN device.
    pub fn all(tables: &Tables) -> Vec<Self> {
        let vxlan = |device: &Device| Some((device.clone(), device.vxlan.clone()?));
        tables
            .devices
            .iter()
            .filter_map(vxlan)
            .map(|(device, vxlan)| Self::of(tables, device, vxlan))
            .collect()
    }

    fn of(tables: &Tables, device: Device, vxlan: Vxlan) -> Self {
        let index = device.index;
        let entries: Vec<_> = tables
            .forwarding
            .iter()
            .filter(|entry| entry.device == index)
            .collect();
        let floods = entries.iter().any(|entry| entry.mac.is_zero());
        let bridged = tables
            .devices
            .iter()
            .any(|other| other.bridge && Some(other.index) == device.controller);
        let kind = if vxlan.external {
            PeerSource::External
        } else if vxlan.learning || floods || vxlan.group.is_some() || bridged {
            PeerSource::Learning
        } else {
            PeerSource::Entries
        };
        let mut peers = match kind {
            PeerSource::Entries => joined(tables, index, &entries),
            PeerSource::Learning => vteps(&entries),
            PeerSource::External => Vec::new(),
        };
        for peer in &mut peers {
            let Some(vtep) = peer.vtep else { continue };
            peer.way = tables.lookups.get(&(vxlan.local, vtep)).copied();
            peer.way_route = peer.way.and_then(|way| route_of(tables, index, vtep, way));
            let next = next_hop(tables, index, vtep, peer.way);
            let state = |state| neighbour_is(tables, next, state);
            (peer.unreachable, peer.asked) = (state(Reachability::Failed), state(Reachability::Asked));
        }
        for peer in &mut peers {
            peer.rejections = rejections(tables, peer);
        }
        let mut found = underlays(tables, index, &vxlan, &peers).into_iter();
        let (underlay, other_underlays) = (found.next(), found.collect());
        let others = || {
            let others = tables
                .devices
                .iter()
                .filter(|other| other.up && other.index != index);
            others.filter_map(|other| Some((other, other.vxlan.as_ref()?)))
        };
        let conflict = others().find(|(_, other)| vxlan.conflicts(other));
        let own = |address| tables.addresses.iter().any(|(_, own)| *own == address);
        let mut overlay = Self {
            conflict: conflict.map(|(other, _)| other.name.clone()),
            is_port_shared: others().any(|(_, other)| other.port == vxlan.port && !vxlan.conflicts(other)),
            underlay_down: underlay_down(tables, &vxlan),
            lacks_address: !vxlan.elsewhere && vxlan.local.is_some_and(|local| !own(local)),
            overlaps: Vec::new(),
            subnet_length: None,
            device,
            vxlan,
            underlay,
            other_underlays,
            kind,
            peers,
        };
        if kind == PeerSource::Entries {
            overlay.subnet_length = subnet_length(tables, &overlay);
            overlay.overlaps = overlaps(tables, &overlay);
        }
        overlay
    }

    /// Every underlay device, the first one first.
    pub fn underlays(&self) -> impl Iterator<Item = &Underlay> {
        self.underlay.iter().chain(&self.other_underlays)
    }

    /// The device with the least MTU of those that packets to its peers leave by.
    pub fn narrowest(&self) -> Option<&Underlay> {
        let leaves = |underlay: &&Underlay| {
            self.peers.iter().any(
                |peer| matches!(peer.way, Some(RouteLookup::Sent { device, .. }) if device == underlay.index),
            )
        };
        let narrowest = self
            .underlays()
            .filter(leaves)
            .min_by_key(|underlay| underlay.mtu);
        narrowest.or(self.underlay.as_ref())
    }

    /// The peer that sends from another address than its VTEP, as a node with two network cards may: what it sends has its
    /// link layer address. `is_heard`: whether packets with that link layer address come from that VTEP, too.
    pub fn alias(&self, address: IpAddr, mac: Mac, is_heard: impl Fn(IpAddr) -> bool) -> Option<&Peer> {
        if mac.is_zero() || self.peer(address).is_some() {
            return None;
        }
        let mut same = self.peers.iter().filter(|peer| peer.mac == Some(mac));
        let peer = same.next().filter(|_| same.next().is_none())?;
        peer.vtep.filter(|vtep| !is_heard(*vtep)).map(|_| peer)
    }

    /// Bytes that VXLAN puts around a packet.
    pub fn overhead(&self) -> u32 {
        let six = matches!(self.vxlan.local, Some(IpAddr::V6(_)))
            || self
                .peers
                .iter()
                .any(|peer| matches!(peer.vtep, Some(IpAddr::V6(_))));
        // IP, UDP, VXLAN and the inner Ethernet header.
        if six { 40 + 8 + 8 + 14 } else { 20 + 8 + 8 + 14 }
    }

    /// The peer with this VTEP.
    pub fn peer(&self, vtep: IpAddr) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.vtep == Some(vtep))
    }

    /// The peer that packets to an inner address go to.
    pub fn towards(&self, address: IpAddr) -> Option<&Peer> {
        let by_gateway = self.peers.iter().find(|peer| peer.gateway == Some(address));
        by_gateway.or_else(|| {
            self.peers
                .iter()
                .filter_map(|peer| {
                    let routes = peer.routes.iter().filter(|route| route.contains(&address));
                    Some((routes.map(IpNet::prefix_len).max()?, peer))
                })
                .max_by_key(|(length, _)| *length)
                .map(|(_, peer)| peer)
        })
    }
}

/// The device under a VXLAN device, if it is down.
fn underlay_down(tables: &Tables, vxlan: &Vxlan) -> Option<String> {
    let with_address = |local| {
        tables
            .addresses
            .iter()
            .find(|(_, address)| Some(*address) == local)
    };
    let index = vxlan.underlay.or_else(|| Some(with_address(vxlan.local)?.0))?;
    let device = tables.devices.iter().find(|device| device.index == index)?;
    (!vxlan.elsewhere && !device.up).then(|| device.name.clone())
}

/// The peers of a device with static entries.
fn joined(tables: &Tables, index: u32, entries: &[&ForwardingEntry]) -> Vec<Peer> {
    let neighbours: Vec<_> = tables
        .neighbours
        .iter()
        .filter(|neighbour| neighbour.device == index && neighbour.state != Reachability::NoNeed)
        .filter(|neighbour| neighbour.mac.is_none_or(|mac| !mac.is_group()))
        .collect();
    let mut peers: Vec<Peer> = Vec::new();
    let mut by_gateway = |gateway: IpAddr| -> usize {
        let known = peers.iter().position(|peer| peer.gateway == Some(gateway));
        known.unwrap_or_else(|| {
            peers.push(Peer {
                gateway: Some(gateway),
                ..Peer::default()
            });
            peers.len() - 1
        })
    };
    let mut routes = Vec::new();
    for route in &tables.routes {
        if let (true, Some(gateway)) = (route.device == Some(index), route.gateway) {
            routes.push((by_gateway(gateway), route.prefix));
        }
    }
    let permanent: Vec<_> = neighbours
        .iter()
        .filter(|neighbour| neighbour.state == Reachability::Permanent)
        .map(|neighbour| (by_gateway(neighbour.address), neighbour.mac))
        .collect();
    for (peer, prefix) in routes {
        if let Some(peer) = peers.get_mut(peer)
            && !peer.routes.contains(&prefix)
        {
            peer.routes.push(prefix);
        }
    }
    for (peer, mac) in permanent {
        if let Some(peer) = peers.get_mut(peer) {
            peer.mac = mac;
        }
    }
    for peer in &mut peers {
        let entry = entries.iter().find(|entry| Some(entry.mac) == peer.mac);
        peer.vtep = entry.map(|entry| entry.peer);
    }
    // Entries that no neighbour leads to.
    let mut orphans: Vec<_> = entries
        .iter()
        .filter(|entry| !peers.iter().any(|peer| peer.mac == Some(entry.mac)))
        .collect();
    let mut without: Vec<_> = peers.iter_mut().filter(|peer| peer.mac.is_none()).collect();
    // With one of each there is no doubt which belongs to which.
    if let ([entry], [peer]) = (orphans.as_slice(), without.as_mut_slice()) {
        peer.vtep = Some(entry.peer);
        peer.mac = Some(entry.mac);
        peer.lacks.push(PeerEntry::Neighbour);
        orphans.clear();
    } else {
        for peer in without {
            peer.lacks.push(PeerEntry::Neighbour);
        }
    }
    let shortest = |is_v4: bool| {
        let lengths = peers.iter().flat_map(|peer| &peer.routes);
        let same = lengths.filter(|route| route.addr().is_ipv4() == is_v4);
        same.map(IpNet::prefix_len).min()
    };
    let shortest = (shortest(true), shortest(false));
    for peer in &mut peers {
        if peer.routes.is_empty() {
            peer.detour = detour(tables, index, peer, shortest);
            if !peer.is_direct() {
                peer.lacks.push(PeerEntry::Route);
            }
        }
        if peer.mac.is_some() && peer.vtep.is_none() {
            peer.lacks.push(PeerEntry::Forwarding);
        }
    }
    for entry in orphans {
        let mut peer = Peer {
            vtep: Some(entry.peer),
            mac: Some(entry.mac),
            ..Peer::default()
        };
        peer.detour = detour(tables, index, &peer, shortest);
        if !peer.is_direct() {
            peer.lacks = vec![PeerEntry::Route, PeerEntry::Neighbour];
        }
        peers.push(peer);
    }
    peers.sort_by_key(|peer| (peer.vtep.is_none(), peer.vtep, peer.gateway));
    peers
}

/// The peers of a device that sends where it learned, or to all.
fn vteps(entries: &[&ForwardingEntry]) -> Vec<Peer> {
    let mut peers: Vec<Peer> = Vec::new();
    for entry in entries {
        if !entry.peer.is_multicast() && !peers.iter().any(|peer| peer.vtep == Some(entry.peer)) {
            peers.push(Peer {
                vtep: Some(entry.peer),
                ..Peer::default()
            });
        }
    }
    peers.sort_by_key(|peer| peer.vtep);
    peers
}

/// The route to an address that the kernel would take, policy routing left out.
pub(super) fn route_to(tables: &Tables, but: u32, address: IpAddr) -> Option<&Route> {
    tables
        .routes
        .iter()
        .filter(|route| route.kind == RouteKind::Unicast)
        .filter(|route| route.device != Some(but) && route.prefix.contains(&address))
        .max_by_key(|route| (route.prefix.prefix_len(), std::cmp::Reverse(route.metric)))
}

/// The route that packets to a VTEP use, if it is through the VXLAN device itself, or rejects them.
fn route_of(tables: &Tables, index: u32, vtep: IpAddr, way: RouteLookup) -> Option<Route> {
    let is_it = |route: &&Route| match way {
        RouteLookup::Sent { device, .. } => device == index && route.device == Some(index),
        RouteLookup::Rejected(_) => route.kind != RouteKind::Unicast,
        RouteLookup::Own | RouteLookup::NoRoute => false,
    };
    tables
        .routes
        .iter()
        .filter(|route| route.prefix.contains(&vtep))
        .filter(is_it)
        .max_by_key(|route| (route.prefix.prefix_len(), route.table == MAIN_TABLE))
        .cloned()
}

/// Who is asked for on the underlay for packets to a VTEP.
fn next_hop(tables: &Tables, device: u32, vtep: IpAddr, way: Option<RouteLookup>) -> IpAddr {
    let gateway = match way {
        Some(RouteLookup::Sent { gateway, .. }) => gateway,
        Some(RouteLookup::Own | RouteLookup::Rejected(_) | RouteLookup::NoRoute) => None,
        None => route_to(tables, device, vtep).and_then(|route| route.gateway),
    };
    gateway.unwrap_or(vtep)
}

/// How far a host on the underlay is known.
fn neighbour_is(tables: &Tables, address: IpAddr, state: Reachability) -> bool {
    tables
        .neighbours
        .iter()
        .any(|neighbour| neighbour.address == address && neighbour.state == state)
}

/// The length of pod subnets: of the peers' routes, where all have the same, or of the bridge that has this node's pods.
fn subnet_length(tables: &Tables, overlay: &Overlay) -> Option<u8> {
    let routes = overlay.peers.iter().filter_map(|peer| {
        // A gateway is the first address of its subnet.
        let (gateway, [route]) = (peer.gateway?, peer.routes.as_slice()) else {
            return None;
        };
        (route.addr() == gateway).then_some(route.prefix_len())
    });
    let own = tables
        .addresses
        .iter()
        .filter(|(index, _)| *index == overlay.device.index);
    let bridges = own.filter_map(|(_, own)| {
        let bridge = |route: &&Route| {
            let device = tables
                .devices
                .iter()
                .find(|device| Some(device.index) == route.device);
            route.gateway.is_none()
                && route.prefix.addr() == *own
                && device.is_some_and(|device| device.bridge)
        };
        tables
            .routes
            .iter()
            .find(bridge)
            .map(|route| route.prefix.prefix_len())
    });
    let mut lengths: Vec<_> = routes.chain(bridges).collect();
    lengths.sort_unstable();
    lengths.dedup();
    match lengths.as_slice() {
        [length] => Some(*length),
        _ => None,
    }
}
