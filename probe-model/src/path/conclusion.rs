//! What became of a request, in one sentence, with what shows it.

use std::{net::SocketAddr, time::Duration};

use super::{
    black_hole::BlackHole,
    cause::DropCause,
    event::{Packet, Tcp, Tracking, What},
    exchange::{ConntrackZone, Exchange, Listener, Untracked},
    journey::{AppliedRule, Hop, Journey, JourneyEnd},
    reason::{self, Fate},
};
use crate::{Verdict, finding::Fix};

crate::names! {
    /// What became of a request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Outcome {
        /// It reached its socket, and the answer, if any, came back.
        Delivered = "delivered" => "the request reached its socket; the reply, if any, came back",
        /// It reached its host, where no socket matches, or its socket sent RST.
        Refused = "refused" => "no socket listens at the destination, or RST came back",
        /// It or its reply was dropped.
        Dropped = "dropped" => "the request or its reply was dropped: where, why, by which rule",
        /// It left for a Service, or its reply reached the client, without the required translation.
        Untranslated = "untranslated" => "the request or its reply was not translated (NAT): by which rule",
        /// Somebody on the way sent an ICMP error.
        Unreachable = "unreachable" => "an ICMP error came back",
        /// It left this machine, or reached its host, and no answer was seen.
        Unanswered = "unanswered" => "the request left this node or reached its host; no answer seen",
        /// Only replies, or errors, were seen.
        NoRequest = "no-request" => "only packets of the reply direction seen",
    }
}

impl Outcome {
    /// Whether the exchange worked. Without an answer, or a request, nobody knows.
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Delivered => Verdict::Ok,
            Self::Unanswered | Self::NoRequest => Verdict::Unknown,
            Self::Refused | Self::Dropped | Self::Untranslated | Self::Unreachable => Verdict::Faulty,
        }
    }
}

/// The last word on an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    pub outcome: Outcome,
    /// Names in it are not escaped.
    pub text: String,
    /// How to undo the cause, the best first; probe never does it itself.
    pub fixes: Vec<Fix>,
}

/// ICMP's type for a better way (IPv4).
const REDIRECT: u8 = 5;

/// Names of network namespaces.
pub type Places<'a> = &'a dyn Fn(u32) -> String;

impl Conclusion {
    fn new(outcome: Outcome, text: String) -> Self {
        Self {
            outcome,
            text,
            fixes: Vec::new(),
        }
    }
}

impl Exchange {
    pub fn conclusion(&self, places: Places<'_>) -> Conclusion {
        let mut conclusion = self.concluded(places);
        if matches!(
            conclusion.outcome,
            Outcome::Delivered | Outcome::Unanswered | Outcome::NoRequest
        ) && let Some(hole) = self.black_hole()
        {
            conclusion = Conclusion {
                outcome: BlackHole::OUTCOME,
                text: hole.text(places),
                fixes: hole.fixes(),
            };
        }
        if let Some(service) = self
            .node_port
            .as_ref()
            .filter(|name| !conclusion.text.contains(*name))
        {
            let dialled = self
                .request()
                .and_then(Journey::packet)
                .map(|packet| packet.destination);
            conclusion.text.push_str(&match dialled {
                Some(dialled) => format!("; {dialled} is {service}"),
                None => format!("; to {service}"),
            });
        }
        if conclusion.outcome != Outcome::Delivered {
            for detour in &self.detours {
                conclusion.text.push_str(&format!("; {}", detour.words(places)));
                conclusion.fixes.extend(detour.policy.fixes());
            }
        }
        conclusion
    }

