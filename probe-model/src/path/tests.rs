use probe_ebpf::contract::path::Point;

use super::{
    event::{Direction, Hook, HookVerdict, Tcp},
    reason::{Fate, fate, icmp as icmp_name, words},
    samples::{ACK, RST_ACK, START, SYN, SYN_ACK, Walk, data, dropped, end, exchange, icmp, tcp, udp},
    *,
};

const CLIENT: &str = "10.244.1.5:41234";
const SERVICE: &str = "10.96.7.7:443";
const SERVER: &str = "10.244.2.9:8443";

#[test]
fn fates() {
    for (reason, at, expected) in [
        ("NETFILTER_DROP", "", Fate::Filter),
        ("NO_SOCKET", "tcp_v4_rcv", Fate::NoSocket),
        ("NO_SOCKET", "icmp_rcv", Fate::AtSocket),
        ("NO_SOCKET", "ping_rcv.part.0", Fate::AtSocket),
        ("", "icmp_rcv", Fate::AtSocket),
        ("", "sk_stream_kill_queues", Fate::AtSocket),
        ("OTHERHOST", "", Fate::OtherHost),
        ("BPF_CGROUP_EGRESS", "ip_finish_output", Fate::Fault),
        ("SOCKET_FILTER", "tcp_v4_rcv", Fate::Fault),
        ("SOCKET_FILTER", "raw_rcv", Fate::AtSocket),
        ("TCP_LISTEN_OVERFLOW", "", Fate::Fault),
        ("TCP_SOMETHING_NEW", "", Fate::AtSocket),
        ("NOT_SPECIFIED", "nft_do_chain", Fate::Filter),
        ("NOT_SPECIFIED", "nf_hook_bridge_pre", Fate::Filter),
        ("NOT_SPECIFIED", "br_handle_frame", Fate::Fault),
        ("NOT_SPECIFIED", "tcp_v4_rcv", Fate::AtSocket),
        ("NOT_SPECIFIED", "tcp_v6_rcv", Fate::NoSocket),
        ("PACKET_SOCK_ERROR", "tpacket_rcv", Fate::Healthy),
        ("TCP_CSUM", "", Fate::Fault),
        ("TCP_OLD_DATA", "", Fate::AtSocket),
        ("SOCKET_CLOSE", "", Fate::AtSocket),
        ("SOCKET_RCVBUFF", "", Fate::Fault),
        ("IP_RPFILTER", "", Fate::Fault),
        ("SOMETHING_NEW", "", Fate::Fault),
        ("NOT_SPECIFIED", "nf_hook_slow", Fate::Filter),
        ("", "nf_hook_slow.constprop.0", Fate::Filter),
        ("", "tcp_v6_rcv", Fate::NoSocket),
        ("", "tcp_rcv_state_process", Fate::AtSocket),
        ("", "packet_rcv", Fate::Healthy),
        ("", "ip_forward", Fate::Fault),
        ("", "", Fate::Fault),
        // The reason, where there is one, says it.
        ("IP_INHDR", "nf_hook_slow", Fate::Fault),
    ] {
        let known = |text: &'static str| Some(text).filter(|text| !text.is_empty());
        assert_eq!(fate(known(reason), known(at)), expected, "{reason} {at}");
    }
}

#[test]
fn reasons_in_words() {
    for (reason, at, expected) in [
        (Some("NETFILTER_DROP"), None, "the packet filter dropped it"),
        (
            Some("NETFILTER_DROP"),
            Some("ip_forward"),
            "the packet filter dropped it",
        ),
        (
            Some("NOT_SPECIFIED"),
            Some("nf_hook_slow.isra.0"),
            "the packet filter dropped it",
        ),
        (
            None,
            Some("ip_error"),
            "no route to the destination, or one of type blackhole, prohibit or unreachable",
        ),
        // What a function usually drops for is a guess, where the kernel has a name.
        (
            Some("SOMETHING_NEW"),
            Some("ip_error"),
            "kernel reason SOMETHING_NEW, in ip_error",
        ),
        (Some("SOMETHING_NEW"), None, "kernel reason SOMETHING_NEW"),
        (
            Some("BPF_CGROUP_EGRESS"),
            Some("ip_finish_output"),
            "a BPF program at the egress of its sender's control group (cgroup) dropped it",
        ),
        (None, Some("new.cold"), "by new, the kernel reports no reason"),
        (Some("NOT_SPECIFIED"), None, "the kernel reports no reason"),
        (None, None, "the kernel reports no reason"),
    ] {
        assert_eq!(words(reason, at), expected, "{reason:?} {at:?}");
    }
}

