//! Messages of kubelet and the kernel that report a fault, with the check it belongs to.
//!
//! They are evidence, not a verdict: a fault in a line of the past hour may be over, and each check verifies for itself
//! what is wrong.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Check;

/// Messages shown for one check.
const TOLD: usize = 3;
/// Characters shown of a message.
const LETTERS: usize = 240;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub time: Timestamp,
    /// Anybody may have written it.
    pub message: String,
    /// The kernel says it, not kubelet.
    pub kernel: bool,
}

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Kubelet,
    Kernel,
}

/// A kind of message: all these words are in it.
struct KnownMessage(Check, By, &'static [&'static str]);

/// The first that fits counts.
const KNOWN: [KnownMessage; 33] = {
    use By::{Kernel, Kubelet};
    use Check::{Bridge, Dns, Etcd, Node, Settings};
    [
        KnownMessage(Bridge, Kubelet, &["already has an IP address different from"]),
        KnownMessage(
            Bridge,
            Kubelet,
            &["failed to allocate for range", "no IP addresses available"],
        ),
        KnownMessage(Bridge, Kubelet, &["failed to set bridge addr"]),
        KnownMessage(Bridge, Kubelet, &["loadFlannelSubnetEnv failed"]),
        KnownMessage(Bridge, Kubelet, &["subnet.env: no such file"]),
        KnownMessage(Bridge, Kubelet, &["failed to find plugin"]),
        KnownMessage(Bridge, Kubelet, &["cni config uninitialized"]),
        KnownMessage(Bridge, Kubelet, &["cni plugin not initialized"]),
        KnownMessage(Dns, Kubelet, &["Nameserver limits", "exceeded"]),
        KnownMessage(Dns, Kubelet, &["Search Line limits", "exceeded"]),
        KnownMessage(Etcd, Kubelet, &["etcdserver: "]),
        KnownMessage(
            Node,
            Kubelet,
            &["x509: certificate has expired or is not yet valid"],
        ),
        KnownMessage(Node, Kubelet, &["certificate signed by unknown authority"]),
        KnownMessage(Node, Kubelet, &["x509: certificate is valid for", "not"]),
        KnownMessage(Node, Kubelet, &["x509: cannot validate certificate"]),
        KnownMessage(
            Node,
            Kubelet,
            &["part of the existing bootstrap client certificate", "expired"],
        ),
        KnownMessage(Node, Kubelet, &["unable to load bootstrap kubeconfig"]),
        KnownMessage(Node, Kubelet, &["failed to run Kubelet"]),
        KnownMessage(Node, Kubelet, &["Unable to register node"]),
        // Only about the API: kubelet reports pods' probes in the same words.
        KnownMessage(Node, Kubelet, &["/api", "connection refused"]),
        KnownMessage(Node, Kubelet, &["/api", "i/o timeout"]),
        KnownMessage(Node, Kubelet, &["/api", "no route to host"]),
        KnownMessage(Node, Kubelet, &["/api", "no such host"]),
        KnownMessage(Node, Kubelet, &["/api", "TLS handshake timeout"]),
        KnownMessage(Node, Kubelet, &["/api", "connection reset by peer"]),
        KnownMessage(Node, Kubelet, &["Unauthorized"]),
        KnownMessage(Node, Kubelet, &["Unable to", "rejected"]),
        KnownMessage(Node, Kubelet, &["Server rejected event"]),
        KnownMessage(Node, Kubelet, &["node \"", "\" not found"]),
        KnownMessage(Node, Kubelet, &["PLEG is not healthy"]),
        KnownMessage(Settings, Kernel, &["nf_conntrack: table full, dropping packet"]),
        KnownMessage(Settings, Kernel, &["neighbor table overflow"]),
        KnownMessage(Settings, Kernel, &["nf_conntrack: default automatic helper"]),
    ]
};

/// The check whose fault a message reports, and its place in the table.
fn of(entry: &LogEntry) -> Option<(Check, usize)> {
    let by = if entry.kernel { By::Kernel } else { By::Kubelet };
    // An error in kubelet's messages is in quotes, and so its own quotes are quoted.
    let message = entry.message.replace("\\\"", "\"");
    KNOWN
        .iter()
        .enumerate()
        .find(|(_, KnownMessage(_, who, words))| {
            *who == by && words.iter().all(|word| message.contains(word))
        })
        .map(|(place, KnownMessage(check, ..))| (*check, place))
}

