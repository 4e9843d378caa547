//! Why packets are dropped, in words.

/// What a drop says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was let go in good health: a copy for another, or one that had done its work.
    Healthy,
    /// It had come to its socket, which had no use for it.
    AtSocket,
    /// It had come to its host, and there is no such socket.
    NoSocket,
    /// The packet filter.
    Filter,
    /// The kernel names another reason, or none.
    Fault,
}

/// Whether it is one of a fault's, by the kernel's name for the reason and the function that did it. Before 5.17 there is no
/// reason, and where the kernel does not say more than that there is none, the function has to do.
pub fn fate(reason: Option<&str>, at: Option<&str>) -> Fate {
    match reason {
        Some("NETFILTER_DROP") => Fate::Filter,
        // A ping's answer: a raw socket may have had a copy before the kernel looked for a ping socket, and found none.
        None | Some("NO_SOCKET" | "NOT_SPECIFIED") if is_of_ping(at) => Fate::AtSocket,
        Some("NO_SOCKET") => Fate::NoSocket,
        // A packet socket, such as tcpdump's, has a copy.
        Some(
            "CONSUMED" | "SKB_CONSUMED" | "OTHERHOST" | "NOT_DROPPED_YET" | "DUP_FRAG" | "PACKET_SOCK_ERROR",
        ) => Fate::Healthy,
        None | Some("NOT_SPECIFIED") => match at.map(plain) {
            Some("nf_hook_slow" | "nf_hook_slow_list") => Fate::Filter,
            Some("packet_rcv" | "tpacket_rcv") => Fate::Healthy,
            Some("tcp_v4_rcv" | "tcp_v6_rcv" | "__udp4_lib_rcv" | "__udp6_lib_rcv") => Fate::NoSocket,
            Some(
                "tcp_rcv_state_process"
                | "tcp_rcv_established"
                | "tcp_data_queue"
                | "tcp_v4_do_rcv"
                | "tcp_v6_do_rcv"
                | "tcp_ack"
                | "tcp_validate_incoming",
            ) => Fate::AtSocket,
            Some(_) | None => Fate::Fault,
        },
        // Checksums and memory are faults; what TCP's state machine has no use for is not.
        Some("TCP_CSUM" | "TCP_MD5NOTFOUND" | "TCP_MD5UNEXPECTED" | "TCP_MD5FAILURE") => Fate::Fault,
        Some(reason) if reason.starts_with("TCP_") => Fate::AtSocket,
        Some("SOCKET_CLOSE" | "SOCKET_FILTER" | "QUEUE_PURGE") => Fate::AtSocket,
        Some(_) => Fate::Fault,
    }
}

/// Whether the function is one that looks for sockets of pings.
pub fn is_of_ping(at: Option<&str>) -> bool {
    matches!(at.map(plain), Some("icmp_rcv" | "icmpv6_rcv" | "ping_rcv"))
}

/// A function's name without what the compiler appended: `ip_rcv_finish_core.isra.0`.
fn plain(function: &str) -> &str {
    function.split_once('.').map_or(function, |(name, _)| name)
}

/// By the kernel's names for reasons: what it means.
const REASONS: [(&str, &str); 31] = [
    ("NETFILTER_DROP", "the packet filter dropped it"),
    ("NO_SOCKET", "no socket listens there"),
    ("PKT_TOO_SMALL", "it is cut short"),
    ("TCP_CSUM", "its TCP checksum is wrong"),
    ("UDP_CSUM", "its UDP checksum is wrong"),
    ("IP_CSUM", "its IP checksum is wrong"),
    ("IP_INHDR", "its IP header is malformed"),
    (
        "IP_RPFILTER",
        "reverse path filter: replies to its source would leave by another device",
    ),
    ("IP_OUTNOROUTES", "no route leads there"),
    ("IP_INNOROUTES", "no route leads there"),
    (
        "IP_LOCAL_SOURCE",
        "it came in with an address of this host as its source",
    ),
    ("IP_INVALID_SOURCE", "its source address can't be on that side"),
    (
        "IP_INVALID_DEST",
        "its destination address can't be reached from there",
    ),
    ("IP_LOCALNET", "a loopback address came in from outside"),
    ("SOCKET_RCVBUFF", "the socket's receive buffer is full"),
    ("SOCKET_BACKLOG", "the socket's backlog is full"),
    ("PROTO_MEM", "the protocol's memory limit is reached"),
    (
        "NEIGH_FAILED",
        "nobody answers for the next hop's address (ARP, neighbour discovery)",
    ),
    (
        "NEIGH_QUEUEFULL",
        "too many packets wait for the next hop's address",
    ),
    (
        "NEIGH_CREATEFAIL",
        "there is no room for the next hop's neighbour entry",
    ),
    ("NEIGH_DEAD", "the next hop's neighbour entry is gone"),
    ("QDISC_DROP", "the device's queue dropped it"),
    ("TC_EGRESS", "a tc program dropped it on its way out"),
    ("TC_INGRESS", "a tc program dropped it on its way in"),
    ("CPU_BACKLOG", "the processor's backlog of packets is full"),
    ("XDP", "an XDP program dropped it"),
    (
        "PKT_TOO_BIG",
        "it is larger than the next device takes, and must not be fragmented",
    ),
    ("DEV_READY", "the device is not up"),
    ("FULL_RING", "the device's ring is full"),
    ("NOMEM", "there was no memory"),
    ("VXLAN_VNI_NOT_FOUND", "no VXLAN device here has that VNI"),
];