#[test]
fn icmp_messages() {
    for (v4, kind, code, expected) in [
        (true, 8, 0, "ICMP echo request"),
        (false, 128, 0, "ICMP echo request"),
        (true, 0, 0, "ICMP echo reply"),
        (true, 3, 0, "ICMP no route to network"),
        (true, 3, 1, "ICMP host unreachable"),
        (true, 3, 2, "ICMP destination unreachable"),
        (true, 3, 3, "ICMP port unreachable"),
        (false, 1, 4, "ICMP port unreachable"),
        (false, 1, 3, "ICMP host unreachable"),
        (true, 3, 4, "ICMP packet too big"),
        (false, 2, 0, "ICMP packet too big"),
        (true, 3, 13, "ICMP administratively prohibited"),
        (true, 11, 0, "ICMP hop limit exceeded"),
        (false, 3, 0, "ICMP hop limit exceeded"),
        (true, 128, 1, "ICMP type 128 code 1"),
    ] {
        assert_eq!(icmp_name(v4, kind, code), expected, "{v4} {kind} {code}");
    }
}

#[test]
fn trackings() {
    const ENTRY: u64 = 0xffff_8880_1234_5600;
    for (raw, expected) in [
        (0, Tracking::None),
        (2, Tracking::None),
        (7, Tracking::Untracked),
        (ENTRY | 7, Tracking::Untracked),
        (ENTRY, Tracking::Established),
        (ENTRY | 1, Tracking::Related),
        (ENTRY | 2, Tracking::New),
        (ENTRY | 3, Tracking::Reply),
        (ENTRY | 4, Tracking::Reply),
    ] {
        assert_eq!(Tracking::from_raw(raw), expected, "{raw:#x}");
    }
}

#[test]
fn verdicts_hooks_and_points() {
    for (result, expected) in [
        (1, HookVerdict::Accepted),
        (0, HookVerdict::Taken),
        (-1, HookVerdict::Dropped),
        (i32::MIN, HookVerdict::Dropped),
    ] {
        assert_eq!(HookVerdict::of_result(result), expected, "{result}");
    }
    assert_eq!(Hook::from_raw(2), Some(Hook::Forward));
    assert_eq!(Hook::from_raw(5), None);
    let all = [
        What::Sent,
        What::Received,
        dropped("", ""),
        What::Consumed,
        What::Hook {
            hook: None,
            verdict: None,
        },
        What::Route { found: true },
        What::Forward,
        What::Local,
        What::Output,
        What::Socket,
        What::Icmp { kind: 3, code: 3 },
        What::Conntrack,
        What::Nat { destination: true },
        What::Encapsulate,
        What::Decapsulate,
    ];
    let names: Vec<_> = all.iter().map(What::name).collect();
    let points: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
    assert_eq!(names, points);
}

#[test]
fn titles() {
    let with = |flags, payload| Packet {
        payload,
        ..tcp(CLIENT, SERVER, flags)
    };
    for (packet, expected) in [
        (with(SYN, 0), "SYN"),
        (with(SYN_ACK, 0), "SYN-ACK"),
        (with(ACK, 0), "ACK"),
        (with(ACK | Tcp::FIN, 0), "FIN"),
        (with(RST_ACK, 0), "RST"),
        (with(ACK, 12), "12 bytes"),
        (with(ACK | Tcp::FIN, 12), "FIN and 12 bytes"),
        (with(SYN, 12), "SYN and 12 bytes"),
        (with(0, 0), "TCP without flags"),
        (udp(CLIENT, SERVER, 12), "UDP, 12 bytes"),
        (
            Packet {
                protocol: 132,
                ..udp(CLIENT, SERVER, 12)
            },
            "SCTP, 12 bytes",
        ),
        (
            Packet {
                protocol: 47,
                ..udp(CLIENT, SERVER, 12)
            },
            "protocol 47, 12 bytes",
        ),
        (
            icmp("10.0.0.1:7", "10.0.0.2:7", (8, 0), Some(1)),
            "ICMP echo request",
        ),
        (
            icmp("[fd00::1]:0", "[fd00::2]:0", (1, 4), None),
            "ICMP port unreachable",
        ),
    ] {
        assert_eq!(packet.title(), expected);
    }
    assert!(icmp("[fd00::1]:7", "[fd00::2]:7", (128, 0), Some(1)).is_echo());
    assert!(!icmp("[fd00::1]:7", "[fd00::2]:7", (8, 0), Some(1)).is_echo());
}

