//! Which program serves which hook, and on which kernels: all differences between kernels in tracepoints and program
//! types stand here, each with version and reason. Those in structs stand in [`offsets`](super::offsets).

/// Something this feature learns from the kernel, and the programs that can, the best first: one is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What it reports; lost where no program can be used.
    pub gives: &'static str,
    /// Without it the feature can't run at all.
    pub required: bool,
    pub programs: &'static [Program],
}

/// A program of the object, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    pub name: &'static str,
    /// The tracepoint's name, without its system; of a [`Classifier`](Access::Classifier), which way the packets go; of
    /// an [`Entry`](Access::Entry), an [`Exit`](Access::Exit) and a [`Kprobe`](Access::Kprobe), the function's name; of a
    /// [`Filter`](Access::Filter), netfilter's hook.
    pub tracepoint: &'static str,
    pub access: Access,
    /// Arguments that the tracepoint must have: kernels add some, and with them the meaning that is wanted.
    pub arguments: u32,
}

/// How a program reads kernel memory, and with it what kind of program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A BTF tracepoint with typed loads, which the verifier checks. Kernel 5.5.
    Typed,
    /// A raw tracepoint with `bpf_probe_read_kernel`. Kernel 4.17, the helper 5.5.
    Probed,
    /// A tc program that sees a device's packets, loaded once and attached to each device: by tcx (6.6), before that as a
    /// filter of its clsact queue (4.5). `gso_segs` can be read since 5.1.
    Classifier,
    /// At a kernel function's entry (fentry), with typed loads. Kernel 5.5, `CONFIG_FUNCTION_TRACER` and trampolines of
    /// the architecture.
    Entry,
    /// The same at its end, where what it returned is known (fexit).
    Exit,
    /// A netfilter program behind all rules of INPUT, for one family, in the network namespace of the thread that attaches
    /// it; with typed loads. Kernel 6.4, `CONFIG_NETFILTER_BPF_LINK`.
    Filter(Family),
    /// At a kernel function's entry with `bpf_probe_read_kernel`. The arguments have no types there, so nothing proves that
    /// the function is the one that is meant. Attached without tracefs since 4.17, `CONFIG_KPROBES`.
    Kprobe,
}

impl Access {
    /// Whether it is at a function of the kernel, and no tracepoint.
    pub const fn is_of_function(self) -> bool {
        matches!(self, Self::Entry | Self::Exit | Self::Kprobe)
    }

    /// What kind of program it is, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Typed => "a BTF tracepoint",
            Self::Probed => "a raw tracepoint",
            Self::Classifier => "a tc program",
            Self::Entry => "fentry",
            Self::Exit => "fexit",
            Self::Filter(_) => "a netfilter program",
            Self::Kprobe => "a kprobe",
        }
    }
}

/// Whose packets a [`Filter`](Access::Filter) sees: the numbers of `NFPROTO_…`, user interface of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Family {
    V4 = 2,
    V6 = 10,
}

const fn typed(name: &'static str, tracepoint: &'static str, arguments: u32) -> Program {
    Program {
        name,
        tracepoint,
        access: Access::Typed,
        arguments,
    }
}

const fn probed(name: &'static str, tracepoint: &'static str, arguments: u32) -> Program {
    Program {
        access: Access::Probed,
        ..typed(name, tracepoint, arguments)
    }
}

const fn classifier(name: &'static str, way: &'static str) -> Program {
    Program {
        access: Access::Classifier,
        ..typed(name, way, 0)
    }
}

const fn entry(name: &'static str, function: &'static str) -> Program {
    Program {
        access: Access::Entry,
        ..typed(name, function, 0)
    }
}

const fn exit(name: &'static str, function: &'static str) -> Program {
    Program {
        access: Access::Exit,
        ..typed(name, function, 0)
    }
}

/// What functions report beside tracepoints.
const fn function(gives: &'static str, programs: &'static [Program]) -> Hook {
    Hook {
        gives,
        required: false,
        programs,
    }
}

const fn filter(name: &'static str, family: Family) -> Program {
    Program {
        access: Access::Filter(family),
        ..typed(name, LOCAL_IN, 0)
    }
}

const fn kprobe(name: &'static str, function: &'static str) -> Program {
    Program {
        access: Access::Kprobe,
        ..typed(name, function, 0)
    }
}

/// Netfilter's hook for packets that are delivered here.
const LOCAL_IN: &str = "NF_INET_LOCAL_IN";

