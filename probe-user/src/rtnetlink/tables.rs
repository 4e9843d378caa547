//! Addresses, routes, neighbours and forwarding entries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteIp6Tunnel, RouteIpTunnel, RouteLwTunnelEncap, RouteMessage,
        RouteType,
    },
};

use super::{RouteError, Routing};
use crate::model::network::{ForwardingEntry, Mac, Neighbour, Reachability, Route, RouteKind};

impl Routing {
    /// The addresses of this network namespace, each with the index of its device.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpAddr)>, RouteError> {
        let nets = self.nets()?;
        Ok(nets.into_iter().map(|(index, net)| (index, net.addr())).collect())
    }

    /// The same with the prefixes that the devices have with them.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn nets(&mut self) -> Result<Vec<(u32, IpNet)>, RouteError> {
        let mut addresses = Vec::new();
        let ask = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump("addresses", ask, |message| {
            if let RouteNetlinkMessage::NewAddress(message) = message {
                // Of a point-to-point device, Address is the other end's.
                let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
                    message.attributes.iter().find_map(wanted)
                };
                let local = find(|attribute| match attribute {
                    AddressAttribute::Local(address) => Some(*address),
                    _ => None,
                });
                let address = local.or_else(|| {
                    find(|attribute| match attribute {
                        AddressAttribute::Address(address) => Some(*address),
                        _ => None,
                    })
                });
                let net = address.and_then(|address| IpNet::new(address, message.header.prefix_len).ok());
                addresses.extend(net.map(|net| (message.header.index, net)));
            }
        })?;
        Ok(addresses)
    }

    /// The routes for packets to others, of all tables.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn routes(&mut self) -> Result<Vec<Route>, RouteError> {
        let mut routes = self.all_routes()?;
        routes.retain(|route| route.kind == RouteKind::Unicast);
        Ok(routes)
    }

    /// The same with those that reject packets.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn all_routes(&mut self) -> Result<Vec<Route>, RouteError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut ask = RouteMessage::default();
            ask.header.address_family = family;
            self.dump("routes", RouteNetlinkMessage::GetRoute(ask), |message| {
                if let RouteNetlinkMessage::NewRoute(message) = message
                    && let Some(kind) = kind(message.header.kind)
                {
                    routes.extend(route(&message, kind));
                }
            })?;
        }
        Ok(routes)
    }

    /// # Errors
    /// When the kernel does not answer.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, RouteError> {
        let mut neighbours = Vec::new();
        let ask = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        self.dump("neighbours", ask, |message| {
            if let RouteNetlinkMessage::NewNeighbour(message) = message {
                neighbours.extend(neighbour(&message));
            }
        })?;
        Ok(neighbours)
    }

    /// The forwarding entries that lead to a peer, those of VXLAN devices.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn forwarding(&mut self) -> Result<Vec<ForwardingEntry>, RouteError> {
        let mut entries = Vec::new();
        let mut ask = NeighbourMessage::default();
        ask.header.family = AddressFamily::Bridge;
        self.dump(
            "forwarding entries",
            RouteNetlinkMessage::GetNeighbour(ask),
            |message| {
                if let RouteNetlinkMessage::NewNeighbour(message) = message {
                    entries.extend(forwarding_entry(&message));
                }
            },
        )?;
        Ok(entries)
    }
}

pub(super) fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// Of those that are for packets to others.
pub(super) fn kind(kind: RouteType) -> Option<RouteKind> {
    match kind {
        RouteType::Unicast => Some(RouteKind::Unicast),
        RouteType::BlackHole => Some(RouteKind::Blackhole),
        RouteType::Unreachable => Some(RouteKind::Unreachable),
        RouteType::Prohibit => Some(RouteKind::Prohibit),
        _ => None,
    }
}

/// The peer that a route's own tunnel leads to.
fn encap(attributes: &[RouteLwTunnelEncap]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteLwTunnelEncap::Ip(RouteIpTunnel::Destination(peer)) => Some(IpAddr::from(*peer)),
        RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(peer)) => Some(IpAddr::from(*peer)),
        _ => None,
    })
}

fn route(message: &RouteMessage, kind: RouteKind) -> Vec<Route> {
    let any = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        _ => return Vec::new(),
    };
    let (mut destination, mut gateway, mut device, mut metric) = (any, None, None, 0);
    let (mut table, mut tunnel) = (u32::from(message.header.table), None);
    let mut ways = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = address(to).unwrap_or(any),
            RouteAttribute::Gateway(via) => gateway = address(via),
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Encap(attributes) => tunnel = encap(attributes),
            RouteAttribute::MultiPath(hops) => {
                for hop in hops {
                    let via = hop.attributes.iter().find_map(|attribute| match attribute {
                        RouteAttribute::Gateway(via) => address(via),
                        _ => None,
                    });
                    ways.push((via, Some(hop.interface_index)));
                }
            }
            _ => {}
        }
    }
    let Ok(prefix) = IpNet::new(destination, message.header.destination_prefix_length) else {
        return Vec::new();
    };
    if ways.is_empty() {
        ways.push((gateway, device));
    }
    ways.into_iter()
        .map(|(gateway, device)| Route {
            prefix,
            gateway,
            device,
            metric,
            kind,
            table,
            encap: tunnel,
        })
        .collect()
}

fn mac_of(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => Mac::from_slice(bytes),
        _ => None,
    })
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::from(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::from(*v6)),
        _ => None,
    })?;
    let state = match message.header.state {
        NeighbourState::Permanent => Reachability::Permanent,
        NeighbourState::Failed => Reachability::Failed,
        NeighbourState::Incomplete => Reachability::Asked,
        NeighbourState::Noarp => Reachability::NoNeed,
        _ => Reachability::Known,
    };
    Some(Neighbour {
        device: message.header.ifindex,
        address,
        mac: mac_of(message),
        state,
    })
}

fn forwarding_entry(message: &NeighbourMessage) -> Option<ForwardingEntry> {
    // The family is the bridge's, so the crate leaves the peer's address as it is.
    let peer = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::from(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::from(*v6)),
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_slice()) {
                Some(IpAddr::from(v4))
            } else {
                let v6: [u8; 16] = bytes.as_slice().try_into().ok()?;
                Some(IpAddr::from(v6))
            }
        }
        _ => None,
    })?;
    Some(ForwardingEntry {
        device: message.header.ifindex,
        mac: mac_of(message)?,
        peer,
        permanent: matches!(
            message.header.state,
            NeighbourState::Permanent | NeighbourState::Noarp
        ),
    })
}
