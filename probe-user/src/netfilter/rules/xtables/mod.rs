//! The tables of iptables-legacy, read from the kernel (x_tables) by getsockopt, as iptables-legacy-save reads them.
//!
//! The kernel hands out a table only as a whole. So what is read is never more than a table at a time, and freed at once.

mod entries;
mod save;
mod socket;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use self::{entries::Blob, socket::Socket};
use super::{CandidateRule, Family, RulePosition, netlink::is_notrack};
use crate::host::proc_net::ProcNet;

/// The families that have such tables.
const FAMILIES: [Family; 2] = [Family::Ip, Family::Ip6];
/// More tables than the kernel has for a family.
const TABLES: usize = 16;

/// Distinguishes the content of a table from what it was before, counters aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableFingerprint {
    family: Family,
    name: String,
    entries: u32,
    size: u32,
    hash: u64,
}

/// The tables that the kernel has for iptables-legacy, by name. Only naming another one would put it in use.
pub(super) fn names(family: Family) -> Vec<String> {
    let file = match family {
        Family::Ip6 => "ip6_tables_names",
        Family::Ip | Family::Inet | Family::Netdev | Family::Bridge => "ip_tables_names",
    };
    let names = ProcNet::own().text(file).unwrap_or_default();
    let mut names: Vec<String> = names.split_whitespace().take(TABLES).map(str::to_owned).collect();
    // Their order is that in which they were used first.
    names.sort();
    names
}

/// All tables of the calling thread's network namespace.
///
/// # Errors
/// A sentence, when the kernel doesn't hand one out.
pub(super) fn fingerprint() -> Result<Vec<TableFingerprint>, String> {
    let mut tables = Vec::new();
    for family in FAMILIES {
        for name in names(family) {
            let blob = blob(family, &name)?;
            let mut hasher = DefaultHasher::new();
            blob.info.hash(&mut hasher);
            blob.without_counters(|part| hasher.write(part));
            tables.push(TableFingerprint {
                family,
                entries: blob.info.entries,
                size: blob.info.size,
                hash: hasher.finish(),
                name,
            });
        }
    }
    Ok(tables)
}

/// Whether a rule exempts packets from conntrack, which only table raw may.
///
/// # Errors
/// A sentence, when the kernel doesn't hand the table out, or it isn't as iptables makes it.
pub(super) fn has_notrack() -> Result<bool, String> {
    const RAW: &str = "raw";
    for family in FAMILIES {
        if !names(family).iter().any(|name| name == RAW) {
            continue;
        }
        let blob = blob(family, RAW)?;
        let chains = blob
            .chains()
            .ok_or_else(|| format!("the table {RAW} can't be understood"))?;
        let mut rules = chains.iter().flat_map(|chain| &chain.rules);
        if rules.any(|rule| blob.target(rule).is_none_or(|target| is_notrack(&target))) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The tables of the calling thread's network namespace, as `iptables-legacy-save -c` or `ip6tables-legacy-save -c` writes them.
///
/// # Errors
/// A sentence, when the kernel doesn't hand one out, or it isn't as iptables makes it.
pub(super) fn save(family: Family) -> Result<String, String> {
    let mut text = String::new();
    for name in names(family) {
        let blob = blob(family, &name)?;
        let table = save::save(&blob, &name);
        text.push_str(
            &table.ok_or_else(|| format!("the table {name} of iptables-legacy can't be understood"))?,
        );
    }
    Ok(text)
}

/// Counters of rules of one table, read anew, in the order of `rules`.
///
/// # Errors
/// A sentence, when the kernel doesn't tell them, or has other rules by now.
pub(super) fn counters(rules: &[&CandidateRule]) -> Result<Vec<Option<u64>>, String> {
    let Some(first) = rules.first() else {
        return Ok(Vec::new());
    };
    let blob = blob(first.family, &first.table)?;
    let chains = blob
        .chains()
        .ok_or_else(|| format!("the table {} can't be understood", first.table))?;
    let counter = |rule: &&CandidateRule| {
        let chain = chains.iter().find(|chain| chain.name == rule.chain)?;
        let entry = match rule.place {
            RulePosition::Position(position) => {
                let place = usize::try_from(position).ok()?.checked_sub(1)?;
                chain.rules.get(place)?
            }
            RulePosition::Policy => chain.policy.as_ref()?,
            RulePosition::Handle(_) => return None,
        };
        Some(Some(entry.packets))
    };
    let counters: Option<Vec<_>> = rules.iter().map(counter).collect();
    counters.ok_or_else(|| format!("the rules of table {} changed meanwhile", first.table))
}

fn blob(family: Family, name: &str) -> Result<Blob, String> {
    let read = Socket::open(family).and_then(|socket| socket.table(name));
    read.map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => "reading the kernel's tables of iptables-legacy needs CAP_NET_ADMIN".to_owned(),
        _ => format!("the kernel's table {name} of iptables-legacy can't be read: {error}"),
    })
}
