//! Which kernel fields probe reads. User space resolves each by name from the running kernel's BTF before load;
//! neither side knows a number.

/// What a field's offset is when this kernel has no such field.
pub const ABSENT: u32 = u32::MAX;

/// One entry of the table: what to look for, and what probe loses without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The member of [`Offsets`].
    pub name: &'static str,
    pub kind: Kind,
    pub lost: Lost,
}

/// What a kernel without a field takes from probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The object can't be loaded.
    Everything,
    Part(&'static str),
    /// Only what would have saved time.
    Nothing,
}

/// What a field's number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Byte offset of a member path inside a struct: the first of `paths` that this kernel has.
    Member {
        of: &'static str,
        paths: &'static [&'static str],
    },
    /// Value of an enumerator.
    Enumerator { of: &'static str, name: &'static str },
}

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident: $kind:expr, $lost:expr;)*) => {
        /// Filled by user space, read-only for the kernel programs: the verifier knows each as a constant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(C)]
        pub struct Offsets {
            $($(#[$doc])* pub $name: u32,)*
        }

        impl Offsets {
            /// One entry a member, in order.
            pub const TABLE: &'static [Field] =
                &[$(Field { name: stringify!($name), kind: $kind, lost: $lost },)*];
        }
    };
}

const REQUIRED: Lost = Lost::Everything;
const NOTHING: Lost = Lost::Nothing;
const IPV6: Lost = Lost::Part("IPv6 connections");
const REFUSED: Lost = Lost::Part("server-side refused connections");
/// What only `watch` loses.
pub const BLACK_HOLES: &str = "path MTU black holes";
const CONTAINERS: Lost = Lost::Part("names of containers and pods");
/// What only `bypass` loses: a kernel without conntrack has nothing to slip past.
pub const UNTRACKED: &str = "untracked packets";
/// What only `path` loses: a kernel without netfilter has no hooks.
pub const FILTERED: &str = "netfilter's hooks";
/// What only `bypass` loses, too.
pub const SENDERS: &str = "senders of untracked packets";

const fn member(of: &'static str, paths: &'static [&'static str]) -> Kind {
    Kind::Member { of, paths }
}

offsets! {
    family: member("sock_common", &["skc_family"]), REQUIRED;
    peer_v4: member("sock_common", &["skc_daddr"]), REQUIRED;
    local_v4: member("sock_common", &["skc_rcv_saddr"]), REQUIRED;
    peer_port: member("sock_common", &["skc_dport"]), REQUIRED;
    local_port: member("sock_common", &["skc_num"]), REQUIRED;
    sock_net: member("sock_common", &["skc_net.net"]), REQUIRED;
    /// Absent without `CONFIG_IPV6`.
    peer_v6: member("sock_common", &["skc_v6_daddr"]), IPV6;
    /// Absent without `CONFIG_IPV6`.
    local_v6: member("sock_common", &["skc_v6_rcv_saddr"]), IPV6;
    sock_flags: member("sock_common", &["skc_flags"]), REQUIRED;
    /// The bit of `skc_flags` that says a FIN arrived.
    flag_done: Kind::Enumerator { of: "sock_flags", name: "SOCK_DONE" }, REQUIRED;
    protocol: member("sock", &["sk_protocol"]), REQUIRED;
    error: member("sock", &["sk_err"]), REQUIRED;
    shutdown: member("sock", &["sk_shutdown"]), REQUIRED;
    /// Keeps the port when `skc_num` is already cleared at close; network byte order.
    local_port_kept: member("tcp_sock", &["inet_conn.icsk_inet.inet_sport"]), REQUIRED;
    bytes_sent: member("tcp_sock", &["bytes_sent"]), REQUIRED;
    bytes_retransmitted: member("tcp_sock", &["bytes_retrans"]), REQUIRED;
    bytes_received: member("tcp_sock", &["bytes_received"]), REQUIRED;
    data_segments_in: member("tcp_sock", &["data_segs_in"]), REQUIRED;
    segments_in: member("tcp_sock", &["segs_in"]), REQUIRED;
    segments_out: member("tcp_sock", &["segs_out"]), REQUIRED;
    /// Retransmission time-outs in a row.
    timeouts: member("tcp_sock", &["inet_conn.icsk_retransmits"]), Lost::Part(BLACK_HOLES);
    next_sequence: member("tcp_sock", &["snd_nxt"]), Lost::Part(BLACK_HOLES);
    /// The first sequence number that the peer has not acknowledged.
    first_unacknowledged: member("tcp_sock", &["snd_una"]), Lost::Part(BLACK_HOLES);
    /// Segments that the peer has selectively acknowledged.
    sacked: member("tcp_sock", &["sacked_out"]), Lost::Part(BLACK_HOLES);
    /// Payload of a full-size segment.
    segment_payload: member("tcp_sock", &["mss_cache"]), Lost::Part(BLACK_HOLES);
    segment_header: member("tcp_sock", &["tcp_header_len"]), Lost::Part(BLACK_HOLES);
    netns_inode: member("net", &["ns.inum"]), REQUIRED;
    task_tgid: member("task_struct", &["tgid"]), REQUIRED;
    task_leader: member("task_struct", &["group_leader"]), REQUIRED;
    task_name: member("task_struct", &["comm"]), REQUIRED;
    task_flags: member("task_struct", &["flags"]), REQUIRED;
    /// `real_start_time` before 5.5.
    task_start: member("task_struct", &["start_boottime", "real_start_time"]), REQUIRED;
    task_mm: member("task_struct", &["mm"]), REQUIRED;
    mm_arg_start: member("mm_struct", &["arg_start"]), REQUIRED;
    mm_arg_end: member("mm_struct", &["arg_end"]), REQUIRED;
    /// Absent without `CONFIG_CGROUPS`; then no container is known.
    task_cgroups: member("task_struct", &["cgroups"]), CONTAINERS;
    css_set_v2: member("css_set", &["dfl_cgrp"]), CONTAINERS;
    css_set_subsystems: member("css_set", &["subsys"]), CONTAINERS;
    css_cgroup: member("cgroup_subsys_state", &["cgroup"]), CONTAINERS;
    cgroup_node: member("cgroup", &["kn"]), CONTAINERS;
    node_id: member("kernfs_node", &["id"]), CONTAINERS;
    node_name: member("kernfs_node", &["name"]), CONTAINERS;
    /// `parent` before 6.15.
    node_parent: member("kernfs_node", &["__parent", "parent"]), CONTAINERS;
    /// The socket that sends the packet, or is known to receive it.
    skb_socket: member("sk_buff", &["sk"]), REQUIRED;
    skb_head: member("sk_buff", &["head"]), REQUIRED;
    skb_network_header: member("sk_buff", &["network_header"]), REQUIRED;
    skb_transport_header: member("sk_buff", &["transport_header"]), REQUIRED;
    skb_device: member("sk_buff", &["dev"]), REQUIRED;
    /// Why a packet was dropped: its port had no socket. Kernel 5.17.
    drop_no_socket: Kind::Enumerator { of: "skb_drop_reason", name: "SKB_DROP_REASON_NO_SOCKET" }, REFUSED;
    /// It has no reason. Absent before 5.17, when none had.
    drop_not_specified: Kind::Enumerator { of: "skb_drop_reason", name: "SKB_DROP_REASON_NOT_SPECIFIED" }, NOTHING;
    /// Its socket was closed. Kernel 6.10.
    drop_queue_purge: Kind::Enumerator { of: "skb_drop_reason", name: "SKB_DROP_REASON_QUEUE_PURGE" }, NOTHING;
    skb_length: member("sk_buff", &["len"]), REQUIRED;
    /// Of it, what is not in the first part.
    skb_paged: member("sk_buff", &["data_len"]), REQUIRED;
    skb_data: member("sk_buff", &["data"]), REQUIRED;
    skb_mark: member("sk_buff", &["mark"]), REQUIRED;
    device_name: member("net_device", &["name"]), REQUIRED;
    /// Absent without `CONFIG_NETFILTER`.
    filter_hook: member("nf_hook_state", &["hook"]), Lost::Part(FILTERED);
    filter_input: member("nf_hook_state", &["in"]), Lost::Part(FILTERED);
    filter_output: member("nf_hook_state", &["out"]), Lost::Part(FILTERED);
    filter_net: member("nf_hook_state", &["net"]), Lost::Part(FILTERED);
    device_net: member("net_device", &["nd_net.net"]), REQUIRED;
    device_index: member("net_device", &["ifindex"]), REQUIRED;
    /// Network byte order.
    skb_protocol: member("sk_buff", &["protocol"]), REQUIRED;
    /// Conntrack's entry and, in the lowest three bits, its state; absent without `CONFIG_NF_CONNTRACK`. `nfct` before
    /// 4.12 was a pointer without them, so it is none of the spellings.
    skb_conntrack: member("sk_buff", &["_nfct"]), Lost::Part(UNTRACKED);
    /// Index of the device a packet came by; 0 of one that was made here.
    skb_input: member("sk_buff", &["skb_iif"]), REQUIRED;
    /// Where `skb_shared_info` begins, from `head` on.
    skb_end: member("sk_buff", &["end"]), REQUIRED;
    shared_segments: member("skb_shared_info", &["gso_segs"]), REQUIRED;
    sock_state: member("sock_common", &["skc_state"]), REQUIRED;
    /// Of the socket that a handshake has, which is not a full one.
    sock_listener: member("sock_common", &["skc_listener"]), REQUIRED;
    sock_type: member("sock", &["sk_type"]), REQUIRED;
    /// Before 5.15 a word that may be something else. Absent without `CONFIG_SOCK_CGROUP_DATA`.
    sock_cgroup: member("sock", &["sk_cgrp_data.cgroup", "sk_cgrp_data.val"]), Lost::Part(SENDERS);
}

#[cfg(test)]
mod tests {
    use super::Offsets;

    #[test]
    fn table_has_an_entry_for_each_member() {
        assert_eq!(Offsets::TABLE.len() * 4, size_of::<Offsets>());
    }
}
