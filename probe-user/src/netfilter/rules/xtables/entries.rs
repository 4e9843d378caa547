//! The entries of a table: `struct ipt_entry` and `struct ip6t_entry`, one after the other, in the machine's own byte order.
//!
//! These structures are the kernel's interface to iptables and don't change.

use std::ops::Range;

use crate::netfilter::{
    link::text,
    rules::{Family, model::Hook, netlink::Extension},
};

/// `struct ipt_getinfo`: the name, the hooks, where each hook's chain begins and where its policy is, how many entries, how many
/// bytes.
pub(super) const INFO: usize = 32 + 4 + 4 * HOOKS + 4 * HOOKS + 4 + 4;
/// `struct ipt_get_entries` without the entries: the name, the size, and what aligns to eight bytes.
pub(super) const HEADER: usize = 40;
const HOOKS: usize = 5;
/// By the kernel's numbers.
const HOOK_NAMES: [Hook; HOOKS] = [
    Hook::Prerouting,
    Hook::Input,
    Hook::Forward,
    Hook::Output,
    Hook::Postrouting,
];
/// Packets and bytes.
const COUNTERS: usize = 16;
/// `struct xt_entry_target` and `struct xt_entry_match` without their data: size, name, revision.
const EXTENSION: usize = 32;
const EXTENSION_NAME: Range<usize> = 2..31;
/// What a target without a name holds: a verdict, or where to jump.
pub(super) const STANDARD: &str = "";
/// The target of an entry that heads a chain, whose name it has; and of the one behind all.
const HEAD: &str = "ERROR";

/// What the kernel says of a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Info {
    hooks: u32,
    begins: [u32; HOOKS],
    policies: [u32; HOOKS],
    pub(super) entries: u32,
    pub(super) size: u32,
}

impl Info {
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| long(bytes, 32 + 4 * at);
        let several = |first: usize| -> Option<[u32; HOOKS]> {
            let mut numbers = [0; HOOKS];
            for (place, found) in numbers.iter_mut().enumerate() {
                *found = number(first + place)?;
            }
            Some(numbers)
        };
        Some(Self {
            hooks: number(0)?,
            begins: several(1)?,
            policies: several(1 + HOOKS)?,
            entries: number(1 + 2 * HOOKS)?,
            size: number(2 + 2 * HOOKS)?,
        })
    }
}

/// A table as the kernel hands it out.
#[derive(Debug)]
pub(super) struct Blob {
    pub(super) family: Family,
    pub(super) info: Info,
    bytes: Vec<u8>,
}

/// A chain, with its entries.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) rules: Vec<Entry>,
    /// Where its first entry is: jumps to it lead there.
    pub(super) begin: usize,
    /// Of a chain at a hook.
    pub(super) policy: Option<Entry>,
}

/// Where an entry is, and what it counted.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    place: Range<usize>,
    /// Where its target is, in the entry.
    target: usize,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Entry {
    /// Where the next one is.
    pub(super) const fn end(&self) -> usize {
        self.place.end
    }
}

impl Blob {
    pub(super) fn new(family: Family, info: Info, mut bytes: Vec<u8>) -> Self {
        bytes.drain(..HEADER.min(bytes.len()));
        Self { family, info, bytes }
    }

    /// Where in an entry the fields are that all entries have: the place of the target, that of the next entry, and the counters.
    const fn layout(&self) -> (usize, usize, usize) {
        match self.family {
            Family::Ip6 => (140, 142, 152),
            Family::Ip | Family::Inet | Family::Netdev | Family::Bridge => (88, 90, 96),
        }
    }

