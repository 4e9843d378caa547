use super::{
    super::{
        cause::DropCause,
        exchange::ConntrackZone,
        samples::{SYN, SYN_ACK, Walk, dropped, exchange, places, tcp},
    },
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
            "bridge cni0 in alpha forwarded it without conntrack: net.bridge.bridge-nf-call-iptables is 0",
            1,
        ),
        (
            "delivered to a socket that takes it from anybody",
            with([request(), came().meets(What::Socket)], Some(Some(false))),
            ": net.bridge.bridge-nf-call-iptables is 0",
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

/// From the node on: the client is not seen to send.
#[test]
fn answers_to_a_client_that_was_not_followed() {
    let request = || {
        Walk::request(tcp(CLIENT, SERVICE, SYN), 0)
            .by(1, "veth2")
            .meets(What::Received)
            .to(SERVER)
            .at(1, "veth3")
            .meets(What::Sent)
            .by(202, "eth0")
            .meets(What::Received)
            .meets(What::Socket)
    };
    let lost = |walk: Walk| home(walk).meets(dropped("NO_SOCKET", "tcp_v4_rcv"));
    let routed = || {
        reply()
            .by(1, "veth3")
            .meets(What::Received)
            .at(1, "veth2")
            .meets(What::Sent)
    };
    let wrong = exchange([request(), lost(routed())]);
    assert_eq!(wrong.conclusion(&places).outcome, Outcome::Untranslated);
    let right = exchange([request(), home(routed().from(SERVICE))]);
    assert_eq!(right.misaddressed(), None);
    // Not yet translated.
    let on_its_way = exchange([request(), reply().by(1, "veth3").meets(What::Received)]);
    assert_eq!(on_its_way.misaddressed(), None);
    // The reply took another way: who gets it is not known.
    assert_eq!(exchange([request(), lost(reply())]).misaddressed(), None);
}

/// conntrack has the connection, and looks for its replies where it is not.
#[test]
fn a_zone_of_one_direction() {
    let zone = |netns| {
        Some(ConntrackZone {
            netns,
            zone: 5,
            rule: "iptables-nft: raw PREROUTING rule 1: -A PREROUTING -i cni0 -j CT --zone 5".to_owned(),
        })
    };
    let came = |zone| {
        let routed = reply()
            .by(1, "veth3")
            .meets(What::Received)
            .with(|event| event.packet.ttl -= 1)
            .at(1, "veth2")
            .meets(What::Sent);
        let mut exchange = exchange([request(), home(routed)]);
        exchange.zone = zone;
        exchange.conclusion(&places)
    };
    let told = came(zone(1));
    let words = "conntrack in alpha has the connection in zone 5, by iptables-nft: raw PREROUTING rule 1: -A PREROUTING -i cni0 -j CT \
                 --zone 5, and looks for its replies in another zone";
    assert!(told.text.ends_with(words), "{}", told.text);
    assert!(
        told.fixes[0].to_string().contains("both directions"),
        "{:?}",
        told.fixes
    );
    // Of another network namespace it says nothing.
    assert!(came(zone(2)).text.contains("the entry expired"));

    let lost = |zone| {
        let lost = reply()
            .by(1, "veth3")
            .meets(What::Received)
            .meets(dropped("NETFILTER_DROP", "nft_do_chain"));
        let mut exchange = exchange([request(), lost]);
        let hops = exchange.journeys.iter_mut().flat_map(|journey| &mut journey.hops);
        for hop in hops.filter(|hop| matches!(hop.event.what, What::Dropped { .. })) {
            hop.cause = Some(DropCause::Invalid);
        }
        exchange.zone = zone;
        exchange.conclusion(&places)
    };
    let told = lost(zone(1));
    assert!(
        told.text
            .contains("its conntrack state is INVALID: conntrack in alpha has"),
        "{}",
        told.text
    );
    assert!(!told.text.contains("outside the window"), "{}", told.text);
    assert!(
        told.fixes[0].to_string().contains("both directions"),
        "{:?}",
        told.fixes
    );
    assert!(lost(None).text.contains("outside the window"));
}

#[test]
fn a_pod_that_gets_its_own_packet_back() {
    let back = |source: &str, reason: &str, function: &str| {
        let walk = Walk::request(tcp(CLIENT, SERVICE, SYN), 0)
            .at(101, "eth0")
            .meets(What::Sent)
            .by(1, "veth2")
            .meets(What::Received)
            .to("10.244.1.5:8443")
            .from(source)
            .meets(dropped(reason, function));
        let exchange = exchange([walk]);
        let journey = exchange.request().unwrap();
        journey.hairpin(journey.hops.len() - 1)
    };
    let port = DropCause::Hairpin {
        port: "veth2".to_owned(),
    };
    let function = "br_handle_frame_finish";
    assert_eq!(back(CLIENT, "NOT_SPECIFIED", function), Some(port.clone()));
    assert_eq!(back(CLIENT, "", "br_forward"), Some(port));
    // To another pod, or dropped by something else.
    assert_eq!(back("10.244.1.6:41234", "NOT_SPECIFIED", function), None);
    assert_eq!(back(CLIENT, "NETFILTER_DROP", "nf_hook_slow"), None);
}

#[test]
fn a_node_port_has_the_name_of_its_service() {
    let name = "Service shop/web:https (NodePort 30080)";
    let mut told = exchange([request()]);
    told.node_port = Some(name.to_owned());
    let conclusion = told.conclusion(&places);
    assert!(
        conclusion.text.ends_with(&format!("; {SERVICE} is {name}")),
        "{}",
        conclusion.text
    );
}
