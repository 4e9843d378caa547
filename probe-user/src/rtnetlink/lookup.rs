//! Where the kernel sends packets: one lookup through all its rules and tables.

use std::{io, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use super::{RouteError, Routing, tables};
use crate::model::network::{RouteKind, RouteLookup};

impl Routing {
    /// What becomes of packets from `source`, or whatever address the kernel chooses, to `destination`.
    ///
    /// # Errors
    /// When the kernel does not answer, or `source` is none of this node's.
    pub fn route_to(
        &mut self,
        source: Option<IpAddr>,
        destination: IpAddr,
    ) -> Result<RouteLookup, RouteError> {
        let address = |address: IpAddr| match address {
            IpAddr::V4(v4) => RouteAddress::Inet(v4),
            IpAddr::V6(v6) => RouteAddress::Inet6(v6),
        };
        let (family, length) = match destination {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        let mut ask = RouteMessage::default();
        ask.header.address_family = family;
        ask.header.destination_prefix_length = length;
        ask.attributes
            .push(RouteAttribute::Destination(address(destination)));
        if let Some(source) = source.filter(|source| source.is_ipv4() == destination.is_ipv4()) {
            ask.header.source_prefix_length = length;
            ask.attributes.push(RouteAttribute::Source(address(source)));
        }
        match self.one("route lookup", RouteNetlinkMessage::GetRoute(ask)) {
            Ok(RouteNetlinkMessage::NewRoute(message)) => Ok(found(&message)),
            Ok(_) => Err(RouteError::Malformed {
                what: "route lookup",
                reason: "no route".to_owned(),
            }),
            Err(error) => of_error(error),
        }
    }
}

fn found(message: &RouteMessage) -> RouteLookup {
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
        ] {
            message.header.kind = kind;
            assert_eq!(found(&message), expected);
        }
    }

    #[test]
    fn the_loopback_address_is_own() {
        let mut routing = Routing::open().unwrap();
        let lookup = routing.route_to(None, IpAddr::from([127, 0, 0, 1])).unwrap();
        assert_eq!(lookup, RouteLookup::Own);
    }
}
