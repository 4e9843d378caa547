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
    /// With the header before the entries: to leave it out, a large table would be copied.
    bytes: Vec<u8>,
}

/// A chain.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) name: String,
    /// Where its first entry is: jumps to it lead there.
    pub(super) begin: usize,
    /// Where its rules end.
    end: usize,
    /// Of a chain at a hook, the entry that is its policy.
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
    pub(super) fn new(family: Family, info: Info, bytes: Vec<u8>) -> Self {
        Self { family, info, bytes }
    }

    /// The entries' bytes, of which places are counted.
    fn content(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
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
        self.entries_in(0..self.content().len())
    }

    /// Those that begin in a place where one begins.
    fn entries_in(&self, place: Range<usize>) -> impl Iterator<Item = Entry> {
        let (target_at, next_at, counters_at) = self.layout();
        let mut begin = place.start;
        std::iter::from_fn(move || {
            if begin >= place.end {
                return None;
            }
            let rest = self.content().get(begin..)?;
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
        let mut begin = 0;
        for entry in self.entries() {
            let counters = entry.place.start + counters_at;
            each(self.content().get(begin..counters).unwrap_or_default());
            begin = counters + COUNTERS;
        }
        each(self.content().get(begin..).unwrap_or_default());
    }

    /// The rules of a chain, in their order.
    pub(super) fn rules(&self, chain: &Chain) -> impl Iterator<Item = Entry> {
        self.entries_in(chain.begin..chain.end)
    }

    /// The chains; `None` if the table isn't made as iptables makes it.
    pub(super) fn chains(&self) -> Option<Vec<Chain>> {
        let mut chains: Vec<Chain> = Vec::new();
        // Of the last chain, the entry before: one that was added ends with a rule of the kernel's, to return.
        let mut before: Option<Entry> = None;
        let at_hook = |offsets: &[u32; HOOKS], begin: usize| {
            let hook = offsets.iter().enumerate().find(|(hook, offset)| {
                self.info.hooks >> hook & 1 == 1 && usize::try_from(**offset) == Ok(begin)
            });
            hook.map(|(hook, _)| hook)
        };
        for entry in self.entries() {
            let (target, _) = self.target_name(&entry)?;
            let hook = at_hook(&self.info.begins, entry.place.start);
            let is_head = target == HEAD.as_bytes();
            if hook.is_some() || is_head {
                self.close(chains.last_mut(), before.take())?;
                let begin = if is_head { entry.end() } else { entry.place.start };
                chains.push(Chain {
                    name: match hook {
                        Some(hook) => HOOK_NAMES.get(hook)?.name().to_ascii_uppercase(),
                        None => text(&self.target(&entry)?.options),
                    },
                    begin,
                    end: begin,
                    policy: None,
                });
                if is_head {
                    continue;
                }
            }
            let chain = chains.last_mut().filter(|chain| chain.policy.is_none())?;
            if at_hook(&self.info.policies, entry.place.start).is_some() {
                chain.end = entry.place.start;
                chain.policy = Some(entry);
            } else {
                before = Some(entry);
            }
        }
        // The last one heads nothing.
        let last = chains.pop()?;
        (last.name == HEAD && before.is_none()).then_some(chains)
    }

    /// Ends a chain before the entry that was its last; `None` if that is not one as the kernel makes it.
    fn close(&self, chain: Option<&mut Chain>, last: Option<Entry>) -> Option<()> {
        if let Some(chain) = chain.filter(|chain| chain.policy.is_none()) {
            let last = last?;
            if self.target_name(&last)?.0 != STANDARD.as_bytes() {
                return None;
            }
            chain.end = last.place.start;
        }
        Some(())
    }

    pub(super) fn bytes(&self, entry: &Entry) -> Option<&[u8]> {
        self.content().get(entry.place.clone())
    }

    pub(super) fn target(&self, entry: &Entry) -> Option<Extension> {
        extension(self.target_bytes(entry)?)
    }

    fn target_bytes(&self, entry: &Entry) -> Option<&[u8]> {
        self.bytes(entry)?.get(entry.target..)
    }

    /// The target's name, which is in the table as it is, and its verdict if it is [`STANDARD`].
    pub(super) fn target_name(&self, entry: &Entry) -> Option<(&[u8], Option<i32>)> {
        let target = self.target_bytes(entry)?;
        let name = target.get(EXTENSION_NAME)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        let name = name.get(..end)?;
        let verdict = name.is_empty().then(|| long(target, EXTENSION)).flatten();
        Some((name, verdict.map(u32::cast_signed)))
    }

    /// The matches' names and options, which are in the table as they are, up to one that is malformed.
    pub(super) fn match_parts(&self, entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (.., counters_at) = self.layout();
        let all = self
            .bytes(entry)
            .and_then(|bytes| bytes.get(counters_at + COUNTERS..entry.target));
        let mut rest = all.unwrap_or_default();
        std::iter::from_fn(move || {
            let length = usize::from(short(rest, 0)?);
            let (one, behind) = rest.split_at_checked(length)?;
            rest = behind;
            let name = one.get(EXTENSION_NAME)?;
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            Some((name.get(..end)?, one.get(EXTENSION..)?))
        })
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
