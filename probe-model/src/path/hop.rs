//! What happened at one point, in words.

use std::net::SocketAddr;

use super::{
    event::{Event, Tracking, What},
    journey::{Hop, Journey},
    reason::{self, Fate},
};

/// An address that became another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub before: SocketAddr,
    pub after: SocketAddr,
}

impl Journey {
    /// What was translated since the hop before: source and destination.
    pub fn changes(&self, hop: usize) -> (Option<Change>, Option<Change>) {
        let packet = |hop: usize| self.hops.get(hop).map(|hop| hop.event.packet);
        let (Some(before), Some(after)) = (hop.checked_sub(1).and_then(packet), packet(hop)) else {
            return (None, None);
        };
        let change =
            |before: SocketAddr, after: SocketAddr| (before != after).then_some(Change { before, after });
        (
            change(before.source, after.source),
            change(before.destination, after.destination),
        )
    }

    /// One hop in words. Names in it are not escaped.
    pub fn words(&self, at: usize) -> String {
        let Some(hop) = self.hops.get(at) else {
            return String::new();
        };
        let mut words = match hop.event.what {
            What::Consumed if self.is_delivery(at) => "consumed (delivered)".to_owned(),
            What::Dropped { .. } if self.is_fault(at) => format!("DROPPED: {}", self.why(at, None)),
            _ => what(&hop.event, self.fate(at)),
        };
        if !hop.tables.is_empty() {
            words.push_str(&format!(" by {}", hop.tables.join(", ")));
        }
        let (source, destination) = self.changes(at);
        for (change, which, name) in [(destination, "destination", "DNAT"), (source, "source", "SNAT")] {
            if let Some(Change { before, after }) = change {
                // The way back undoes what was done on the way here.
                let name = match hop.event.direction {
                    super::event::Direction::Request => name,
                    super::event::Direction::Reply => "translated back",
                };
                words.push_str(&format!(", {which} {before} became {after} ({name})"));
            }
        }
        words
    }

    /// Conntrack's state where it says more than before.
    pub fn tracking(&self, at: usize) -> Option<Tracking> {
        let here = self.hops.get(at)?.event.tracking;
        let before = at
            .checked_sub(1)
            .and_then(|before| self.hops.get(before))
            .map_or(Tracking::None, |hop| hop.event.tracking);
        (here != before && here != Tracking::None).then_some(here)
    }
}

impl Hop {
    /// The device's name; empty where it has none yet.
    pub fn device(&self) -> &str {
        self.event.device.as_ref().map_or("", |device| &device.name)
    }
}

fn what(event: &Event, fate: Option<Fate>) -> String {
    match &event.what {
        What::Sent => match event.packet.tunnel {
            Some(tunnel) => format!("sent in VXLAN to {} (VNI {})", tunnel.destination, tunnel.vni),
            None => "sent".to_owned(),
        },
        What::Received => match event.packet.tunnel {
            Some(tunnel) => format!("came in, in VXLAN from {} (VNI {})", tunnel.source, tunnel.vni),
            None => "came in".to_owned(),
        },
        What::Dropped { reason, at } => {
            let told = reason::words(reason.as_deref(), at.as_deref());
            match fate {
                Some(Fate::Healthy) => "freed: an unused copy".to_owned(),
                Some(Fate::OtherHost) => "freed: a copy for another host".to_owned(),
                // A ping's answer: its socket has a copy.
                Some(Fate::AtSocket) if reason::is_of_ping(at.as_deref()) => "consumed".to_owned(),
                Some(Fate::AtSocket) => format!(
                    "its socket discarded it ({})",
                    reason.as_deref().or(at.as_deref()).unwrap_or("no reason")
                ),
                _ => format!("DROPPED: {told}"),
            }
        }
        What::Consumed => "consumed".to_owned(),
        What::Hook { hook, verdict } => {
            let hook = hook.map_or("a netfilter hook", |hook| hook.name());
            match verdict {
                Some(verdict) => format!("{hook}: {}", verdict.name()),
                None => format!("passes {hook}"),
            }
        }
        What::Route { found: true } => "routed".to_owned(),
        What::Route { found: false } => {
            "not routed: no route, or its source is not allowed on this side".to_owned()
        }
        What::Forward => "to be forwarded".to_owned(),
        What::Local => "for this host".to_owned(),
        What::Output => "on its way out".to_owned(),
        What::Socket => "handed to the socket".to_owned(),
        What::Icmp { kind, code } => format!(
            "answered with {}",
            reason::icmp(event.packet.source.is_ipv4(), *kind, *code)
        ),
        What::Conntrack => "conntrack looks it up".to_owned(),
        What::Nat { destination: true } => "NAT rewrites its destination".to_owned(),
        What::Nat { destination: false } => "NAT rewrites its source".to_owned(),
        What::Encapsulate => "to be encapsulated in VXLAN".to_owned(),
        What::Decapsulate => "to be decapsulated from VXLAN".to_owned(),
    }
}
