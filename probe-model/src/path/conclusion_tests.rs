use super::{
    super::Detour,
    super::{
        event::{Hook, HookVerdict, Tracking},
        samples::{ACK, RST_ACK, SYN, SYN_ACK, Walk, data, dropped, exchange, icmp, places, tcp, udp},
    },
    *,
};
use crate::{
    network::RouteKind,
    routing::PolicyRoute,
    rule::{
        Action, CandidateRule, Tool,
        samples::{iptables, notrack},
    },
};

const CLIENT: &str = "10.244.1.5:41234";
const SERVICE: &str = "10.96.7.7:443";
const SERVER: &str = "10.244.2.9:8443";

#[test]
fn times() {
    for (ns, expected) in [(61_999, "61 µs"), (1_500_000, "1.5 ms"), (2_000_000_000, "2.0 s")] {
        assert_eq!(time(ns), expected);
    }
}

#[test]
fn names_of_outcomes() {
    let names: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
    let mut unique = names.clone();
    unique.dedup();
    assert_eq!(names, unique);
    assert_eq!(names.len(), 7);
}

fn concluded(walks: impl IntoIterator<Item = Walk>) -> (Outcome, String) {
    told(&exchange(walks))
}

fn told(exchange: &Exchange) -> (Outcome, String) {
    let conclusion = exchange.conclusion(&places);
    assert_eq!(conclusion.fixes, []);
    (conclusion.outcome, conclusion.text)
}

fn is(outcome: Outcome, text: &str) -> (Outcome, String) {
    (outcome, text.to_owned())
}

/// From the pod to its node.
fn request(flags: u8) -> Walk {
    Walk::request(tcp(CLIENT, SERVER, flags), 0)
        .at(101, "eth0")
        .meets(What::Sent)
        .by(1, "veth")
        .meets(What::Received)
}

fn socket(walk: Walk) -> Walk {
    walk.by(202, "eth0").meets(What::Received).meets(What::Socket)
}

fn left(walk: Walk) -> Walk {
    walk.at(1, "eth0").meets(What::Sent)
}

fn reply(flags: u8) -> Walk {
    Walk::reply(tcp(SERVER, CLIENT, flags), 100)
}

/// By the node to the pod.
fn back(walk: Walk) -> Walk {
    walk.at(1, "veth")
        .meets(What::Sent)
        .by(101, "eth0")
        .meets(What::Received)
        .meets(What::Socket)
}

fn rule(certain: bool) -> AppliedRule {
    AppliedRule {
        rule: CandidateRule {
            certain,
            ..notrack("the-rule")
        },
        fixes: vec![Fix::text("delete the rule")],
    }
}

#[test]
fn only_replies() {
    assert_eq!(
        concluded([back(reply(SYN_ACK))]),
        is(
            Outcome::NoRequest,
            "no request was seen, only packets of the reply direction"
        )
    );
    // That it was dropped is more than that.
    let lost = filtered(reply(SYN_ACK).by(2, "veth").meets(What::Received));
    let (outcome, text) = concluded([lost]);
    assert_eq!(outcome, Outcome::Dropped);
    assert!(
        text.starts_with("no request was seen here; the reply SYN-ACK was dropped in beta at veth"),
        "{text}"
    );
}

