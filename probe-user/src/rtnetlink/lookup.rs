//! Where the kernel sends packets: one lookup through all its rules and tables.

use std::{io, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType},
};

use super::{RouteError, Routing, tables};
use crate::model::{
    network::{RouteKind, RouteLookup},
    routing::RouteQuery,
};

impl Routing {
    /// What becomes of a packet. Without a source address it is the one that the kernel chooses.
    ///
    /// # Errors
    /// When the kernel does not answer, or the source is none of this node's.
    pub fn lookup(&mut self, query: &RouteQuery) -> Result<RouteLookup, RouteError> {
        match self.route(query) {
            Ok(message) => Ok(found(&message)),
            Err(error) => of_error(error),
        }
    }

    /// The route that the kernel takes for a packet.
    ///
    /// # Errors
    /// When the kernel does not answer, or has no route that sends it on: see [`of_error`].
    pub(super) fn route(&mut self, query: &RouteQuery) -> Result<RouteMessage, RouteError> {
        const WHAT: &str = "route lookup";
        match self.one(WHAT, RouteNetlinkMessage::GetRoute(question(query)))? {
            RouteNetlinkMessage::NewRoute(message) => Ok(message),
            _ => Err(RouteError::Malformed {
                what: WHAT,
                reason: "no route".to_owned(),
            }),
        }
    }
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn question(query: &RouteQuery) -> RouteMessage {
    let length = if query.destination.is_ipv4() { 32 } else { 128 };
    let wire = |address: IpAddr| match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    };
    let mut message = RouteMessage::default();
    message.header.address_family = family(query.destination);
    message.header.destination_prefix_length = length;
    // The table that has the route, not the one that was asked.
    message.header.flags = RouteFlags::LookupTable;
    message
        .attributes
        .push(RouteAttribute::Destination(wire(query.destination)));
    let of_family = |source: &IpAddr| source.is_ipv4() == query.destination.is_ipv4();
    if let Some(source) = query.source.filter(of_family) {
        message.header.source_prefix_length = length;
        message.attributes.push(RouteAttribute::Source(wire(source)));
    }
    if let Some((input, _)) = query.input {
        message.attributes.push(RouteAttribute::Iif(input));
    }
    if query.mark != 0 {
        message.attributes.push(RouteAttribute::Mark(query.mark));
    }
    message
}

pub(super) fn found(message: &RouteMessage) -> RouteLookup {
    if message.header.kind == RouteType::Local {
        return RouteLookup::Own;
    }
    match tables::kind(message.header.kind) {
        None | Some(RouteKind::Unicast) => {}
        Some(kind) => return RouteLookup::Rejected(kind),
    }
    let (mut device, mut gateway) = (0, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = *index,
            RouteAttribute::Gateway(via) => gateway = tables::address(via),
            _ => {}
        }
    }
    RouteLookup::Sent { device, gateway }
}

/// The kernel's error is the kind of the route that rejects (`fib_props`, `fib6_prop`).
fn of_error(error: RouteError) -> Result<RouteLookup, RouteError> {
    let RouteError::Io { source, .. } = &error else {
        return Err(error);
    };
    match rejected(source) {
        Some(lookup) => Ok(lookup),
        None => Err(error),
    }
}

fn rejected(error: &io::Error) -> Option<RouteLookup> {
    match error.raw_os_error()? {
        libc::EINVAL => Some(RouteLookup::Rejected(RouteKind::Blackhole)),
        libc::EACCES => Some(RouteLookup::Rejected(RouteKind::Prohibit)),
        libc::EHOSTUNREACH => Some(RouteLookup::Rejected(RouteKind::Unreachable)),
        libc::ENETUNREACH => Some(RouteLookup::NoRoute),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lookup_comes_to() {
        for (error, expected) in [
            (libc::EINVAL, Some(RouteLookup::Rejected(RouteKind::Blackhole))),
            (libc::EACCES, Some(RouteLookup::Rejected(RouteKind::Prohibit))),
            (
                libc::EHOSTUNREACH,
                Some(RouteLookup::Rejected(RouteKind::Unreachable)),
            ),
            (libc::ENETUNREACH, Some(RouteLookup::NoRoute)),
            (libc::EPERM, None),
        ] {
            assert_eq!(
                rejected(&io::Error::from_raw_os_error(error)),
                expected,
                "{error}"
            );
        }
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Oif(3),
            RouteAttribute::Gateway(RouteAddress::Inet([10, 0, 0, 1].into())),
        ];
        let gateway = Some(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(found(&message), RouteLookup::Sent { device: 3, gateway });
        for (kind, expected) in [
            (RouteType::Local, RouteLookup::Own),
            (RouteType::BlackHole, RouteLookup::Rejected(RouteKind::Blackhole)),
            (RouteType::Prohibit, RouteLookup::Rejected(RouteKind::Prohibit)),
        ] {
            message.header.kind = kind;
            assert_eq!(found(&message), expected);
        }
    }

    #[test]
    fn questions() {
        let query = RouteQuery {
            source: Some("192.168.0.11".parse().unwrap()),
            destination: "10.77.1.2".parse().unwrap(),
            mark: 7,
            input: Some((3, "eth0".to_owned())),
        };
        let asked = question(&query);
        assert_eq!(
            (asked.header.source_prefix_length, asked.attributes.len()),
            (32, 4)
        );
    }

    #[test]
    fn the_loopback_address_is_own() {
        let mut routing = Routing::open().unwrap();
        let lookup = routing
            .lookup(&RouteQuery::of_node(None, IpAddr::from([127, 0, 0, 1])))
            .unwrap();
        assert_eq!(lookup, RouteLookup::Own);
    }
}
