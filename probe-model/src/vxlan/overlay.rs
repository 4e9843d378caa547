//! What should be: each VXLAN device with the peers that routes, neighbours and forwarding entries give it.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::network::{Device, ForwardingEntry, Mac, Neighbour, Reachability, Route, Vxlan};

/// All tables at one moment.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    pub devices: Vec<Device>,
    /// Each with the index of its device.
    pub addresses: Vec<(u32, IpAddr)>,
    pub routes: Vec<Route>,
    pub neighbours: Vec<Neighbour>,
    pub forwarding: Vec<ForwardingEntry>,
}

/// A VXLAN device, its underlay and its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    pub device: Device,
    pub vxlan: Vxlan,
    pub underlay: Option<Underlay>,
    pub kind: PeerSource,
    pub peers: Vec<Peer>,
}

/// The device that VXLAN packets leave by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    pub ethernet: bool,
}

crate::names! {
    /// Who tells the device where its peers are.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum PeerSource {
        /// Entries that somebody set, as flannel and Calico do: what is missing stays missing.
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
        let underlay = underlay(tables, &vxlan, &peers);
        for peer in &mut peers {
            let state = |state| {
                peer.vtep
                    .is_some_and(|vtep| neighbour_is(tables, index, vtep, state))
            };
            (peer.unreachable, peer.asked) = (state(Reachability::Failed), state(Reachability::Asked));
        }
        Self {
            device,
            vxlan,
            underlay,
            kind,
            peers,
        }
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

/// The peers of a device whose entries somebody set.
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
    for peer in &mut peers {
        if peer.routes.is_empty() {
            peer.lacks.push(PeerEntry::Route);
        }
        if peer.mac.is_some() && peer.vtep.is_none() {
            peer.lacks.push(PeerEntry::Forwarding);
        }
    }
    for entry in orphans {
        peers.push(Peer {
            vtep: Some(entry.peer),
            mac: Some(entry.mac),
            lacks: vec![PeerEntry::Route, PeerEntry::Neighbour],
            ..Peer::default()
        });
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
fn route_to(tables: &Tables, but: u32, address: IpAddr) -> Option<&Route> {
    tables
        .routes
        .iter()
        .filter(|route| route.device != Some(but) && route.prefix.contains(&address))
        .max_by_key(|route| (route.prefix.prefix_len(), std::cmp::Reverse(route.metric)))
}

/// What the device is bound to; or what has its address; or where the routes to its peers lead.
fn underlay(tables: &Tables, vxlan: &Vxlan, peers: &[Peer]) -> Option<Underlay> {
    let of_address = || {
        let local = vxlan.local?;
        tables
            .addresses
            .iter()
            .find(|(_, address)| *address == local)
            .map(|(index, _)| *index)
    };
    let of_route = || {
        let vtep = peers.iter().find_map(|peer| peer.vtep)?;
        route_to(tables, 0, vtep)?.device
    };
    let index = vxlan.underlay.or_else(of_address).or_else(of_route)?;
    let device = tables.devices.iter().find(|device| device.index == index)?;
    Some(Underlay {
        index,
        name: device.name.clone(),
        mtu: device.mtu,
        ethernet: device.ethernet,
    })
}

/// How far who has to be asked for the way to a VTEP is known.
fn neighbour_is(tables: &Tables, device: u32, vtep: IpAddr, state: Reachability) -> bool {
    let route = route_to(tables, device, vtep);
    let next = route.and_then(|route| route.gateway).unwrap_or(vtep);
    tables
        .neighbours
        .iter()
        .any(|neighbour| neighbour.address == next && neighbour.state == state)
}