/// The hooks of `watch`, the last attached first.
pub const WATCH: [Hook; 4] = [
    Hook {
        // Attached after the one below, so it runs after it. From 6.1 on (and in late 5.15) the kernel skips a program
        // that an interrupt finds running on that CPU; this one is not running then.
        gives: "what an interrupt hides",
        required: false,
        programs: &[
            typed("conn_again", "inet_sock_set_state", 3),
            probed("conn_again_raw", "inet_sock_set_state", 0),
        ],
    },
    Hook {
        gives: "connections",
        required: true,
        programs: &[
            // 5.12: takes its slot with an atomic compare-and-exchange, and asks which task runs by
            // bpf_get_current_task_btf (5.11).
            typed("conn_state", "inet_sock_set_state", 3),
            // Keeps connections in a hash map.
            probed("conn_state_raw", "inet_sock_set_state", 0),
        ],
    },
    Hook {
        gives: "server-side refused connections",
        required: false,
        programs: &[
            // 6.10: has a third argument, the reason, and is called for a SYN to a closed port too.
            typed("conn_rstout", "tcp_send_reset", 3),
            probed("conn_rstout_raw", "tcp_send_reset", 3),
            // 5.17: has a third argument, the reason. It fires for every packet freed, so it comes second.
            typed("conn_nosock", "kfree_skb", 3),
            probed("conn_nosock_raw", "kfree_skb", 3),
        ],
    },
    Hook {
        gives: "syn-only",
        required: false,
        programs: &[
            typed("conn_synack", "tcp_retransmit_synack", 2),
            probed("conn_synack_raw", "tcp_retransmit_synack", 0),
        ],
    },
];

/// The hooks of `vxlan`.
pub const VXLAN: [Hook; 3] = [
    Hook {
        gives: "VXLAN packets that arrive",
        required: true,
        programs: &[classifier(super::vxlan::program::IN, "ingress")],
    },
    Hook {
        gives: "VXLAN packets that leave",
        required: true,
        programs: &[classifier(super::vxlan::program::OUT, "egress")],
    },
    Hook {
        gives: "dropped VXLAN packets",
        required: false,
        programs: &[
            // 5.17: has a third argument, the reason. Before, that a packet was dropped is all it reports. Not typed:
            // bin/vxlan/drops.rs says why.
            probed("vxlan_drop", "kfree_skb", 2),
        ],
    },
];

/// What reports dropped packets to `watch`, beside the hooks of `vxlan` and `bypass`.
pub const DROPS: [Hook; 1] = [Hook {
    gives: "causes of failed connections by dropped packets",
    required: false,
    programs: &[
        // 5.17: has a third argument, the reason. Before, that a packet was dropped, and where, is all it reports. Not
        // typed: bin/vxlan/drops.rs says why.
        probed("tcp_drop", "kfree_skb", 2),
    ],
}];

/// The hooks of `watch --tls`. Typed only: `bpf_skb_output`, which alone copies payload out of a packet's pages, is not for raw
/// tracepoints.
pub const TLS: [Hook; 2] = [
    Hook {
        gives: "TLS of what is sent (--tls)",
        required: false,
        programs: &[typed("tls_sent", "net_dev_start_xmit", 2)],
    },
    Hook {
        gives: "TLS of what is received (--tls)",
        required: false,
        programs: &[typed("tls_received", "tcp_probe", 2)],
    },
];

/// The hooks of `bypass`.
pub const BYPASS: [Hook; 3] = [
    Hook {
        gives: "untracked packets that are forwarded or sent",
        required: true,
        programs: &[
            typed("bypass_xmit", "net_dev_start_xmit", 2),
            probed("bypass_xmit_raw", "net_dev_start_xmit", 0),
        ],
    },
    Hook {
        gives: "untracked IPv4 packets that are delivered here",
        required: false,
        programs: &[
            // What comes after the rules of INPUT; conntrack's mark is cleared behind it.
            entry("bypass_in", "ip_local_deliver_finish"),
            filter("bypass_in_nf", Family::V4),
            kprobe("bypass_in_kp", "ip_local_deliver_finish"),
        ],
    },
    Hook {
        gives: "untracked IPv6 packets that are delivered here",
        required: false,
        programs: &[
            // Not ip6_input_finish, which calls it: where the compiler made that a part of another, as in Debian's 5.10,
            // it is there and never called.
            entry("bypass_in6", "ip6_protocol_deliver_rcu"),
            filter("bypass_in6_nf", Family::V6),
            kprobe("bypass_in6_kp", "ip6_protocol_deliver_rcu"),
        ],
    },
];

