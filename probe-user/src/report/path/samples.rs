//! Exchanges to tell of.

use std::net::Ipv4Addr;

use jiff::{Timestamp, tz::TimeZone};

use super::{Reporter, Told};
use crate::{
    model::path::{
        AppliedRule, Exchange, Listener, Outcome, Places, Tracking, Tunnel, Untracked, What,
        event::{Hook, HookVerdict},
        samples::{ACK, SYN, SYN_ACK, Walk, data, dropped, exchange, icmp, tcp},
    },
    model::rule::{Action, CandidateRule, Family, PacketPath, RuleFlow, RulePosition, Tool},
    report::{
        Format,
        path::{Lost, Totals},
    },
};

pub const CLIENT: &str = "10.244.1.5:41234";
pub const SERVICE: &str = "10.96.7.7:443";
pub const SERVER: &str = "10.244.2.9:8443";

pub fn time() -> Timestamp {
    "2026-11-23T09:10:14.145123Z".parse().unwrap()
}

/// As the command tells it.
pub fn told(format: Format, width: Option<usize>, exchange: &Exchange, places: Places<'_>) -> String {
    let mut out = Vec::new();
    let mut reporter = Reporter::new(format, width, false, &mut out)
        .node("beta".to_owned())
        .time_zone(TimeZone::UTC);
    reporter
        .exchange(&Told {
            time: time(),
            exchange,
            places,
        })
        .unwrap();
    String::from_utf8(out).unwrap()
}

pub fn passes(hook: Hook, verdict: HookVerdict) -> What {
    What::Hook {
        hook: Some(hook),
        verdict: Some(verdict),
    }
}

fn tunnel(from: u8, to: u8) -> Option<Tunnel> {
    let node = |last| Ipv4Addr::new(192, 168, 0, last).into();
    Some(Tunnel {
        vni: 1,
        source: node(from),
        destination: (node(to), 4789).into(),
    })
}

/// From a pod to a Service whose server is on another node, and back; and what follows.
pub fn delivered() -> Exchange {
    let request = Walk::request(tcp(CLIENT, SERVICE, SYN), 0)
        .with(|event| event.bytes = vec![0x45, 0, 0, 60])
        .at(101, "eth0")
        .meets(What::Sent)
        .by(1, "vethcart")
        .meets(What::Received)
        .tracked(Tracking::New)
        .with(|event| event.mark = 0x4000)
        .to(SERVER)
        .meets(passes(Hook::Prerouting, HookVerdict::Accepted))
        .at(1, "flannel.1")
        .meets(What::Sent)
        .meets(What::Encapsulate)
        .with(|event| event.packet.tunnel = tunnel(1, 2))
        .at(1, "eth0")
        .with(|event| event.mark = 0)
        .meets(What::Sent)
        .tracked(Tracking::None)
        .by(2, "eth0")
        .meets(What::Received)
        .with(|event| event.packet.tunnel = None)
        .by(2, "flannel.1")
        .meets(What::Received)
        .tracked(Tracking::New)
        .at(2, "vethweb")
        .meets(What::Sent)
        .tracked(Tracking::None)
        .by(202, "eth0")
        .meets(What::Received)
        .meets(What::Local)
        .with(|event| event.bytes.clear())
        .meets(What::Socket);
    let reply = Walk::reply(tcp(SERVER, CLIENT, SYN_ACK), 400)
        .with(|event| event.skb = 0xff01)
        .at(202, "eth0")
        .meets(What::Sent)
        .by(2, "vethweb")
        .meets(What::Received)
        .at(2, "flannel.1")
        .meets(What::Sent)
        .with(|event| event.packet.tunnel = tunnel(2, 1))
        .at(2, "eth0")
        .meets(What::Sent)
        .by(1, "eth0")
        .meets(What::Received)
        .with(|event| event.packet.tunnel = None)
        .by(1, "flannel.1")
        .meets(What::Received)
        .tracked(Tracking::Reply)
        .from(SERVICE)
        .at(1, "vethcart")
        .meets(What::Sent)
        .tracked(Tracking::None)
        .by(101, "eth0")
        .meets(What::Received)
        .meets(What::Socket);
    let established = Walk::request(tcp(CLIENT, SERVICE, ACK), 600)
        .with(|event| event.skb = 0xff02)
        .at(101, "eth0")
        .meets(What::Sent)
        .by(202, "eth0")
        .meets(What::Socket);
    let sent = Walk::request(data(CLIENT, SERVICE, 1001, 2800), 700)
        .with(|event| event.skb = 0xff03)
        .with(|event| event.segments = 2)
        .at(101, "eth0")
        .meets(What::Sent)
        .by(1, "vethcart")
        .meets(What::Received);
    let mut exchange = exchange([request, reply, established, sent]);
    exchange.listener = Some(Listener {
        process: Some("etcd (pid 812)".to_owned()),
        waiting: None,
    });
    exchange
}

