//! Pings, also through a device.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
    process,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

/// IPv4's header without options.
const HEADER: u32 = 20;
const HEADER_V6: u32 = 40;
/// ICMP's header, and a word of who sent it.
const LEAST: usize = 16;
/// Bytes of an answer that are read: more than both headers, options included.
const READ: usize = 128;

/// Sends ICMP echo requests, and receives what is answered.
pub struct Pinger {
    socket: Socket,
    is_v6: bool,
    identifier: u16,
}

impl Pinger {
    /// Through a device, or by the node's routes.
    ///
    /// # Errors
    /// When there is no such device, or a raw socket is not allowed.
    pub fn new(device: Option<&str>, is_v6: bool) -> io::Result<Self> {
        let (domain, protocol) = match is_v6 {
            false => (Domain::IPV4, Protocol::ICMPV4),
            true => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.bind_device(device.map(str::as_bytes))?;
        Ok(Self {
            socket,
            is_v6,
            // As ping does: answers of others that ping at the same time are told apart by it.
            identifier: process::id() as u16,
        })
    }

    /// Sends one of so many bytes, from the IP header on.
    ///
    /// # Errors
    /// When the device is down, its MTU is smaller, or there is no route.
    pub fn send(&self, address: IpAddr, size: u32, number: u16) -> io::Result<()> {
        let header = if self.is_v6 { HEADER_V6 } else { HEADER };
        let length = usize::try_from(size.saturating_sub(header)).unwrap_or(LEAST);
        let packet = request(self.is_v6, self.identifier, number, length);
        self.socket
            .send_to(&packet, &SocketAddr::new(address, 0).into())
            .map(drop)
    }

    /// The numbers of pings that are answered within this time, or until `wanted` are, and after how long.
    ///
    /// # Errors
    /// When the socket can't be read.
    pub fn answers(&self, within: Duration, wanted: usize) -> io::Result<HashMap<u16, Duration>> {
        let begun = Instant::now();
        let mut answered = HashMap::new();
        while answered.len() < wanted {
            let left = within.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            self.socket.set_read_timeout(Some(left))?;
            let mut buffer = [0; READ];
            match (&self.socket).read(&mut buffer) {
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    if let Some(number) = answer(bytes, self.is_v6, self.identifier) {
                        answered.entry(number).or_insert_with(|| begun.elapsed());
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(answered)
    }
}

/// The kernel sets the checksum of ICMPv6, not that of ICMP. At least 16 bytes, so that there is room for all of its fields.
fn request(is_v6: bool, identifier: u16, number: u16, length: usize) -> Vec<u8> {
    const ECHO: u8 = 8;
    const ECHO_V6: u8 = 128;
    let mut packet = vec![0; length.max(LEAST)];
    packet[0] = if is_v6 { ECHO_V6 } else { ECHO };
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    packet[6..8].copy_from_slice(&number.to_be_bytes());
    packet[8..13].copy_from_slice(b"probe");
    if !is_v6 {
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// The number of the ping that it answers. A raw socket of IPv4 gives the IP header with it, one of IPv6 does not.
fn answer(bytes: &[u8], is_v6: bool, identifier: u16) -> Option<u16> {
    const ANSWER: u8 = 0;
    const ANSWER_V6: u8 = 129;
    let (header, kind) = match is_v6 {
        true => (0, ANSWER_V6),
        false => (usize::from(bytes.first()? & 15) * 4, ANSWER),
    };
    let icmp = bytes.get(header..)?;
    let word = |at: usize| Some(u16::from_be_bytes([*icmp.get(at)?, *icmp.get(at + 1)?]));
    (*icmp.first()? == kind && word(4)? == identifier).then(|| word(6))?
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| {
        let low = word.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([word[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_is_whole() {
        for length in [16, 17, 1430] {
            let packet = request(false, 0x7072, 3, length);
            assert_eq!((packet[0], packet[1], packet.len()), (8, 0, length));
            // With its checksum in it, the sum over all is zero.
            assert_eq!(checksum(&packet), 0);
        }
        let packet = request(true, 0x7072, 3, 4);
        assert_eq!((packet[0], &packet[2..4], packet.len()), (128, &[0, 0][..], 16));
    }

    #[test]
    fn answers_are_told_apart() {
        let v6 = |kind: u8| {
            let mut packet = request(true, 0x7072, 513, 16);
            packet[0] = kind;
            packet
        };
        let v4 = |kind: u8, options: usize| {
            let mut packet = vec![0; 20 + options * 4];
            packet[0] = 0x45 + u8::try_from(options).unwrap();
            let mut icmp = request(false, 0x7072, 513, 16);
            icmp[0] = kind;
            packet.extend(icmp);
            packet
        };
        for (name, bytes, is_v6, identifier, expected) in [
            ("IPv4", v4(0, 0), false, 0x7072, Some(513)),
            ("with options", v4(0, 3), false, 0x7072, Some(513)),
            ("IPv6", v6(129), true, 0x7072, Some(513)),
            ("a request", v4(8, 0), false, 0x7072, None),
            ("an error", v6(1), true, 0x7072, None),
            ("another's", v4(0, 0), false, 0x7073, None),
            ("cut off", v4(0, 0)[..26].to_vec(), false, 0x7072, None),
            (
                "a header that is longer than all",
                vec![0x4f; 20],
                false,
                0x4f4f,
                None,
            ),
            ("nothing", Vec::new(), false, 0, None),
        ] {
            assert_eq!(answer(&bytes, is_v6, identifier), expected, "{name}");
        }
    }
}
