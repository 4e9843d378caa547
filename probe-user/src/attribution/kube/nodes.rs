//! The owner of an address: the cluster's nodes, listed when an unknown address is seen.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::object::Host;
use crate::model::{Node, Owner, owner::NodeSource};

/// How often nodes are listed at the most: the list of a large cluster is long, and every node asks for it.
const EVERY: Duration = Duration::from_secs(60);
/// The longest time between two lists. It doubles with each that has nothing new: addresses outside the cluster stay unknown.
const LONGEST: Duration = Duration::from_secs(600);

/// Addresses → nodes.
#[derive(Debug, Default)]
pub struct Nodes {
    by_address: HashMap<IpAddr, Arc<Owner>>,
    listed: Option<Instant>,
    /// Until the next.
    wait: Duration,
}

impl Nodes {
    pub fn find(&self, address: IpAddr) -> Option<&Arc<Owner>> {
        self.by_address.get(&address)
    }

    /// Whether it is time to list them for an address that is not known.
    pub fn is_due(&self, now: Instant) -> bool {
        self.listed
            .is_none_or(|listed| now.duration_since(listed) >= self.wait)
    }

    /// Notes that they are being listed.
    pub fn asked(&mut self, now: Instant) {
        self.listed = Some(now);
        self.wait = (self.wait * 2).clamp(EVERY, LONGEST);
    }

    /// Takes all that there are, by their internal and external addresses.
    pub fn list(&mut self, hosts: Vec<Host>) {
        let before = std::mem::take(&mut self.by_address);
        for host in hosts {
            let owner = Arc::new(Owner {
                node: Some(Node {
                    name: host.name,
                    source: NodeSource::KubeApi,
                }),
                ..Owner::default()
            });
            for address in host.addresses {
                self.by_address.insert(address, Arc::clone(&owner));
            }
        }
        let has_new = self
            .by_address
            .keys()
            .any(|address| !before.contains_key(address));
        if has_new {
            self.wait = EVERY;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::object::ListedNode, *};

    #[test]
    fn by_every_address() {
        let mut nodes = Nodes::default();
        let now = Instant::now();
        assert!(nodes.is_due(now));
        nodes.asked(now);
        assert!(!nodes.is_due(now) && nodes.is_due(now + EVERY));
        // Nothing new: twice as long, up to ten minutes.
        nodes.list(Vec::new());
        nodes.asked(now);
        assert!(!nodes.is_due(now + EVERY) && nodes.is_due(now + 2 * EVERY));
        for _ in 0..10 {
            nodes.asked(now);
        }
        assert!(nodes.is_due(now + LONGEST));
        let object = json!({"metadata": {"name": "beta"}, "status": {"addresses": [
            {"type": "InternalIP", "address": "192.168.88.12"},
            {"type": "InternalIP", "address": "fd88::12"},
            {"type": "Hostname", "address": "beta"},
        ]}});
        let object: ListedNode = serde_json::from_value(object).unwrap();
        nodes.list(object.host().into_iter().collect());
        assert!(nodes.is_due(now + EVERY));
        for (address, expected) in [
            ("192.168.88.12", Some("beta")),
            ("fd88::12", Some("beta")),
            ("10.244.2.2", None),
        ] {
            let found = nodes.find(address.parse().unwrap());
            let name = found
                .and_then(|owner| owner.node.as_ref())
                .map(|node| node.name.as_str());
            assert_eq!(name, expected);
        }
    }
}