    fn concluded(&self, places: Places<'_>) -> Conclusion {
        let Some(request) = self.request() else {
            // The request may have taken another way.
            if let Some((lost, at)) = self.later_fault() {
                let what = format!("no request was seen here; the reply {} was dropped", title(lost));
                return self.dropped(&what, lost, at, places);
            }
            return Conclusion::new(
                Outcome::NoRequest,
                "no request was seen, only packets of the reply direction".to_owned(),
            );
        };
        if let Some(reply) = self.reply() {
            return self.answered(request, reply, places);
        }
        let title = title(request);
        // First: it may find no socket, or be dropped, because of that.
        if let Some(conclusion) = self.untranslated(request, &title, places) {
            return conclusion;
        }
        let end = request.end();
        if let (JourneyEnd::Dropped(at), Some(hop)) = (end, request.hops.get(end.hop())) {
            if request.fate(at) == Some(Fate::NoSocket) {
                let (place, after) = (places(hop.event.netns), time(request.after_ns(at)));
                let to = hop.event.packet.destination;
                return Conclusion::new(
                    Outcome::Refused,
                    format!("{title} reached {place} in {after}, where no socket listens on {to}"),
                );
            }
            return self.dropped(&format!("{title} was dropped"), request, at, places);
        }
        if let Some(error) = self.error() {
            return unreachable(request, error, &title);
        }
        let conclusion = self.unanswered(request, end, &title, places);
        match self
            .later_fault()
            .filter(|_| conclusion.outcome == Outcome::Delivered)
        {
            Some((later, at)) => self.dropped(&then_dropped(&conclusion.text, later), later, at, places),
            None => conclusion,
        }
    }

    fn answered(&self, request: &Journey, reply: &Journey, places: Places<'_>) -> Conclusion {
        let title = title(request);
        // What was dropped may have come through when it was sent again.
        let (request, again) = match (request.fault(), self.made_good(request)) {
            (Some(_), Some(good)) => (good, ", dropped at first and sent again,"),
            (Some(at), None) => {
                let mut conclusion = self.dropped(&format!("{title} was dropped"), request, at, places);
                if reply.has_flag(Tcp::RST) {
                    conclusion.text.push_str("; answered with RST");
                }
                return conclusion;
            }
            (None, _) => (request, ""),
        };
        let there = self.destination(request, places);
        // Untranslated, the reply has a source that the client does not know.
        if let (Some(untracked), true) = (&self.untracked, is_from_stranger(request, reply)) {
            return untracked_reply(untracked, reply, places);
        }
        let reply = match (reply.fault(), self.made_good(reply)) {
            (Some(_), Some(good)) => good,
            (Some(at), None) => {
                let what = format!("{title}{again} was delivered to {there}, but its reply was dropped");
                return self.dropped(&what, reply, at, places);
            }
            (None, _) => reply,
        };
        if let Some(conclusion) =
            self.untranslated_answer(&format!("{title}{again} was delivered to {there}"), places)
        {
            return conclusion;
        }
        if reply.has_flag(Tcp::RST) && request.has_flag(Tcp::SYN) {
            // By the host that received it instead of an endpoint.
            if let Some(conclusion) = self.untranslated(request, &title, places) {
                return conclusion;
            }
            return Conclusion::new(Outcome::Refused, format!("refused by {there}: RST came back"));
        }
        let after = time(request.after_ns(request.end().hop()));
        let way = match (request.end(), request.hops.get(request.end().hop())) {
            (JourneyEnd::Left(_), Some(hop)) => format!(
                "{title}{again} left {} by {} after {after}, for {there}",
                places(hop.event.netns),
                hop.device()
            ),
            _ => format!("{title}{again} delivered to {there} in {after}"),
        };
        if let Some((later, at)) = self.later_fault() {
            let what = then_dropped(&format!("{way}, and answered"), later);
            return self.dropped(&what, later, at, places);
        }
        let mut text = format!("{way}; {}", back(request, reply, places));
        if let Some(error) = self.error().and_then(Journey::packet) {
            text.push_str(&format!("; {} sent {}", error.source.ip(), error.title()));
        }
        Conclusion::new(Outcome::Delivered, text)
    }

