//! Recorded connections, and the lookup by address and time.

pub mod matching;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    hash::Hash,
    net::SocketAddr,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

pub use self::matching::{LineKey, Near, Unmatched};
use super::{
    Outcome,
    recording_scope::RecordingScope,
    unlisted_time::{UnlistedTime, UnlistedTimes},
};

/// Owners of recorded connections, as a reader distinguishes them: a process that is started again for each connection is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Identity {
    /// The node, of a process that is in no pod.
    #[serde(skip)]
    pub node: Option<String>,
    /// The pod's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The pod's name, or its uid if only that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The container's name, or its id if only that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The process's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
}

/// JSON objects of a record, as they stand there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Objects {
    pub process: Option<Box<str>>,
    pub container: Option<Box<str>>,
    pub pod: Option<Box<str>>,
}

/// Who was behind one recorded connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    pub identity: Identity,
    /// The node that recorded it.
    pub node: Option<String>,
    pub objects: Objects,
    /// When the process started.
    pub process_started: Option<Timestamp>,
    /// Since when the pod has had its address; `None` also for a pod on its node's network.
    pub address_since: Option<Timestamp>,
}

/// One recorded client side.
#[derive(Clone, Copy, Debug)]
pub struct RecordedSide<'a> {
    pub flow: &'a Flow,
    pub client: &'a Client,
    /// The client's address as the server saw it.
    pub seen_as: SocketAddr,
    /// Place of the client among all: two with the same are of the same process.
    pub process: u32,
    /// Place of the client's identity among all.
    pub who: u32,
}

/// `monitoring/sdp-monitor-z8989 (python3)`, `node beta (nc)`: not escaped.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, &self.pod, &self.node) {
            (Some(namespace), Some(pod), _) => write!(f, "{namespace}/{pod}")?,
            (None, Some(pod), _) => write!(f, "pod {pod}")?,
            (_, None, Some(node)) => write!(f, "node {node}")?,
            (_, None, None) => f.write_str("a node")?,
        }
        match &self.process {
            Some(process) => write!(f, " ({process})"),
            None => Ok(()),
        }
    }
}

/// Two nodes' records of one connection end as near to each other as this: each probe takes the time for itself, and an
/// interrupt may come between the one and the other.
const TWINS: SignedDuration = SignedDuration::from_millis(250);

/// One recorded connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub began: Timestamp,
    pub ended: Timestamp,
    /// The client's own address.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub outcome: Outcome,
    /// The client as its server saw it.
    seen_as: SocketAddr,
    /// What the client dialled.
    asked: SocketAddr,
    /// The node that recorded it knows what its addresses were translated to.
    translated: bool,
    /// Place of its client.
    client: u32,
}

impl Flow {
    /// Whether another node's record is of the same connection: nodes that share a kernel record each other's.
    fn is_twin(&self, other: &Self) -> bool {
        (self.source, self.asked, self.outcome) == (other.source, other.asked, other.outcome)
            && self.ended.duration_since(other.ended).abs() < TWINS
    }

    /// How much its node knew of it, to be compared.
    fn knows(&self, who: &Places<(u32, Client)>) -> (bool, bool) {
        let named = who
            .get(self.client)
            .is_some_and(|(_, client)| client.identity.namespace.is_some());
        (self.translated, named)
    }

    /// From `at` to the nearest moment of it; zero while it lasted.
    fn distance(&self, at: Timestamp) -> Duration {
        let from = if at < self.began {
            self.began.duration_since(at)
        } else {
            at.duration_since(self.ended)
        };
        Duration::try_from(from).unwrap_or_default()
    }
}

/// What a recording has of one connection.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub began: Timestamp,
    pub ended: Timestamp,
    /// The client's own address.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// What the client dialled, where that is another.
    pub dialled: Option<SocketAddr>,
    /// The client as the server sees it, where that is another.
    pub seen_as: Option<SocketAddr>,
    /// The node that recorded it knows what its addresses were translated to.
    pub translated: bool,
    pub outcome: Outcome,
    /// `None` for the record of a server's end.
    pub client: Option<Client>,
    /// The node that recorded it.
    pub node: Option<String>,
}