    /// The entries, up to one that is malformed.
    fn entries(&self) -> impl Iterator<Item = Entry> {
        let (target_at, next_at, counters_at) = self.layout();
        let mut begin = 0;
        std::iter::from_fn(move || {
            let rest = self.bytes.get(begin..)?;
            let target = usize::from(short(rest, target_at)?);
            let length = usize::from(short(rest, next_at)?);
            let counter = |at: usize| Some(u64::from_ne_bytes(*rest.get(at..)?.first_chunk()?));
            let (packets, bytes) = (counter(counters_at)?, counter(counters_at + COUNTERS / 2)?);
            let is_sound =
                target >= counters_at + COUNTERS && length >= target + EXTENSION && length <= rest.len();
            let place = begin..begin + length;
            begin += length;
            is_sound.then_some(Entry {
                place,
                target,
                packets,
                bytes,
            })
        })
    }

    /// All but the counters.
    pub(super) fn without_counters(&self, mut each: impl FnMut(&[u8])) {
        let (.., counters_at) = self.layout();
        for entry in self.entries() {
            let bytes = self.bytes.get(entry.place).unwrap_or_default();
            each(bytes.get(..counters_at).unwrap_or_default());
            each(bytes.get(counters_at + COUNTERS..).unwrap_or_default());
        }
    }

    /// The chains; `None` if the table isn't made as iptables makes it.
    pub(super) fn chains(&self) -> Option<Vec<Chain>> {
        let mut chains: Vec<Chain> = Vec::new();
        let at_hook = |offsets: &[u32; HOOKS], begin: usize| {
            let hook = offsets.iter().enumerate().find(|(hook, offset)| {
                self.info.hooks >> hook & 1 == 1 && usize::try_from(**offset) == Ok(begin)
            });
            hook.map(|(hook, _)| hook)
        };
        for entry in self.entries() {
            if let Some(hook) = at_hook(&self.info.begins, entry.place.start) {
                chains.push(Chain {
                    name: HOOK_NAMES.get(hook)?.name().to_ascii_uppercase(),
                    rules: Vec::new(),
                    begin: entry.place.start,
                    policy: None,
                });
            }
            let target = self.target(&entry)?;
            if target.name == HEAD {
                chains.push(Chain {
                    name: text(&target.options),
                    rules: Vec::new(),
                    begin: entry.end(),
                    policy: None,
                });
                continue;
            }
            let chain = chains.last_mut()?;
            if at_hook(&self.info.policies, entry.place.start).is_some() {
                chain.policy = Some(entry);
            } else {
                chain.rules.push(entry);
            }
        }
        // The last one heads nothing. A chain that was added ends with a rule of the kernel's: to return.
        let last = chains.pop()?;
        if last.name != HEAD || !last.rules.is_empty() {
            return None;
        }
        for chain in chains.iter_mut().filter(|chain| chain.policy.is_none()) {
            let end = chain.rules.pop()?;
            if self.target(&end)?.name != STANDARD {
                return None;
            }
        }
        Some(chains)
    }

    pub(super) fn bytes(&self, entry: &Entry) -> Option<&[u8]> {
        self.bytes.get(entry.place.clone())
    }

    pub(super) fn target(&self, entry: &Entry) -> Option<Extension> {
        extension(self.bytes(entry)?.get(entry.target..)?)
    }

    /// The matches of an entry; `None` if one is malformed.
    pub(super) fn matches(&self, entry: &Entry) -> Option<Vec<Extension>> {
        let (.., counters_at) = self.layout();
        let mut rest = self.bytes(entry)?.get(counters_at + COUNTERS..entry.target)?;
        let mut matches = Vec::new();
        while !rest.is_empty() {
            let length = usize::from(short(rest, 0)?);
            matches.push(extension(rest.get(..length)?)?);
            rest = rest.get(length..)?;
        }
        Some(matches)
    }
}

/// A match or a target.
fn extension(bytes: &[u8]) -> Option<Extension> {
    Some(Extension {
        name: text(bytes.get(EXTENSION_NAME)?),
        revision: (*bytes.get(EXTENSION_NAME.end)?).into(),
        options: bytes.get(EXTENSION..)?.to_vec(),
    })
}

pub(super) fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