/// By a rule of the node's; it is answered with an ICMP error, and the client tries again.
pub fn dropped_by_rule() -> Exchange {
    let walk = |begins: u64, skb: u64| {
        Walk::request(tcp(CLIENT, SERVER, SYN), begins)
            .with(|event| event.skb = skb)
            .with(|event| event.packet.id = Some(u16::try_from(skb).unwrap()))
            .at(101, "eth0")
            .meets(What::Sent)
            .by(1, "vethcart")
            .meets(What::Received)
            .tracked(Tracking::New)
            .meets(What::Forward)
            .meets(What::Icmp { kind: 3, code: 13 })
            .meets(passes(Hook::Forward, HookVerdict::Dropped))
            .meets(dropped("NETFILTER_DROP", "nf_hook_slow"))
    };
    let error = Walk::reply(icmp("10.244.1.1:0", "10.244.1.5:0", (3, 13), None), 30)
        .at(1, "vethcart")
        .meets(What::Sent)
        .by(101, "eth0")
        .meets(What::Received);
    let mut exchange = exchange([walk(0, 1), error, walk(1_000_000, 2)]);
    let rule = applied(CandidateRule {
        place: RulePosition::Position(3),
        text: "-A FORWARD -s 10.244.1.0/24 -d 10.244.2.0/24 -p tcp -m comment --comment \"isolate shop\" -j REJECT --reject-with \
               icmp-admin-prohibited"
            .to_owned(),
        ..rule("filter", "FORWARD", Action::Reject)
    });
    for journey in &mut exchange.journeys {
        let last = journey.hops.last_mut().unwrap();
        if matches!(last.event.what, What::Dropped { .. }) {
            last.rule = Some(rule.clone());
        }
    }
    exchange
}

fn rule(table: &str, chain: &str, action: Action) -> CandidateRule {
    CandidateRule {
        tool: Tool::IptablesNft,
        family: Family::Ip,
        table: table.to_owned(),
        chain: chain.to_owned(),
        place: RulePosition::Position(1),
        text: String::new(),
        words: None,
        action,
        certain: true,
        reached: true,
        packets: None,
        owner: None,
    }
}

fn applied(rule: CandidateRule) -> AppliedRule {
    let end = |text: &str| text.parse::<std::net::SocketAddr>().unwrap();
    let (client, server) = (end(CLIENT), end(SERVER));
    let flow = RuleFlow {
        destination_port: Some(server.port()),
        ..RuleFlow::between(PacketPath::Forward, 6, client.ip(), server.ip())
    };
    AppliedRule {
        fixes: rule.fixes(&flow),
        rule,
    }
}

/// For a Service, past conntrack.
pub fn untracked() -> Exchange {
    let request = Walk::request(tcp(CLIENT, SERVICE, SYN), 0)
        .at(101, "eth0")
        .meets(What::Sent)
        .by(1, "vethcart")
        .meets(What::Received)
        .tracked(Tracking::Untracked)
        .meets(passes(Hook::Prerouting, HookVerdict::Accepted))
        .at(1, "eth0")
        .meets(What::Sent);
    let mut exchange = exchange([request]);
    let rule = applied(CandidateRule {
        text: "-A PREROUTING -p tcp -j NOTRACK".to_owned(),
        words: Some(
            ["PREROUTING", "-p", "tcp", "-j", "NOTRACK"]
                .map(str::to_owned)
                .to_vec(),
        ),
        certain: false,
        ..rule("raw", "PREROUTING", Action::NoTrack)
    });
    exchange.journeys[0].hops[2].rule = Some(rule.clone());
    exchange.untracked = Some(Untracked {
        rule: Some(rule),
        service: Some("Service shop/web:https (10.96.7.7:443)".to_owned()),
    });
    exchange
}

/// Names that would do something to a terminal.
pub const HOSTILE: &str = "a\nb\x1b[2Jc\u{202e}d\x07";

/// Wherever there is a name.
pub fn hostile() -> Exchange {
    let request = Walk::request(tcp(CLIENT, SERVER, SYN), 0)
        .with(|event| event.bytes = vec![0x45])
        .at(666, HOSTILE)
        .meets(What::Sent)
        .meets(dropped(HOSTILE, HOSTILE));
    let mut exchange = exchange([request]);
    let words = ["INPUT", "--dport", "443", "--comment", HOSTILE, "-j", "DROP"];
    let rule = applied(CandidateRule {
        text: HOSTILE.to_owned(),
        words: Some(words.map(str::to_owned).to_vec()),
        ..rule("filter", "INPUT", Action::Drop)
    });
    exchange.journeys[0].hops[1].rule = Some(rule.clone());
    exchange.untracked = Some(Untracked {
        rule: Some(rule),
        service: Some(HOSTILE.to_owned()),
    });
    exchange.listener = Some(Listener {
        process: Some(HOSTILE.to_owned()),
        waiting: Some(3),
    });
    exchange
}

pub fn totals() -> Totals {
    Totals {
        exchanges: 3,
        packets: 17,
        outcomes: Outcome::ALL.into_iter().zip([2, 0, 1]).collect(),
        lost: Lost {
            budget: 4,
            ..Lost::default()
        },
        started: time(),
        ended: "2026-11-23T09:11:02Z".parse().unwrap(),
        watched: format!("from {HOSTILE}"),
    }
}
