//! Which chains of a table matter for packets: kube-proxy has three for each Service that only translate.

use std::collections::HashMap;

use super::{
    super::iptables,
    entries::{Blob, Chain},
};

/// `NF_DROP` and `NF_QUEUE`, as verdicts of entries have them.
const DROP: i32 = -1;
const QUEUE: i32 = -4;

/// By the places of chains in their table.
pub(super) struct Kept {
    /// Kept with their rules.
    whole: Vec<bool>,
    /// Kept at least by their names.
    heads: Vec<bool>,
}

impl Kept {
    /// All chains.
    pub(super) fn all(chains: &[Chain]) -> Self {
        Self {
            whole: vec![true; chains.len()],
            heads: vec![true; chains.len()],
        }
    }

    /// The chains from which a packet can come to a rule that drops it, or may. Of others, those are kept by their names that
    /// are at a hook, or that one of the former jumps to. `None` if the table isn't as iptables makes it.
    pub(super) fn acting(blob: &Blob, chains: &[Chain]) -> Option<Self> {
        let places: HashMap<usize, usize> = chains
            .iter()
            .enumerate()
            .map(|(place, chain)| (chain.begin, place))
            .collect();
        let mut whole = vec![false; chains.len()];
        // From a chain to one that it jumps to.
        let mut jumps: Vec<(usize, usize)> = Vec::new();
        for (place, chain) in chains.iter().enumerate() {
            let mut acts = false;
            for entry in blob.rules(chain).chain(chain.policy.clone()) {
                let (target, verdict) = blob.target_name(&entry)?;
                match verdict {
                    Some(DROP | QUEUE) => acts = true,
                    Some(verdict) => {
                        let to = usize::try_from(verdict).ok().filter(|to| *to != entry.end());
                        jumps.extend(to.and_then(|to| Some((place, *places.get(&to)?))));
                    }
                    None => acts |= std::str::from_utf8(target).map_or(true, iptables::may_act),
                }
            }
            if let Some(whole) = whole.get_mut(place) {
                *whole = acts;
            }
        }
        let mut heads: Vec<bool> = chains.iter().map(|chain| chain.policy.is_some()).collect();
        if whole.contains(&true) {
            let mut leading: HashMap<usize, Vec<usize>> = HashMap::new();
            for (from, to) in &jumps {
                leading.entry(*to).or_default().push(*from);
            }
            let mut next: Vec<usize> = (0..chains.len())
                .filter(|place| whole.get(*place) == Some(&true))
                .collect();
            while let Some(place) = next.pop() {
                for from in leading.get(&place).into_iter().flatten() {
                    if let Some(is_whole @ false) = whole.get_mut(*from) {
                        *is_whole = true;
                        next.push(*from);
                    }
                }
            }
            for (from, to) in jumps {
                if whole.get(from) == Some(&true)
                    && let Some(head) = heads.get_mut(to)
                {
                    *head = true;
                }
            }
            for (head, whole) in heads.iter_mut().zip(&whole) {
                *head |= whole;
            }
        }
        Some(Self { whole, heads })
    }

    /// The chains that are kept.
    pub(super) fn heads<'a>(&self, chains: &'a [Chain]) -> impl Iterator<Item = &'a Chain> {
        chains
            .iter()
            .zip(&self.heads)
            .filter_map(|(chain, head)| head.then_some(chain))
    }

    /// Those that are kept with their rules.
    pub(super) fn whole<'a>(&self, chains: &'a [Chain]) -> impl Iterator<Item = &'a Chain> {
        chains
            .iter()
            .zip(&self.whole)
            .filter_map(|(chain, whole)| whole.then_some(chain))
    }

    /// The names of those whose rules are left out. A packet may be accepted there; more is not done to it.
    pub(super) fn left_out<'a>(&self, chains: &'a [Chain]) -> impl Iterator<Item = &'a str> {
        let kept = chains.iter().zip(self.heads.iter().zip(&self.whole));
        kept.filter_map(|(chain, (head, whole))| {
            (*head && !whole && chain.policy.is_none()).then_some(chain.name.as_str())
        })
    }
}
