//! Recorded connections, and which of them an address and a time speak of.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    fmt,
    hash::Hash,
    net::SocketAddr,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Outcome;

/// Two that had the same address and port so shortly after one another can't be told apart: clocks of nodes differ, and
/// logs round.
const REUSED: Duration = Duration::from_secs(1);

/// Who was behind recorded connections, as a reader tells them apart: a process that is started anew for each is one.
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
    /// What the client dialled.
    asked: SocketAddr,
    /// The node that recorded it knows what its addresses were translated to.
    translated: bool,
    /// Place of its client.
    client: u32,
}

impl Flow {
    /// Whether another node's record tells of the same connection: nodes that share a kernel record each other's.
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

/// What a recording tells of one connection.
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
}

/// Recorded connections by the client's address: its own, and the one that its server sees.
#[derive(Debug, Default)]
pub struct Flows {
    flows: Vec<Flow>,
    /// Places in `flows`.
    clients: HashMap<SocketAddr, Vec<u32>>,
    /// Clients that servers' nodes have recorded.
    servers: HashSet<SocketAddr>,
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

/// A recorded connection, and how near it is to the time asked for.
#[derive(Clone, Copy, Debug)]
pub struct Near<'a> {
    pub flow: &'a Flow,
    pub client: &'a Client,
    /// Place of the client's identity among all.
    pub who: u32,
    /// `None` where no time was asked for.
    pub distance: Option<Duration>,
}

