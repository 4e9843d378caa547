//! Every metric of `probe agent`: docs/metrics.md is made of this.

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends with `_total`, or is the sum of something in its unit.
    Counter,
    /// As it is now.
    Gauge,
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// As Prometheus shows it, without a counter's `_total`.
    pub name: &'static str,
    pub kind: Kind,
    /// Names of labels, those that have a few values first: the others are `other` when there are too many series.
    pub labels: &'static [&'static str],
    /// How many of the labels have a few values, known beforehand.
    pub fixed: usize,
    pub what: &'static str,
}

macro_rules! definitions {
    ($($constant:ident: $kind:ident $name:literal [$($fixed:literal)*; $($label:literal)*] $what:literal;)*) => {
        $(pub static $constant: Definition = Definition {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($fixed,)* $($label,)*],
            fixed: { const FIXED: &[&str] = &[$($fixed),*]; FIXED.len() },
            what: $what,
        };)*

        /// All, in the order of the documentation.
        pub static ALL: &[&Definition] = &[$(&$constant),*];
    };
}

definitions! {
    CONNECTIONS: Counter "probe_connections" ["outcome" "role"; "namespace" "workload" "port"]
        "TCP connections that ended, each end once. namespace and workload are of this end's pod, empty where it is none's; port is the server's.";
    RESETS: Counter "probe_resets" ["by"; "namespace" "workload" "port"]
        "Those of them that ended with RST, by who sent it: client, or server, which may be a refusal.";
    CADENCE: Gauge "probe_half_open_cadence_seconds" [; "namespace" "workload" "port"]
        "How often a source connects to this port, sends nothing and closes, where it keeps a beat; the latest.";
    CAUSES: Counter "probe_connections_failed_causes" ["kind"; "namespace" "workload" "port"]
        "Failed connections whose cause was seen on this node, by the kind of cause.";
    VXLAN_PACKETS: Counter "probe_vxlan_packets" ["direction"; "device" "peer"]
        "VXLAN packets on the wire, from (in) and to (out) each peer.";
    VXLAN_DROPS: Counter "probe_vxlan_drops" [; "device" "reason"]
        "VXLAN packets, outer or inner, that this node dropped, by the device they were at and the kernel's reason.";
    VXLAN_PEER_UP: Gauge "probe_vxlan_peer_up" [; "device" "peer"]
        "0 while a peer of a VXLAN device has a fault, else 1; a warning is no fault, nor is a peer that is not verified.";
    UNTRACKED: Counter "probe_untracked_packets" ["intended"; "rule"]
        "Packets that a rule let past conntrack untracked, by its own counter; intended: it is NodeLocal DNSCache's or Cilium's.";
    FINDINGS: Gauge "probe_findings" ["feature" "kind"; ]
        "Faults found right now, by feature (vxlan, bypass) and kind.";
    PART_UP: Gauge "probe_part_up" ["part"; ]
        "1 while this part of the agent runs, 0 while it does not; those switched off are not here.";
    LACKS: Gauge "probe_part_lacks" ["part"; ]
        "How many things this kernel does not give a part that runs: what they are is in the log.";
    LOST: Counter "probe_lost" ["part" "reason"; ]
        "What could not be kept or seen, by part and reason.";
    MISSES: Counter "probe_attribution_misses" ["source"; ]
        "What could not be named: processes, pods, listeners, translated addresses.";
    MAP_ENTRIES: Gauge "probe_map_entries" ["map"; ]
        "Entries of a table that the kernel side keeps.";
    MAP_CAPACITY: Gauge "probe_map_capacity" ["map"; ]
        "How many entries it has room for.";
    FOREIGN: Counter "probe_foreign_connections" [; ]
        "Connections of other nodes on the same kernel, which are left to these.";
    HELD: Gauge "probe_held_connections" [; ]
        "Connections remembered for questions.";
    FORGOTTEN: Counter "probe_forgotten_connections" ["why"; ]
        "Connections that left the memory, by why: age, count, or that one source had too many.";
    UNLOGGED: Counter "probe_unlogged_connections" [; ]
        "Connections not logged for the rate, log.rate.";
    QUESTIONS: Counter "probe_http_requests" ["port" "status"; ]
        "HTTP requests, by port (query, metrics) and status.";
    REFUSED: Counter "probe_http_refused" ["port"; ]
        "HTTP connections refused because there were too many.";
    OVERFLOW: Counter "probe_series_overflow" [; ]
        "Samples counted under the label value other, because there were metrics.max_series series.";
    PROGRAM_SECONDS: Counter "probe_program_run_seconds" ["program"; ]
        "Time the kernel spent in a program of probe's, with metrics.program_time, and while bpf statistics are on.";
    PROGRAM_RUNS: Counter "probe_program_runs" ["program"; ]
        "How often the kernel ran it.";
    BUILD: Gauge "probe_build_info" ["version" "kernel"; ]
        "1; the version of probe and the kernel it runs on.";
    MEMORY: Gauge "process_resident_memory_bytes" [; ]
        "Resident memory of the agent.";
    CPU: Counter "process_cpu_seconds" [; ]
        "CPU time the agent has used, in user space and in the kernel.";
    START: Gauge "process_start_time_seconds" [; ]
        "When the agent began, seconds since 1970.";
}
