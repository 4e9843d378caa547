//! Faults beside the overlay itself: routes and routing rules, Services, bridges. Each is found, and where a command is printed, it is run
//! and the fault goes.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

mod remedies;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use probe_lab::{Chatter, Cluster, Files, Netns, Pod, Probe, Shop, accept_all, patience, wait_until};
use serde_json::{Value, json};

fn shell(netns: &Netns, line: &str) {
    probe_lab::shell(netns, line).unwrap();
}

/// What `probe doctor` finds, but for the clock: that is the machine's.
fn settings(node: &Netns) -> Vec<Value> {
    let files = Files::new().unwrap();
    let arguments = ["--cri", "none", "--duration", "2s"];
    let answer = files.doctor("settings", node, &arguments).unwrap();
    let findings = answer["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| {
            !finding["what"]
                .as_str()
                .unwrap()
                .contains("clock is not synchronized")
        })
        .cloned()
        .collect()
}

/// Its only finding, with these words in it.
fn settings_say(node: &Netns, severity: &str, words: &[&str]) -> Value {
    let mut findings = settings(node);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let finding = findings.remove(0);
    assert_eq!(finding["severity"], severity, "{finding:#}");
    says(&finding, words);
    finding
}

fn says(of: &Value, words: &[&str]) {
    let text = of.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {of:#}");
    }
}

/// Runs the commands of a finding as they are printed, those with these words.
fn apply(node: &Netns, finding: &Value, word: &str) {
    let fixes = finding["fixes"].as_array().unwrap();
    let commands: Vec<_> = fixes
        .iter()
        .filter_map(|fix| fix["shell"].as_str())
        .filter(|command| command.contains(word))
        .collect();
    assert!(!commands.is_empty(), "{finding:#}");
    for command in commands {
        shell(node, command);
    }
}

/// The finding of `probe vxlan` of one kind with this word in it, from now on. A rule is named by the snapshot after the one that
/// shows the first drop.
fn vxlan(probe: &Probe, kind: &str, word: &str) -> Value {
    let is_it = |finding: &&Value| finding["kind"] == kind && finding.to_string().contains(word);
    let of = |look: &Value| look["findings"].as_array()?.iter().find(is_it).cloned();
    let seen = probe.seen();
    wait_until(&format!("a finding {kind}"), Duration::from_secs(30), || {
        probe.since(seen).iter().find_map(of)
    })
    .unwrap()
}

fn healed(probe: &Probe) {
    let seen = probe.seen();
    let healthy = |look: &Value| look["healthy"] == true && look["event"] == "vxlan";
    wait_until("the fault is over", Duration::from_secs(30), || {
        probe.since(seen).iter().any(healthy).then_some(())
    })
    .unwrap();
}

/// `probe path` at a node, for what goes to a port, and the first exchange of it, which `dial` begins.
fn path(node: &Netns, port: u16, dial: impl Fn()) -> Value {
    path_of(node, &["--port", &port.to_string()], dial)
}

/// The same for a flow, where others use the port.
fn path_of(node: &Netns, flow: &[&str], dial: impl Fn()) -> Value {
    let file = format!("/run/netns/{}", node.name());
    let probe = Probe::path(&[&["--netns", &file], flow].concat()).unwrap();
    dial();
    let is_told = |record: &Value| record["event"] == "path";
    probe.wait_for(1, is_told).unwrap().remove(0)
}

fn concludes(exchange: &Value, outcome: &str, words: &[&str]) {
    let said = json!([exchange["conclusion"], exchange["fixes"]]);
    assert_eq!(exchange["outcome"], outcome, "{said:#}");
    says(&said, words);
}

fn dials(from: &Netns, to: &str) -> bool {
    let to: SocketAddr = to.parse().unwrap();
    from.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_ok())
        .unwrap()
}

fn reaches(from: &Netns, to: &str) {
    let to: SocketAddr = to.parse().unwrap();
    let dial = || from.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(5) * patience()).ok());
    wait_until(&format!("{to} is reached"), Duration::from_secs(20), || {
        dial().unwrap().map(drop)
    })
    .unwrap();
}

/// Two nodes, a pod on each, and traffic between them.
fn cluster() -> (Cluster, [Pod; 2], Chatter) {
    let cluster = Cluster::new().unwrap();
    let pods = [cluster.alpha.pod(5).unwrap(), cluster.beta.pod(5).unwrap()];
    let chatter = Chatter::between(&pods[0], &pods[1]).unwrap();
    (cluster, pods, chatter)
}