#[test]
fn the_way_back() {
    let there = || socket(request(SYN));
    let delivered = "SYN delivered to 10.244.2.9:8443 in pod shop/web in 30 µs";
    let same = back(reply(SYN_ACK).at(202, "eth0").meets(What::Sent));
    assert_eq!(
        concluded([there(), same]),
        (
            Outcome::Delivered,
            format!("{delivered}; the reply took the same way back")
        )
    );
    let other = back(reply(SYN_ACK).at(202, "eth1").meets(What::Sent));
    assert_eq!(
        concluded([there(), other]),
        (
            Outcome::Delivered,
            format!("{delivered}; the reply came back another way")
        )
    );
    let away = reply(SYN_ACK)
        .at(202, "eth0")
        .meets(What::Sent)
        .at(2, "eth7")
        .meets(What::Sent);
    assert_eq!(
        concluded([there(), away]),
        (
            Outcome::Delivered,
            format!("{delivered}; the reply left beta by eth7")
        )
    );
    // Nothing is known of its way.
    let unseen = reply(SYN_ACK).by(101, "eth0").meets(What::Socket);
    assert_eq!(
        concluded([there(), unseen]),
        (Outcome::Delivered, format!("{delivered}; the reply came back"))
    );
    let gone = reply(SYN_ACK)
        .by(101, "eth0")
        .meets(What::Received)
        .meets(dropped("NO_SOCKET", ""));
    assert_eq!(
        concluded([there(), gone]),
        (
            Outcome::Delivered,
            format!("{delivered}; the reply found no socket any more")
        )
    );
}

#[test]
fn of_another_machine() {
    let answered = [
        left(request(SYN)),
        back(reply(SYN_ACK).by(1, "eth0").meets(What::Received)),
    ];
    assert_eq!(
        concluded(answered),
        is(
            Outcome::Delivered,
            "SYN left alpha by eth0 after 20 µs, for 10.244.2.9:8443; the reply took the same way back"
        )
    );
    assert_eq!(
        concluded([left(request(SYN))]),
        is(
            Outcome::Unanswered,
            "SYN left alpha by eth0 after 20 µs; no answer was seen"
        )
    );
}

#[test]
fn delivered_without_an_answer() {
    for (walk, expected) in [
        (
            socket(request(ACK)),
            is(
                Outcome::Delivered,
                "ACK delivered to 10.244.2.9:8443 in pod shop/web in 30 µs",
            ),
        ),
        (
            // Not its host, as far as is known.
            request(ACK),
            is(
                Outcome::Unanswered,
                "ACK reached alpha in 10 µs; the rest of its path was not seen",
            ),
        ),
        (
            request(SYN),
            is(
                Outcome::Unanswered,
                "SYN reached alpha in 10 µs; neither a drop nor an answer was seen",
            ),
        ),
        (
            Walk::request(icmp("10.0.0.1:7", "10.0.0.2:7", (8, 0), Some(1)), 0)
                .by(202, "eth0")
                .meets(What::Local)
                .meets(What::Consumed),
            is(
                Outcome::Unanswered,
                "ICMP echo request was delivered to 10.0.0.2:7 in pod shop/web in 0 µs, which did not answer",
            ),
        ),
    ] {
        assert_eq!(concluded([walk]), expected);
    }
    let mut waiting = exchange([socket(request(SYN))]);
    for (count, words) in [
        (None, ""),
        (Some(0), ""),
        (Some(1), ": 1 connection waits to be accepted"),
        (
            Some(129),
            ": 129 connections wait to be accepted, and its accept queue may be full",
        ),
    ] {
        waiting.listener = Some(Listener {
            process: Some("etcd (pid 812)".to_owned()),
            waiting: count,
        });
        let text = "SYN was delivered to etcd (pid 812) at 10.244.2.9:8443 in pod shop/web in 30 µs, which did not \
                    answer";
        assert_eq!(told(&waiting), (Outcome::Unanswered, format!("{text}{words}")));
    }
}