    /// `what` ends in that it was dropped.
    fn dropped(&self, what: &str, journey: &Journey, at: usize, places: Places<'_>) -> Conclusion {
        let Some(hop) = journey.hops.get(at) else {
            return Conclusion::new(Outcome::Dropped, what.to_owned());
        };
        let why = self.why(journey, at, places);
        let device = match hop.device() {
            "" => String::new(),
            device => format!(" at {device}"),
        };
        let mut text = format!(
            "{what} in {}{device} after {}: {why}",
            places(hop.event.netns),
            time(journey.after_ns(at))
        );
        match &hop.rule {
            Some(rule) => {
                let perhaps = if rule.rule.certain { "" } else { "perhaps " };
                text.push_str(&format!(", {perhaps}by {}", rule.rule));
            }
            None if journey.fate(at) == Some(Fate::Filter) && hop.cause.is_none() => {
                text.push_str(&format!(", by {}", by(None)));
                if !hop.unread.is_empty() {
                    text.push_str(&format!(" (not read: {})", hop.unread.join("; ")));
                }
            }
            None => {}
        }
        if hop.cause == Some(DropCause::Invalid) {
            text.push_str("; the rule is not the cause");
        }
        if let Some(told) = self.told_of(journey) {
            text.push_str(&format!("; answered with {told}"));
        }
        Conclusion {
            outcome: Outcome::Dropped,
            text,
            fixes: match (&hop.cause, self.zone_at(hop)) {
                (Some(DropCause::Invalid), Some(zone)) => zone.fixes(),
                (Some(cause), _) => cause.fixes(),
                (None, _) => fixes(hop.rule.as_ref()),
            },
        }
    }

    /// Why a packet was dropped.
    fn why(&self, journey: &Journey, at: usize, places: Places<'_>) -> String {
        let mut why = journey.why(at, self.error_of(journey));
        let hop = journey.hops.get(at);
        if let Some(hop) = hop.filter(|hop| hop.cause == Some(DropCause::Invalid)) {
            let place = places(hop.event.netns);
            let passed = self.passed_before(journey, hop.event.netns);
            why.push_str(&match (self.zone_at(hop), passed) {
                (Some(zone), _) => format!(": {}", zone.words(&place)),
                (None, true) => format!(
                    ", which matches no conntrack entry in {place}: it is outside the \
                                         window, or the entry expired"
                ),
                (None, false) => format!(
                    ": the first packets of this connection did not pass {place} (asymmetric routing)"
                ),
            });
        }
        if let Some(rounds) = &journey.rounds {
            let devices: Vec<_> = rounds
                .devices(journey)
                .iter()
                .map(|(netns, device)| format!("{device} in {}", places(*netns)))
                .collect();
            why.push_str(&format!(
                "; a loop: it passed {} {} times",
                devices.join(", "),
                rounds.times
            ));
        }
        why
    }

    /// The zone that has the connection, if it is known of the hop's network namespace.
    fn zone_at(&self, hop: &Hop) -> Option<&ConntrackZone> {
        self.zone.as_ref().filter(|zone| zone.netns == hop.event.netns)
    }

    /// Whether a packet of the other direction passed this network namespace and its conntrack before.
    fn passed_before(&self, journey: &Journey, netns: u32) -> bool {
        self.journeys.iter().any(|other| {
            other.direction != journey.direction
                && other.start_ns() <= journey.start_ns()
                && other
                    .hops
                    .iter()
                    .any(|hop| hop.event.netns == netns && hop.event.tracking != Tracking::None)
        })
    }

    /// Type and code of the ICMP error that was sent because of a packet, on its way back.
    fn error_of(&self, journey: &Journey) -> Option<(u8, u8)> {
        let mut errors = self.journeys.iter().filter(|other| {
            other.direction != journey.direction
                && other.start_ns() >= journey.start_ns()
                && other
                    .packet()
                    .is_some_and(|packet| packet.about && !packet.is_redirect())
        });
        errors.next()?.packet()?.icmp
    }

    /// The ICMP error that is sent because of a packet: where that is decided, or on its way back.
    fn told_of(&self, journey: &Journey) -> Option<String> {
        let decided = journey.hops.iter().find_map(|hop| match hop.event.what {
            // A redirect is no error.
            What::Icmp { kind, code } if kind != REDIRECT => {
                Some(reason::icmp(hop.event.packet.source.is_ipv4(), kind, code))
            }
            _ => None,
        });
        let sent = || {
            let mut errors = self.journeys.iter().filter(|other| {
                other
                    .packet()
                    .is_some_and(|packet| packet.about && !packet.is_redirect())
                    && other.direction != journey.direction
                    && other.start_ns() >= journey.start_ns()
            });
            errors.next().map(title)
        };
        decided.or_else(sent)
    }

    /// The first packet after request and reply that was finally dropped, and where.
    fn later_fault(&self) -> Option<(&Journey, usize)> {
        self.journeys
            .iter()
            .filter(|journey| journey.packet().is_none_or(|packet| !packet.about))
            .filter(|journey| self.made_good(journey).is_none())
            .find_map(|journey| Some((journey, journey.fault()?)))
    }