#[test]
fn a_route_rejects_a_pod_of_a_peer() {
    let (cluster, pods, _chatter) = cluster();
    let node = &cluster.alpha.netns;
    let probe = Probe::vxlan(node, &[]).unwrap();
    healed(&probe);
    node.ip("route add prohibit 10.244.2.5/32").unwrap();
    let finding = vxlan(&probe, "missing-route", "10.244.2.5/32");
    says(
        &finding,
        &[
            "a route on this node rejects them",
            "route prohibit 10.244.2.5/32",
        ],
    );
    apply(node, &finding, "ip route del");
    healed(&probe);
    reaches(&pods[0].netns, "10.244.2.5:8080");

    // Of a whole block nothing is deleted.
    node.ip("route add blackhole 10.244.2.0/26").unwrap();
    let finding = vxlan(&probe, "missing-route", "10.244.2.0/26");
    says(&finding, &["ip route show table all type blackhole"]);
    node.ip("route del blackhole 10.244.2.0/26").unwrap();
    healed(&probe);
    // Nor is Calico's for the block that this node has a pod of.
    node.ip("route add 10.244.2.70/32 dev cni0").unwrap();
    node.ip("route add blackhole 10.244.2.64/26").unwrap();
    let seen = probe.seen();
    wait_until("a few snapshots", Duration::from_secs(20), || {
        (probe.since(seen).len() > 4).then_some(())
    })
    .unwrap();
    for look in probe.since(seen) {
        assert_eq!(look["healthy"], true, "{look:#}");
    }
}

#[test]
fn routing_rules_take_pods_packets_elsewhere() {
    let (cluster, pods, _chatter) = cluster();
    let node = &cluster.alpha.netns;
    assert_eq!(settings(node), Vec::<Value>::new());

    node.ip("route add default via 192.168.88.12 dev eth0 table 100")
        .unwrap();
    node.ip("rule add from 10.244.1.0/24 to 10.244.2.0/24 lookup 100 priority 1000")
        .unwrap();
    settings_say(
        node,
        "warning",
        &[
            "leave by eth0, not by flannel.1",
            "from 10.244.1.0/24 to 10.244.2.0/24 lookup 100",
            "ip route show table 100",
        ],
    );
    node.ip("rule del priority 1000").unwrap();

    node.ip("rule add to 10.244.2.0/24 prohibit priority 900")
        .unwrap();
    settings_say(
        node,
        "failed",
        &[
            "rejected by a routing rule",
            "ip rule: 900: from all to 10.244.2.0/24 prohibit",
            "ip rule show",
        ],
    );
    // The pods talk both ways all the time.
    let exchange = path_of(node, &["--to", "10.244.2.5", "--port", "8080"], || {
        assert!(!dials(&pods[0].netns, "10.244.2.5:8080"));
    });
    concludes(
        &exchange,
        "dropped",
        &[
            "routing rule 900 (from all to 10.244.2.0/24 prohibit) rejects it",
            "ip rule show",
        ],
    );
    node.ip("rule del priority 900").unwrap();
    assert_eq!(settings(node), Vec::<Value>::new());
}

#[test]
fn kube_proxys_rules_twice() {
    let shop = Shop::new("iptables-nft").unwrap();
    let node = shop.node();
    shell(node, "sysctl -qw net.bridge.bridge-nf-call-iptables=1");
    assert_eq!(settings(node), Vec::<Value>::new());
    for rule in [
        "-N KUBE-SERVICES",
        "-N KUBE-SVC-WEB",
        "-N KUBE-SEP-OLD",
        "-A PREROUTING -j KUBE-SERVICES",
        "-A KUBE-SERVICES -d 10.96.7.7/32 -p tcp -m comment --comment 'shop/web:https cluster IP' -m tcp --dport 443 -j KUBE-SVC-WEB",
        "-A KUBE-SVC-WEB -m comment --comment 'shop/web:https -> 10.244.2.99:443' -j KUBE-SEP-OLD",
        "-A KUBE-SEP-OLD -p tcp -m tcp -j DNAT --to-destination 10.244.2.99:443",
    ] {
        shell(node, &format!("iptables-legacy -w -t nat {rule}"));
    }
    settings_say(
        node,
        "failed",
        &[
            "kube-proxy's rules exist in more than one rule set: iptables-legacy, iptables-nft",
            "10.244.2.99:443 by iptables-legacy, 10.244.2.7:443 by iptables-nft",
        ],
    );
    for rule in ["-F", "-X"] {
        shell(node, &format!("iptables-legacy -w -t nat {rule}"));
    }
    assert_eq!(settings(node), Vec::<Value>::new());
    shop.reaches_service().unwrap();
}

