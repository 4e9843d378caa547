//! One ping. Nobody waits for the answer here: what comes back is counted by who counts all packets.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Sends one ICMP echo request through a device.
///
/// # Errors
/// When the device is down, there is no route, or a raw socket is not allowed.
pub fn send(device: &str, address: IpAddr) -> io::Result<()> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket
        .send_to(&request(address.is_ipv6()), &SocketAddr::new(address, 0).into())
        .map(drop)
}

/// The kernel sets the checksum of ICMPv6, not that of ICMP.
fn request(is_v6: bool) -> [u8; 16] {
    const ECHO: u8 = 8;
    const ECHO_V6: u8 = 128;
    let mut packet = *b"\0\0\0\0pr\0\x01probe\0\0\0";
    packet[0] = if is_v6 { ECHO_V6 } else { ECHO };
    if !is_v6 {
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
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
        let packet = request(false);
        assert_eq!((packet[0], packet[1]), (8, 0));
        // With its checksum in it, the sum over all is zero.
        assert_eq!(checksum(&packet), 0);
        assert_eq!(request(true)[0], 128);
        assert_eq!(request(true)[2..4], [0, 0]);
    }
}
