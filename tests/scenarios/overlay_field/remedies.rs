//! Remedies that are commands: each is run as printed, and the fault goes.

use std::net::{TcpListener, UdpSocket};

use probe_lab::{Probe, Shop, accept_all};
use serde_json::Value;

use crate::{apply, cluster, dials, healed, reaches, settings, settings_say, shell, vxlan};

/// In each backend.
#[test]
fn rules_that_drop_vxlan_are_removed_as_printed() {
    let (cluster, pods, _chatter) = cluster();
    let node = &cluster.alpha.netns;
    let probe = Probe::vxlan(node, &[]).unwrap();
    healed(&probe);
    for rule in [
        r#"iptables-nft -w -A INPUT -p udp -m udp --dport 8472 -m comment --comment 'a "b" $(false) `c`' -j DROP"#,
        "iptables-legacy -w -A INPUT -s 192.168.88.12 -p udp -m udp --dport 8472 -j REJECT",
        "nft add table ip own; nft 'add chain ip own in { type filter hook input priority 5; }'; nft add rule ip own in udp dport 8472 counter drop",
    ] {
        shell(node, rule);
        let finding = vxlan(&probe, "filtered", "\"shell\"");
        apply(node, &finding, "");
        healed(&probe);
        reaches(&pods[0].netns, "10.244.2.5:8080");
    }
}

#[test]
fn a_device_larger_than_its_underlay_is_made_smaller_as_printed() {
    let (cluster, _pods, _chatter) = cluster();
    let node = &cluster.alpha.netns;
    let probe = Probe::vxlan(node, &[]).unwrap();
    healed(&probe);
    node.ip("link set eth0 mtu 1400").unwrap();
    let finding = vxlan(&probe, "mtu", "flannel.1");
    apply(node, &finding, "ip link set flannel.1 mtu 1350");
    healed(&probe);
}

#[test]
fn a_device_comes_up_as_printed_once_its_port_is_free() {
    let (cluster, pods, _chatter) = cluster();
    let node = &cluster.alpha.netns;
    let probe = Probe::vxlan(node, &[]).unwrap();
    healed(&probe);
    node.ip("link set flannel.1 down").unwrap();
    let holder = node.enter(|| UdpSocket::bind("0.0.0.0:8472").unwrap()).unwrap();
    let finding = vxlan(&probe, "port-taken", "8472");
    drop(holder);
    // With the entries that went with it.
    apply(node, &finding, "ip ");
    healed(&probe);
    reaches(&pods[0].netns, "10.244.2.5:8080");
}

#[test]
fn settings_are_set_as_printed() {
    let shop = Shop::new("iptables-nft").unwrap();
    let node = shop.node();
    let server = format!("{}:443", shop.server.address);
    shell(node, "sysctl -qw net.bridge.bridge-nf-call-iptables=1");
    for (setting, word) in [
        ("net.ipv4.ip_forward=0", "net.ipv4.ip_forward=1"),
        (
            "net.ipv4.conf.cni0.forwarding=0",
            "net.ipv4.conf.cni0.forwarding=1",
        ),
        (
            "net.bridge.bridge-nf-call-iptables=0",
            "net.bridge.bridge-nf-call-iptables=1",
        ),
    ] {
        shell(node, &format!("sysctl -qw {setting}"));
        let finding = settings_say(node, "failed", &[word]);
        apply(node, &finding, "sysctl");
        assert_eq!(settings(node), Vec::<Value>::new(), "{setting}");
        reaches(&shop.client.netns, &server);
    }
}

/// Replies of an endpoint, and packets that nobody has to translate.
#[test]
fn rules_that_exempt_packets_are_removed_as_printed() {
    let shop = Shop::new("iptables-legacy").unwrap();
    let node = shop.node();
    shop.reaches_service().unwrap();
    let finding = |kind: &str, dial: &dyn Fn()| {
        let probe = Probe::bypass(node, &[]).unwrap();
        let is_it = |finding: &&Value| finding["kind"] == kind;
        let found = |look: &Value| look["findings"].as_array()?.iter().find(is_it).cloned();
        dial();
        let looks = probe.wait_for(1, |look| found(look).is_some()).unwrap();
        found(&looks[0]).unwrap()
    };
    shell(
        node,
        "iptables-legacy -w -t raw -A PREROUTING -s 10.244.2.7 -p tcp -m tcp --sport 443 -j NOTRACK",
    );
    let found = finding("untracked-reply", &|| assert!(!shop.dials_service().unwrap()));
    apply(node, &found, "-D PREROUTING");
    shop.reaches_service().unwrap();

    // One direction only, of a connection to a node.
    shell(
        node,
        "iptables-nft -w -t raw -A PREROUTING -s 10.244.1.5 -d 192.168.88.12 -p tcp -j NOTRACK",
    );
    let found = finding("untracked", &|| {
        assert!(!dials(&shop.client.netns, "192.168.88.12:443"))
    });
    apply(node, &found, "-D PREROUTING");
    accept_all(
        shop.cluster
            .beta
            .netns
            .enter(|| TcpListener::bind(("0.0.0.0", 443)).unwrap())
            .unwrap(),
    );
    reaches(&shop.client.netns, "192.168.88.12:443");
}
