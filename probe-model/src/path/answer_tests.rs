use super::{
    super::samples::{SYN, SYN_ACK, Walk, dropped, exchange, places, tcp},
    *,
};

const CLIENT: &str = "10.244.1.5:41234";
const SERVICE: &str = "10.96.7.7:443";
const SERVER: &str = "10.244.1.9:8443";
const NODE: &str = "192.168.0.11:5000";

/// From a pod to a Service, whose server is on the same node: translated in namespace 1.
fn request() -> Walk {
    Walk::request(tcp(CLIENT, SERVICE, SYN), 0)
        .at(101, "eth0")
        .meets(What::Sent)
        .by(1, "veth2")
        .meets(What::Received)
        .tracked(Tracking::New)
        .to(SERVER)
        .at(1, "veth3")
        .meets(What::Sent)
        .tracked(Tracking::None)
        .by(202, "eth0")
        .meets(What::Received)
        .meets(What::Socket)
}

fn reply() -> Walk {
    Walk::reply(tcp(SERVER, CLIENT, SYN_ACK), 200)
        .at(202, "eth0")
        .meets(What::Sent)
}

fn bridged(walk: Walk) -> Walk {
    walk.by(1, "veth3")
        .meets(What::Received)
        .at(1, "veth2")
        .meets(What::Sent)
}

/// To the client, as it left the node.
fn home(walk: Walk) -> Walk {
    walk.by(101, "eth0").meets(What::Received)
}

#[test]
fn answers_of_others() {
    let with = |walks: [Walk; 2], bridge: Option<Option<bool>>| {
        let mut exchange = exchange(walks);
        exchange.bridge = bridge.map(|setting| BridgeFiltering {
            bridge: "cni0".to_owned(),
            setting,
        });
        exchange
    };
    let came = || home(bridged(reply()));
    let nobody = || came().meets(dropped("NO_SOCKET", "tcp_v4_rcv"));
    for (name, exchange, words, fixes) in [
        (
            "the setting is off",
            with([request(), nobody()], Some(Some(false))),
            "bridge cni0 in alpha forwarded it without conntrack, since net.bridge.bridge-nf-call-iptables is 0",
            1,
        ),
        (
            "delivered to a socket that takes it from anybody",
            with([request(), came().meets(What::Socket)], Some(Some(false))),
            "since net.bridge.bridge-nf-call-iptables is 0",
            1,
        ),
        (
            "the module is not loaded",
            with([request(), nobody()], Some(None)),
            "br_netfilter is not loaded",
            2,
        ),
        (
            "the setting is on",
            with([request(), nobody()], Some(Some(true))),
            "a bridge in alpha forwarded it, and conntrack did not translate it back there",
            0,
        ),
        (
            "past the node that translated",
            with([request(), home(reply())], None),
            "it did not pass alpha, which translated the request",
            1,
        ),
        (
            "in another zone",
            with(
                [
                    request(),
                    home(
                        bridged(
                            reply()
                                .by(1, "veth3")
                                .meets(What::Received)
                                .tracked(Tracking::New),
                        )
                        .tracked(Tracking::None),
                    ),
                ],
                None,
            ),
            "in another zone",
            0,
        ),
        (
            "routed, and INVALID to conntrack",
            with(
                [
                    request(),
                    home(
                        reply()
                            .by(1, "veth3")
                            .meets(What::Received)
                            .with(|event| event.packet.ttl -= 1)
                            .at(1, "veth2")
                            .meets(What::Sent),
                    ),
                ],
                None,
            ),
            "in another zone",
            0,
        ),
    ] {
        let conclusion = exchange.conclusion(&places);
        assert_eq!(conclusion.outcome, Outcome::Untranslated, "{name}");
        let what = "its reply came back as from 10.244.1.9:8443, not from 10.96.7.7:443, which was dialled";
        assert!(conclusion.text.contains(what), "{name}: {}", conclusion.text);
        assert!(conclusion.text.contains(words), "{name}: {}", conclusion.text);
        assert_eq!(conclusion.fixes.len(), fixes, "{name}");
    }
}

#[test]
fn answers_as_they_should_be() {
    let back = bridged(reply()).from(SERVICE);
    let translated = |walk: Walk| exchange([request(), home(walk).meets(What::Socket)]);
    assert_eq!(translated(back).misaddressed(), None);
    // Seen no further than where it is translated.
    let exchange = exchange([request(), reply().by(1, "veth3").meets(What::Received)]);
    assert_eq!(exchange.misaddressed(), None);
    // The client's own host translates: between its device and its socket.
    let own = || {
        Walk::request(tcp("192.168.0.11:41234", SERVICE, SYN), 0)
            .at(1, "")
            .meets(What::Output)
            .to(SERVER)
            .at(1, "cni0")
            .meets(What::Sent)
            .by(202, "eth0")
            .meets(What::Received)
            .meets(What::Socket)
    };
    let back = || {
        Walk::reply(tcp(SERVER, "192.168.0.11:41234", SYN_ACK), 200)
            .at(202, "eth0")
            .meets(What::Sent)
            .by(1, "cni0")
            .meets(What::Received)
    };
    let exchange = |walk: Walk| super::super::samples::exchange([own(), walk]);
    assert_eq!(exchange(back()).misaddressed(), None);
    assert_eq!(
        exchange(back().from(SERVICE).meets(What::Socket)).misaddressed(),
        None
    );
    let wrong = exchange(back().meets(dropped("NO_SOCKET", "tcp_v4_rcv")));
    assert_eq!(wrong.conclusion(&places).outcome, Outcome::Untranslated);
}

#[test]
fn answers_to_the_nodes_own_address() {
    let masqueraded = Walk::request(tcp(CLIENT, SERVER, SYN), 0)
        .at(101, "eth0")
        .meets(What::Sent)
        .by(1, "veth2")
        .meets(What::Received)
        .from(NODE)
        .at(1, "eth0")
        .meets(What::Sent);
    let reply = Walk::reply(tcp(SERVER, NODE, SYN_ACK), 200)
        .by(1, "eth0")
        .meets(What::Received);
    let lost = exchange([
        masqueraded.clone(),
        reply.clone().meets(dropped("NO_SOCKET", "tcp_v4_rcv")),
    ]);
    let conclusion = lost.conclusion(&places);
    assert_eq!(conclusion.outcome, Outcome::Untranslated);
    let what =
        "its reply came back to 192.168.0.11:5000 in alpha, and was not translated back to 10.244.1.5:41234";
    assert!(conclusion.text.contains(what), "{}", conclusion.text);
    // On its way.
    assert_eq!(exchange([masqueraded, reply]).misaddressed(), None);
}
