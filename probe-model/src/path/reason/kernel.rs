//! The kernel's own list of reasons for drops (`enum skb_drop_reason`, Linux 5.17 and later), in words.
//!
//! Names stay while numbers move from version to version, so the names are the key. They stand here without their prefix
//! `SKB_DROP_REASON_`, as probe reads them from the kernel's BTF.

use super::Fate::{self, AtSocket, Fault, Filter, Healthy, NoSocket, OtherHost};

/// Name, what it says of the packet, and what it means.
#[rustfmt::skip]
pub(super) const REASONS: &[(&str, Fate, &str)] = &[
    // The packet did its work, or was a copy that another one's loss does not matter for.
    ("CONSUMED", Healthy, "it was used"),
    ("SKB_CONSUMED", Healthy, "it was used"),
    ("NOT_DROPPED_YET", Healthy, "it is not dropped"),
    ("SKB_NOT_DROPPED_YET", Healthy, "it is not dropped"),
    ("DUP_FRAG", Healthy, "the same fragment came before"),
    ("PACKET_SOCK_ERROR", Healthy, "a packet socket could not keep its copy"),
    ("TCP_OFOMERGE", AtSocket, "its data is in the out-of-order queue already"),
    // Sockets.
    ("NO_SOCKET", NoSocket, "no socket listens there"),
    ("SOCKET_CLOSE", AtSocket, "its socket is closed"),
    ("SOCKET_FILTER", Fault, "a filter on its socket (SO_ATTACH_FILTER, SO_ATTACH_BPF) or a BPF program at its control group's ingress refused it"),
    ("TCP_FILTER", Fault, "a filter on its socket refused it"),
    ("SOCKET_RCVBUFF", Fault, "the socket's receive buffer is full"),
    ("SOCKET_BACKLOG", Fault, "the socket's backlog is full"),
    ("PROTO_MEM", Fault, "the protocol's memory limit is reached"),
    ("QUEUE_PURGE", AtSocket, "its socket closed before it was read"),
    ("UNIX_DISCONNECT", AtSocket, "its Unix socket disconnected"),
    ("UNIX_SKIP_OOB", AtSocket, "its Unix socket skipped out-of-band data"),
    // Headers and checksums.
    ("PKT_TOO_SMALL", Fault, "it is cut short"),
    ("HDR_TRUNC", Fault, "a header in it is cut short"),
    ("TCP_CSUM", Fault, "its TCP checksum is wrong"),
    ("UDP_CSUM", Fault, "its UDP checksum is wrong"),
    ("ICMP_CSUM", Fault, "its ICMP checksum is wrong"),
    ("IP_CSUM", Fault, "its IP checksum is wrong"),
    ("SKB_CSUM", Fault, "its checksum could not be computed"),
    ("IP_INHDR", Fault, "its IP header is malformed, or its TTL expired"),
    ("IP_NOPROTO", Fault, "no handler for its IP protocol"),
    ("UNHANDLED_PROTO", Fault, "no handler for its protocol"),
    ("INVALID_PROTO", Fault, "its protocol forbids it here, as a broadcast ICMP request"),
    ("IPV6_BAD_EXTHDR", Fault, "an IPv6 extension header in it is malformed"),
    ("IPV6_TOO_MANY_EXTHDRS", Fault, "it has too many IPv6 extension headers"),
    ("IPV6DISABLED", Fault, "IPv6 is disabled on the device (disable_ipv6)"),
    ("IPV6_NDISC_FRAG", Fault, "neighbour discovery must not be fragmented"),
    ("IPV6_NDISC_HOP_LIMIT", Fault, "neighbour discovery that came through a router"),
    ("IPV6_NDISC_BAD_CODE", Fault, "its neighbour discovery message has a wrong code"),
    ("IPV6_NDISC_BAD_OPTIONS", Fault, "its neighbour discovery message has malformed options"),
    ("IPV6_NDISC_NS_OTHERHOST", OtherHost, "its neighbour solicitation is for another host"),
    // Filters and programs.
    ("NETFILTER_DROP", Filter, "the packet filter dropped it"),
    ("BPF_CGROUP_EGRESS", Fault, "a BPF program at the egress of its sender's control group (cgroup) dropped it"),
    ("SECURITY_HOOK", Fault, "a security module (SELinux, AppArmor, Smack, BPF LSM) refused it"),
    ("XFRM_POLICY", Fault, "an IPsec policy refused it (ip xfrm policy)"),
    ("XDP", Fault, "an XDP program dropped it"),
    ("TC_INGRESS", Fault, "a tc program or filter at the device's ingress dropped it"),
    ("TC_EGRESS", Fault, "a tc program or filter at the device's egress dropped it"),
    ("TC_COOKIE_ERROR", Fault, "tc could not keep its state of the packet"),
    ("TC_CHAIN_NOTFOUND", Fault, "a tc filter sent it to a chain that does not exist"),
    ("TC_RECLASSIFY_LOOP", Fault, "tc filters classified it again in a loop"),
    ("TAP_FILTER", Fault, "a BPF filter of the tun or tap device dropped it"),
    ("TAP_TXFILTER", Fault, "the address filter of the tap device dropped it"),
    // Routing.
    ("IP_RPFILTER", Fault, "reverse path filter: replies to its source would leave by another device (rp_filter)"),
    ("IP_OUTNOROUTES", Fault, "no route to the destination"),
    ("IP_INNOROUTES", Fault, "no route to the destination"),
    ("IP_INADDRERRORS", Fault, "the host may not forward it: forwarding is off on the device it came by, or its destination can't be forwarded to"),
    ("IP_LOCAL_SOURCE", Fault, "it came in with an address of this host as its source"),
    ("IP_INVALID_SOURCE", Fault, "its source address can't be on that side"),
    ("IP_INVALID_DEST", Fault, "its destination address can't be reached from there"),
    ("IP_LOCALNET", Fault, "a loopback address came in from outside (route_localnet is off)"),
    ("UNICAST_IN_L2_MULTICAST", Fault, "it came in a link-layer broadcast, but is for one host"),
    // Link layer.
    ("OTHERHOST", OtherHost, "its destination MAC address is not this device's: a stale neighbour or FDB entry, or a copy for another host"),
    ("LOCAL_MAC", Fault, "its source MAC address is this device's own"),
    ("MAC_INVALID_SOURCE", Fault, "its source MAC address is not valid"),
    ("MAC_IEEE_MAC_CONTROL", Fault, "it is for a MAC address that bridges must not forward"),
    ("BRIDGE_INGRESS_STP_STATE", Fault, "the bridge port is blocked by STP"),
    ("ARP_PVLAN_DISABLE", Fault, "ARP for its own device is not answered (proxy_arp_pvlan is off)"),
    ("NEIGH_CREATEFAIL", Fault, "there is no room for the next hop's neighbour entry"),
    ("NEIGH_FAILED", Fault, "the next hop does not answer (ARP, neighbour discovery)"),
    ("NEIGH_QUEUEFULL", Fault, "too many packets wait for the next hop's address"),
    ("NEIGH_DEAD", Fault, "the next hop's neighbour entry is gone"),
    ("NEIGH_HH_FILLFAIL", Fault, "the next hop's link-layer header could not be written"),
    // Size and fragments.
    ("PKT_TOO_BIG", Fault, "it is larger than the next device's MTU, and must not be fragmented"),
    ("FRAG_REASM_TIMEOUT", Fault, "fragments of it are missing: reassembly timed out"),
    ("FRAG_TOO_FAR", Fault, "too many other fragments came between its own (ipfrag_max_dist)"),
    ("SKB_GSO_SEG", Fault, "it could not be cut into segments"),
    ("SKB_BAD_GSO", Fault, "its segmentation (GSO) is not valid"),
    ("SKB_UCOPY_FAULT", Fault, "its data could not be copied from its program"),
    // Devices and queues.
    ("QDISC_DROP", Fault, "the device's queue (qdisc) dropped it"),
    ("QDISC_OVERLIMIT", Fault, "the device's queue (qdisc) is full"),
    ("QDISC_CONGESTED", Fault, "the device's queue (qdisc) dropped it to signal congestion"),
    ("QDISC_BURST_DROP", Fault, "the device's queue (qdisc) dropped it in a burst"),
    ("CAKE_FLOOD", Fault, "the device's queue (cake) dropped it as part of a flood"),
    ("FQ_BAND_LIMIT", Fault, "the device's queue (fq) has too many packets of its priority"),
    ("FQ_HORIZON_LIMIT", Fault, "the device's queue (fq) refused its time of departure"),
    ("FQ_FLOW_LIMIT", Fault, "the device's queue (fq) has too many packets of its flow"),
    ("DUALPI2_STEP_DROP", Fault, "the device's queue (dualpi2) dropped it to signal congestion"),
    ("CPU_BACKLOG", Fault, "the processor's backlog of packets is full (netdev_max_backlog)"),
    ("MACVLAN_BROADCAST_BACKLOG", Fault, "the macvlan device's queue of broadcasts is full"),
    ("IPVLAN_MULTICAST_BACKLOG", Fault, "the ipvlan device's queue of multicasts is full"),
    ("RECURSION_LIMIT", Fault, "its devices send it to one another in a loop"),
    ("DEV_HDR", Fault, "the device's own header of it is not valid"),
    ("DEV_READY", Fault, "the device is not up"),
    ("FULL_RING", Fault, "the device's ring is full"),
    ("NOMEM", Fault, "there was no memory"),
    ("PFMEMALLOC", Fault, "memory is short, and its socket may not use the reserve"),
    ("CAN_RX_INVALID_FRAME", Fault, "it is no valid CAN frame"),
    ("CANFD_RX_INVALID_FRAME", Fault, "it is no valid CAN FD frame"),
    ("CANXL_RX_INVALID_FRAME", Fault, "it is no valid CAN XL frame"),
    // Tunnels.
    ("VXLAN_INVALID_HDR", Fault, "its VXLAN header is not valid"),
    ("VXLAN_VNI_NOT_FOUND", Fault, "no VXLAN device here has that VNI"),
    ("VXLAN_ENTRY_EXISTS", Fault, "its source MAC address is that of a set forwarding entry of another peer"),
    ("NO_TX_TARGET", Fault, "the VXLAN device has no forwarding entry for its link-layer address"),
    ("VXLAN_NO_REMOTE", Fault, "the VXLAN device has no forwarding entry for its link-layer address"),
    ("VXLAN_INVALID_SMAC", Fault, "its source MAC address is not valid"),
    ("IP_TUNNEL_ECN", Fault, "congestion bits of the outer and inner header contradict each other"),
    ("TUNNEL_TXINFO", Fault, "the tunnel device was given no peer for it"),
    ("PSP_INPUT", Fault, "PSP could not decrypt it"),
    ("PSP_OUTPUT", Fault, "PSP could not encrypt it"),
    // TCP: authentication is a fault, what its state machine has no use for is not.
    ("TCP_AUTH_HDR", Fault, "its TCP authentication options contradict each other"),
    ("TCP_MD5NOTFOUND", Fault, "its socket wants a TCP MD5 signature, and it has none"),
    ("TCP_MD5UNEXPECTED", Fault, "it has a TCP MD5 signature, and its socket expects none"),
    ("TCP_MD5FAILURE", Fault, "its TCP MD5 signature is wrong"),
    ("TCP_AONOTFOUND", Fault, "its socket wants TCP-AO, and it has none"),
    ("TCP_AOUNEXPECTED", Fault, "it has TCP-AO, and its socket expects none"),
    ("TCP_AOKEYNOTFOUND", Fault, "its TCP-AO key is unknown"),
    ("TCP_AOFAILURE", Fault, "its TCP-AO hash is wrong"),
    ("TCP_MINTTL", Fault, "its TTL is lower than its socket accepts (IP_MINTTL)"),
    ("TCP_LISTEN_OVERFLOW", Fault, "the listener's accept queue is full"),
    ("TCP_FLAGS", AtSocket, "its TCP flags fit no state of its socket"),
    ("TCP_ABORT_ON_DATA", AtSocket, "its socket was closed, and data came"),
    ("TCP_ZEROWINDOW", AtSocket, "its socket's receive window is closed"),
    ("TCP_OLD_DATA", AtSocket, "its data came before"),
    ("TCP_OVERWINDOW", AtSocket, "its data is beyond the receive window"),
    ("TCP_RFC7323_PAWS", AtSocket, "its TCP timestamp is older than the connection's (PAWS)"),
    ("TCP_RFC7323_PAWS_ACK", AtSocket, "its TCP timestamp is older than the connection's (PAWS)"),
    ("TCP_RFC7323_TW_PAWS", AtSocket, "its TCP timestamp is older than that of a connection in TIME_WAIT"),
    ("TCP_RFC7323_TSECR", AtSocket, "it echoes a TCP timestamp that was not sent"),
    ("TCP_OLD_SEQUENCE", AtSocket, "it came before"),
    ("TCP_INVALID_SEQUENCE", AtSocket, "its sequence number is outside the window"),
    ("TCP_INVALID_END_SEQUENCE", AtSocket, "its data ends outside the window"),
    ("TCP_INVALID_ACK_SEQUENCE", AtSocket, "it acknowledges what was not sent"),
    ("TCP_RESET", AtSocket, "its socket took the RST"),
    ("TCP_INVALID_SYN", AtSocket, "it has SYN, and the connection exists"),
    ("TCP_CLOSE", AtSocket, "its socket is in state CLOSE"),
    ("TCP_FASTOPEN", AtSocket, "its Fast Open socket discarded it"),
    ("TCP_OLD_ACK", AtSocket, "its acknowledgment came before"),
    ("TCP_TOO_OLD_ACK", AtSocket, "its acknowledgment is too old"),
    ("TCP_ACK_UNSENT_DATA", AtSocket, "it acknowledges what was not sent"),
    ("TCP_OFO_QUEUE_PRUNE", AtSocket, "memory is short: its out-of-order data was discarded"),
    ("TCP_OFO_DROP", AtSocket, "its data came before"),
];

