//! What packets to one server have in common, and the rules and elements that can't be for them.

use std::net::IpAddr;

use super::{
    field::{Field, Piece},
    ruleset::{Element, Set},
};
use crate::netfilter::{link::Attributes, rules::Family};

/// `NFT_META_L4PROTO`.
const L4PROTO: u32 = 16;
/// `NFT_PAYLOAD_NETWORK_HEADER` and `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// `NFT_CMP_EQ`.
const EQUAL: u32 = 0;

/// Where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::netfilter::rules) struct Aim {
    /// The transport protocol's number.
    pub(in crate::netfilter::rules) protocol: u8,
    /// Never one of IPv4 in IPv6.
    pub(in crate::netfilter::rules) destination: IpAddr,
    /// `None` is unknown.
    pub(in crate::netfilter::rules) port: Option<u16>,
}

/// What a packet must be for a rule to do anything, as far as that shows without decoding the rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RuleTests {
    pub(super) protocol: Option<u8>,
    pub(super) destination: Option<IpAddr>,
    /// The first and the last one.
    pub(super) ports: Option<(u16, u16)>,
}

/// What a register holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Protocol,
    Destination,
    Port,
}

impl RuleTests {
    /// Of a rule in a table of that family, by its list of expressions. A test counts only if nothing was done before it.
    pub(super) fn of(family: Family, expressions: Attributes<'_>) -> Self {
        let mut tests = Self::default();
        let mut loaded: Option<(Loaded, u32)> = None;
        for (_, expression) in expressions.iter() {
            let expression = Attributes(expression);
            let options = expression.within(2);
            match expression.get(1).unwrap_or_default() {
                b"payload\0" => loaded = payload(family, options),
                b"meta\0" => {
                    let into = options.number(1);
                    loaded = into
                        .filter(|_| options.number(2) == Some(L4PROTO))
                        .map(|into| (Loaded::Protocol, into));
                }
                b"cmp\0" => {
                    let from = options.number(1);
                    let equal = options.number(2) == Some(EQUAL);
                    if let Some((loaded, into)) = loaded.filter(|_| equal)
                        && from == Some(into)
                    {
                        tests.add(loaded, options.within(3).get(1).unwrap_or_default());
                    }
                }
                b"match\0" => {
                    tests.ports = tests.ports.or_else(|| extension_ports(options));
                }
                // They only load something else, test it, or count.
                b"bitwise\0" | b"byteorder\0" | b"ct\0" | b"fib\0" | b"lookup\0" | b"range\0" => {
                    loaded = None;
                }
                b"counter\0" => {}
                _ => break,
            }
        }
        tests
    }

    /// The first test of a kind counts: a rule that has two of them that differ does nothing at all.
    fn add(&mut self, loaded: Loaded, value: &[u8]) {
        match (loaded, value) {
            (Loaded::Protocol, &[protocol]) => self.protocol = self.protocol.or(Some(protocol)),
            (Loaded::Destination, &[a, b, c, d]) => {
                self.destination = self.destination.or(Some([a, b, c, d].into()));
            }
            (Loaded::Destination, value) => {
                let address = <[u8; 16]>::try_from(value).ok().map(IpAddr::from);
                self.destination = self.destination.or(address);
            }
            (Loaded::Port, &[high, low]) => {
                let port = u16::from_be_bytes([high, low]);
                self.ports = self.ports.or(Some((port, port)));
            }
            (Loaded::Protocol | Loaded::Port, _) => {}
        }
    }

    /// Whether the rule may match such packets.
    pub(super) fn may_match(&self, aim: &Aim) -> bool {
        let is_other_port =
            |(first, last): (u16, u16)| aim.port.is_some_and(|port| !(first..=last).contains(&port));
        self.protocol.is_none_or(|protocol| protocol == aim.protocol)
            && self
                .destination
                .is_none_or(|destination| destination == aim.destination)
            && !self.ports.is_some_and(is_other_port)
    }
}

/// A whole field of the packet, and the register that it goes to.
fn payload(family: Family, options: Attributes<'_>) -> Option<(Loaded, u32)> {
    let into = options.number(1)?;
    let place = (options.number(2)?, options.number(3)?, options.number(4)?);
    let loaded = match (family, place) {
        (Family::Ip, (NETWORK, 9, 1)) => Loaded::Protocol,
        (Family::Ip, (NETWORK, 16, 4)) | (Family::Ip6, (NETWORK, 24, 16)) => Loaded::Destination,
        (_, (TRANSPORT, 2, 2)) => Loaded::Port,
        // Of other families, what stands there depends on the packet's.
        _ => return None,
    };
    Some((loaded, into))
}

fn extension_ports(extension: Attributes<'_>) -> Option<(u16, u16)> {
    let options = extension.get(3).filter(|_| extension.number(2) == Some(0))?;
    destination_ports(extension.get(1)?.strip_suffix(b"\0")?, options)
}

/// Destination ports of the matches `tcp` and `udp` (`struct xt_tcp`, `struct xt_udp`: the third and the fourth number) and `sctp`
/// (`struct xt_sctp_info`: the first two), if they are asked for and not inverted.
pub(in crate::netfilter::rules) fn destination_ports(name: &[u8], options: &[u8]) -> Option<(u16, u16)> {
    const DESTINATION: u8 = 2;
    let number = |at: usize| Some(u16::from_ne_bytes(options.get(at..at + 2)?.try_into().ok()?));
    let flags = |at: usize| {
        let flags = options.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(flags) & u32::from(DESTINATION) != 0)
    };
    let (is_inverted, first) = match name {
        b"tcp" => (options.get(11)? & DESTINATION != 0, 4),
        b"udp" => (options.get(8)? & DESTINATION != 0, 4),
        b"sctp" if flags(284)? => (flags(288)?, 0),
        _ => return None,
    };
    (!is_inverted).then_some((number(first)?, number(first + 2)?))
}

/// Whether an element may be for such packets, where a set is asked for these fields.
pub(super) fn may_hold(aim: &Aim, set: &Set, element: &Element, keys: &[Piece]) -> bool {
    // An element of intervals ends with the next one.
    if set.has_intervals() || element.rest || element.key_end.is_some() {
        return true;
    }
    keys.iter().all(|(field, range)| {
        let Some(value) = element.key.get(range.clone()) else {
            return true;
        };
        match (field, aim.destination) {
            (Field::Destination(_), IpAddr::V4(address)) if value.len() == 4 => value == address.octets(),
            (Field::Destination(_), IpAddr::V6(address)) if value.len() == 16 => value == address.octets(),
            (Field::Protocol | Field::NextProtocol(_), _) if value.len() == 1 => value == [aim.protocol],
            (Field::DestinationPort, _) if value.len() == 2 => {
                aim.port.is_none_or(|port| value == port.to_be_bytes())
            }
            _ => true,
        }
    })
}
