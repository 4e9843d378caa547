//! Packets that are sent through the rule sets.

use std::net::{IpAddr, Ipv4Addr};

use probe_user::{
    model::rule::PacketPath,
    netfilter::rules::{Packet, PathPosition},
};

use crate::{network, random::Random};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const PORTS: [u16; 10] = [22, 53, 80, 81, 443, 1000, 1500, 8080, 8472, 40_000];

#[derive(Clone, Copy, Debug)]
pub struct TestPacket {
    pub path: PacketPath,
    pub protocol: u8,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub source_port: u16,
    pub destination_port: u16,
}

impl TestPacket {
    /// One from the network of a rule set.
    pub fn generate(random: &mut Random, set: u8) -> Self {
        let path = random.pick(&[
            PacketPath::In,
            PacketPath::Forward,
            PacketPath::Forward,
            PacketPath::Out,
        ]);
        let last = u8::try_from(random.between(1, 4)).unwrap();
        Self {
            path,
            protocol: random.pick(&[TCP, TCP, TCP, UDP, UDP, UDP, ICMP]),
            source: Ipv4Addr::new(10, 100, set, random.pick(&[1, 2, 77, 130, 200])),
            destination: match path {
                PacketPath::In => Ipv4Addr::new(10, 50, 0, last),
                PacketPath::Forward | PacketPath::Out => Ipv4Addr::new(10, 60, 0, last),
            },
            source_port: random.pick(&PORTS),
            destination_port: random.pick(&PORTS),
        }
    }

    pub fn has_ports(&self) -> bool {
        self.protocol != ICMP
    }

    pub fn input(&self) -> Option<&'static str> {
        (self.path != PacketPath::Out).then_some(network::INPUT)
    }

    pub fn output(&self) -> Option<&'static str> {
        (self.path != PacketPath::In).then_some(network::OUTPUT)
    }

    /// What probe knows of it: not always all.
    pub fn as_probe_sees_it(&self, random: &mut Random) -> Packet {
        let port = |port: u16, known: bool| (self.has_ports() && known).then_some(port);
        let device = |name: Option<&str>, known: bool| name.filter(|_| known).map(str::to_owned);
        Packet {
            path: self.path,
            protocol: self.protocol,
            source: IpAddr::V4(self.source),
            destination: IpAddr::V4(self.destination),
            source_port: port(self.source_port, random.percent(90)),
            destination_port: port(self.destination_port, random.percent(97)),
            input: device(self.input(), random.percent(95)),
            output: device(self.output(), random.percent(70)),
            is_new: false,
            position: random.pick(&[PathPosition::Network, PathPosition::Anywhere]),
        }
    }

    /// From its IP header on.
    pub fn bytes(&self) -> Vec<u8> {
        let body = match self.protocol {
            TCP => {
                let mut tcp = [
                    self.source_port.to_be_bytes(),
                    self.destination_port.to_be_bytes(),
                ]
                .concat();
                // Sequence, acknowledgment, 20 bytes, SYN, window, checksum, urgent.
                tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
                let sum = checksum(&[self.pseudo_header(20), tcp.clone()].concat());
                tcp[16..18].copy_from_slice(&sum.to_be_bytes());
                tcp
            }
            UDP => {
                let mut udp = [
                    self.source_port.to_be_bytes(),
                    self.destination_port.to_be_bytes(),
                ]
                .concat();
                // No checksum.
                udp.extend([0, 12, 0, 0, 1, 2, 3, 4]);
                udp
            }
            _ => {
                // An echo request.
                let mut icmp = vec![8, 0, 0, 0, 0, 1, 0, 1];
                let sum = checksum(&icmp);
                icmp[2..4].copy_from_slice(&sum.to_be_bytes());
                icmp
            }
        };
        let length = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
        let mut header = vec![
            0x45,
            0,
            length[0],
            length[1],
            0,
            1,
            0x40,
            0,
            64,
            self.protocol,
            0,
            0,
        ];
        header.extend(self.source.octets());
        header.extend(self.destination.octets());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [header, body].concat()
    }

    fn pseudo_header(&self, length: u8) -> Vec<u8> {
        let mut header = [self.source.octets(), self.destination.octets()].concat();
        header.extend([0, self.protocol, 0, length]);
        header
    }
}

/// The Internet's checksum of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