/// How many packets are told, and of which hops.
fn grouped(walks: impl IntoIterator<Item = Walk>) -> Vec<Vec<&'static str>> {
    let exchange = exchange(walks);
    let hops = |journey: &Journey| journey.hops.iter().map(|hop| hop.event.what.name()).collect();
    exchange.journeys.iter().map(hops).collect()
}

/// A reply that has its request's memory comes as more of the request: its addresses say that it is not.
#[test]
fn a_reply_in_the_memory_of_its_request() {
    let asked = Walk::request(udp(CLIENT, SERVER, 5), 0)
        .at(101, "eth0")
        .meets(What::Sent)
        .by(202, "eth0")
        .meets(What::Received)
        .meets(What::Socket);
    let answered = Walk::request(udp(SERVER, CLIENT, 5), 500)
        .at(202, "")
        .meets(What::Output)
        .at(202, "eth0")
        .meets(What::Sent)
        .by(101, "eth0")
        .meets(What::Received)
        .meets(What::Socket);
    let exchange = exchange([asked, answered]);
    let directions: Vec<_> = exchange
        .journeys
        .iter()
        .map(|journey| journey.direction)
        .collect();
    assert_eq!(directions, [Direction::Request, Direction::Reply]);
    assert_eq!(exchange.journeys[0].hops.len(), 3);
    assert_eq!(exchange.reply().map(|reply| reply.hops.len()), Some(4));
}

#[test]
fn a_translation_keeps_a_packet_together() {
    let walk = Walk::request(tcp(CLIENT, SERVICE, SYN), 0)
        .at(101, "eth0")
        .meets(What::Sent)
        .by(1, "veth")
        .to(SERVER)
        .meets(What::Nat { destination: true })
        .from("192.168.0.1:5000")
        .with(|event| event.skb = 1)
        .meets(What::Sent);
    let exchange = exchange([walk]);
    assert_eq!(exchange.journeys.len(), 1);
    let journey = &exchange.journeys[0];
    assert_eq!(
        journey.words(1),
        "NAT rewrites its destination, destination 10.96.7.7:443 became 10.244.2.9:8443 (DNAT)"
    );
    assert_eq!(
        journey.words(2),
        "sent, source 10.244.1.5:41234 became 192.168.0.1:5000 (SNAT)"
    );
    let change = Change {
        before: end(SERVICE),
        after: end(SERVER),
    };
    assert_eq!(journey.changes(1), (None, Some(change)));
    assert_eq!(journey.changes(0), (None, None));
    assert_eq!(journey.words(9), "");
}

#[test]
fn a_retransmission_is_another_packet() {
    let first = Walk::request(tcp(CLIENT, SERVER, SYN), 0)
        .at(101, "eth0")
        .meets(What::Output)
        .meets(What::Sent)
        .by(1, "veth")
        .meets(What::Received);
    let numbered = |id| first.clone().numbered(id);
    let second = first.clone().later(1_000_000);
    let way = vec!["output", "sent", "received"];
    assert_eq!(
        grouped([numbered(7), second.clone().numbered(8)]),
        [way.clone(), way.clone()]
    );
    let again = exchange([numbered(7), second.clone().numbered(8)]);
    assert_eq!(
        again
            .journeys
            .iter()
            .map(|journey| journey.again)
            .collect::<Vec<_>>(),
        [false, true]
    );
    // One number: one packet, that goes in circles.
    assert_eq!(grouped([numbered(7), second.clone().numbered(7)]).len(), 1);
    // Without numbers, as with IPv6: what its sender sends from the same device again, and what comes before that, even in the
    // same memory.
    assert_eq!(grouped([numbered(0), second.numbered(0)]), [way.clone(), way]);
    // At once, as after a hint, but in other memory.
    let six = |skb| {
        Walk::request(tcp("[fd00::1]:5", "[fd00::2]:6", SYN), skb)
            .with(|event| event.skb = skb)
            .at(101, "eth0")
            .meets(What::Output)
            .meets(What::Sent)
    };
    assert_eq!(
        grouped([six(1), six(100)]),
        [["output", "sent"], ["output", "sent"]]
    );
    // Larger than a device takes, and so sent again in pieces, each with a number of its own.
    let large = |sequence, payload, id, begins| {
        Walk::request(data(CLIENT, SERVER, sequence, payload), begins)
            .numbered(id)
            .at(101, "eth0")
            .meets(What::Output)
            .meets(What::Sent)
    };
    let pieces = grouped([
        large(1, 2796, 7, 0),
        large(1, 948, 8, 2_000),
        large(949, 948, 9, 2_100),
    ]);
    assert_eq!(pieces, [["output", "sent"]; 3]);
    // Through a VRF at once.
    let vrf = Walk::request(tcp("[fd00::1]:5", "[fd00::2]:6", SYN), 0)
        .at(1, "")
        .meets(What::Output)
        .at(1, "vrf0")
        .meets(What::Sent)
        .meets(What::Output)
        .at(1, "eth0")
        .meets(What::Sent);
    assert_eq!(grouped([vrf]).len(), 1);
    // Of one that comes from elsewhere: a device gets it once.
    let outside = Walk::request(tcp("[fd00::1]:5", "[fd00::2]:6", SYN), 0)
        .by(1, "eth0")
        .meets(What::Received)
        .by(1, "br0")
        .meets(What::Received);
    assert_eq!(grouped([outside.clone()]).len(), 1);
    assert_eq!(grouped([outside.clone(), outside.later(1_000_000)]).len(), 2);
}

