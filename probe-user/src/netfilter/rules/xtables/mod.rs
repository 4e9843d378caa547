//! The tables of iptables-legacy, read from the kernel (x_tables) by getsockopt, as iptables-legacy-save reads them.
//!
//! The kernel hands out a table only as a whole. So what is read is never more than a table at a time, and freed at once.

mod entries;
mod kept;
mod kube;
mod save;
mod socket;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hasher as _},
    io,
    time::{Duration, Instant},
};

use self::{
    entries::{Blob, Info},
    kept::Kept,
    socket::Socket,
};
use super::{CandidateRule, Family, RulePosition, Tool, iptables, model::Table, netlink::is_notrack};
use crate::{
    host::proc_net::ProcNet,
    model::bypass::service::Service,
    netfilter::services::{self, iptables::Collector},
};

/// The families that have such tables.
const FAMILIES: [Family; 2] = [Family::Ip, Family::Ip6];
/// More tables than the kernel has for a family.
const TABLES: usize = 16;

/// A larger table is not compared each time, but only when its size changed, or after some time.
const LARGE: u32 = 4 << 20;
/// For so many times as long as comparing it takes: half a percent of a core.
const REST: u32 = 200;
/// But for no longer than this.
const LONGEST: Duration = Duration::from_secs(30);
/// Changes of rules are found within this time, where nothing else is reported.
const SOON: Duration = Duration::from_secs(10);

/// Distinguishes the content of a table from what it was before, counters aside. x_tables has no number for that.
#[derive(Debug, Clone)]
pub(super) struct TableFingerprint {
    family: Family,
    name: String,
    info: Info,
    /// `None`: not known.
    content: Option<Content>,
}

#[derive(Debug, Clone)]
struct Content {
    hash: u64,
    /// When it was that, and how long it took to see.
    at: Instant,
    took: Duration,
}

impl PartialEq for TableFingerprint {
    fn eq(&self, other: &Self) -> bool {
        let hash = |table: &Self| table.content.as_ref().map(|content| content.hash);
        (self.family, &self.name, &self.info) == (other.family, &other.name, &other.info)
            && hash(self) == hash(other)
    }
}

impl Eq for TableFingerprint {}

impl TableFingerprint {
    fn of(blob: &Blob, name: &str, begun: Instant) -> Self {
        let mut hasher = DefaultHasher::new();
        blob.without_counters(|part| hasher.write(part));
        Self {
            family: blob.family,
            name: name.to_owned(),
            info: blob.info.clone(),
            content: Some(Content {
                hash: hasher.finish(),
                at: begun,
                took: begun.elapsed(),
            }),
        }
    }

    /// Has it be from so long ago.
    #[cfg(test)]
    pub(super) fn age(&mut self, by: Duration) {
        let content = self.content.as_mut().unwrap();
        content.at = content.at.checked_sub(by).unwrap();
    }

    fn is_of(&self, family: Family, name: &str) -> bool {
        self.family == family && self.name == name
    }

    /// Takes what the table had when its rules were read, if that was not known before and it has the same size still.
    pub(super) fn settle(&mut self, read: &[Self]) {
        let mut read = read.iter();
        if self.content.is_none()
            && let Some(read) =
                read.find(|read| read.is_of(self.family, &self.name) && read.info == self.info)
        {
            self.content.clone_from(&read.content);
        }
    }

    /// Says, in a sentence, that a change may not have been found yet.
    pub(super) fn unread(&self) -> Option<String> {
        let is_old = self
            .content
            .as_ref()
            .is_some_and(|content| content.at.elapsed() > SOON);
        (self.info.size > LARGE && is_old).then(|| {
            format!(
                "a replacement of table {} of {} by one of the same size is found after up to {} s: to compare its {} MB takes CPU time",
                self.name,
                Tool::IptablesLegacy.name(self.family),
                LONGEST.as_secs(),
                self.info.size >> 20
            )
        })
    }
}

/// What is in the tables of one family.
#[derive(Debug, Default)]
pub(super) struct LegacyRules {
    /// Of table nat, chains that can only translate are left out.
    pub(super) tables: Vec<Table>,
    pub(super) services: Vec<Service>,
    pub(super) fingerprints: Vec<TableFingerprint>,
}