/// Recorded connections by the client's address: its own, and the one that its server sees.
#[derive(Debug, Default)]
pub struct Flows {
    flows: Vec<Flow>,
    /// Places in `flows`.
    clients: HashMap<SocketAddr, Vec<u32>>,
    /// Clients that servers' nodes have recorded, each with the place of the latest one's node.
    servers: HashMap<SocketAddr, u32>,
    /// Of all records.
    nodes: Places<Option<String>>,
    /// How each recording was filtered.
    scopes: Vec<RecordingScope>,
    /// When any of them left connections out.
    unlisted: UnlistedTimes,
    /// Each with the place of its identity.
    who: Places<(u32, Client)>,
    identities: Places<Identity>,
}

/// Values that are there once, and known by their place.
#[derive(Debug)]
struct Places<T> {
    values: Vec<T>,
    places: HashMap<T, u32>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            places: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Places<T> {
    fn of(&mut self, value: T) -> u32 {
        match self.places.entry(value) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let place = place(self.values.len());
                self.values.push(new.key().clone());
                *new.insert(place)
            }
        }
    }

    fn get(&self, place: u32) -> Option<&T> {
        self.values.get(place as usize)
    }
}

/// More than this the memory of no machine holds.
fn place(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl Flows {
    pub fn add(&mut self, recorded: Recorded) {
        let Recorded {
            began,
            ended,
            source,
            destination,
            dialled,
            seen_as,
            translated,
            outcome,
            client,
            node,
        } = recorded;
        let node = self.nodes.of(node);
        let Some(client) = client else {
            self.servers.insert(source, node);
            return;
        };
        let identity = self.identities.of(client.identity.clone());
        let flow = Flow {
            began,
            ended,
            source,
            destination,
            outcome,
            seen_as: seen_as.unwrap_or(source),
            asked: dialled.unwrap_or(destination),
            translated,
            client: self.who.of((identity, client)),
        };
        let known = self.clients.get(&source).into_iter().flatten().copied();
        let node = |flow: &Flow| Some(&self.who.get(flow.client)?.1.node);
        let mut twins = known.filter(|place| {
            let known = self.flows.get(*place as usize);
            known.is_some_and(|known| known.is_twin(&flow) && node(known) != node(&flow))
        });
        let place = match twins.next() {
            Some(place) => {
                // The node that the pod is on knows more: translation, name.
                match self.flows.get_mut(place as usize) {
                    Some(known) if known.knows(&self.who) < flow.knows(&self.who) => *known = flow,
                    Some(_) | None => return,
                }
                place
            }
            None => {
                let place = place(self.flows.len());
                self.flows.push(flow);
                self.clients.entry(source).or_default().push(place);
                place
            }
        };
        if let Some(seen_as) = seen_as.filter(|seen| *seen != source) {
            self.clients.entry(seen_as).or_default().push(place);
        }
    }

    /// Notes how a recording that was added was filtered.
    pub fn add_scope(&mut self, scope: RecordingScope) {
        if !self.scopes.contains(&scope) {
            self.scopes.push(scope);
        }
    }

    /// How the recordings were filtered, each way once.
    pub fn scopes(&self) -> &[RecordingScope] {
        &self.scopes
    }

    /// Notes a time in which connections of a recording are missing.
    pub fn add_unlisted(&mut self, time: UnlistedTime) {
        self.unlisted.add(time);
    }

    /// When connections are missing in any recording.
    pub fn unlisted(&self) -> &UnlistedTimes {
        &self.unlisted
    }

    /// Every recorded client side with its place, and the place of its identity.
    pub fn all(&self) -> impl Iterator<Item = (u32, u32, &Flow)> {
        self.flows
            .iter()
            .zip(0..)
            .filter_map(|(flow, place)| Some((place, self.who.get(flow.client)?.0, flow)))
    }

    /// Every recorded client side.
    pub fn sides(&self) -> impl Iterator<Item = RecordedSide<'_>> {
        self.flows.iter().filter_map(|flow| {
            let (who, client) = self.who.get(flow.client)?;
            Some(RecordedSide {
                flow,
                client,
                seen_as: flow.seen_as,
                process: flow.client,
                who: *who,
            })
        })
    }

    pub fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.servers.is_empty()
    }
}