#[test]
fn segments_are_of_the_packet_they_were_cut_from() {
    let large = Walk::request(data("[fd00::1]:5", "[fd00::2]:6", 1000, 3000), 0)
        .with(|event| event.segments = 3)
        .at(101, "")
        .meets(What::Output);
    let segment = |at: u32| {
        Walk::request(
            data("[fd00::1]:5", "[fd00::2]:6", 1000 + at, 1000),
            50 + u64::from(at),
        )
        .with(|event| event.skb = u64::from(at))
        .at(101, "eth0")
        .meets(What::Sent)
    };
    let walks = [large, segment(0), segment(1000), segment(2000)];
    assert_eq!(grouped(walks.clone()), [["output", "sent", "sent", "sent"]]);
    // The next bytes are another packet; a part of the first once more is too.
    let next = walks.clone().into_iter().chain([segment(3000)]);
    assert_eq!(grouped(next).len(), 2);
    let again = walks.into_iter().chain([segment(0).later(300_000)]);
    assert_eq!(grouped(again).len(), 2);
}

#[test]
fn other_packets_are_other_packets() {
    let at = |walk: Walk| walk.at(101, "eth0").meets(What::Sent);
    let ack = |begins, id| at(Walk::request(tcp(CLIENT, SERVER, ACK), begins).numbered(id));
    // Duplicates are told apart by their numbers, and are no retransmissions.
    let duplicates = exchange([ack(0, 1), ack(50, 2)]);
    assert_eq!(duplicates.journeys.len(), 2);
    assert!(!duplicates.journeys[1].again);
    let later = Walk::request(
        Packet {
            tcp: Some(Tcp {
                sequence: 1000,
                acknowledgment: 5,
                flags: ACK,
            }),
            ..tcp(CLIENT, SERVER, ACK)
        },
        50,
    );
    assert_eq!(grouped([ack(0, 0), at(later.numbered(0))]).len(), 2);
    // Both ways.
    let reply = at(Walk::reply(tcp(SERVER, CLIENT, ACK), 50));
    assert_eq!(grouped([ack(0, 7), reply]).len(), 2);
    // Echoes by their sequence, datagrams by their length.
    let echo = |begins, sequence| {
        at(Walk::request(icmp("10.0.0.1:7", "10.0.0.2:7", (8, 0), Some(sequence)), begins).numbered(0))
    };
    assert_eq!(grouped([echo(0, 1), echo(50, 2)]).len(), 2);
    let datagram = |begins, payload| at(Walk::request(udp(CLIENT, SERVER, payload), begins).numbered(0));
    assert_eq!(grouped([datagram(0, 1), datagram(50, 2)]).len(), 2);
    // An error about a packet is neither it nor its reply.
    let error = at(Walk::reply(icmp("10.0.0.9:0", CLIENT, (3, 1), None), 50));
    let exchange = exchange([datagram(0, 1), error]);
    assert_eq!(exchange.journeys.len(), 2);
    assert!(exchange.reply().is_none() && exchange.error().is_some());
    // A better way is no error: the packet goes on.
    let redirect = at(Walk::reply(icmp("10.0.0.9:0", CLIENT, (5, 1), None), 50));
    assert!(self::exchange([datagram(0, 1), redirect]).error().is_none());
}

