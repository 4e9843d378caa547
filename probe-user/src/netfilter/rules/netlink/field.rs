//! What expressions load, as fields of the packet, and what bytes mean there.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use netlink_packet_netfilter::nftables::MetaKey;

use super::expression::Source;
use crate::netfilter::link::text;

/// Of Conntrack(…).
const CT_STATE: u32 = 0;
/// Where payload is counted from.
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Field {
    /// The protocol that the network header names.
    NextProtocol(Version),
    Source(Version),
    Destination(Version),
    SourcePort,
    DestinationPort,
    /// The transport protocol, wherever it's named.
    Protocol,
    Family,
    EtherType,
    Input(Device),
    Output(Device),
    Mark,
    ConntrackState,
    DestinationType,
    /// In words of nft.
    Other(String),
}

/// Of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Four,
    Six,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    Name,
    Index,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Datum {
    Any,
    Number(u64),
    Address(IpAddr),
    /// With the length of its prefix.
    Network(IpAddr, u8),
    Name(String),
    /// Names that begin so.
    Names(String),
    Range(Box<Datum>, Box<Datum>),
    /// What isn't understood.
    Bytes(Vec<u8>),
}

/// A field, and where in what was loaded it is. Of an address, that may be the beginning only.
pub(super) type Piece = (Field, Range<usize>);

/// The fields that are loaded at once, if they are all known; `version` is that of the packet's header.
pub(super) fn pieces(source: &Source, version: Option<Version>) -> Vec<Piece> {
    let one = |field, length| vec![(field, 0..length)];
    match source {
        Source::Payload { base, offset, length } => {
            let (offset, length) = (to_size(*offset), to_size(*length));
            payload(*base, offset, length, version).unwrap_or_else(|| {
                let base = match *base {
                    LINK => "ll",
                    NETWORK => "nh",
                    TRANSPORT => "th",
                    _ => "ih",
                };
                let bits = (offset.saturating_mul(8), length.saturating_mul(8));
                one(Field::Other(format!("@{base},{},{}", bits.0, bits.1)), length)
            })
        }
        Source::Meta(key) => {
            let (field, length) = meta(*key);
            one(field, length)
        }
        Source::Conntrack(CT_STATE) => one(Field::ConntrackState, 4),
        Source::Conntrack(key) => one(Field::Other(format!("ct {key}")), 4),
        Source::DestinationType => one(Field::DestinationType, 4),
    }
}

fn to_size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn payload(base: u32, offset: usize, length: usize, version: Option<Version>) -> Option<Vec<Piece>> {
    let mut found = Vec::new();
    let end = offset.checked_add(length)?;
    let mut at = offset;
    while at < end {
        let (field, size) = match (base, version, at) {
            (LINK, _, 12) => (Field::EtherType, 2),
            (NETWORK, Some(Version::Four), 9) => (Field::NextProtocol(Version::Four), 1),
            (NETWORK, Some(Version::Four), 12) => (Field::Source(Version::Four), 4),
            (NETWORK, Some(Version::Four), 16) => (Field::Destination(Version::Four), 4),
            (NETWORK, Some(Version::Six), 6) => (Field::NextProtocol(Version::Six), 1),
            (NETWORK, Some(Version::Six), 8) => (Field::Source(Version::Six), 16),
            (NETWORK, Some(Version::Six), 24) => (Field::Destination(Version::Six), 16),
            (TRANSPORT, _, 0) => (Field::SourcePort, 2),
            (TRANSPORT, _, 2) => (Field::DestinationPort, 2),
            _ => return None,
        };
        let next = (at + size).min(end);
        let is_address = matches!(field, Field::Source(_) | Field::Destination(_));
        if next - at < size && !is_address {
            return None;
        }
        found.push((field, at - offset..next - offset));
        at = next;
    }
    Some(found)
}

