//! `probe path` names rules at a bridge's ports and in the bridge, and its fix takes the fault away.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use probe_lab::{Cluster, Netns, Pod, Probe, accept_all, patience, shell, unique_port};
use serde_json::Value;

fn dials(from: &Netns, to: SocketAddr) -> bool {
    let timeout = Duration::from_millis(400) * patience();
    from.enter(|| TcpStream::connect_timeout(&to, timeout).is_ok())
        .unwrap()
}

/// Has `rules` drop what `client` sends to `to`, and follows it; the exchange.
fn dropped(node: &Netns, client: &Pod, to: SocketAddr, rules: &[String]) -> Value {
    for rule in rules {
        shell(node, rule).unwrap();
    }
    let netns = format!("/run/netns/{}", client.netns.name());
    let port = to.port().to_string();
    let probe = Probe::path(&["--netns", &netns, "--port", &port]).unwrap();
    assert!(!dials(&client.netns, to), "{rules:?} drop nothing");
    let exchange = probe
        .wait_for(1, |record| record["event"] == "path")
        .unwrap()
        .remove(0);
    probe.finish().unwrap();
    exchange
}

#[test]
fn rules_at_a_bridge_are_named_and_their_fixes_help() {
    let cluster = Cluster::new().unwrap();
    let node = &cluster.alpha;
    let (client, near) = (node.pod(2).unwrap(), node.pod(3).unwrap());
    let port = unique_port();
    let any = IpAddr::from([0; 4]);
    accept_all(
        near.netns
            .enter(|| TcpListener::bind((any, port)).unwrap())
            .unwrap(),
    );
    let to = SocketAddr::new("10.244.1.3".parse().unwrap(), port);
    assert!(dials(&client.netns, to));
    let text = |parts: &str| parts.replace("PORT", &port.to_string());
    for (rules, named) in [
        (
            &[
                "nft add table bridge guard",
                "nft add chain bridge guard pre '{ type filter hook prerouting priority -200; }'",
                "nft add rule bridge guard pre ether type ip ip daddr 10.244.1.3 tcp dport PORT drop",
            ][..],
            "by nft: bridge guard pre handle ",
        ),
        (
            &[
                "nft add chain bridge guard between '{ type filter hook forward priority 0; }'",
                "nft add chain bridge guard web",
                "nft add rule bridge guard between iifname veth2 oifname veth3 jump web",
                "nft add rule bridge guard web tcp dport vmap '{ PORT : drop, 9 : accept }'",
            ],
            "by nft: bridge guard web handle ",
        ),
        (
            &["ebtables-nft -A FORWARD -p IPv4 -o veth3 --ip-proto tcp --ip-dport PORT -j DROP"],
            "by ebtables-nft: bridge filter FORWARD rule 1: -A FORWARD -p IPv4 -o veth3",
        ),
        (
            &[
                "nft add table netdev guard",
                "nft add chain netdev guard inward '{ type filter hook ingress devices = { veth2, eth0 } priority 0; }'",
                "nft add rule netdev guard inward ip daddr 10.244.1.0/24 tcp dport PORT drop",
            ],
            "by nft: netdev guard inward handle ",
        ),
        (
            &[
                "nft add chain netdev guard outward '{ type filter hook egress device veth3 priority 0; policy drop; }'",
            ],
            "by nft: netdev guard outward policy drop",
        ),
    ] {
        let rules: Vec<String> = rules.iter().map(|rule| text(rule)).collect();
        let exchange = dropped(&node.netns, &client, to, &rules);
        let conclusion = exchange["conclusion"].as_str().unwrap();
        assert!(conclusion.contains(named), "{rules:?}: {conclusion}");
        let fix = exchange["fixes"][0]["shell"].as_str().unwrap();
        shell(&node.netns, fix).unwrap();
        // ARP passes the policy's chain, too.
        let mut others = exchange["fixes"].as_array().unwrap().iter().skip(1);
        assert!(
            dials(&client.netns, to)
                || others.any(|other| {
                    shell(&node.netns, other["shell"].as_str().unwrap_or("true")).unwrap();
                    dials(&client.netns, to)
                }),
            "{fix} does not help: {conclusion}"
        );
    }
}
