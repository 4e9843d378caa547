//! Why packets are dropped, in words.

mod kernel;

/// What a drop says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Freed without a fault: a copy for another host, or consumed.
    Healthy,
    /// Its link-layer address is another host's: a copy of a packet that goes on elsewhere, or a stale entry sent it here.
    OtherHost,
    /// It reached its socket, which discarded it.
    AtSocket,
    /// It reached its host, where no socket matches.
    NoSocket,
    /// The packet filter.
    Filter,
    /// The kernel names another reason, or none.
    Fault,
}

/// What the kernel says where it knows no reason.
const VAGUE: &str = "NOT_SPECIFIED";

/// Whether it is one of a fault's: by the kernel's name for the reason. Where the kernel gives none (before 5.17), or one that says
/// nothing, the function that did it is a hint.
pub fn fate(reason: Option<&str>, at: Option<&str>) -> Fate {
    let at = at.map(plain);
    match reason {
        // A ping's answer: a raw socket may have had a copy before the kernel looked for a ping socket, and found none.
        None | Some("NO_SOCKET" | VAGUE) if is_of_ping(at) => Fate::AtSocket,
        // Raw sockets get copies, and filter what they want of them.
        Some("SOCKET_FILTER") if at.is_some_and(|at| at.starts_with("raw")) => Fate::AtSocket,
        None | Some(VAGUE) => by_function(reason, at),
        Some(name) => match kernel::find(name) {
            Some((fate, _)) => fate,
            // What TCP's state machine has no use for.
            None if name.starts_with("TCP_") => Fate::AtSocket,
            None => Fate::Fault,
        },
    }
}

fn by_function(reason: Option<&str>, at: Option<&str>) -> Fate {
    match at {
        Some("nf_hook_slow" | "nf_hook_slow_list" | "nft_do_chain" | "nf_hook_bridge_pre") => Fate::Filter,
        Some("packet_rcv" | "tpacket_rcv") => Fate::Healthy,
        // A kernel with reasons would have said NO_SOCKET for IPv4 (5.17): this is a SYN sent again, or another of no use.
        Some("tcp_v4_rcv" | "__udp4_lib_rcv") if reason.is_some() => Fate::AtSocket,
        Some("tcp_v4_rcv" | "tcp_v6_rcv" | "__udp4_lib_rcv" | "__udp6_lib_rcv") => Fate::NoSocket,
        Some(
            "tcp_rcv_state_process"
            | "tcp_rcv_established"
            | "tcp_data_queue"
            | "tcp_v4_do_rcv"
            | "tcp_v6_do_rcv"
            | "tcp_ack"
            | "tcp_validate_incoming"
            // What is in the queue of a socket that ends, such as the FIN (Linux 5.10).
            | "sk_stream_kill_queues"
            | "inet_sock_destruct",
        ) => Fate::AtSocket,
        Some(_) | None => Fate::Fault,
    }
}

/// Whether the packet filter of a bridge may have done it: the kernel says neither that nor anything else.
pub fn may_be_bridge_filter(reason: Option<&str>, at: Option<&str>) -> bool {
    matches!(reason, None | Some(VAGUE)) && at.map(plain) == Some("br_handle_frame")
}

/// Whether the function looks up ping sockets.
pub fn is_of_ping(at: Option<&str>) -> bool {
    matches!(at.map(plain), Some("icmp_rcv" | "icmpv6_rcv" | "ping_rcv"))
}

/// A function's name without what the compiler appended: `ip_rcv_finish_core.isra.0`.
pub(super) fn plain(function: &str) -> &str {
    function.split_once('.').map_or(function, |(name, _)| name)
}

/// `____dev_forward_skb()`, inlined into its callers: a veth hands a packet to its peer device.
const FORWARDED: &str = "the peer device of this veth is down, or its MTU is smaller than the packet";

/// Hints by functions, where the kernel gives no reason, or one that says nothing.
const FUNCTIONS: [(&str, &str); 26] = [
    ("nf_hook_slow", "the packet filter dropped it"),
    ("nft_do_chain", "the packet filter dropped it"),
    ("nf_hook_bridge_pre", "the packet filter of the bridge dropped it"),
    // nf_hook_bridge_pre() is inlined into it, and frees without a reason what ebtables drops.
    (
        "br_handle_frame",
        "the packet filter of the bridge dropped it (nft's family bridge, ebtables), or the bridge port forwards nothing",
    ),
    (
        "ip_rcv_finish_core",
        "no route to the destination, or the reverse path filter refused it",
    ),
    (
        "ip_error",
        "no route to the destination, or one of type blackhole, prohibit or unreachable",
    ),
    ("ip_route_input_slow", "no route to the destination"),
    ("ip6_pkt_discard", "no route to the destination"),
    ("ip6_pkt_drop", "no route to the destination"),
    ("dst_discard", "a blackhole route leads there"),
    ("dst_discard_out", "a blackhole route leads there"),
    (
        "ip_forward",
        "it can't be forwarded: larger than the next device's MTU, or its TTL expired",
    ),
    (
        "ip6_forward",
        "it can't be forwarded: larger than the next device's MTU, or its hop limit is exceeded",
    ),
    // ip_fragment() may be inlined into it; where it is not, the drop is that of the BPF program.
    (
        "ip_finish_output",
        "a BPF program of its sender's control group dropped it, or it is larger than the device's MTU",
    ),
    (
        "ip_fragment",
        "it is larger than the device's MTU, and must not be fragmented",
    ),
    (
        "neigh_invalidate",
        "the next hop does not answer (ARP, neighbour discovery)",
    ),
    ("arp_error_report", "the next hop does not answer (ARP)"),
    (
        "ndisc_error_report",
        "the next hop does not answer (neighbour discovery)",
    ),
    (
        "vxlan_xmit",
        "the VXLAN device has no forwarding entry for its link-layer address",
    ),
    (
        "vxlan_xmit_one",
        "the VXLAN device could not send it: no route to its peer, or larger than the underlay's MTU",
    ),
    (
        "vxlan_rcv",
        "no VXLAN device here accepts it: its VNI is another, or it is damaged",
    ),
    (
        "br_handle_frame_finish",
        "no port of the bridge can forward it: each is blocked, isolated, or the port where it arrived",
    ),
    ("__dev_queue_xmit", "the device's queue dropped it"),
    ("__dev_forward_skb2", FORWARDED),
    ("__dev_forward_skb", FORWARDED),
    ("dev_forward_skb", FORWARDED),
];

/// What a drop means. Never empty.
pub fn words(reason: Option<&str>, at: Option<&str>) -> String {
    let function = at.map(plain);
    match reason {
        Some(reason) if reason != VAGUE => match (kernel::find(reason), function) {
            (Some((_, words)), _) => words.to_owned(),
            // As it is: what a function usually drops for would be a guess.
            (None, Some(function)) => format!("kernel reason {reason}, in {function}"),
            (None, None) => format!("kernel reason {reason}"),
        },
        _ => {
            let known = |function: &str| FUNCTIONS.iter().find(|(known, _)| *known == function);
            match (function.and_then(known), function) {
                (Some((_, words)), _) => (*words).to_owned(),
                (None, Some(function)) => format!("by {function}, the kernel reports no reason"),
                (None, None) => "the kernel reports no reason".to_owned(),
            }
        }
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
        (true, 11, _) | (false, 3, _) => "hop limit exceeded",
        (_, _, _) => return format!("ICMP type {kind} code {code}"),
    };
    format!("ICMP {known}")
}
