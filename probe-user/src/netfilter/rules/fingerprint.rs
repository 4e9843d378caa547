//! Whether the rules are still those that were read: what changes with them, and costs little to read.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
#[cfg(test)]
use std::time::Duration;

use super::{
    Rules, netlink, read,
    stage::Bridges,
    xtables::{self, TableFingerprint},
};
use crate::host::proc_net::ProcNet;

/// What distinguishes the rules and Services of a network namespace from those it had before, counters aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of nf_tables: each change makes it another.
    generation: Option<u32>,
    legacy: Vec<TableFingerprint>,
    /// Of the virtual servers and their destinations.
    ipvs: u64,
    /// The names of all devices and their numbers.
    devices: u64,
}

impl Fingerprint {
    /// Takes what is known of tables from reading them.
    pub fn settle(&mut self, read: &Rules) {
        for table in &mut self.legacy {
            table.settle(read.legacy());
        }
    }

    /// Has the tables of iptables-legacy be compared so long ago.
    #[cfg(test)]
    pub(super) fn age(&mut self, by: Duration) {
        for table in &mut self.legacy {
            table.age(by);
        }
    }

    /// What may have changed unseen, in sentences.
    pub fn unread(&self) -> impl Iterator<Item = String> {
        self.legacy.iter().filter_map(TableFingerprint::unread)
    }
}

/// What was found without reading the rules.
#[derive(Debug)]
pub struct Checked {
    pub fingerprint: Fingerprint,
    bridges: Bridges,
}

/// Reads what changes with the rules of the calling thread's network namespace.
///
/// `before`: the same, some time ago.
///
/// # Errors
/// A sentence, when something can't be read, or doesn't tell whether it changed.
pub fn check(before: Option<&Fingerprint>) -> Result<Checked, String> {
    let (bridges, devices) = read::bridges()?;
    if !bridges.is_empty() && !read::ebtables_legacy_tables().is_empty() {
        return Err("the kernel doesn't tell whether rules of ebtables-legacy changed".to_owned());
    }
    let mut hasher = DefaultHasher::new();
    for device in &devices {
        (device.index, device.name.as_str()).hash(&mut hasher);
    }
    Ok(Checked {
        fingerprint: Fingerprint {
            generation: netlink::generation()?,
            legacy: xtables::fingerprint(before.map_or(&[], |before| &before.legacy))?,
            ipvs: ProcNet::own().text("ip_vs").map_or(0, |table| servers(&table)),
            devices: hasher.finish(),
        },
        bridges,
    })
}

/// Connections come and go in the columns behind the weight.
fn servers(table: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for line in table.lines() {
        for word in line.split_whitespace().take(4) {
            word.hash(&mut hasher);
        }
        b'\n'.hash(&mut hasher);
    }
    hasher.finish()
}

impl Rules {
    /// The same rules, if nothing shows that they changed: `then` is from before they were read.
    #[must_use]
    pub fn unchanged(&self, then: &Fingerprint, now: &Checked) -> Option<Self> {
        let without_devices = |fingerprint: &Fingerprint| Fingerprint {
            devices: 0,
            ..fingerprint.clone()
        };
        let is_same = if self.names_devices {
            *then == now.fingerprint
        } else {
            without_devices(then) == without_devices(&now.fingerprint)
        };
        if let Some(nat) = self
            .nat
            .as_ref()
            .filter(|_| then.devices != now.fingerprint.devices)
        {
            nat.rename_devices();
        }
        (is_same && !self.failed).then(|| Self {
            bridges: now.bridges.clone(),
            tables: self.tables.clone(),
            nat: self.nat.clone(),
            nat_hooks: self.nat_hooks.clone(),
            legacy: self.legacy.clone(),
            unread: self.unread.clone(),
            ..*self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_no_change_of_servers() {
        let table = |active: u32, weight: u32, to: &str| {
            format!(
                "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
                 -> RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  0A600001:01BB rr\n  \
                 -> {to}:192B      Masq    {weight}      {active}          0\n"
            )
        };
        let first = servers(&table(1, 1, "C0A8580B"));
        assert_eq!(servers(&table(7, 1, "C0A8580B")), first);
        assert_ne!(servers(&table(1, 0, "C0A8580B")), first);
        assert_ne!(servers(&table(1, 1, "C0A8580C")), first);
    }
}