#[test]
fn refused() {
    let to_nobody = || {
        request(SYN)
            .by(202, "eth0")
            .meets(What::Received)
            .meets(dropped("NO_SOCKET", "tcp_v4_rcv"))
    };
    assert_eq!(
        concluded([to_nobody()]),
        is(
            Outcome::Refused,
            "SYN reached pod shop/web in 30 µs, where no socket listens on 10.244.2.9:8443"
        )
    );
    assert_eq!(
        concluded([to_nobody(), back(reply(RST_ACK))]),
        is(
            Outcome::Refused,
            "refused by 10.244.2.9:8443 in pod shop/web: RST came back"
        )
    );
    // Its host says so, not one on the way.
    let datagram = || left(Walk::request(udp(CLIENT, SERVER, 12), 0).at(101, "eth0"));
    let error = |from: &str, message| {
        Walk::reply(icmp(from, CLIENT, message, None), 50)
            .by(1, "eth0")
            .meets(What::Received)
    };
    for (from, message, outcome, words) in [
        ("10.244.2.9:0", (3, 3), Outcome::Refused, "port unreachable"),
        ("10.0.0.9:0", (3, 3), Outcome::Unreachable, "port unreachable"),
        ("10.244.2.9:0", (3, 1), Outcome::Unreachable, "host unreachable"),
    ] {
        let from_ip = from.strip_suffix(":0").unwrap();
        assert_eq!(
            concluded([datagram(), error(from, message)]),
            (
                outcome,
                format!("{from_ip} answered UDP, 12 bytes with ICMP {words}")
            )
        );
    }
}

fn filtered(walk: Walk) -> Walk {
    walk.meets(dropped("NETFILTER_DROP", "nf_hook_slow"))
}

#[test]
fn dropped_on_its_way() {
    let text =
        "SYN was dropped in alpha at veth after 20 µs: the packet filter dropped it, by an unknown rule";
    assert_eq!(concluded([filtered(request(SYN))]), is(Outcome::Dropped, text));
    let told = filtered(request(SYN).meets(What::Icmp { kind: 3, code: 13 }));
    assert_eq!(
        concluded([told]).1,
        "SYN was dropped in alpha at veth after 30 µs: the packet filter dropped it, by an unknown rule; answered with ICMP administratively prohibited"
    );
    // By a rule that rejects.
    assert_eq!(
        concluded([filtered(request(SYN)), back(reply(RST_ACK))]),
        (Outcome::Dropped, format!("{text}; answered with RST"))
    );
    let mut unread = exchange([filtered(request(SYN))]);
    unread.journeys[0].hops[2].unread = vec!["nft takes longer than 3 s".to_owned()];
    assert_eq!(
        unread.conclusion(&places).text,
        format!("{text} (not read: nft takes longer than 3 s)")
    );
    let mut blamed = exchange([filtered(request(SYN))]);
    for (certain, by) in [(true, "by"), (false, "perhaps by")] {
        blamed.journeys[0].hops[2].rule = Some(rule(certain));
        let conclusion = blamed.conclusion(&places);
        let text = text.replace("by an unknown rule", &format!("{by} {}", rule(true).rule));
        assert_eq!(conclusion.text, text);
        assert_eq!(conclusion.fixes, [Fix::text("delete the rule")]);
    }
}

#[test]
fn dropped_at_first() {
    let again = socket(request(SYN)).numbered(8).later(1_000_000);
    let answer = back(reply(SYN_ACK)).later(1_000_000);
    let drop = request(SYN).meets(dropped("NEIGH_FAILED", ""));
    assert_eq!(
        concluded([drop, again, answer]),
        is(
            Outcome::Delivered,
            "SYN, dropped at first and sent again, delivered to 10.244.2.9:8443 in pod shop/web in 30 µs; the reply \
             came back another way"
        )
    );
}