#[test]
fn flows_are_told_when_they_rest() {
    const MS: u64 = 1_000_000;
    let event = |walk: Walk| walk.meets(What::Sent).events().remove(0);
    let syn = |flow| {
        let mut event = event(Walk::request(tcp(CLIENT, SERVER, SYN), 0).at(1, "eth0"));
        event.flow = flow;
        event
    };
    let mut flows = Exchanges::default();
    flows.push(syn(9));
    // It left: an answer is waited for.
    assert!(flows.due(START + 400 * MS).is_empty());
    assert_eq!(flows.due(START + 1200 * MS).len(), 1);
    assert!(flows.rest().is_empty());
    // Answered.
    let delivered = Walk::request(tcp(CLIENT, SERVER, SYN), 0).meets(What::Socket);
    let answer = Walk::reply(tcp(SERVER, CLIENT, SYN_ACK), 10).meets(What::Socket);
    for event in delivered.events().into_iter().chain(answer.events()) {
        flows.push(event);
    }
    assert!(flows.due(START + 200 * MS).is_empty());
    assert_eq!(flows.due(START + 400 * MS).len(), 1);
    // Never at rest.
    for time in 0..20 {
        let mut event = syn(9);
        event.time_ns += time * 200 * MS;
        flows.push(event);
    }
    assert_eq!(flows.due(START + 3900 * MS).len(), 1);
    // It came, and may wait for an address.
    let came = Walk::request(tcp(CLIENT, SERVER, SYN), 0).meets(What::Received);
    flows.push(came.events().remove(0));
    assert!(flows.due(START + 3400 * MS).is_empty());
    assert_eq!(flows.due(START + 3500 * MS).len(), 1);
    // It was told, is sent again, and comes to another end.
    let mut again = syn(9);
    again.packet.id = Some(77);
    flows.push(again.clone());
    let told = flows.rest();
    assert!(told[0].journeys[0].again);
    // And once more, to the same: nothing new.
    again.packet.id = Some(78);
    flows.push(again.clone());
    assert!(flows.rest().is_empty());
    // Not so if another packet of the flow came meanwhile.
    again.packet.id = Some(79);
    flows.push(again);
    flows.push(event(
        Walk::request(data(CLIENT, SERVER, 1001, 5), 90).at(1, "eth0"),
    ));
    assert_eq!(flows.rest().len(), 1);
    // Too many: the oldest makes room.
    (1000..1300).for_each(|flow| flows.push(syn(flow)));
    let early = flows.due(START);
    assert_eq!(early.len(), 300 - 256);
    assert_eq!((early[0].flow, flows.rest().len()), (1000, 256));
}

#[test]
fn what_is_too_much_is_counted() {
    let many = (0..70).map(|at| {
        Walk::request(data(CLIENT, SERVER, at * 100, 10), u64::from(at) * 20)
            .at(1, "eth0")
            .meets(What::Sent)
    });
    let exchange_of_many = exchange(many);
    assert_eq!(
        (exchange_of_many.journeys.len(), exchange_of_many.left_out),
        (64, 6)
    );
    let long = (0..200).fold(Walk::request(tcp(CLIENT, SERVER, SYN), 0), |walk, at| {
        walk.by(at, "eth0").meets(What::Received)
    });
    let long = exchange([long]);
    assert_eq!((long.journeys[0].hops.len(), long.journeys[0].left_out), (192, 8));
}

#[test]
fn what_says_nothing_is_left_out() {
    let walk = Walk::request(tcp(CLIENT, SERVER, SYN), 0)
        .by(1, "eth0")
        .meets(What::Local)
        .meets(What::Local)
        .meets(What::Socket)
        .meets(What::Socket);
    assert_eq!(grouped([walk]), [["local", "socket"]]);
}

fn journey(walk: Walk) -> Journey {
    exchange([walk]).journeys.remove(0)
}

