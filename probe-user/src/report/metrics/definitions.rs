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
        "TCP connections that ended, counted once per side. namespace and workload are of this side's pod, \
         or empty; port is the server's.";
    RESETS: Counter "probe_resets" ["by"; "namespace" "workload" "port"]
        "TCP connections that ended with RST, by the side that sent it: client or server. A refused connection counts as server.";
    CADENCE: Gauge "probe_half_open_cadence_seconds" [; "namespace" "workload" "port"]
        "Interval at which a source connects to this port and closes without sending data, if it is \
         regular; the latest.";
    CAUSES: Counter "probe_connections_failed_causes" ["kind"; "namespace" "workload" "port"]
        "Failed connections whose cause was seen on this node, by the kind of cause.";
    VXLAN_PACKETS: Counter "probe_vxlan_packets" ["direction"; "device" "peer"]
        "VXLAN packets on the wire, from (in) and to (out) each peer.";
    VXLAN_DROPS: Counter "probe_vxlan_drops" [; "device" "reason"]
        "VXLAN packets, outer or inner, that this node dropped, by the device they were at and the kernel's reason.";
    VXLAN_PEER_UP: Gauge "probe_vxlan_peer_up" [; "device" "peer"]
        "0 while a peer of a VXLAN device has a fault, else 1. Warnings and unverified peers are not faults.";
    UNTRACKED: Counter "probe_untracked_packets" ["intended"; "rule"]
        "Packets exempted from conntrack by a NOTRACK rule, by the rule's counter; intended: the rule is of \
         NodeLocal DNSCache or Cilium.";
    FINDINGS: Gauge "probe_findings" ["feature" "kind"; ]
        "Current faults, by feature (vxlan, bypass) and kind.";
    PART_UP: Gauge "probe_part_up" ["part"; ]
        "1 while this part of the agent runs, else 0. Disabled parts have no series.";
    LACKS: Gauge "probe_part_lacks" ["part"; ]
        "Optional hooks missing on this kernel, by part; the log names them.";
    AGGREGATED: Counter "probe_aggregated_connections" [; ]
        "TCP connections counted and not listed one by one, once per side: beyond watch.max_rate or limits.cpu.";
    LOST: Counter "probe_lost" ["part" "reason"; ]
        "Lost items (not kept or not seen), by part and reason.";
    MISSES: Counter "probe_attribution_misses" ["source"; ]
        "Unresolved names: processes, pods, listeners, translated addresses.";
    MAP_ENTRIES: Gauge "probe_map_entries" ["map"; ]
        "Entries in a table of the kernel programs.";
    MAP_CAPACITY: Gauge "probe_map_capacity" ["map"; ]
        "Maximum number of entries in that table.";
    FOREIGN: Counter "probe_foreign_connections" [; ]
        "Connections of other nodes on the same kernel, left to their agents.";
    HELD: Gauge "probe_held_connections" [; ]
        "Connections in the history.";
    FORGOTTEN: Counter "probe_forgotten_connections" ["why"; ]
        "Connections removed from the history, by reason: age, count, or too many of one source.";
    STORED: Gauge "probe_history_disk_bytes" [; ]
        "Size of the history's files, with history.directory.";
    UNSTORED: Counter "probe_unstored_connections" ["why"; ]
        "Connections in no file of the history, by reason: write (see the log), or too many of one source.";
    UNLOGGED: Counter "probe_unlogged_connections" [; ]
        "Connections not logged because of the rate limit, log.rate.";
    QUESTIONS: Counter "probe_http_requests" ["port" "status"; ]
        "HTTP requests, by port (query, metrics) and status.";
    REFUSED: Counter "probe_http_refused" ["port"; ]
        "HTTP connections refused because of the connection limit.";
    OVERFLOW: Counter "probe_series_overflow" [; ]
        "Samples counted under the label value other, beyond metrics.max_series series.";
    PROGRAM_SECONDS: Counter "probe_program_run_seconds" ["program"; ]
        "Time that the kernel spent in each program, with metrics.program_time and while BPF statistics are \
         on.";
    PROGRAM_RUNS: Counter "probe_program_runs" ["program"; ]
        "Runs of each program.";
    BUILD: Gauge "probe_build_info" ["version" "kernel"; ]
        "1; the version of probe and the kernel it runs on.";
    MEMORY: Gauge "process_resident_memory_bytes" [; ]
        "Resident memory of the agent.";
    CPU: Counter "process_cpu_seconds" [; ]
        "CPU time the agent has used, in user space and in the kernel.";
    START: Gauge "process_start_time_seconds" [; ]
        "Start time of the agent, seconds since 1970.";
}