#[test]
fn the_reply_or_what_follows_is_dropped() {
    let there = || socket(request(SYN));
    let lost = filtered(reply(SYN_ACK).by(2, "veth").meets(What::Received));
    assert_eq!(
        concluded([there(), lost.clone()]),
        is(
            Outcome::Dropped,
            "SYN was delivered to 10.244.2.9:8443 in pod shop/web, but its reply was dropped in beta at veth after 10 \
             µs: the packet filter dropped it, by an unknown rule"
        )
    );
    // Once more it came through.
    let good = back(reply(SYN_ACK)).numbered(8).later(1_000_000);
    assert_eq!(concluded([there(), lost, good]).0, Outcome::Delivered);

    let large = |begins| {
        Walk::request(data(CLIENT, SERVER, 1001, 1448), begins)
            .at(101, "eth0")
            .meets(What::Sent)
            .by(1, "veth")
            .meets(What::Received)
    };
    let cut_off = || large(200).meets(dropped("PKT_TOO_BIG", "ip_forward"));
    assert_eq!(
        concluded([there(), back(reply(SYN_ACK)), cut_off()]),
        is(
            Outcome::Dropped,
            "SYN delivered to 10.244.2.9:8443 in pod shop/web in 30 µs, and answered; but then 1448 bytes from \
             10.244.1.5:41234 was dropped in alpha at veth after 20 µs: it is larger than the next device's MTU, and must not be fragmented"
        )
    );
    let good = socket(large(900).numbered(8));
    assert_eq!(
        concluded([there(), back(reply(SYN_ACK)), cut_off(), good]).0,
        Outcome::Delivered
    );
    let error = Walk::reply(icmp("10.0.0.9:0", CLIENT, (3, 4), None), 300)
        .by(1, "eth0")
        .meets(What::Received);
    let (outcome, text) = concluded([there(), back(reply(SYN_ACK)), error]);
    assert_eq!(outcome, Outcome::Delivered);
    assert!(text.ends_with("; 10.0.0.9 sent ICMP packet too big"), "{text}");
    // Of what was dropped it says why its sender knows.
    let cut_off = request(SYN).meets(dropped("PKT_TOO_BIG", "ip_forward"));
    let error = || {
        Walk::reply(icmp("10.0.0.9:0", CLIENT, (3, 4), None), 300)
            .by(1, "eth0")
            .meets(What::Received)
    };
    let (outcome, text) = concluded([cut_off, error()]);
    assert_eq!(outcome, Outcome::Dropped);
    assert!(text.ends_with("; answered with ICMP packet too big"), "{text}");
}

#[test]
fn untranslated() {
    let accepted = What::Hook {
        hook: Some(Hook::Prerouting),
        verdict: Some(HookVerdict::Accepted),
    };
    let past = || {
        Walk::request(tcp(CLIENT, SERVICE, SYN), 0)
            .by(1, "veth")
            .meets(What::Received)
            .tracked(Tracking::Untracked)
            .meets(accepted.clone())
    };
    let with = |walks: Vec<Walk>, certain: Option<bool>, service: Option<&str>| {
        let mut exchange = exchange(walks);
        exchange.untracked = Some(Untracked {
            rule: certain.map(rule),
            service: service.map(str::to_owned),
        });
        exchange.conclusion(&places)
    };
    let conclusion = with(vec![left(past())], Some(true), Some("Service shop/web"));
    assert_eq!(conclusion.outcome, Outcome::Untranslated);
    assert_eq!(
        conclusion.text,
        "SYN left alpha by eth0 for Service shop/web untranslated: iptables-nft: raw PREROUTING rule 3: -A PREROUTING the-rule exempted it from conntrack"
    );
    assert_eq!(conclusion.fixes, [Fix::text("delete the rule")]);
    let conclusion = with(vec![left(past())], None, None);
    assert_eq!(
        conclusion.text,
        "SYN left alpha by eth0 for 10.96.7.7:443 untranslated: an unknown rule exempted it from \
         conntrack"
    );
    assert_eq!(conclusion.fixes, []);
    // That it then found no socket is no news.
    let nobody = past().meets(dropped("NO_SOCKET", "tcp_v4_rcv"));
    assert_eq!(
        with(vec![nobody], Some(false), None).text,
        "SYN passed alpha for 10.96.7.7:443 untranslated: perhaps iptables-nft: raw PREROUTING rule 3: -A PREROUTING the-rule exempted it from conntrack"
    );

    // The reply keeps the server's address; from whom the client dialled it is as it should be.
    let there = || {
        socket(
            Walk::request(tcp(CLIENT, SERVICE, SYN), 0)
                .by(1, "veth")
                .to(SERVER),
        )
    };
    let reply = reply(SYN_ACK)
        .tracked(Tracking::Untracked)
        .by(2, "veth")
        .meets(accepted.clone());
    let conclusion = with(
        vec![there(), back(reply.clone())],
        Some(true),
        Some("Service shop/web"),
    );
    // First seen behind the translation, it was dialled like that.
    assert_eq!(conclusion.outcome, Outcome::Delivered);
    let dialled = Walk::request(tcp(CLIENT, SERVICE, SYN), 0)
        .by(1, "veth")
        .meets(What::Received)
        .to(SERVER);
    let conclusion = with(
        vec![socket(dialled), back(reply)],
        Some(true),
        Some("Service shop/web"),
    );
    assert_eq!(conclusion.outcome, Outcome::Untranslated);
    assert_eq!(
        conclusion.text,
        "the reply came back as from 10.244.2.9:8443, not from Service shop/web: in beta iptables-nft: raw PREROUTING rule 3: -A PREROUTING the-rule exempted it from \
         conntrack"
    );
    assert_eq!(conclusion.fixes, [Fix::text("delete the rule")]);
}