#[test]
fn ends() {
    let begin = || {
        Walk::request(tcp(CLIENT, SERVER, SYN), 0)
            .by(1, "eth0")
            .meets(What::Received)
    };
    let other = |walk: Walk| walk.with(|event| event.skb = 1);
    for (name, walk, expected) in [
        ("socket", begin().meets(What::Socket), JourneyEnd::Delivered(1)),
        (
            "socket, then used",
            begin().meets(What::Socket).meets(What::Consumed),
            JourneyEnd::Delivered(1),
        ),
        (
            "used",
            begin().meets(What::Local).meets(What::Consumed),
            JourneyEnd::Delivered(1),
        ),
        (
            "discarded it",
            begin().meets(dropped("TCP_OLD_DATA", "tcp_ack")),
            JourneyEnd::Delivered(1),
        ),
        (
            "a full buffer",
            begin().meets(What::Socket).meets(dropped("SOCKET_RCVBUFF", "")),
            JourneyEnd::Dropped(2),
        ),
        (
            "a copy's end is not its own",
            other(begin().meets(What::Socket)).meets(dropped("SOCKET_RCVBUFF", "")),
            JourneyEnd::Delivered(1),
        ),
        (
            "no socket",
            begin().meets(dropped("NO_SOCKET", "tcp_v4_rcv")),
            JourneyEnd::Dropped(1),
        ),
        (
            "filter",
            begin().meets(dropped("NETFILTER_DROP", "")),
            JourneyEnd::Dropped(1),
        ),
        (
            "a copy for another",
            other(begin().meets(What::Forward).meets(What::Sent))
                .at(101, "eth0")
                .meets(What::Received)
                .meets(dropped("OTHERHOST", "")),
            JourneyEnd::Left(2),
        ),
        (
            "for another host's MAC address",
            begin().meets(What::Received).meets(dropped("OTHERHOST", "")),
            JourneyEnd::Dropped(2),
        ),
        (
            "copies for others alone",
            other(begin().meets(dropped("OTHERHOST", "")))
                .at(101, "eth0")
                .meets(What::Received)
                .meets(dropped("OTHERHOST", "")),
            JourneyEnd::Dropped(3),
        ),
        (
            "a fragment that is kept",
            begin()
                .with(|event| event.packet.fragment = true)
                .meets(What::Local)
                .meets(What::Consumed),
            JourneyEnd::Arrived(1),
        ),
        (
            "sent, then freed",
            begin()
                .meets(What::Forward)
                .meets(What::Sent)
                .meets(What::Consumed),
            JourneyEnd::Left(2),
        ),
        ("on its way", begin().meets(What::Forward), JourneyEnd::Arrived(1)),
        ("nothing more", begin(), JourneyEnd::Arrived(0)),
    ] {
        let journey = journey(walk);
        assert_eq!(journey.end(), expected, "{name}");
        assert_eq!(journey.end().hop(), expected.hop());
        let fault = matches!(
            name,
            "a full buffer" | "filter" | "for another host's MAC address" | "copies for others alone"
        );
        assert_eq!(journey.fault().is_some(), fault, "{name}");
    }
}

#[test]
fn hops_in_words() {
    let tunnel = Tunnel {
        vni: 5,
        source: "192.168.0.1".parse().unwrap(),
        destination: end("192.168.0.2:4789"),
    };
    let walk = Walk::request(tcp(CLIENT, SERVER, SYN), 0)
        .at(1, "eth0")
        .with(|event| event.packet.tunnel = Some(tunnel))
        .meets(What::Sent)
        .meets(What::Received)
        .with(|event| event.packet.tunnel = None)
        .meets(What::Route { found: false })
        .tracked(Tracking::New)
        .meets(What::Hook {
            hook: Some(Hook::Forward),
            verdict: Some(HookVerdict::Dropped),
        })
        .meets(What::Hook {
            hook: None,
            verdict: None,
        })
        .meets(What::Icmp { kind: 3, code: 1 })
        .meets(dropped("OTHERHOST", ""))
        .meets(dropped("", "tcp_ack"))
        .meets(dropped("IP_RPFILTER", ""));
    let journey = journey(walk);
    let words: Vec<_> = (0..journey.hops.len()).map(|at| journey.words(at)).collect();
    assert_eq!(
        words,
        [
            "sent in VXLAN to 192.168.0.2:4789 (VNI 5)",
            "came in, in VXLAN from 192.168.0.1 (VNI 5)",
            "not routed: no route, or its source is not allowed on this side",
            "FORWARD: dropped",
            "passes a netfilter hook",
            "answered with ICMP host unreachable",
            "freed: a copy for another host",
            "its socket discarded it (tcp_ack)",
            "DROPPED: reverse path filter: replies to its source would leave by another device (rp_filter)",
        ]
    );
    let tracking: Vec<_> = (0..5).map(|at| journey.tracking(at)).collect();
    assert_eq!(tracking, [None, None, None, Some(Tracking::New), None]);
    assert_eq!(journey.way(), [(1, "eth0")]);
}