/// Why an address can't be given a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmatched {
    /// In no recording.
    NotRecorded,
    /// Only the node of the server recorded it.
    ServerOnly,
    /// The nearest record is this far away.
    TooFar(Duration),
    /// Several had it at about that time.
    Reused(Vec<String>),
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
        } = recorded;
        let Some(client) = client else {
            self.servers.insert(source);
            return;
        };
        let identity = self.identities.of(client.identity.clone());
        let flow = Flow {
            began,
            ended,
            source,
            destination,
            outcome,
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

    /// Client ends that had this address, the nearest in time first; without a time the latest first.
    pub fn near(&self, address: SocketAddr, at: Option<Timestamp>) -> Vec<Near<'_>> {
        let mut near: Vec<_> = self
            .clients
            .get(&address)
            .into_iter()
            .flatten()
            .filter_map(|place| {
                let flow = self.flows.get(*place as usize)?;
                let (who, client) = self.who.get(flow.client)?;
                Some(Near {
                    flow,
                    client,
                    who: *who,
                    distance: at.map(|at| flow.distance(at)),
                })
            })
            .collect();
        near.sort_by_key(|near| (near.distance, std::cmp::Reverse(near.flow.ended)));
        near
    }

    /// The one client end that had this address at that time, give or take `within`.
    ///
    /// # Errors
    /// Why it can't be told.
    pub fn find(
        &self,
        address: SocketAddr,
        at: Option<Timestamp>,
        within: Duration,
    ) -> Result<Near<'_>, Unmatched> {
        let near = self.near(address, at);
        let Some(nearest) = near.first() else {
            return Err(if self.servers.contains(&address) {
                Unmatched::ServerOnly
            } else {
                Unmatched::NotRecorded
            });
        };
        if let Some(distance) = nearest.distance.filter(|distance| *distance > within) {
            return Err(Unmatched::TooFar(distance));
        }
        // Without a time, all that ever had it.
        let as_good = |other: &&Near<'_>| other.distance.is_none_or(|distance| distance <= REUSED);
        let others: Vec<_> = near
            .iter()
            .skip(1)
            .take_while(as_good)
            .filter(|other| other.who != nearest.who)
            .collect();
        if others.is_empty() {
            return Ok(*nearest);
        }
        let mut names: Vec<String> = Vec::new();
        for name in [nearest]
            .into_iter()
            .chain(others)
            .map(|near| near.client.identity.to_string())
        {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Err(Unmatched::Reused(names))
    }

    /// Every recorded client end, with the place of its identity.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Flow)> {
        self.flows
            .iter()
            .filter_map(|flow| Some((self.who.get(flow.client)?.0, flow)))
    }

    pub fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.servers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_microsecond((seconds * 1e6) as i64).unwrap()
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn identity(pod: &str) -> Identity {
        Identity {
            namespace: Some("monitoring".to_owned()),
            pod: Some(pod.to_owned()),
            ..Identity::default()
        }
    }

    fn client(pod: &str, source: &str, seen_as: Option<&str>, began: f64, ended: f64) -> Recorded {
        Recorded {
            began: at(began),
            ended: at(ended),
            destination: address("192.168.88.11:2379"),
            source: address(source),
            seen_as: seen_as.map(address),
            dialled: None,
            translated: true,
            outcome: Outcome::HalfOpen,
            client: Some(Client {
                identity: identity(pod),
                ..Client::default()
            }),
        }
    }

    const NODE: &str = "192.168.88.12:62134";

    #[test]
    fn who_had_it() {
        let mut flows = Flows::default();
        for recorded in [
            client("a", "10.244.2.2:1", Some(NODE), 10.0, 10.01),
            client("b", "10.244.2.3:1", Some(NODE), 200.0, 200.01),
            // So soon after the other that the log can't tell them apart.
            client("c", "10.244.2.4:1", Some(NODE), 200.5, 200.51),
            // The same again: no question who it was.
            client("a", "10.244.2.2:1", Some(NODE), 10.3, 10.31),
            Recorded {
                client: None,
                ..client("", "192.168.88.13:5", None, 10.0, 10.1)
            },
        ] {
            flows.add(recorded);
        }
        let within = Duration::from_secs(10);
        for (asked, time, expected) in [
            (NODE, Some(10.012), Ok(("a", 2_000))),
            (NODE, Some(10.005), Ok(("a", 0))),
            (NODE, Some(9.0), Ok(("a", 1_000_000))),
            (NODE, Some(30.31), Err(Unmatched::TooFar(Duration::from_secs(20)))),
            (
                NODE,
                Some(200.012),
                Err(Unmatched::Reused(vec![
                    "monitoring/b".to_owned(),
                    "monitoring/c".to_owned(),
                ])),
            ),
            ("10.244.2.4:1", Some(200.512), Ok(("c", 2_000))),
            ("10.244.2.4:1", None, Ok(("c", u64::MAX))),
            ("192.168.88.12:1", Some(10.0), Err(Unmatched::NotRecorded)),
            ("192.168.88.13:5", Some(10.0), Err(Unmatched::ServerOnly)),
        ] {
            let found = flows.find(address(asked), time.map(at), within);
            let found = found.map(|near| {
                let distance = near
                    .distance
                    .map_or(u64::MAX, |distance| distance.as_micros() as u64);
                (near.client.identity.pod.clone().unwrap(), distance)
            });
            let expected = expected.map(|(pod, distance): (&str, u64)| (pod.to_owned(), distance));
            assert_eq!(found, expected, "{asked} {time:?}");
        }
        // Without a time, nobody can say which of three it was.
        assert!(
            matches!(flows.find(address(NODE), None, within), Err(Unmatched::Reused(names)) if names.len() == 3)
        );
    }

    /// Two probes on one kernel: the record of the node that the pod is on counts, and counts once.
    #[test]
    fn records_of_one_connection() {
        let mine = client("a", "10.244.2.2:1", Some(NODE), 10.0, 10.01);
        let mut other = Recorded {
            seen_as: None,
            translated: false,
            began: at(10.001),
            ended: at(10.02),
            ..mine.clone()
        };
        // The same node's are two.
        let mut flows = Flows::default();
        for recorded in [mine.clone(), other.clone()] {
            flows.add(recorded);
        }
        assert_eq!(flows.all().count(), 2);

        other.client.as_mut().unwrap().node = Some("alpha".to_owned());
        // A pod on the node's own network: both know all but its name, which its own node knows.
        let mut unnamed = other.clone();
        unnamed.translated = true;
        unnamed.client.as_mut().unwrap().identity.namespace = None;
        for both in [[mine.clone(), unnamed.clone()], [unnamed, mine.clone()]] {
            let mut flows = Flows::default();
            both.into_iter().for_each(|recorded| flows.add(recorded));
            let near = flows.near(address("10.244.2.2:1"), None);
            assert_eq!((near.len(), near[0].client.identity.clone()), (1, identity("a")));
        }
        for both in [[mine.clone(), other.clone()], [other, mine]] {
            let mut flows = Flows::default();
            both.into_iter().for_each(|recorded| flows.add(recorded));
            assert_eq!(flows.all().count(), 1);
            for asked in [NODE, "10.244.2.2:1"] {
                let near = flows.near(address(asked), None);
                assert_eq!((near.len(), near[0].flow.translated), (1, true));
            }
        }
    }
}