#[test]
fn more_than_the_kernels_reason() {
    let kube_proxys = |words: &[&str]| iptables(Tool::IptablesNft, "filter", Action::Drop, words);
    let with = |walks: Vec<Walk>, rule: Option<&CandidateRule>, cause: Option<DropCause>| {
        let mut exchange = exchange(walks);
        for hop in exchange.journeys.iter_mut().flat_map(|journey| &mut journey.hops) {
            if matches!(hop.event.what, What::Dropped { .. }) {
                hop.rule = rule.map(|rule| AppliedRule {
                    rule: CandidateRule {
                        certain: false,
                        ..rule.clone()
                    },
                    fixes: vec![Fix::text("iptables -D the rule")],
                });
                hop.cause = cause.clone();
            }
        }
        exchange.conclusion(&places)
    };
    let invalid = kube_proxys(&[
        "KUBE-FORWARD",
        "-m",
        "conntrack",
        "--ctstate",
        "INVALID",
        "-j",
        "DROP",
    ]);
    let lost = || filtered(reply(SYN_ACK).by(2, "veth").meets(What::Received));
    let cases = [
        (
            with(
                vec![socket(request(SYN)), lost()],
                Some(&invalid),
                Some(DropCause::Invalid),
            ),
            "its conntrack state is INVALID: the first packets of this connection did not pass beta \
             (asymmetric routing), perhaps by iptables-nft: filter KUBE-FORWARD",
        ),
        (
            with(
                vec![
                    socket(
                        request(SYN)
                            .by(2, "eth0")
                            .tracked(Tracking::New)
                            .meets(What::Received)
                            .tracked(Tracking::None),
                    ),
                    lost(),
                ],
                Some(&invalid),
                Some(DropCause::Invalid),
            ),
            "matches no conntrack entry in beta",
        ),
        (
            with(
                vec![filtered(request(SYN))],
                None,
                Some(DropCause::InsertFailed {
                    source: "192.168.0.11:40001".parse().unwrap(),
                    destination: SERVER.parse().unwrap(),
                    translated: true,
                    taken_by: Some("10.244.1.6:999".parse().unwrap()),
                    failed: 3,
                }),
            ),
            "NAT found no free source port towards 10.244.2.9:8443, and tried 192.168.0.11:40001, which 10.244.1.6:999 has \
             (insert_failed 3)",
        ),
        (
            with(
                vec![filtered(request(SYN))],
                Some(&kube_proxys(&["KUBE-SERVICES", "-j", "DROP"])),
                Some(DropCause::NoEndpoints {
                    service: "shop/web:http".to_owned(),
                    local: false,
                }),
            ),
            "Service shop/web:http has no endpoints, perhaps by iptables-nft",
        ),
        (
            with(
                vec![
                    request(SYN)
                        .with(|event| event.packet.ttl = 1)
                        .meets(dropped("IP_INHDR", "ip_rcv_core")),
                ],
                None,
                None,
            ),
            "its TTL expired",
        ),
        (
            with(
                vec![request(SYN).meets(dropped("IP_INHDR", "ip_rcv_core"))],
                None,
                None,
            ),
            "its IP header is malformed",
        ),
        (
            with(
                vec![request(SYN).meets(dropped("IP_INHDR", "ip6_forward"))],
                None,
                None,
            ),
            "its TTL expired",
        ),
        (
            with(
                vec![request(SYN).meets(dropped("", "ip_error")), unreachable_from(13)],
                None,
                None,
            ),
            "a prohibit route leads there",
        ),
        (
            with(
                vec![
                    request(SYN).meets(dropped("NOT_SPECIFIED", "ip_error")),
                    unreachable_from(1),
                ],
                None,
                None,
            ),
            "an unreachable route leads there",
        ),
        (
            with(
                vec![
                    request(SYN).meets(dropped("IP_INNOROUTES", "ip_error")),
                    unreachable_from(0),
                ],
                None,
                None,
            ),
            ": no route to the destination; answered with",
        ),
        (
            with(
                vec![request(SYN).meets(dropped("NOT_SPECIFIED", "ip_error"))],
                None,
                Some(DropCause::Route(RouteKind::Blackhole)),
            ),
            "the route is of type blackhole",
        ),
    ];
    for (conclusion, words) in cases {
        assert_eq!(conclusion.outcome, Outcome::Dropped);
        assert!(conclusion.text.contains(words), "{}", conclusion.text);
        assert!(
            !conclusion.text.contains("could not be found"),
            "{}",
            conclusion.text
        );
        // The rule is not the cause: it is never removed.
        let fixes: Vec<_> = conclusion.fixes.iter().map(ToString::to_string).collect();
        assert!(!fixes.iter().any(|fix| fix.contains("-D ")), "{fixes:?}");
    }
}

