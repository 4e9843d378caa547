//! conntrack's table: how full it is, and what it could not do.

use super::{Finding, Growth, KIND, SettingsFacts, seconds};

/// Percent of the table's room.
const NEARLY: u64 = 80;
const FULL: u64 = 95;

pub(super) fn faults(seen: &SettingsFacts) -> Vec<Finding> {
    let Some(table) = seen.conntrack else {
        return Vec::new();
    };
    let mut faults = Vec::new();
    let percent = (table.entries * 100).checked_div(table.room).unwrap_or(0);
    if percent >= NEARLY {
        let says = format!(
            "conntrack's table is {percent} % full: once it is full, new connections are \
                            dropped"
        );
        let fault = if percent >= FULL {
            Finding::failed(KIND, says)
        } else {
            Finding::warning(KIND, says)
        };
        faults.push(
            fault
                .seen(format!(
                    "nf_conntrack_count {} of nf_conntrack_max {}",
                    table.entries, table.room
                ))
                .run(
                    [
                        "sysctl",
                        "-w",
                        &format!("net.netfilter.nf_conntrack_max={}", table.room.saturating_mul(2)),
                    ],
                    "permanently by conntrack.maxPerCore of kube-proxy, which sets it",
                )
                .run(["conntrack", "-L"], "shows what fills it"),
        );
    }
    let Some(counts) = table.counts else {
        return faults;
    };
    let failed = |growth: Growth, name: &str, what: &str, remedy: &str| {
        (growth.grown > 0).then(|| {
            Finding::failed(KIND, format!("{what}: {} in {}", growth.grown, seconds(seen)))
                .seen(format!("conntrack -S: {name} {} since boot", growth.total))
                .advise(remedy)
        })
    };
    // `drop` counts those as well whose entry could not be inserted (nf_conntrack_confirm): room would not help them.
    let no_room = Growth {
        total: counts.drop.total.saturating_sub(counts.insert_failed.total),
        grown: counts.drop.grown.saturating_sub(counts.insert_failed.grown),
    };
    faults.extend(failed(
        no_room,
        "drop without insert_failed",
        "conntrack drops packets: its table is full",
        "Enlarge the table: raise nf_conntrack_max.",
    ));
    faults.extend(failed(
        counts.early_drop,
        "early_drop",
        "conntrack evicts live connections: its table is full",
        "Enlarge the table: raise nf_conntrack_max.",
    ));
    // Now and then one is lost on any busy node: the packet is dropped, and sent again.
    if counts.insert_failed.grown > 0 {
        faults.push(
            Finding::warning(KIND, format!(
                "conntrack dropped {} packets in {}: their entries clash with another connection's \
                 addresses and ports",
                counts.insert_failed.grown,
                seconds(seen)
            ))
            .seen(format!("conntrack -S: insert_failed {} since boot", counts.insert_failed.total))
            .advise(
                "If these are TCP connections to one server, masquerade has no free source port left towards it: widen its port \
                 range (--to-ports), add addresses, or close idle connections. probe path names the port.",
            )
            .advise(
                "If these are DNS queries, set the options single-request-reopen or use-vc in the pods' dnsConfig, or run NodeLocal \
                 DNSCache.",
            ),
        );
    }
    faults
}