/// Reads the tables of the calling thread's network namespace.
///
/// # Errors
/// A sentence, when the kernel doesn't hand one out, or it isn't as iptables makes it.
pub(super) fn read(family: Family) -> Result<LegacyRules, String> {
    let mut read = LegacyRules::default();
    let mut services = Collector::default();
    for name in names(family) {
        let begun = Instant::now();
        let blob = blob(family, &name)?;
        read.fingerprints.push(TableFingerprint::of(&blob, &name, begun));
        let understood = add(&blob, &name, &mut read.tables, &mut services);
        understood.ok_or_else(|| format!("the table {name} of iptables-legacy can't be understood"))?;
    }
    read.services = services.finish();
    Ok(read)
}

fn add(blob: &Blob, name: &str, tables: &mut Vec<Table>, services: &mut Collector) -> Option<()> {
    let chains = blob.chains()?;
    let names: HashMap<usize, &str> = chains
        .iter()
        .map(|chain| (chain.begin, chain.name.as_str()))
        .collect();
    if let Some(any) = services::any(blob.family) {
        kube::collect(blob, &chains, &names, any, services);
    }
    let kept = match name {
        "nat" => Kept::acting(blob, &chains)?,
        _ => Kept::all(&chains),
    };
    let text = save::save(blob, name, &chains, &names, &kept)?;
    let mut read = iptables::tables(Tool::IptablesLegacy, blob.family, &text);
    for table in &mut read {
        for chain in kept.left_out(&chains) {
            table.leave_open(chain);
        }
    }
    tables.append(&mut read);
    Some(())
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

/// All tables of the calling thread's network namespace; `before`: the same, some time ago.
///
/// # Errors
/// A sentence, when the kernel doesn't hand one out.
pub(super) fn fingerprint(before: &[TableFingerprint]) -> Result<Vec<TableFingerprint>, String> {
    let mut tables = Vec::new();
    for family in FAMILIES {
        for name in names(family) {
            let begun = Instant::now();
            let info = info(family, &name)?;
            let is_large = info.size > LARGE;
            let same = before
                .iter()
                .find(|table| table.is_of(family, &name) && table.info == info);
            let known = same.and_then(|table| table.content.as_ref());
            let is_rested = |content: &&Content| content.at.elapsed() < (content.took * REST).min(LONGEST);
            let content = known.filter(is_rested).cloned();
            tables.push(match (is_large, known, content) {
                // It is read with the rules.
                (true, None, _) => TableFingerprint {
                    family,
                    name,
                    info,
                    content: None,
                },
                (true, Some(_), Some(content)) => TableFingerprint {
                    family,
                    name,
                    info,
                    content: Some(content),
                },
                (true, Some(_), None) | (false, ..) => {
                    TableFingerprint::of(&blob(family, &name)?, &name, begun)
                }
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
        let mut rules = chains.iter().flat_map(|chain| blob.rules(chain));
        if rules.any(|rule| blob.target(&rule).is_none_or(|target| is_notrack(&target))) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All chains of all tables, as `iptables-legacy-save -c` or `ip6tables-legacy-save -c` writes them.
#[cfg(test)]
pub(super) fn save(family: Family) -> String {
    let tables = names(family).into_iter().map(|name| {
        let blob = blob(family, &name).unwrap();
        let chains = blob.chains().unwrap();
        let names = chains.iter().map(|chain| (chain.begin, chain.name.as_str()));
        save::save(&blob, &name, &chains, &names.collect(), &Kept::all(&chains)).unwrap()
    });
    tables.collect()
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
                blob.rules(chain).nth(place)?
            }
            RulePosition::Policy => chain.policy.clone()?,
            RulePosition::Handle(_) => return None,
        };
        Some(Some(entry.packets))
    };
    let counters: Option<Vec<_>> = rules.iter().map(counter).collect();
    counters.ok_or_else(|| format!("the rules of table {} changed meanwhile", first.table))
}

fn blob(family: Family, name: &str) -> Result<Blob, String> {
    let read = Socket::open(family).and_then(|socket| socket.table(name));
    read.map_err(|error| explained(name, &error))
}

fn info(family: Family, name: &str) -> Result<Info, String> {
    let read = Socket::open(family).and_then(|socket| socket.info(name));
    read.map_err(|error| explained(name, &error))
}

fn explained(name: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "reading the kernel's tables of iptables-legacy needs CAP_NET_ADMIN".to_owned(),
        _ => format!("the kernel's table {name} of iptables-legacy can't be read: {error}"),
    }
}