/// The hooks of `path`. Functions first, so that they are attached last: by then tracepoints show where a flow begins.
pub const PATH: [Hook; 21] = [
    function(
        "netfilter's hooks",
        &[
            exit("path_hook", "nf_hook_slow"),
            kprobe("path_hook_kp", "nf_hook_slow"),
        ],
    ),
    function("routing decisions", &[exit("path_route", "ip_route_input_noref")]),
    function(
        "IPv4 packets to be forwarded",
        &[
            entry("path_fwd", "ip_forward"),
            kprobe("path_fwd_kp", "ip_forward"),
        ],
    ),
    function(
        "IPv6 packets to be forwarded",
        &[
            entry("path_fwd6", "ip6_forward"),
            kprobe("path_fwd6_kp", "ip6_forward"),
        ],
    ),
    function(
        "IPv4 packets for this host",
        &[
            entry("path_local", "ip_local_deliver"),
            kprobe("path_local_kp", "ip_local_deliver"),
        ],
    ),
    function(
        "IPv6 packets for this host",
        &[
            entry("path_local6", "ip6_input"),
            kprobe("path_local6_kp", "ip6_input"),
        ],
    ),
    function(
        "routed IPv4 packets",
        &[entry("path_out", "ip_output"), kprobe("path_out_kp", "ip_output")],
    ),
    function(
        "routed IPv6 packets",
        &[
            entry("path_out6", "ip6_output"),
            kprobe("path_out6_kp", "ip6_output"),
        ],
    ),
    function(
        "TCP sockets over IPv4",
        &[
            entry("path_tcp", "tcp_v4_do_rcv"),
            kprobe("path_tcp_kp", "tcp_v4_do_rcv"),
        ],
    ),
    function(
        "TCP sockets over IPv6",
        &[
            entry("path_tcp6", "tcp_v6_do_rcv"),
            kprobe("path_tcp6_kp", "tcp_v6_do_rcv"),
        ],
    ),
    function(
        "UDP sockets",
        &[
            entry("path_udp", "__udp_enqueue_schedule_skb"),
            kprobe("path_udp_kp", "__udp_enqueue_schedule_skb"),
        ],
    ),
    function(
        "ICMP errors that are sent",
        &[
            entry("path_icmp", "__icmp_send"),
            kprobe("path_icmp_kp", "__icmp_send"),
        ],
    ),
    function(
        "ICMPv6 errors that are sent",
        &[
            entry("path_icmp6", "icmp6_send"),
            kprobe("path_icmp6_kp", "icmp6_send"),
        ],
    ),
    function(
        "conntrack lookups",
        &[kprobe("path_conntrack_kp", "nf_conntrack_in")],
    ),
    function("NAT", &[kprobe("path_nat_kp", "nf_nat_manip_pkt")]),
    function("VXLAN encapsulation", &[kprobe("path_encap_kp", "vxlan_xmit")]),
    function("VXLAN decapsulation", &[kprobe("path_decap_kp", "vxlan_rcv")]),
    Hook {
        gives: "packets that are done with",
        required: false,
        programs: &[probed("path_consumed", "consume_skb", 0)],
    },
    Hook {
        gives: "dropped packets",
        required: true,
        programs: &[
            // 5.17: has a third argument, the reason. Before, that a packet was dropped, and where, is all it reports. Not
            // typed: bin/vxlan/drops.rs says why.
            probed("path_dropped", "kfree_skb", 0),
        ],
    },
    Hook {
        gives: "packets that devices receive",
        required: true,
        programs: &[
            typed("path_received", "netif_receive_skb", 1),
            probed("path_received_raw", "netif_receive_skb", 0),
        ],
    },
    Hook {
        gives: "packets that devices send",
        required: true,
        programs: &[
            typed("path_sent", "net_dev_start_xmit", 2),
            probed("path_sent_raw", "net_dev_start_xmit", 0),
        ],
    },
];

/// The tracepoints of a feature's hooks, some twice.
pub fn tracepoints(hooks: &[Hook]) -> impl Iterator<Item = &'static str> {
    named(hooks, |access| match access {
        Access::Typed | Access::Probed => true,
        Access::Classifier | Access::Entry | Access::Exit | Access::Filter(_) | Access::Kprobe => false,
    })
}

/// The kernel functions of a feature's hooks whose ids are needed.
pub fn functions(hooks: &[Hook]) -> impl Iterator<Item = &'static str> {
    named(hooks, |access| match access {
        Access::Entry | Access::Exit => true,
        Access::Typed | Access::Probed | Access::Classifier | Access::Filter(_) | Access::Kprobe => false,
    })
}

fn named(hooks: &[Hook], by: fn(Access) -> bool) -> impl Iterator<Item = &'static str> {
    hooks
        .iter()
        .flat_map(|hook| hook.programs)
        .filter(move |program| by(program.access))
        .map(|program| program.tracepoint)
}
