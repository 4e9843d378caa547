//! Owners' JSON, written once for all connections of an owner: two thirds of an object are its owner.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::model::{Owner, connection::OwnerJson};

/// Owners whose JSON is kept. More than that make new entries all the time, which costs no more than to keep none.
const SLOTS: usize = 256;

/// The owners that were written last, each in the slot of its address. Without one, no slots: tables need none.
#[derive(Default)]
pub struct OwnersJson(Vec<Option<Entry>>);

struct Entry {
    /// Kept, so that its address is no other owner's.
    owner: Arc<Owner>,
    json: OwnerJson,
}

impl OwnersJson {
    /// Makes sure that the owner's JSON is there, unless the other of one connection is in its slot.
    pub fn prepare(&mut self, owner: &Arc<Owner>, peer: Option<&Arc<Owner>>) {
        self.0.resize_with(SLOTS, || None);
        for owner in peer.into_iter().chain([owner]) {
            if self.get(owner).is_none() {
                let entry = Entry {
                    owner: Arc::clone(owner),
                    json: written(owner),
                };
                if let Some(slot) = self.0.get_mut(slot(owner)) {
                    *slot = Some(entry);
                }
            }
        }
    }

    pub fn get(&self, owner: &Arc<Owner>) -> Option<&OwnerJson> {
        let entry = self.0.get(slot(owner))?.as_ref()?;
        Arc::ptr_eq(&entry.owner, owner).then_some(&entry.json)
    }
}

/// Owners are some hundred bytes apart.
fn slot(owner: &Arc<Owner>) -> usize {
    let address = Arc::as_ptr(owner).addr();
    (address >> 4 ^ address >> 12) % SLOTS
}

fn written(owner: &Owner) -> OwnerJson {
    let Owner {
        process,
        container,
        pod,
        node: _,
    } = owner;
    OwnerJson {
        owner: raw(owner),
        process: process.as_ref().and_then(raw),
        container: container.as_ref().and_then(raw),
        pod: pod.as_ref().and_then(raw),
    }
}

/// What can't be JSON is left to who writes the whole object.
fn raw(value: &impl Serialize) -> Option<Box<RawValue>> {
    to_raw_value(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    /// An owner that is gone has no slot left to another at its address.
    #[test]
    fn each_owner_has_its_own() {
        let mut owners = OwnersJson::default();
        for number in 0..2000 {
            let (owner, peer) = (
                Arc::new(samples::host("etcd", number)),
                Arc::new(samples::host("curl", number + 1)),
            );
            owners.prepare(&owner, Some(&peer));
            for owner in [&owner, &peer] {
                // The two may have one slot.
                if let Some(json) = owners.get(owner) {
                    let process: crate::model::Process =
                        serde_json::from_str(json.process.as_ref().unwrap().get()).unwrap();
                    assert_eq!(Some(process), owner.process);
                }
            }
            assert!(owners.get(&owner).is_some());
        }
    }
}
