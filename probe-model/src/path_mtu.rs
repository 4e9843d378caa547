//! The largest packet that a path carries: what is wrong when large ones vanish, and how to find the size that passes.

use std::net::IpAddr;

use crate::finding::Fix;

/// Every IPv4 path carries as much (RFC 791), bytes from the IP header on: what is smaller is lost for another reason.
pub const ALWAYS_CARRIED: u32 = 576;

/// Whose MTU is to be lowered when the path can't be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lower {
    /// The device that the packets leave by.
    Device,
    /// The VXLAN device that wraps them.
    Tunnel,
}

/// Bytes of a packet with this much TCP header and payload, from its IP header on.
pub const fn packet_size(segment: u32, destination: IpAddr) -> u32 {
    segment + ip_header(destination)
}

const fn ip_header(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}

/// How to find the size that passes where packets of `lost` bytes (from the IP header on) do not, and what to do then.
pub fn fixes(lost: u32, destination: IpAddr, lower: Lower) -> Vec<Fix> {
    /// ICMP's and ICMPv6's.
    const ECHO_HEADER: u32 = 8;
    let payload = lost
        .saturating_sub(ip_header(destination) + ECHO_HEADER)
        .to_string();
    let lower = match lower {
        Lower::Tunnel => {
            "Lower the MTU of the VXLAN device and of the pods on every node to the largest size that is answered"
        }
        Lower::Device => {
            "Lower the MTU of the device that sends them (for a pod, of the pod network) to the largest size that is answered"
        }
    };
    vec![
        Fix::run(
            [
                "ping",
                "-c1",
                "-M",
                "do",
                "-s",
                &payload,
                &destination.to_string(),
            ],
            "no answer at this size: repeat with smaller ones to find the path MTU",
        ),
        Fix::text(format!(
            "{lower}, or let ICMP \"fragmentation needed\" (IPv6: \"packet too big\") pass the firewalls on the path."
        )),
    ]
}
