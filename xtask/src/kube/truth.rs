//! What the cluster itself says: which pod had which address and port, and what its node made of that.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Result};
use serde_json::Value;

/// A pod as `kubectl get pods -o wide` has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pod {
    pub name: String,
    pub node: String,
    /// The first part of its name: what made it.
    pub workload: String,
}

/// The pods of `kubectl get pods -o json`.
pub fn pods(json: &str) -> Result<Vec<Pod>> {
    let list: Value = serde_json::from_str(json).context("kubectl's pods are not JSON")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let items = list["items"].as_array().into_iter().flatten();
    let pods = items.map(|item| {
        Some(Pod {
            name: text(&item["metadata"]["name"])?,
            node: text(&item["spec"]["nodeName"])?,
            workload: text(&item["metadata"]["labels"]["app"])?,
        })
    });
    pods.collect::<Option<_>>()
        .context("a pod without name, node or label")
}

/// The addresses that a pod says it dialled from.
pub fn dialled(log: &str) -> impl Iterator<Item = SocketAddr> {
    log.lines()
        .filter_map(|line| line.strip_prefix("dialled from ")?.parse().ok())
}

/// What the node's conntrack says it made of each address, from `conntrack -E`: original source → what the server sees.
pub fn translations(events: &str) -> HashMap<SocketAddr, HashSet<SocketAddr>> {
    let mut translations = HashMap::<_, HashSet<_>>::new();
    for line in events.lines() {
        let values = |key: &'static str| {
            line.split_whitespace()
                .filter_map(move |word| word.strip_prefix(key)?.strip_prefix('='))
        };
        let end = |address: Option<&str>, port: Option<&str>| {
            let address: IpAddr = address?.parse().ok()?;
            Some(SocketAddr::new(address, port?.parse().ok()?))
        };
        // The first of each is the original direction's, the second the reply's.
        let original = end(values("src").next(), values("sport").next());
        let seen_as = end(values("dst").nth(1), values("dport").nth(1));
        if let (Some(original), Some(seen_as)) = (original, seen_as) {
            translations.entry(original).or_default().insert(seen_as);
        }
    }
    translations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conntrack_events() {
        let events = "    [NEW] tcp      6 120 SYN_SENT src=10.244.2.5 dst=10.96.6.144 sport=41234 dport=2379 [UNREPLIED] \
            src=192.168.88.11 dst=192.168.88.12 sport=2379 dport=26278\nnonsense src=x\n";
        let found = translations(events);
        let seen_as = &found[&"10.244.2.5:41234".parse().unwrap()];
        assert_eq!(
            seen_as.iter().copied().collect::<Vec<_>>(),
            ["192.168.88.12:26278".parse().unwrap()]
        );
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn logs_of_pods() {
        let log = "hello\ndialled from 10.244.2.5:41234\ndialled from nowhere\n";
        assert_eq!(
            dialled(log).collect::<Vec<_>>(),
            ["10.244.2.5:41234".parse().unwrap()]
        );
    }
}