/// For each check what the log says of it: the newest first, each kind of message once.
pub fn tell(entries: &[LogEntry]) -> BTreeMap<Check, Vec<String>> {
    let mut kinds: BTreeMap<(Check, usize), (usize, &LogEntry)> = BTreeMap::new();
    for entry in entries {
        let Some(key) = of(entry) else { continue };
        let (times, last) = kinds.entry(key).or_insert((0, entry));
        *times += 1;
        if entry.time > last.time {
            *last = entry;
        }
    }
    let mut found: BTreeMap<Check, Vec<(usize, &LogEntry)>> = BTreeMap::new();
    for ((check, _), kind) in kinds {
        found.entry(check).or_default().push(kind);
    }
    found
        .into_iter()
        .map(|(check, mut kinds)| {
            kinds.sort_by_key(|(_, last)| std::cmp::Reverse(last.time));
            let told = kinds.into_iter().take(TOLD);
            (check, told.map(|(times, last)| line(times, last)).collect())
        })
        .collect()
}

fn line(times: usize, last: &LogEntry) -> String {
    let who = if last.kernel { "the kernel's" } else { "kubelet's" };
    let times = match times {
        1 => "once,".to_owned(),
        times => format!("{times} times, last"),
    };
    let message: String = last.message.chars().take(LETTERS).collect();
    format!(
        "in {who} log {times} at {}: {message}",
        last.time.strftime("%F %T UTC")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(second: i64, message: &str, kernel: bool) -> LogEntry {
        LogEntry {
            time: Timestamp::from_second(1_795_744_000 + second).unwrap(),
            message: message.to_owned(),
            kernel,
        }
    }

    #[test]
    fn whose_message_it_is() {
        for (message, kernel, check) in [
            (
                r#"failed to set bridge addr: "cni0" already has an IP address different from 10.244.1.1/24"#,
                false,
                Some(Check::Bridge),
            ),
            (
                "failed to allocate for range 0: no IP addresses available in range set: 10.244.1.1-10.244.1.254",
                false,
                Some(Check::Bridge),
            ),
            (
                "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2026-11-27T02:11:07Z is after 2026-11-26T02:11:07Z",
                false,
                Some(Check::Node),
            ),
            (
                "x509: certificate signed by unknown authority",
                false,
                Some(Check::Node),
            ),
            (
                r#"Get "https://192.168.88.11:6443/api/v1/nodes": dial tcp 192.168.88.11:6443: connect: connection refused"#,
                false,
                Some(Check::Node),
            ),
            (
                r#"Get "https://192.168.88.11:6443/apis/coordination.k8s.io/v1/leases": dial tcp 192.168.88.11:6443: i/o timeout"#,
                false,
                Some(Check::Node),
            ),
            (
                r#""Error getting node" err="node \"alpha\" not found""#,
                false,
                Some(Check::Node),
            ),
            (
                "PLEG is not healthy: pleg was last seen active 3m0s ago",
                false,
                Some(Check::Node),
            ),
            (
                "Nameserver limits were exceeded, some nameservers have been omitted",
                false,
                Some(Check::Dns),
            ),
            (
                "nf_conntrack: nf_conntrack: table full, dropping packet",
                true,
                Some(Check::Settings),
            ),
            // Somebody else says so, or of something else.
            ("nf_conntrack: table full, dropping packet", false, None),
            (
                r#""Probe failed" output="dial tcp 10.244.1.7:8080: connect: connection refused""#,
                false,
                None,
            ),
            ("x509: certificate signed by unknown authority", true, None),
            ("", false, None),
        ] {
            assert_eq!(
                of(&entry(0, message, kernel)).map(|(check, _)| check),
                check,
                "{message}"
            );
        }
    }

    #[test]
    fn three_kinds_the_newest_first() {
        let full = "nf_conntrack: table full, dropping packet";
        let log = [
            entry(1, "PLEG is not healthy", false),
            entry(9, "x509: certificate signed by unknown authority", false),
            entry(4, "x509: certificate signed by unknown authority", false),
            entry(7, "Unauthorized", false),
            entry(8, "failed to run Kubelet", false),
            entry(2, full, true),
            entry(3, "all is well", false),
        ];
        let told = tell(&log);
        assert_eq!(
            told.keys().copied().collect::<Vec<_>>(),
            [Check::Node, Check::Settings]
        );
        let node = &told[&Check::Node];
        assert_eq!(node.len(), 3);
        assert_eq!(
            node[0],
            "in kubelet's log 2 times, last at 2026-11-27 01:46:49 UTC: x509: certificate signed by unknown authority"
        );
        assert!(node[1].contains("failed to run") && node[2].contains("once, at"));
        assert!(told[&Check::Settings][0].starts_with("in the kernel's log once,"));
        let long = entry(0, &format!("Unauthorized {}", "x".repeat(9999)), false);
        assert!(tell(&[long])[&Check::Node][0].len() < 400);
    }
}