    fn unanswered(&self, request: &Journey, end: JourneyEnd, title: &str, places: Places<'_>) -> Conclusion {
        let at = request.hops.get(end.hop());
        let place = at.map(|hop| places(hop.event.netns)).unwrap_or_default();
        let device = at.map(Hop::device).unwrap_or_default();
        let after = time(request.after_ns(end.hop()));
        let wants_answer = request.has_flag(Tcp::SYN) || request.packet().is_some_and(Packet::is_echo);
        let there = || self.destination(request, places);
        let waiting = || self.listener.as_ref().map(waiting).unwrap_or_default();
        let (outcome, text) = match end {
            JourneyEnd::Delivered(_) if !wants_answer => (
                Outcome::Delivered,
                format!("{title} delivered to {} in {after}", there()),
            ),
            JourneyEnd::Delivered(_) => (
                Outcome::Unanswered,
                format!(
                    "{title} was delivered to {} in {after}, which did not answer{}",
                    there(),
                    waiting()
                ),
            ),
            JourneyEnd::Left(_) => (
                Outcome::Unanswered,
                format!("{title} left {place} by {device} after {after}; no answer was seen"),
            ),
            JourneyEnd::Dropped(_) | JourneyEnd::Arrived(_)
                if at.is_some_and(|hop| hop.event.packet.fragment) =>
            {
                (
                    Outcome::Unanswered,
                    format!(
                        "{title} reached {place} in {after} as a fragment; the rest of its path was not seen"
                    ),
                )
            }
            JourneyEnd::Dropped(_) | JourneyEnd::Arrived(_) if wants_answer => (
                Outcome::Unanswered,
                format!(
                    "{title} reached {place} in {after}; neither a drop nor an answer was seen{}",
                    waiting()
                ),
            ),
            // TCP takes data out of packets without an event: on its own host, this is a delivery.
            JourneyEnd::Dropped(_) | JourneyEnd::Arrived(_)
                if at.is_some_and(|hop| hop.owns == Some(true)) && !self.lossy =>
            {
                (
                    Outcome::Delivered,
                    format!("{title} reached its host {place} in {after}; no drop was seen"),
                )
            }
            JourneyEnd::Dropped(_) | JourneyEnd::Arrived(_) => (
                Outcome::Unanswered,
                format!(
                    "{title} reached {place} in {after}; the rest of its path was not seen{}",
                    if self.lossy {
                        ", as points of packets were lost"
                    } else {
                        ""
                    }
                ),
            ),
        };
        Conclusion::new(outcome, text)
    }

    /// A request to a Service that kept the Service's address.
    fn untranslated(&self, request: &Journey, title: &str, places: Places<'_>) -> Option<Conclusion> {
        let untracked = self.untracked.as_ref()?;
        let at = request.untracked()?;
        let hop = request.hops.get(at)?;
        let mut later = request.hops.iter().skip(at);
        let place = places(hop.event.netns);
        let went = match later.find(|hop| hop.event.what == What::Sent) {
            Some(sent) => format!("left {place} by {}", sent.device()),
            None => format!("passed {place}"),
        };
        let what = untracked
            .service
            .clone()
            .unwrap_or_else(|| hop.event.packet.destination.to_string());
        Some(Conclusion {
            outcome: Outcome::Untranslated,
            text: format!(
                "{title} {went} for {what} untranslated: {} exempted it from conntrack",
                by(untracked.rule.as_ref()),
            ),
            fixes: fixes(untracked.rule.as_ref()),
        })
    }

    /// Where the request ended, and who listens there.
    fn destination(&self, request: &Journey, places: Places<'_>) -> String {
        let hop = request.hops.get(request.end().hop());
        let address: Option<SocketAddr> = hop.map(|hop| hop.event.packet.destination);
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        match (
            self.listener
                .as_ref()
                .and_then(|listener| listener.process.as_ref()),
            hop,
        ) {
            (Some(process), Some(hop)) => format!("{process} at {address} in {}", places(hop.event.netns)),
            (None, Some(hop)) if !matches!(request.end(), JourneyEnd::Left(_)) => {
                format!("{address} in {}", places(hop.event.netns))
            }
            _ => address,
        }
    }
}