#[test]
fn a_pod_that_dials_itself_through_its_service() {
    let shop = Shop::new("iptables-nft").unwrap();
    let (node, client) = (shop.node(), &shop.client.netns);
    shell(node, "sysctl -qw net.bridge.bridge-nf-call-iptables=1");
    accept_all(
        client
            .enter(|| TcpListener::bind(("0.0.0.0", 443)).unwrap())
            .unwrap(),
    );
    for rule in [
        "-F KUBE-SEP-WEB",
        "-A KUBE-SEP-WEB -p tcp -m tcp -j DNAT --to-destination 10.244.1.5:443",
        "-A POSTROUTING -s 10.244.1.5/32 -d 10.244.1.5/32 -j MASQUERADE",
    ] {
        shell(node, &format!("iptables-nft -w -t nat {rule}"));
    }
    let exchange = path(node, 443, || assert!(!shop.dials_service().unwrap()));
    concludes(
        &exchange,
        "dropped",
        &["bridge port veth5, which has hairpin mode off", "hairpinMode"],
    );
    apply(node, &exchange, "hairpin on");
    shop.reaches_service().unwrap();
}

#[test]
fn a_conntrack_zone_for_one_direction() {
    let shop = Shop::new("iptables-nft").unwrap();
    let node = shop.node();
    shop.reaches_service().unwrap();
    shell(
        node,
        "iptables-nft -w -t raw -A PREROUTING -i cni0 -j CT --zone 5",
    );
    let rule = "-A PREROUTING -i cni0 -j CT --zone 5";
    let dial = || assert!(!shop.dials_service().unwrap());
    concludes(
        &path(node, 443, dial),
        "untranslated",
        &[
            "has the connection in zone 5",
            rule,
            "looks for its replies in another zone",
        ],
    );
    // kube-proxy's own rule drops the reply before it comes to the client.
    shell(
        node,
        "iptables-nft -w -A FORWARD -m conntrack --ctstate INVALID -j DROP",
    );
    concludes(
        &path(node, 443, dial),
        "dropped",
        &[
            "its conntrack state is INVALID",
            "has the connection in zone 5",
            "the rule is not the cause",
        ],
    );
    shell(
        node,
        "iptables-nft -w -t raw -A PREROUTING -i flannel.1 -j CT --zone 5",
    );
    shop.reaches_service().unwrap();
}

/// Of traffic that gets through, of what is dropped, and of what bypasses conntrack.
#[test]
fn node_ports_have_the_name_of_their_service() {
    const NAME: &str = "Service shop/web:https (NodePort 30080)";
    const NODE_PORT: &str = "192.168.88.11:30080";
    let shop = Shop::new("iptables-nft").unwrap();
    let (node, outside) = (shop.node(), &shop.cluster.beta.netns);
    for rule in [
        "-N KUBE-NODEPORTS",
        "-N KUBE-EXT-WEB",
        "-A KUBE-SERVICES -m comment --comment 'kubernetes service nodeports' -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
        "-A KUBE-NODEPORTS -p tcp -m comment --comment shop/web:https -m tcp --dport 30080 -j KUBE-EXT-WEB",
        "-A KUBE-EXT-WEB -j KUBE-SVC-WEB",
        "-A POSTROUTING -d 10.244.2.7/32 -p tcp -m tcp --dport 443 -j MASQUERADE",
    ] {
        shell(node, &format!("iptables-nft -w -t nat {rule}"));
    }
    let exchange = path(node, 30080, || reaches(outside, NODE_PORT));
    concludes(&exchange, "delivered", &[&format!("{NODE_PORT} is {NAME}")]);

    let dial = || assert!(!dials(outside, NODE_PORT));
    shell(
        node,
        "iptables-nft -w -I FORWARD -d 10.244.2.7 -p tcp --dport 443 -j DROP",
    );
    concludes(
        &path(node, 30080, dial),
        "dropped",
        &["--dport 443 -j DROP", NAME],
    );
    shell(node, "iptables-nft -w -D FORWARD 1");

    shell(
        node,
        "iptables-nft -w -t raw -A PREROUTING -p tcp -m tcp --dport 30080 -j NOTRACK",
    );
    concludes(&path(node, 30080, dial), "untranslated", &["-j NOTRACK", NAME]);
    let probe = Probe::bypass(node, &[]).unwrap();
    dial();
    let is_it = |finding: &Value| finding["kind"] == "untracked-request";
    let has = |look: &Value| {
        look["findings"]
            .as_array()
            .is_some_and(|all| all.iter().any(is_it))
    };
    let looks = probe.wait_for(1, has).unwrap();
    let mut findings = looks[0]["findings"].as_array().unwrap().iter();
    let finding = findings.find(|finding| is_it(finding)).unwrap();
    says(finding, &[NAME, "this node itself receives them"]);
    apply(node, finding, "-D PREROUTING");
    reaches(outside, NODE_PORT);
}

