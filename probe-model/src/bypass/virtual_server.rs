//! Untracked packets and IPVS, which translates by a table of its own.
//!
//! `ip_vs_nat_xmit()` and `handle_response()` translate untracked packets too, so a Service works without conntrack. What conntrack
//! does for kube-proxy's IPVS mode is to masquerade: NodePorts and external addresses, clients that are no pods, the node itself, a
//! pod that reaches itself. Without it the endpoint sees the client's address, and answers past this node or not at all.

use std::{net::SocketAddr, time::Duration};

use super::{
    service::{Mode, Service, Services},
    stream::{Server, UntrackedCount, UntrackedStream},
};
use crate::rule::CandidateRule;

const TCP: u8 = 6;
/// A client sends its SYN again after so long without an answer.
const UNANSWERED: Duration = Duration::from_secs(1);
/// Virtual servers of a destination, and destinations of a virtual server, that rules are looked for.
const MOST: usize = 8;

/// A connection in IPVS' table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualConnection {
    /// The address that the client dialled.
    pub virtual_server: SocketAddr,
    /// As the kernel names it: `SYN_RECV`, `ESTABLISHED`.
    pub state: String,
}

impl VirtualConnection {
    /// Whether the client acknowledged an answer, or it ended: all states but those of the first packets.
    fn is_answered(&self) -> bool {
        !["NONE", "SYN_SENT", "SYN_RECV"].contains(&self.state.as_str())
    }
}

/// What IPVS' table has of a stream's latest connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InTable {
    /// Not known: there was no reason to read it, or no way.
    #[default]
    Unread,
    /// Nothing: IPVS does not translate it.
    Absent,
    Found(VirtualConnection),
}

/// What a stream is to IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IpvsLeg {
    /// It has a virtual server's address: before IPVS, or after it translated a reply.
    VirtualServer,
    /// It goes to a destination of virtual servers, by one of them or not.
    ToDestination,
}

pub(super) fn leg(stream: &UntrackedStream, services: &Services) -> Option<IpvsLeg> {
    let (protocol, port) = (stream.protocol, stream.port);
    match stream.server {
        Server::Neither => None,
        Server::Source => {
            let server = services.virtual_server(protocol, stream.source, port);
            server.map(|_| IpvsLeg::VirtualServer)
        }
        Server::Destination => match services.at(protocol, stream.destination, port) {
            Some(service) => (service.mode == Mode::Ipvs).then_some(IpvsLeg::VirtualServer),
            None => {
                let mut servers = services.virtual_servers_of(protocol, stream.destination, port);
                servers.next().map(|_| IpvsLeg::ToDestination)
            }
        },
    }
}

/// The virtual server whose client has to be masqueraded, whatever kube-proxy's settings are: the node itself, which dials it from
/// its own address on `kube-ipvs0`, or a pod that reaches itself.
pub fn needs_masquerade<'a>(stream: &UntrackedStream, services: &'a Services) -> Option<&'a Service> {
    let mut servers = services.virtual_servers_of(stream.protocol, stream.destination, stream.port);
    let hairpin = stream.source == stream.destination;
    servers.find(|server| server.address.ip() == stream.source || hairpin)
}

/// Whether IPVS' table may tell why nobody answers: only SYNs went to a destination of virtual servers, the first some time ago.
pub fn is_waiting(
    stream: &UntrackedStream,
    count: &UntrackedCount,
    services: &Services,
    now_ns: u64,
) -> bool {
    stream.protocol == TCP
        && count.syn > 0
        && count.packets == count.syn
        && Duration::from_nanos(now_ns.saturating_sub(count.first_ns)) >= UNANSWERED
        && leg(stream, services) == Some(IpvsLeg::ToDestination)
}

/// The service that does not answer for lack of conntrack, if that is so. `None`: IPVS needs none, or it is not known.
pub(super) fn unanswered<'a>(
    stream: &UntrackedStream,
    in_table: &InTable,
    services: &'a Services,
) -> Option<&'a Service> {
    match in_table {
        InTable::Found(found) if !found.is_answered() => {
            let address = found.virtual_server;
            services.virtual_server(stream.protocol, address.ip(), address.port())
        }
        InTable::Found(_) | InTable::Absent => None,
        // A datagram's answer does not show: what must be masqueraded has none.
        InTable::Unread if stream.protocol != TCP => needs_masquerade(stream, services),
        InTable::Unread => None,
    }
}