/// The row of a name.
pub(super) fn find(name: &str) -> Option<(Fate, &'static str)> {
    let row = REASONS.iter().find(|(known, _, _)| *known == name)?;
    Some((row.1, row.2))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Every name of `enum skb_drop_reason` in the BTF of Linux 6.1, 6.12, 6.18 and 7.3, and those of 5.17 and 6.13 that were
    /// renamed.
    const KERNEL: &str = "
        ARP_PVLAN_DISABLE BPF_CGROUP_EGRESS BRIDGE_INGRESS_STP_STATE CAKE_FLOOD CANFD_RX_INVALID_FRAME CANXL_RX_INVALID_FRAME
        CAN_RX_INVALID_FRAME CPU_BACKLOG DEV_HDR DEV_READY DUALPI2_STEP_DROP DUP_FRAG FQ_BAND_LIMIT FQ_FLOW_LIMIT
        FQ_HORIZON_LIMIT FRAG_REASM_TIMEOUT FRAG_TOO_FAR FULL_RING HDR_TRUNC ICMP_CSUM INVALID_PROTO IPV6DISABLED
        IPV6_BAD_EXTHDR IPV6_NDISC_BAD_CODE IPV6_NDISC_BAD_OPTIONS IPV6_NDISC_FRAG IPV6_NDISC_HOP_LIMIT
        IPV6_NDISC_NS_OTHERHOST IPV6_TOO_MANY_EXTHDRS IPVLAN_MULTICAST_BACKLOG IP_CSUM IP_INADDRERRORS IP_INHDR IP_INNOROUTES
        IP_INVALID_DEST IP_INVALID_SOURCE IP_LOCALNET IP_LOCAL_SOURCE IP_NOPROTO IP_OUTNOROUTES IP_RPFILTER IP_TUNNEL_ECN
        LOCAL_MAC MACVLAN_BROADCAST_BACKLOG MAC_IEEE_MAC_CONTROL MAC_INVALID_SOURCE NEIGH_CREATEFAIL NEIGH_DEAD NEIGH_FAILED
        NEIGH_HH_FILLFAIL NEIGH_QUEUEFULL NETFILTER_DROP NOMEM NOT_SPECIFIED NO_SOCKET NO_TX_TARGET OTHERHOST
        PACKET_SOCK_ERROR PFMEMALLOC PKT_TOO_BIG PKT_TOO_SMALL PROTO_MEM PSP_INPUT PSP_OUTPUT QDISC_BURST_DROP
        QDISC_CONGESTED QDISC_DROP QDISC_OVERLIMIT QUEUE_PURGE RECURSION_LIMIT SECURITY_HOOK SKB_BAD_GSO SKB_CONSUMED
        SKB_CSUM SKB_GSO_SEG SKB_NOT_DROPPED_YET SKB_UCOPY_FAULT SOCKET_BACKLOG SOCKET_CLOSE SOCKET_FILTER SOCKET_RCVBUFF
        TAP_FILTER TAP_TXFILTER TCP_ABORT_ON_DATA TCP_ACK_UNSENT_DATA TCP_AOFAILURE TCP_AOKEYNOTFOUND TCP_AONOTFOUND
        TCP_AOUNEXPECTED TCP_AUTH_HDR TCP_CLOSE TCP_CSUM TCP_FASTOPEN TCP_FLAGS TCP_INVALID_ACK_SEQUENCE
        TCP_INVALID_END_SEQUENCE TCP_INVALID_SEQUENCE TCP_INVALID_SYN TCP_LISTEN_OVERFLOW TCP_MD5FAILURE TCP_MD5NOTFOUND
        TCP_MD5UNEXPECTED TCP_MINTTL TCP_OFOMERGE TCP_OFO_DROP TCP_OFO_QUEUE_PRUNE TCP_OLD_ACK TCP_OLD_DATA TCP_OLD_SEQUENCE
        TCP_OVERWINDOW TCP_RESET TCP_RFC7323_PAWS TCP_RFC7323_PAWS_ACK TCP_RFC7323_TSECR TCP_RFC7323_TW_PAWS TCP_TOO_OLD_ACK
        TCP_ZEROWINDOW TC_CHAIN_NOTFOUND TC_COOKIE_ERROR TC_EGRESS TC_INGRESS TC_RECLASSIFY_LOOP TUNNEL_TXINFO UDP_CSUM
        UNHANDLED_PROTO UNICAST_IN_L2_MULTICAST UNIX_DISCONNECT UNIX_SKIP_OOB VXLAN_ENTRY_EXISTS VXLAN_INVALID_HDR
        VXLAN_VNI_NOT_FOUND XDP XFRM_POLICY TCP_FILTER VXLAN_INVALID_SMAC VXLAN_NO_REMOTE";

    #[test]
    fn every_reason_of_the_kernel_has_a_row() {
        let names: Vec<_> = KERNEL.split_whitespace().collect();
        assert!(names.len() > 130, "{}", names.len());
        for name in names {
            // It says nothing: there the function is all there is.
            if name != "NOT_SPECIFIED" {
                assert!(find(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn each_name_has_one_row() {
        let names: HashSet<_> = REASONS.iter().map(|(name, _, _)| name).collect();
        assert_eq!(names.len(), REASONS.len());
        for (name, _, words) in REASONS {
            assert!(!words.is_empty() && !words.ends_with('.'), "{name}");
        }
    }
}
