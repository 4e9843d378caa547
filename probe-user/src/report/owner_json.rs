//! Owners' JSON, written once for all connections of an owner: two thirds of an object are its owner.

use std::{io, sync::Arc};

use serde::Serialize;

use super::lines;
use crate::model::Owner;

/// An owner in objects of connections: members with a comma before each.
pub struct OwnerJson {
    /// Of its own side: `,"process":{…},"container":{…},"pod":{…}`, those that are known.
    pub side: Vec<u8>,
    /// Of the other side: `,"peer":{…}`; empty if nothing is known.
    pub peer: Vec<u8>,
}

impl OwnerJson {
    fn new(owner: &Owner) -> io::Result<Self> {
        let Owner {
            process,
            container,
            pod,
            // Only of a peer can the node alone be known.
            node: _,
        } = owner;
        let (mut side, mut peer) = (Vec::new(), Vec::new());
        member(&mut side, "process", process.as_ref())?;
        member(&mut side, "container", container.as_ref())?;
        member(&mut side, "pod", pod.as_ref())?;
        member(&mut peer, "peer", Some(owner).filter(|owner| owner.is_known()))?;
        Ok(Self { side, peer })
    }
}

/// Appends a member, if it has a value.
fn member(out: &mut Vec<u8>, name: &str, value: Option<&impl Serialize>) -> io::Result<()> {
    let Some(value) = value else { return Ok(()) };
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    Ok(lines::to_writer(out, value)?)
}

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
    /// Of an owner and of its peer; `None` where both have one slot.
    ///
    /// # Errors
    /// None in practice: an owner can be written as JSON.
    pub fn both(
        &mut self,
        owner: &Arc<Owner>,
        peer: Option<&Arc<Owner>>,
    ) -> io::Result<Option<(&OwnerJson, Option<&OwnerJson>)>> {
        self.prepare(owner)?;
        let Some(peer) = peer else {
            return Ok(self.get(owner).map(|json| (json, None)));
        };
        self.prepare(peer)?;
        let (json, of_peer) = (self.get(owner), self.get(peer));
        Ok(json.zip(of_peer).map(|(json, of_peer)| (json, Some(of_peer))))
    }

    fn prepare(&mut self, owner: &Arc<Owner>) -> io::Result<()> {
        if self.get(owner).is_some() {
            return Ok(());
        }
        self.0.resize_with(SLOTS, || None);
        if let Some(slot) = self.0.get_mut(slot(owner)) {
            *slot = Some(Entry {
                owner: Arc::clone(owner),
                json: OwnerJson::new(owner)?,
            });
        }
        Ok(())
    }

    fn get(&self, owner: &Arc<Owner>) -> Option<&OwnerJson> {
        let entry = self.0.get(slot(owner))?.as_ref()?;
        Arc::ptr_eq(&entry.owner, owner).then_some(&entry.json)
    }
}

/// Owners are some hundred bytes apart.
fn slot(owner: &Arc<Owner>) -> usize {
    let address = Arc::as_ptr(owner).addr();
    (address >> 4 ^ address >> 12) % SLOTS
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
            let Some((json, of_peer)) = owners.both(&owner, Some(&peer)).unwrap() else {
                assert_eq!(slot(&owner), slot(&peer));
                continue;
            };
            for (pid, json) in [(number, &json.side), (number + 1, &of_peer.unwrap().peer)] {
                let json = str::from_utf8(json).unwrap();
                assert!(json.contains(&format!("\"process\":{{\"pid\":{pid},")), "{json}");
            }
        }
    }
}