#[test]
fn devices_that_are_down() {
    let (cluster, pods, _chatter) = cluster();
    let node = &cluster.alpha.netns;
    let probe = Probe::vxlan(node, &[]).unwrap();
    healed(&probe);

    let files = Files::new().unwrap();
    let flannel = r#"{"name":"cbr0","cniVersion":"0.3.1","plugins":[{"type":"flannel"}]}"#;
    files
        .write("/etc/cni/net.d/10-flannel.conflist", flannel)
        .unwrap();
    let lease = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\n";
    let bridge = |subnet: Option<&str>| {
        files
            .write("/run/flannel/subnet.env", subnet.unwrap_or_default())
            .unwrap();
        let answer = files.doctor("bridge", node, &["--cri", "none"]).unwrap();
        let findings = answer["findings"].as_array().unwrap().clone();
        let is_down = |finding: &&Value| finding["what"].as_str().unwrap().contains("cni0 is down");
        findings.iter().find(is_down).cloned()
    };
    node.ip("link set cni0 down").unwrap();
    // Also where the address that it should have is not known.
    assert!(bridge(None).is_some());
    apply(node, &bridge(Some(lease)).unwrap(), "ip link set");
    assert_eq!(bridge(Some(lease)), None);
    reaches(&pods[0].netns, "10.244.2.5:8080");

    node.ip("link set eth0 down").unwrap();
    let finding = vxlan(&probe, "underlay-route", "is down");
    says(&finding, &["and eth0 is down."]);
    apply(node, &finding, "ip link set eth0 up");
    healed(&probe);
    reaches(&pods[0].netns, "10.244.2.5:8080");
}

#[test]
fn cluster_ips_that_others_have() {
    let shop = Shop::new("iptables-nft").unwrap();
    let node = shop.node();
    shell(node, "sysctl -qw net.bridge.bridge-nf-call-iptables=1");
    let rule = |address: &str, comment: &str| {
        let rule = format!(
            "-d {address}/32 -p tcp -m comment --comment 'shop/cart:http {comment}' -m tcp --dport 80"
        );
        format!("iptables-nft -w -t nat -A KUBE-SERVICES {rule} -j KUBE-SVC-WEB")
    };
    // A load balancer's address is one of the nodes' network by design.
    shell(node, &rule("192.168.88.51", "loadbalancer IP"));
    assert_eq!(settings(node), Vec::<Value>::new());
    shell(node, &rule("192.168.88.50", "cluster IP"));
    settings_say(
        node,
        "warning",
        &[
            "1 cluster IP is within the network of this node (192.168.88.0/24 at eth0)",
            "shop/cart:http (192.168.88.50:80)",
        ],
    );
    shell(node, "iptables-nft -w -t nat -D KUBE-SERVICES 3");
    shell(node, &rule("10.244.2.50", "cluster IP"));
    settings_say(
        node,
        "warning",
        &["1 cluster IP is within pods of another node (10.244.2.0/24 at flannel.1)"],
    );
}

/// The larger of the device's setting and that of `all` counts; only the device that drops is loosened.
#[test]
fn a_reverse_path_filter_by_the_device_or_by_all() {
    for (all, eth0) in [("0", "1"), ("1", "0")] {
        let (cluster, pods, _chatter) = cluster();
        let node = &cluster.alpha.netns;
        node.set("net/ipv4/conf/all/rp_filter", all).unwrap();
        node.set("net/ipv4/conf/eth0/rp_filter", eth0).unwrap();
        // Its pods' packets come without VXLAN, and go with it.
        cluster
            .beta
            .netns
            .ip("route replace 10.244.1.0/24 via 192.168.88.11 dev eth0")
            .unwrap();
        let finding = settings_say(node, "failed", &["rp_filter is strict on eth0"]);
        if probe_lab::before((5, 17)) {
            return;
        }
        apply(node, &finding, "rp_filter=2");
        reaches(&pods[0].netns, "10.244.2.5:8080");
        let rest = |name: &str| {
            node.run(&format!("sysctl -n net.ipv4.conf.{name}.rp_filter"))
                .unwrap()
        };
        assert_eq!((rest("all").trim(), rest("eth0").trim()), (all, "2"));
    }
}