/// A stream as rules saw it before IPVS translated it: the tuples that are possible.
pub fn before(stream: &UntrackedStream, services: &Services) -> Vec<UntrackedStream> {
    let (protocol, port) = (stream.protocol, stream.port);
    match stream.server {
        Server::Neither => Vec::new(),
        Server::Destination => {
            let servers = services.virtual_servers_of(protocol, stream.destination, port);
            let of = |server: &Service| UntrackedStream {
                destination: server.address.ip(),
                port: server.address.port(),
                ..*stream
            };
            servers.take(MOST).map(of).collect()
        }
        Server::Source => {
            let server = services.virtual_server(protocol, stream.source, port);
            let destinations = server.into_iter().flat_map(|server| &server.endpoints);
            let of = |destination: &SocketAddr| UntrackedStream {
                source: destination.ip(),
                port: destination.port(),
                ..*stream
            };
            destinations.take(MOST).map(of).collect()
        }
    }
}

/// The rules for one of several tuples that a stream may have had: certain only if all that match any lead to the same.
pub fn either(found: Vec<CandidateRule>, other: Vec<CandidateRule>) -> Vec<CandidateRule> {
    if other.is_empty() || found == other {
        return found;
    }
    if found.is_empty() {
        return other;
    }
    let mut all: Vec<CandidateRule> = Vec::new();
    for rule in found.into_iter().chain(other) {
        if !all.iter().any(|known| known.to_string() == rule.to_string()) {
            all.push(CandidateRule {
                certain: false,
                ..rule
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bypass::stream::Direction, rule::samples::notrack};

    const SECOND: u64 = 1_000_000_000;

    fn services() -> Services {
        let server = |address: &str, protocol, endpoints: &[&str]| Service {
            name: None,
            address: address.parse().unwrap(),
            is_cluster_ip: false,
            protocol,
            endpoints: endpoints.iter().map(|end| end.parse().unwrap()).collect(),
            refused: false,
            mode: Mode::Ipvs,
        };
        Services::new(vec![
            server("10.96.7.7:443", TCP, &["10.244.2.7:8443", "10.244.2.8:8443"]),
            server("192.168.88.11:30443", TCP, &["10.244.2.7:8443"]),
            server("10.96.0.10:53", 17, &["10.244.2.9:53"]),
            Service {
                mode: Mode::Iptables,
                ..server("10.96.8.8:443", TCP, &["10.244.2.10:8443"])
            },
        ])
    }

    fn stream(protocol: u8, source: &str, destination: &str, port: u16, server: Server) -> UntrackedStream {
        UntrackedStream {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            port,
            server,
            direction: Direction::Forwarded,
            input: Some(2),
            output: Some(3),
        }
    }

    /// Both ends of the Service, as they are on the wire.
    fn request(source: &str) -> UntrackedStream {
        stream(TCP, source, "10.244.2.7", 8443, Server::Destination)
    }

    #[test]
    fn what_streams_are_to_ipvs() {
        let services = services();
        let reply = |source: &str, port| stream(TCP, source, "10.244.1.5", port, Server::Source);
        let to = |destination: &str, port| stream(TCP, "10.244.1.5", destination, port, Server::Destination);
        for (stream, expected) in [
            (request("10.244.1.5"), Some(IpvsLeg::ToDestination)),
            (reply("10.96.7.7", 443), Some(IpvsLeg::VirtualServer)),
            // Of a connection that IPVS no longer knows.
            (to("10.96.7.7", 443), Some(IpvsLeg::VirtualServer)),
            // Not translated back: not by IPVS.
            (reply("10.244.2.7", 8443), None),
            (to("10.96.7.7", 80), None),
            (to("10.96.8.8", 443), None),
            (to("10.244.2.10", 8443), None),
            (reply("10.96.8.8", 443), None),
        ] {
            assert_eq!(leg(&stream, &services), expected, "{stream:?}");
        }
    }

    #[test]
    fn rules_see_what_was_before_ipvs() {
        let services = services();
        let ends = |stream: &UntrackedStream| {
            let port = stream.port;
            format!("{} {} {port}", stream.source, stream.destination)
        };
        for (stream, expected) in [
            (
                request("10.244.1.5"),
                &["10.244.1.5 10.96.7.7 443", "10.244.1.5 192.168.88.11 30443"][..],
            ),
            (
                stream(TCP, "10.96.7.7", "10.244.1.5", 443, Server::Source),
                &["10.244.2.7 10.244.1.5 8443", "10.244.2.8 10.244.1.5 8443"],
            ),
            (
                stream(TCP, "10.244.1.5", "10.96.7.7", 443, Server::Destination),
                &[],
            ),
            (
                stream(TCP, "10.244.1.5", "10.244.2.10", 8443, Server::Destination),
                &[],
            ),
        ] {
            let found: Vec<String> = before(&stream, &services).iter().map(ends).collect();
            assert_eq!(found, expected, "{stream:?}");
        }
    }

    #[test]
    fn one_rule_is_certain_and_several_are_not() {
        let by = |rules: &[&str]| rules.iter().map(|name| notrack(name)).collect::<Vec<_>>();
        let unsure = |rules: &[&str]| {
            let unsure = |rule| CandidateRule {
                certain: false,
                ..rule
            };
            by(rules).into_iter().map(unsure).collect::<Vec<_>>()
        };
        for (found, other, expected) in [
            (by(&[]), by(&[]), by(&[])),
            (by(&["a"]), by(&[]), by(&["a"])),
            (by(&[]), by(&["a"]), by(&["a"])),
            (by(&["a"]), by(&["a"]), by(&["a"])),
            (by(&["a"]), by(&["b"]), unsure(&["a", "b"])),
            (unsure(&["a", "b"]), by(&["b"]), unsure(&["a", "b"])),
        ] {
            assert_eq!(either(found, other), expected);
        }
    }

    #[test]
    fn the_table_is_read_only_for_what_waits() {
        let services = services();
        let count = |packets, syn| UntrackedCount {
            packets,
            syn,
            first_ns: SECOND,
            ..UntrackedCount::default()
        };
        let other = stream(TCP, "10.244.1.5", "10.244.2.10", 8443, Server::Destination);
        let datagram = stream(17, "10.244.1.5", "10.244.2.9", 53, Server::Destination);
        for (stream, count, milliseconds, expected) in [
            (request("10.244.1.5"), count(2, 2), 2000, true),
            // The answer may be on its way.
            (request("10.244.1.5"), count(1, 1), 1900, false),
            (request("10.244.1.5"), count(3, 1), 9000, false),
            (request("10.244.1.5"), count(2, 0), 9000, false),
            (other, count(2, 2), 9000, false),
            (datagram, count(2, 0), 9000, false),
        ] {
            let found = is_waiting(&stream, &count, &services, milliseconds * SECOND / 1000);
            assert_eq!(found, expected, "{stream:?} {count:?}");
        }
    }

    #[test]
    fn who_does_not_answer() {
        let services = services();
        let found = |virtual_server: &str, state: &str| {
            InTable::Found(VirtualConnection {
                virtual_server: virtual_server.parse().unwrap(),
                state: state.to_owned(),
            })
        };
        let outside = request("192.168.88.12");
        let dns = |source: &str| stream(17, source, "10.244.2.9", 53, Server::Destination);
        for (stream, in_table, expected) in [
            (
                outside,
                found("192.168.88.11:30443", "SYN_RECV"),
                Some("192.168.88.11:30443"),
            ),
            (
                request("10.96.7.7"),
                found("10.96.7.7:443", "SYN_RECV"),
                Some("10.96.7.7:443"),
            ),
            (outside, found("192.168.88.11:30443", "ESTABLISHED"), None),
            (outside, found("192.168.88.11:30443", "TIME_WAIT"), None),
            // Refused by the endpoint: it was reached.
            (outside, found("192.168.88.11:30443", "CLOSE"), None),
            (outside, found("192.168.88.11:30444", "SYN_RECV"), None),
            (outside, InTable::Absent, None),
            (outside, InTable::Unread, None),
            (request("10.96.7.7"), InTable::Unread, None),
            (dns("10.244.1.5"), InTable::Unread, None),
            (dns("10.96.0.10"), InTable::Unread, Some("10.96.0.10:53")),
            (dns("10.244.2.9"), InTable::Unread, Some("10.96.0.10:53")),
        ] {
            let service = unanswered(&stream, &in_table, &services);
            let address = service.map(|service| service.address.to_string());
            assert_eq!(address.as_deref(), expected, "{stream:?} {in_table:?}");
        }
    }
}
