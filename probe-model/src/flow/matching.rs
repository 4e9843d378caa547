//! The recorded connection that a server's log line is about: the whole 5-tuple, then the time.

use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use jiff::Timestamp;

use super::{Client, Flow, Flows};
use crate::outcome::reaches_server;

/// Two connections from one address and port within this time can't be distinguished: clocks of nodes differ, and
/// logs round.
const REUSED: Duration = Duration::from_secs(1);

/// What a server's log line contains of its connection.
#[derive(Clone, Copy, Debug)]
pub struct LineKey<'a> {
    /// The client as the server sees it.
    pub client: SocketAddr,
    /// The server's own address, where the line names it.
    pub server: Option<SocketAddr>,
    /// Else the ports that it can be; empty: any.
    pub ports: &'a [u16],
    /// Else the addresses that it can be, loopback aside; empty: any.
    pub servers: &'a [IpAddr],
    /// The node that wrote the log. Only it has a loopback or link-local client.
    pub node: Option<&'a str>,
}

impl LineKey<'_> {
    /// By the client alone.
    pub fn of_client(client: SocketAddr) -> Self {
        Self {
            client,
            server: None,
            ports: &[],
            servers: &[],
            node: None,
        }
    }

    /// Whether a connection to this server can be the one. Where conntrack was not asked, the recorded destination may be a
    /// Service: its address says nothing then.
    pub fn has_server(&self, flow: &Flow) -> bool {
        let destination = flow.destination;
        if let Some(server) = self.server {
            return destination.port() == server.port()
                && (destination.ip() == server.ip() || !flow.translated);
        }
        (self.ports.is_empty() || self.ports.contains(&destination.port()))
            && (self.servers.is_empty()
                || !flow.translated
                || destination.ip().is_loopback()
                || self.servers.contains(&destination.ip()))
    }
}

/// Whether an address is another machine's on each node.
pub fn is_of_one_node(address: IpAddr) -> bool {
    address.is_loopback() || is_link_local(address)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// A recorded connection, and how near it is to the time asked for.
#[derive(Clone, Copy, Debug)]
pub struct Near<'a> {
    pub flow: &'a Flow,
    pub client: &'a Client,
    /// Place of the connection among all.
    pub place: u32,
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
    /// Recorded, but as a client of this server, which is another.
    OtherServer(SocketAddr),
    /// The address is one that every node has, and the node that wrote the log is not known.
    NodeUnknown,
    /// The nearest record is this far away.
    TooFar(Duration),
    /// The same, and the line's time was written without a zone.
    ZoneUnknown(Duration),
    /// The line has no time, and the one record is not from between its neighbours'.
    TimeUnknown,
    /// Several had it at about that time.
    Reused(Vec<String>),
    /// Older than the recordings, and several sources can have been where it stands in their intervals.
    SharedPhase(Vec<String>),
}

impl Flows {
    /// Client sides that had this address, the nearest in time first; without a time the latest first.
    pub fn near(&self, address: SocketAddr, at: Option<Timestamp>) -> Vec<Near<'_>> {
        let mut near: Vec<_> = self.of(address, at).collect();
        sort(&mut near);
        near
    }

    fn of(&self, address: SocketAddr, at: Option<Timestamp>) -> impl Iterator<Item = Near<'_>> {
        let places = self.clients.get(&address).into_iter().flatten();
        places.filter_map(move |place| {
            let flow = self.flows.get(*place as usize)?;
            let (who, client) = self.who.get(flow.client)?;
            Some(Near {
                flow,
                client,
                place: *place,
                who: *who,
                distance: at.map(|at| flow.distance(at)),
            })
        })
    }

    /// The connections that the line can be about, the nearest in time first; without a time the latest first.
    ///
    /// # Errors
    /// Why there is none, or that the node has to be known.
    pub fn candidates(&self, key: &LineKey<'_>, at: Option<Timestamp>) -> Result<Vec<Near<'_>>, Unmatched> {
        let near = self.of_any_node(key, at)?;
        // A neighbour's link-local address is one on this link; a loopback address is every node's.
        if key.client.ip().is_loopback() && key.node.is_none() && self.node_names().nth(1).is_some() {
            return Err(Unmatched::NodeUnknown);
        }
        Ok(near)
    }

    /// The same, of every node where none is known.
    ///
    /// # Errors
    /// Why there is none.
    pub fn of_any_node(&self, key: &LineKey<'_>, at: Option<Timestamp>) -> Result<Vec<Near<'_>>, Unmatched> {
        let mut other_server: Option<Near<'_>> = None;
        let mut other_node = false;
        let mut near = Vec::new();
        let of_one_node = is_of_one_node(key.client.ip());
        for one in self.of(key.client, at) {
            // Addresses such as 172.17.0.2 are on many nodes, and leave none untranslated.
            if !reaches_server(one.flow.outcome) || one.flow.seen_as != key.client {
                continue;
            }
            if !key.has_server(one.flow) {
                if other_server.is_none_or(|other| one.distance < other.distance) {
                    other_server = Some(one);
                }
                continue;
            }
            let its = one.client.node.as_deref();
            if of_one_node && key.node.is_some_and(|node| its.is_some_and(|its| its != node)) {
                other_node = true;
                continue;
            }
            near.push(one);
        }
        if near.is_empty() {
            return Err(match other_server {
                Some(other) if !other_node => Unmatched::OtherServer(other.flow.destination),
                _ if self.servers.contains_key(&key.client) => Unmatched::ServerOnly,
                _ => Unmatched::NotRecorded,
            });
        }
        sort(&mut near);
        Ok(near)
    }

    /// The one client side that the line is about, give or take `within`.
    ///
    /// # Errors
    /// Why it can't be told.
    pub fn find(
        &self,
        key: &LineKey<'_>,
        at: Option<Timestamp>,
        within: Duration,
    ) -> Result<Near<'_>, Unmatched> {
        choose(&self.candidates(key, at)?, within)
    }

    /// The nodes that recorded anything.
    pub fn node_names(&self) -> impl Iterator<Item = Option<&str>> {
        self.nodes.values.iter().map(Option::as_deref)
    }

    /// The node of the server whose record has this client.
    pub fn server_node(&self, client: SocketAddr) -> Option<&str> {
        self.nodes.get(*self.servers.get(&client)?)?.as_deref()
    }
}

fn sort(near: &mut [Near<'_>]) {
    near.sort_by_key(|near| (near.distance, Reverse(near.flow.ended)));
}

/// The nearest of `candidates`, unless another's is about as near.
///
/// # Errors
/// When it is too far, or another is as good.
pub fn choose<'a>(candidates: &[Near<'a>], within: Duration) -> Result<Near<'a>, Unmatched> {
    let Some(nearest) = candidates.first() else {
        return Err(Unmatched::NotRecorded);
    };
    if let Some(distance) = nearest.distance.filter(|distance| *distance > within) {
        return Err(Unmatched::TooFar(distance));
    }
    // Without a time, all that ever had it. Else those that are not clearly farther: a clock that is off by the distance of the
    // one may be off by that of the other.
    let limit = nearest.distance.map(|distance| {
        distance
            .saturating_mul(2)
            .saturating_add(REUSED)
            .min(within.max(REUSED))
    });
    let as_good = |other: &&Near<'_>| other.distance <= limit || limit.is_none();
    let others: Vec<_> = candidates
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