/// The same of functions, where the kernel gives no reason, or one that says nothing.
const FUNCTIONS: [(&str, &str); 17] = [
    ("nf_hook_slow", "the packet filter dropped it"),
    (
        "ip_rcv_finish_core",
        "no route leads there, or the reverse path filter refused it",
    ),
    ("ip_error", "no route leads there"),
    ("ip_route_input_slow", "no route leads there"),
    ("ip6_pkt_discard", "no route leads there"),
    ("ip6_pkt_drop", "no route leads there"),
    (
        "ip_forward",
        "it can't be forwarded: larger than the next device takes, or out of hops",
    ),
    (
        "ip6_forward",
        "it can't be forwarded: larger than the next device takes, or out of hops",
    ),
    (
        "ip_finish_output",
        "larger than the device takes, and must not be fragmented",
    ),
    (
        "ip_fragment",
        "larger than the device takes, and must not be fragmented",
    ),
    (
        "neigh_invalidate",
        "nobody answers for the next hop's address (ARP, neighbour discovery)",
    ),
    (
        "arp_error_report",
        "nobody answers for the next hop's address (ARP)",
    ),
    (
        "ndisc_error_report",
        "nobody answers for the next hop's address (neighbour discovery)",
    ),
    (
        "vxlan_xmit",
        "the VXLAN device has no forwarding entry for its link-layer address",
    ),
    (
        "vxlan_xmit_one",
        "the VXLAN device could not send it: no route to its peer, or larger than the underlay takes",
    ),
    (
        "vxlan_rcv",
        "no VXLAN device here takes it: its VNI is another, or it is damaged",
    ),
    ("__dev_queue_xmit", "the device's queue dropped it"),
];

/// What a drop means. Never empty.
pub fn words(reason: Option<&str>, at: Option<&str>) -> String {
    let find = |list: &[(&str, &'static str)], name: &str| {
        let found = list.iter().find(|(known, _)| *known == name);
        found.map(|(_, words)| *words)
    };
    let function = at.map(plain);
    let by_function = function.and_then(|function| find(&FUNCTIONS, function));
    let vague = |reason: &str| reason == "NOT_SPECIFIED";
    match reason {
        Some(reason) if !vague(reason) => match find(&REASONS, reason).or(by_function) {
            Some(words) => words.to_owned(),
            None => format!("the kernel says {reason}"),
        },
        _ => match (by_function, function) {
            (Some(words), _) => words.to_owned(),
            (None, Some(function)) => format!("by {function}, for no reason that the kernel tells"),
            (None, None) => "for no reason that the kernel tells".to_owned(),
        },
    }
}

/// Whether a host says with it that it has no such socket; `v4`: of IPv4's.
pub const fn is_port_unreachable(v4: bool, kind: u8, code: u8) -> bool {
    matches!((v4, kind, code), (true, 3, 3) | (false, 1, 4))
}

/// Names of ICMP's messages; `v4`: of IPv4's.
pub fn icmp(v4: bool, kind: u8, code: u8) -> String {
    let known = match (v4, kind, code) {
        (true, 0, _) | (false, 129, _) => "echo reply",
        (true, 8, _) | (false, 128, _) => "echo request",
        (true, 3, 0) | (false, 1, 0) => "no route to network",
        (true, 3, 1) | (false, 1, 3) => "host unreachable",
        _ if is_port_unreachable(v4, kind, code) => "port unreachable",
        (true, 3, 4) | (false, 2, _) => "packet too big",
        (true, 3, 9 | 10 | 13) | (false, 1, 1) => "administratively prohibited",
        (true, 3, _) | (false, 1, _) => "destination unreachable",
        (true, 5, _) => "redirect",
        (true, 11, _) | (false, 3, _) => "out of hops",
        (_, _, _) => return format!("ICMP type {kind} code {code}"),
    };
    format!("ICMP {known}")
}