/// The field, and its length in a register.
fn meta(key: MetaKey) -> (Field, usize) {
    match key {
        MetaKey::Nfproto => (Field::Family, 1),
        MetaKey::L4Proto => (Field::Protocol, 1),
        MetaKey::EtherTypeProtocol => (Field::EtherType, 2),
        MetaKey::Iifname => (Field::Input(Device::Name), 16),
        MetaKey::Oifname => (Field::Output(Device::Name), 16),
        MetaKey::Iif => (Field::Input(Device::Index), 4),
        MetaKey::Oif => (Field::Output(Device::Index), 4),
        MetaKey::Mark => (Field::Mark, 4),
        MetaKey::SocketUserId => (Field::Other("meta skuid".to_owned()), 4),
        MetaKey::SocketGroupId => (Field::Other("meta skgid".to_owned()), 4),
        MetaKey::Cgroup => (Field::Other("meta cgroup".to_owned()), 4),
        MetaKey::PseudoRandom => (Field::Other("meta random".to_owned()), 4),
        MetaKey::Length => (Field::Other("meta length".to_owned()), 4),
        MetaKey::PacketType => (Field::Other("meta pkttype".to_owned()), 1),
        MetaKey::Iifkind | MetaKey::Oifkind | MetaKey::BriIifname | MetaKey::BriOifname => {
            (Field::Other("meta".to_owned()), 16)
        }
        key => (Field::Other(format!("meta {}", u32::from(key))), 4),
    }
}

/// The value of a field. Devices' numbers become names where those are known.
pub(super) fn datum(field: &Field, bytes: &[u8], devices: &HashMap<u32, String>) -> Datum {
    known(field, bytes, devices).unwrap_or_else(|| Datum::Bytes(bytes.to_vec()))
}

fn known(field: &Field, bytes: &[u8], devices: &HashMap<u32, String>) -> Option<Datum> {
    // Numbers that aren't of the packet are in this machine's order.
    let own = || bytes.try_into().map(u32::from_ne_bytes).ok();
    Some(match field {
        Field::Source(version) | Field::Destination(version) => {
            let length = match version {
                Version::Four => 4,
                Version::Six => 16,
            };
            let bits = u8::try_from(bytes.len().checked_mul(8)?).ok()?;
            let whole = address(*version, bytes)?;
            if bytes.len() == length {
                Datum::Address(whole)
            } else {
                Datum::Network(whole, bits)
            }
        }
        Field::SourcePort | Field::DestinationPort => {
            Datum::Number(u16::from_be_bytes(bytes.try_into().ok()?).into())
        }
        Field::NextProtocol(_) | Field::Protocol => match *bytes {
            [number] => protocol(number).map_or(Datum::Number(number.into()), name),
            _ => return None,
        },
        Field::Family => match *bytes {
            [2] => name("ipv4"),
            [10] => name("ipv6"),
            [number] => Datum::Number(number.into()),
            _ => return None,
        },
        Field::EtherType => match u16::from_be_bytes(bytes.try_into().ok()?) {
            0x0800 => name("ip"),
            0x86dd => name("ip6"),
            0x0806 => name("arp"),
            number => Datum::Number(number.into()),
        },
        // Without the zero byte, it's compared with the beginning of the name.
        Field::Input(Device::Name) | Field::Output(Device::Name) => {
            if bytes.contains(&0) {
                Datum::Name(text(bytes))
            } else {
                Datum::Names(text(bytes))
            }
        }
        Field::Input(Device::Index) | Field::Output(Device::Index) => {
            Datum::Name(devices.get(&own()?)?.clone())
        }
        Field::Mark | Field::ConntrackState => Datum::Number(own()?.into()),
        Field::DestinationType => name(match own()? {
            1 => "unicast",
            2 => "local",
            3 => "broadcast",
            4 => "anycast",
            5 => "multicast",
            6 => "blackhole",
            7 => "unreachable",
            8 => "prohibit",
            _ => return None,
        }),
        Field::Other(_) => return None,
    })
}

fn name(name: &str) -> Datum {
    Datum::Name(name.to_owned())
}

/// An address of which what's behind the bytes is zero.
fn address(version: Version, bytes: &[u8]) -> Option<IpAddr> {
    Some(match version {
        Version::Four => {
            let mut octets = [0; 4];
            octets.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Ipv4Addr::from(octets).into()
        }
        Version::Six => {
            let mut octets = [0; 16];
            octets.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Ipv6Addr::from(octets).into()
        }
    })
}

/// The name that iptables and nft print for a protocol.
pub(super) fn protocol(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "icmp",
        2 => "igmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "ipv6-icmp",
        132 => "sctp",
        136 => "udplite",
        _ => return None,
    })
}

/// How many bits a mask has, if they're all at its beginning.
pub(super) fn prefix_length(mask: &[u8]) -> Option<u8> {
    let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let leading: u32 = mask
        .iter()
        .scan(true, |goes_on, byte| {
            let ones = if *goes_on { byte.leading_ones() } else { 0 };
            *goes_on &= ones == 8;
            Some(ones)
        })
        .sum();
    if ones == leading {
        u8::try_from(ones).ok()
    } else {
        None
    }
}