fn waiting(listener: &Listener) -> String {
    match listener.waiting {
        Some(1) => ": 1 connection waits to be accepted".to_owned(),
        Some(waiting @ 2..) => {
            format!(": {waiting} connections wait to be accepted, and its accept queue may be full")
        }
        _ => String::new(),
    }
}

/// In a word or two, the packet of a journey.
fn title(journey: &Journey) -> String {
    journey.packet().map(Packet::title).unwrap_or_default()
}

/// Of what went well at first, and what came after that.
fn then_dropped(first: &str, later: &Journey) -> String {
    let source = later.packet().map(|packet| packet.source.to_string());
    let source = source.unwrap_or_default();
    format!("{first}; but then {} from {source} was dropped", title(later))
}

/// How the reply came back.
fn back(request: &Journey, reply: &Journey, places: Places<'_>) -> String {
    let way_there = request.way();
    let mut way_back = reply.way();
    way_back.reverse();
    let known = !way_there.is_empty() && !way_back.is_empty();
    let end = reply.end();
    match (end, reply.hops.get(end.hop())) {
        (JourneyEnd::Dropped(_), _) => "the reply found no socket any more".to_owned(),
        // The request may have been seen first on its way, at a device that was asked for.
        _ if known && way_back.ends_with(&way_there) => "the reply took the same way back".to_owned(),
        (JourneyEnd::Left(_), Some(hop)) => {
            format!("the reply left {} by {}", places(hop.event.netns), hop.device())
        }
        _ if known => "the reply came back another way".to_owned(),
        _ => "the reply came back".to_owned(),
    }
}

/// Whether a reply bypassed the translation back to the dialled address.
fn is_from_stranger(request: &Journey, reply: &Journey) -> bool {
    let dialled = request.packet().map(|packet| packet.destination);
    let came_from = reply.hops.last().map(|hop| hop.event.packet.source);
    reply.untracked().is_some() && dialled != came_from
}

/// Somebody on the way, or the host itself, sent an ICMP error.
fn unreachable(request: &Journey, error: &Journey, title: &str) -> Conclusion {
    let Some(packet) = error.packet() else {
        return Conclusion::new(
            Outcome::Unreachable,
            format!("{title} was answered with an error"),
        );
    };
    let reporter = packet.source.ip();
    let of_host = request
        .hops
        .iter()
        .any(|hop| hop.event.packet.destination.ip() == reporter);
    let outcome = match packet.icmp {
        Some((kind, code)) if of_host && reason::is_port_unreachable(reporter.is_ipv4(), kind, code) => {
            Outcome::Refused
        }
        _ => Outcome::Unreachable,
    };
    Conclusion::new(
        outcome,
        format!("{reporter} answered {title} with {}", packet.title()),
    )
}

fn untracked_reply(untracked: &Untracked, reply: &Journey, places: Places<'_>) -> Conclusion {
    let hop = reply.untracked().and_then(|at| reply.hops.get(at));
    let (place, source) = hop
        .map(|hop| (places(hop.event.netns), hop.event.packet.source.to_string()))
        .unwrap_or_default();
    let service = untracked
        .service
        .clone()
        .unwrap_or_else(|| "the dialled address".to_owned());
    Conclusion {
        outcome: Outcome::Untranslated,
        text: format!(
            "the reply came back as from {source}, not from {service}: in {place} {} exempted it from conntrack",
            by(untracked.rule.as_ref())
        ),
        fixes: fixes(untracked.rule.as_ref()),
    }
}

fn fixes(applied: Option<&AppliedRule>) -> Vec<Fix> {
    applied.map_or_else(Vec::new, |applied| applied.fixes.clone())
}

fn by(applied: Option<&AppliedRule>) -> String {
    match applied.map(|applied| &applied.rule) {
        Some(rule) if rule.certain => rule.to_string(),
        Some(rule) => format!("perhaps {rule}"),
        None => "an unknown rule".to_owned(),
    }
}

/// As people read it: three digits.
pub fn time(ns: u64) -> String {
    let time = Duration::from_nanos(ns);
    match ns {
        ..1_000_000 => format!("{} µs", time.as_micros()),
        1_000_000..1_000_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
#[path = "conclusion_tests.rs"]
mod tests;