fn unreachable_from(code: u8) -> Walk {
    Walk::reply(icmp("10.0.0.9:0", CLIENT, (3, code), None), 50)
        .by(1, "veth")
        .meets(What::Received)
}

#[test]
fn delivered_only_on_evidence() {
    let home = |lossy: bool, fragment: bool| {
        let walk = request(ACK)
            .with(|event| event.packet.fragment = fragment)
            .meets(What::Local);
        let mut exchange = exchange([walk]);
        exchange.lossy = lossy;
        exchange.journeys[0]
            .hops
            .iter_mut()
            .for_each(|hop| hop.owns = Some(true));
        told(&exchange)
    };
    assert_eq!(
        home(false, false),
        is(
            Outcome::Delivered,
            "ACK reached its host alpha in 20 µs; no drop was seen"
        )
    );
    assert_eq!(home(true, false).0, Outcome::Unanswered);
    assert_eq!(home(false, true).0, Outcome::Unanswered);
    // Consumed where its address is not: a point between was lost.
    let taken = request(ACK).meets(What::Consumed);
    let mut lost = exchange([taken]);
    assert_eq!(told(&lost).0, Outcome::Delivered);
    lost.journeys[0]
        .hops
        .iter_mut()
        .for_each(|hop| hop.owns = Some(false));
    assert_eq!(told(&lost).0, Outcome::Unanswered);
}

#[test]
fn policy_routing_is_named() {
    let mut exchange = exchange([left(request(SYN))]);
    exchange.detours = vec![Detour {
        netns: 1,
        policy: PolicyRoute {
            priority: 30400,
            rule: "from 192.168.0.11 lookup 30400".to_owned(),
            table: 30400,
            device: "eth0".to_owned(),
            main: Some("cni0".to_owned()),
        },
    }];
    let conclusion = exchange.conclusion(&places);
    let words = "; in alpha routing rule 30400 (from 192.168.0.11 lookup 30400) sends it out by eth0, where table main has cni0";
    assert!(conclusion.text.ends_with(words), "{}", conclusion.text);
    assert_eq!(conclusion.fixes.len(), 2);
}
