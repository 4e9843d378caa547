//! Whether a packet matches.

use std::net::IpAddr;

use super::{
    Packet, PacketPath,
    model::{Field, Row, Value},
    names,
    stage::{Interface, Stage},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matches {
    Yes,
    No,
    Maybe,
}

impl Matches {
    fn of(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }

    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            (Self::Maybe, Self::Yes | Self::Maybe) | (Self::Yes, Self::Maybe) => Self::Maybe,
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
        }
    }
}

/// The packet as a hook sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    packet: &'a Packet,
    source: IpAddr,
    destination: IpAddr,
    stage: Stage<'a>,
}

impl<'a> View<'a> {
    pub(super) fn new(packet: &'a Packet, stage: Stage<'a>) -> Self {
        let (source, destination) = (packet.source.to_canonical(), packet.destination.to_canonical());
        Self {
            packet,
            source,
            destination,
            stage,
        }
    }

    pub(super) fn destination(&self) -> IpAddr {
        self.destination
    }

    /// Whether the fields are what the row says.
    pub(super) fn row(&self, fields: &[Field], row: &Row) -> Matches {
        if fields.len() != row.values.len() {
            return Matches::Maybe;
        }
        let answers = fields
            .iter()
            .zip(&row.values)
            .map(|(&field, value)| self.field(field, value));
        answers.fold(Matches::Yes, Matches::and)
    }

    pub(super) fn field(&self, field: Field, value: &Value) -> Matches {
        if *value == Value::Any {
            return Matches::Yes;
        }
        match field {
            Field::Family => self.family(value),
            Field::Protocol => match value {
                Value::Text(name) => match names::protocol(name) {
                    Some(protocol) => Matches::of(protocol == self.packet.protocol),
                    None => Matches::Maybe,
                },
                Value::Any
                | Value::Numbers(..)
                | Value::Addresses(..)
                | Value::Prefix(_)
                | Value::Unknown => number(Some(self.packet.protocol), value),
            },
            Field::Source => address(self.source, value),
            Field::Destination => address(self.destination, value),
            Field::OriginalSource if self.packet.is_new => address(self.source, value),
            Field::ReplySource if self.packet.is_new => address(self.destination, value),
            Field::OriginalSource | Field::ReplySource => Matches::Maybe,
            Field::SourcePort => number(self.packet.source_port, value),
            Field::DestinationPort => number(self.packet.destination_port, value),
            Field::EitherPort => {
                number(self.packet.source_port, value).or(number(self.packet.destination_port, value))
            }
            Field::Input => interface(self.stage.input, value),
            Field::Output => interface(self.stage.output, value),
            Field::InputBridge => interface(self.stage.input_bridge, value),
            Field::OutputBridge => interface(self.stage.output_bridge, value),
            Field::DestinationType => self.destination_type(value),
            Field::Unknown => Matches::Maybe,
        }
    }

    fn family(&self, value: &Value) -> Matches {
        match value {
            Value::Text(name) => match name.as_str() {
                "ipv4" | "ip" => Matches::of(self.destination.is_ipv4()),
                "ipv6" | "ip6" => Matches::of(self.destination.is_ipv6()),
                "arp" => Matches::No,
                _ => Matches::Maybe,
            },
            // NFPROTO_IPV4 and ETH_P_IP; NFPROTO_IPV6 and ETH_P_IPV6.
            Value::Numbers(2, 2) | Value::Numbers(0x0800, 0x0800) => Matches::of(self.destination.is_ipv4()),
            Value::Numbers(10, 10) | Value::Numbers(0x86dd, 0x86dd) => {
                Matches::of(self.destination.is_ipv6())
            }
            // With a VLAN's tag (802.1Q, 802.1ad) the packet may be of any family. Every other EtherType is another's.
            Value::Numbers(first @ 0x0600.., last) if first == last && ![0x8100, 0x88a8].contains(first) => {
                Matches::No
            }
            Value::Numbers(..) | Value::Addresses(..) | Value::Prefix(_) | Value::Unknown | Value::Any => {
                Matches::Maybe
            }
        }
    }

    /// What arrives here for one host is for this one.
    fn destination_type(&self, value: &Value) -> Matches {
        let one = !self.destination.is_multicast()
            && match self.destination {
                IpAddr::V4(address) => !address.is_broadcast(),
                IpAddr::V6(_) => true,
            };
        let local = matches!(value, Value::Text(name) if name.eq_ignore_ascii_case("local"));
        match self.packet.path {
            PacketPath::In if local => Matches::of(one),
            PacketPath::In | PacketPath::Out | PacketPath::Forward => Matches::Maybe,
        }
    }
}

fn number(number: Option<impl Into<u64>>, value: &Value) -> Matches {
    match (number, value) {
        (Some(number), Value::Numbers(first, last)) => Matches::of((*first..=*last).contains(&number.into())),
        (None, _)
        | (_, Value::Any | Value::Addresses(..) | Value::Text(_) | Value::Prefix(_) | Value::Unknown) => {
            Matches::Maybe
        }
    }
}

fn address(address: IpAddr, value: &Value) -> Matches {
    match value {
        // All of IPv4 are before all of IPv6.
        Value::Addresses(first, last) => Matches::of((*first..=*last).contains(&address)),
        Value::Any | Value::Numbers(..) | Value::Text(_) | Value::Prefix(_) | Value::Unknown => {
            Matches::Maybe
        }
    }
}

fn interface(interface: Interface<'_>, value: &Value) -> Matches {
    let is = |device: &str| match value {
        Value::Text(name) => Matches::of(device == name),
        Value::Prefix(name) => Matches::of(device.starts_with(name.as_str())),
        Value::Any | Value::Numbers(..) | Value::Addresses(..) | Value::Unknown => Matches::Maybe,
    };
    match interface {
        Interface::Named(device) => is(device),
        Interface::OneOf(devices) => {
            let answers: Vec<Matches> = devices.iter().map(|device| is(device)).collect();
            match answers.as_slice() {
                [first, others @ ..] if others.iter().all(|other| other == first) => *first,
                _ => Matches::Maybe,
            }
        }
        Interface::Unknown => Matches::Maybe,
    }
}
