//! `probe vxlan`: each fault of an overlay is found and named, and a healthy one is left alone.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{net::UdpSocket, time::Duration};

use nix::sys::signal::Signal;
use probe_lab::{Bulk, Chatter, Cluster, Family, Netns, Pair, Pod, Probe, before, patience, run, wait_until};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

const ALPHA: &str = "192.168.88.11";
const BETA: &str = "192.168.88.12";

/// Two nodes, a pod on each, and traffic between them.
struct Lab {
    _chatter: Chatter,
    pods: [Pod; 2],
    cluster: Cluster,
}

impl Lab {
    fn new() -> Self {
        let cluster = Cluster::new().unwrap();
        let pods = [cluster.alpha.pod(5).unwrap(), cluster.beta.pod(5).unwrap()];
        let chatter = Chatter::between(&pods[0], &pods[1]).unwrap();
        Self {
            _chatter: chatter,
            pods,
            cluster,
        }
    }

    fn alpha(&self) -> &Netns {
        &self.cluster.alpha.netns
    }

    fn beta(&self) -> &Netns {
        &self.cluster.beta.netns
    }

    /// `probe vxlan` on a node, once it sees traffic both ways and no fault.
    fn healthy(node: &Netns) -> Probe {
        let probe = Probe::vxlan(node, &[]).unwrap();
        probe.wait_for(1, |look| is_healthy(look) && talks(look)).unwrap();
        probe
    }
}

fn is_healthy(look: &Value) -> bool {
    look["healthy"] == true
}

fn talks(look: &Value) -> bool {
    let peers = look["peers"].as_array();
    peers.is_some_and(|peers| {
        peers
            .iter()
            .any(|peer| count(&peer["sent"], "packets") > 0 && count(&peer["received"], "packets") > 0)
    })
}

fn count(of: &Value, name: &str) -> u64 {
    of[name].as_u64().unwrap_or(0)
}

fn finding<'a>(look: &'a Value, fault: &str, peer: Option<&str>) -> Option<&'a Value> {
    let findings = look["findings"].as_array()?;
    findings
        .iter()
        .find(|finding| finding["kind"] == fault && peer.is_none_or(|peer| finding["peer"] == peer))
}

/// Waits until a fault is found, and gives it back.
fn found(probe: &Probe, fault: &str, peer: Option<&str>) -> Value {
    let looks = probe
        .wait_for(1, |look| finding(look, fault, peer).is_some())
        .unwrap();
    finding(&looks[0], fault, peer).unwrap().clone()
}

/// The same with these words in it: of a kind that was found before.
fn found_with(probe: &Probe, fault: &str, words: &str) -> Value {
    let with = |look: &Value| finding(look, fault, None).is_some_and(|fault| text(fault).contains(words));
    let looks = probe.wait_for(1, with).unwrap();
    finding(&looks[0], fault, None).unwrap().clone()
}

/// Waits until the latest look has no fault.
fn healed(probe: &Probe) {
    let seen = probe.seen();
    let healthy = |look: &Value| is_healthy(look) && look["event"] == "vxlan";
    wait_until("the fault is over", Duration::from_secs(30), || {
        probe.since(seen).iter().any(healthy).then_some(())
    })
    .unwrap();
}

fn text(finding: &Value) -> String {
    let mut text = finding["what"].as_str().unwrap_or_default().to_owned();
    for evidence in finding["evidence"].as_array().unwrap() {
        text.push('\n');
        text.push_str(evidence.as_str().unwrap_or_default());
    }
    text.push('\n');
    text.push_str(&finding["fixes"].to_string());
    text
}

fn says(finding: &Value, words: &[&str]) {
    let text = text(finding);
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

/// Runs the commands that a finding prints, one after the other.
fn apply(node: &Netns, finding: &Value) {
    let fixes = finding["fixes"].as_array().unwrap();
    let commands: Vec<_> = fixes
        .iter()
        .filter_map(|fix| fix["argv"].as_array())
        .map(|argv| {
            argv.iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    assert!(!commands.is_empty(), "no command: {finding:#}");
    for command in commands {
        node.run(&command).unwrap();
    }
}

/// Whether this kernel tells why it drops packets.
fn tells_reasons() -> bool {
    !before((5, 17))
}

#[test]
fn missing_entries() {
    let lab = Lab::new();
    let (alpha, beta) = (&lab.cluster.alpha, &lab.cluster.beta);
    let probe = Lab::healthy(lab.alpha());
    let mac = beta.mac();
    lab.alpha()
        .run(&format!("bridge fdb del {mac} dev flannel.1 dst {BETA}"))
        .unwrap();
    let fault = found(&probe, "missing-forwarding", Some(BETA));
    let remedy = format!("bridge fdb replace {mac} dev flannel.1 dst {BETA}");
    says(&fault, &["flannel.1 has no forwarding entry for", &remedy]);
    probe
        .wait_for(1, |look| {
            finding(look, "missing-forwarding", None)
                .is_some_and(|fault| text(fault).contains("packets to it dropped at flannel.1"))
        })
        .unwrap();
    alpha.entries(beta).unwrap();
    healed(&probe);

    lab.alpha().ip("neigh del 10.244.2.0 dev flannel.1").unwrap();
    let fault = found(&probe, "missing-neighbour", Some(BETA));
    says(
        &fault,
        &[&format!(
            "ip neigh replace 10.244.2.0 lladdr {mac} dev flannel.1 nud permanent"
        )],
    );
    alpha.entries(beta).unwrap();
    healed(&probe);

    lab.alpha().ip("route del 10.244.2.0/24").unwrap();
    let fault = found(&probe, "missing-route", Some(BETA));
    says(
        &fault,
        &["ip route replace 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink"],
    );
    apply(lab.alpha(), &fault);
    healed(&probe);
    let run = probe.finish().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", run.stderr);
}

/// A node that sends here, and of which this one knows nothing.
#[test]
fn a_peer_without_any_entry() {
    let lab = Lab::new();
    let probe = Lab::healthy(lab.alpha());
    let mac = lab.cluster.beta.mac();
    for command in [
        "ip route del 10.244.2.0/24",
        "ip neigh del 10.244.2.0 dev flannel.1",
        &format!("bridge fdb del {mac} dev flannel.1 dst {BETA}"),
    ] {
        lab.alpha().run(command).unwrap();
    }
    let fault = found(&probe, "missing-forwarding", Some(BETA));
    says(
        &fault,
        &["flannel.1 has no entries for 192.168.88.12, which sends to it"],
    );
    lab.cluster.alpha.entries(&lab.cluster.beta).unwrap();
    healed(&probe);
    probe.finish().unwrap();
}

#[test]
fn rules_are_named() {
    let lab = Lab::new();
    let probe = Lab::healthy(lab.alpha());
    let rule_of = |direction: &str, words: &str| {
        let looks = probe
            .wait_for(1, |look| {
                let findings = look["findings"].as_array();
                findings.is_some_and(|findings| {
                    findings.iter().any(|finding| {
                        finding["kind"] == "filtered"
                            && finding["peer"] == BETA
                            && finding["what"].as_str().is_some_and(|what| what.contains(words))
                    })
                })
            })
            .unwrap();
        let findings = looks[0]["findings"].as_array().unwrap();
        let named = |finding: &&Value| text(finding).contains(words);
        let finding = findings.iter().find(named).unwrap();
        says(finding, &[direction, "8472"]);
        assert_eq!(finding["certain"], tells_reasons(), "{finding:#}");
    };
    let alpha = lab.alpha();
    alpha.run("iptables-legacy -w -A INPUT -i lo -j ACCEPT").unwrap();
    alpha
        .run("iptables-legacy -w -A INPUT -p udp --dport 8472 -j DROP")
        .unwrap();
    rule_of(
        &format!("{BETA} sends to UDP port 8472"),
        "iptables-legacy: filter INPUT rule 2: -A INPUT -p udp -m udp --dport 8472 -j DROP",
    );
    alpha.run("iptables-legacy -w -F INPUT").unwrap();
    // Gone at once, and not taken for another hook's doing.
    let removed = probe.seen();
    healed(&probe);
    let looks = probe.since(removed);
    let puzzled = |look: &&Value| look.to_string().contains("none of the iptables and nft rules");
    assert_eq!(looks.iter().find(puzzled), None);

    alpha
        .run(&format!(
            "iptables-nft -w -A OUTPUT -d {BETA} -p udp --dport 8472 -j REJECT"
        ))
        .unwrap();
    rule_of(
        &format!("this node sends to {BETA}"),
        "rejected on this node by a rule: iptables-nft: filter OUTPUT rule 1: -A OUTPUT -d 192.168.88.12/32 -p udp",
    );
    alpha.run("iptables-nft -w -F OUTPUT").unwrap();

    alpha.run("nft add table inet firewall").unwrap();
    alpha
        .run("nft add chain inet firewall input { type filter hook input priority 0 ; }")
        .unwrap();
    alpha
        .run("nft add rule inet firewall input udp dport 8472 drop")
        .unwrap();
    rule_of(
        &format!("{BETA} sends to UDP port 8472"),
        "nft: inet firewall input handle 2: udp dport 8472 drop",
    );
    alpha.run("nft delete table inet firewall").unwrap();
    healed(&probe);
    probe.finish().unwrap();
}

#[test]
fn the_other_side_drops_or_rejects() {
    let lab = Lab::new();
    let probe = Lab::healthy(lab.alpha());
    let beta = lab.beta();
    beta.run("iptables -w -A INPUT -p udp --dport 8472 -j DROP")
        .unwrap();
    let fault = found(&probe, "no-answer", Some(BETA));
    says(&fault, &["does not answer", "probe vxlan  # on 192.168.88.12"]);
    assert_eq!(fault["certain"], false);
    beta.run("iptables -w -F INPUT").unwrap();
    healed(&probe);
    beta.run("iptables -w -A INPUT -p udp --dport 8472 -j REJECT")
        .unwrap();
    let fault = found(&probe, "refused", Some(BETA));
    says(&fault, &["ICMP \"port unreachable\" from 192.168.88.12"]);
    let run = probe.finish().unwrap();
    assert_eq!(run.status.code(), Some(1), "a fault at the end");
}

#[test]
fn port_and_vni_differ() {
    let lab = Lab::new();
    let (alpha, beta) = (&lab.cluster.alpha, &lab.cluster.beta);
    let (here, there) = (Lab::healthy(lab.alpha()), Lab::healthy(lab.beta()));
    beta.device(1, 4789).unwrap();
    beta.entries(alpha).unwrap();
    let fault = found(&here, "port-mismatch", Some(BETA));
    says(
        &fault,
        &["192.168.88.12 sends VXLAN to UDP port 4789, but flannel.1 here listens on 8472"],
    );
    let fault = found(&there, "port-mismatch", Some(ALPHA));
    says(
        &fault,
        &["192.168.88.11 sends VXLAN to UDP port 8472, but flannel.1 here listens on 4789"],
    );
    if tells_reasons() {
        says(&fault, &["NO_SOCKET"]);
    }
    beta.device(7, 8472).unwrap();
    beta.entries(alpha).unwrap();
    let fault = found(&here, "vni-mismatch", Some(BETA));
    says(&fault, &["sends VXLAN with VNI 7, but flannel.1 here has VNI 1"]);
    let fault = found(&there, "vni-mismatch", Some(ALPHA));
    says(&fault, &["sends VXLAN with VNI 1, but flannel.1 here has VNI 7"]);
    beta.device(1, 8472).unwrap();
    beta.entries(alpha).unwrap();
    healed(&here);
    healed(&there);
    here.finish().unwrap();
    there.finish().unwrap();
}

#[test]
fn link_layer_addresses_that_are_stale() {
    let lab = Lab::new();
    let (alpha, beta) = (&lab.cluster.alpha, &lab.cluster.beta);
    let (here, there) = (Lab::healthy(lab.alpha()), Lab::healthy(lab.beta()));
    lab.beta()
        .ip("link set flannel.1 address 02:00:00:00:88:77")
        .unwrap();
    beta.entries(alpha).unwrap();
    let fault = found(&here, "stale-mac", Some(BETA));
    says(
        &fault,
        &[
            "02:00:00:00:88:77",
            "but the entries on this node have 02:00:00:00:88:02",
        ],
    );
    let fault = found(&there, "stale-mac", Some(ALPHA));
    says(&fault, &["192.168.88.11 sends to 02:00:00:00:88:02"]);
    lab.beta()
        .ip(&format!("link set flannel.1 address {}", beta.mac()))
        .unwrap();
    beta.entries(alpha).unwrap();
    healed(&here);
    healed(&there);
    here.finish().unwrap();
    there.finish().unwrap();
}

#[test]
fn a_vtep_that_is_dead() {
    let lab = Lab::new();
    let probe = Lab::healthy(lab.alpha());
    // An address of the underlay's network that nobody has.
    lab.alpha().ip("addr add 192.168.99.1/24 dev eth0").unwrap();
    let beta = &lab.cluster.beta;
    let mac = beta.mac();
    lab.alpha()
        .run(&format!(
            "bridge fdb replace {mac} dev flannel.1 dst 192.168.99.2"
        ))
        .unwrap();
    let fault = found(&probe, "dead-vtep", Some("192.168.99.2"));
    says(&fault, &["is down or not on this network"]);
    probe.finish().unwrap();
}

/// What the kernel's own route lookup says of a peer.
#[test]
fn ways_to_a_vtep() {
    let lab = Lab::new();
    let probe = Lab::healthy(lab.alpha());
    for (route, words) in [
        (format!("blackhole {BETA}/32"), "rejects packets"),
        (
            format!("{BETA}/32 via 10.244.2.0 dev flannel.1 onlink"),
            "into flannel.1 itself",
        ),
    ] {
        lab.alpha().ip(&format!("route add {route}")).unwrap();
        let fault = found_with(&probe, "underlay-route", words);
        assert_eq!(fault["peer"], BETA);
        apply(lab.alpha(), &fault);
        healed(&probe);
    }
    let mac = lab.cluster.beta.mac();
    lab.alpha()
        .run(&format!("bridge fdb replace {mac} dev flannel.1 dst {ALPHA}"))
        .unwrap();
    let fault = found(&probe, "own-address", Some(ALPHA));
    says(&fault, &["this node's own address 192.168.88.11"]);
    lab.cluster.alpha.entries(&lab.cluster.beta).unwrap();
    healed(&probe);
    probe.finish().unwrap();
}

#[test]
fn two_peers_with_one_mac_address() {
    let lab = Lab::new();
    let probe = Lab::healthy(lab.alpha());
    let mac = lab.cluster.beta.mac();
    lab.alpha()
        .ip_each([
            format!("neigh replace 10.244.3.0 lladdr {mac} dev flannel.1 nud permanent"),
            "route replace 10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink".to_owned(),
        ])
        .unwrap();
    let fault = found(&probe, "duplicate-mac", Some(BETA));
    says(&fault, &["10.244.2.0 and 10.244.3.0", &mac]);
    lab.alpha()
        .ip_each(["route del 10.244.3.0/24", "neigh del 10.244.3.0 dev flannel.1"])
        .unwrap();
    healed(&probe);
    probe.finish().unwrap();
}

/// Entries for VXLAN and routes without it, as Calico has them within a subnet; and on one node only.
#[test]
fn pods_that_are_routed_without_vxlan() {
    let lab = Lab::new();
    let probe = Lab::healthy(lab.alpha());
    for node in [lab.alpha(), lab.beta()] {
        for device in ["all", "eth0"] {
            node.set(&format!("net/ipv4/conf/{device}/rp_filter"), "0")
                .unwrap();
        }
    }
    lab.alpha()
        .ip(&format!("route replace 10.244.2.0/24 via {BETA} dev eth0"))
        .unwrap();
    let fault = found(&probe, "missing-route", Some(BETA));
    says(
        &fault,
        &["which sends through flannel.1", "answers leave by eth0"],
    );
    lab.beta()
        .ip(&format!("route replace 10.244.1.0/24 via {ALPHA} dev eth0"))
        .unwrap();
    healed(&probe);
    probe.finish().unwrap();
    // One that did not see them use VXLAN.
    let later = Probe::vxlan(lab.alpha(), &["--once", "--duration", "3s"]).unwrap();
    let run = later.ended().unwrap();
    assert_eq!(run.summary["healthy"], true, "{:#}", run.summary);
    assert_eq!(run.summary["peers"][0]["state"], "direct", "{:#}", run.summary);
}

#[test]
fn an_mtu_that_is_too_large() {
    let lab = Lab::new();
    let (here, there) = (Lab::healthy(lab.alpha()), Lab::healthy(lab.beta()));
    lab.alpha().ip("link set eth0 mtu 1400").unwrap();
    let fault = found(&here, "mtu", None);
    says(
        &fault,
        &[
            "flannel.1 has MTU 1450, but eth0 carries only 1350",
            "ip link set flannel.1 mtu 1350",
        ],
    );
    let fault = found(&there, "mtu", Some(ALPHA));
    says(&fault, &["come in fragments"]);
    lab.alpha().ip("link set eth0 mtu 1500").unwrap();
    healed(&here);
    here.finish().unwrap();
    there.finish().unwrap();
}

#[test]
fn packets_that_are_not_vxlan_or_damaged() {
    let lab = Lab::new();
    let probe = Lab::healthy(lab.beta());
    let send = |packet: &[u8]| {
        lab.alpha()
            .enter(|| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                for _ in 0..3 {
                    socket.send_to(packet, (BETA, 8472))?;
                }
                std::io::Result::Ok(())
            })
            .unwrap()
            .unwrap();
    };
    // No flag says that it has a VNI.
    send(&[0; 64]);
    let fault = found(&probe, "malformed-header", Some(ALPHA));
    says(&fault, &["0x00000000"]);
    if !before((6, 13)) {
        says(&fault, &["VXLAN_INVALID_HDR"]);
    }

    lab.alpha().enter(|| send_with_wrong_checksum().unwrap()).unwrap();
    let fault = found(&probe, "bad-checksum", Some(ALPHA));
    says(&fault, &["ethtool -K flannel.1 tx-checksum-ip-generic off"]);
    assert_eq!(fault["certain"], tells_reasons());
    probe.finish().unwrap();
}

/// A VXLAN packet in which all is right but the outer checksum.
fn send_with_wrong_checksum() -> std::io::Result<()> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend([192, 168, 88, 11, 192, 168, 88, 12]);
    // UDP from 40000 to 8472, 58 bytes, a checksum that is no packet's.
    packet.extend([0x9c, 0x40, 0x21, 0x18, 0, 58, 0x12, 0x34]);
    packet.extend([8, 0, 0, 0, 0, 0, 1, 0]);
    packet.extend([2, 0, 0, 0, 0x88, 2, 2, 0, 0, 0, 0x88, 1, 0x08, 0]);
    packet.resize(20 + 58, 0);
    // The kernel fills in the outer header's length and checksum.
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    let to = std::net::SocketAddr::from(([192, 168, 88, 12], 0));
    for _ in 0..3 {
        socket.send_to(&packet, &to.into())?;
    }
    Ok(())
}

#[test]
fn a_device_that_is_down_and_a_port_that_is_taken() {
    let lab = Lab::new();
    let probe = Lab::healthy(lab.beta());
    lab.beta().ip("link set flannel.1 down").unwrap();
    let fault = found(&probe, "device-down", None);
    says(&fault, &["ip link set flannel.1 up"]);
    apply(lab.beta(), &fault);
    healed(&probe);
    // Another VXLAN device, with other options, on the same port.
    lab.beta()
        .ip_each([
            "link set flannel.1 down",
            "link add cilium_vxlan type vxlan external dstport 8472",
            "link set cilium_vxlan up",
        ])
        .unwrap();
    let fault = found(&probe, "port-taken", None);
    says(&fault, &["the VXLAN device cilium_vxlan", "holds UDP port 8472"]);
    lab.beta().ip("link delete cilium_vxlan").unwrap();
    let holder = lab
        .beta()
        .enter(|| UdpSocket::bind("0.0.0.0:8472").unwrap())
        .unwrap();
    let pid = format!("(pid {})", std::process::id());
    let fault = found_with(&probe, "port-taken", &pid);
    says(&fault, &["UDP port 8472"]);
    drop(holder);
    lab.beta().ip("link set flannel.1 up").unwrap();
    lab.cluster.beta.entries(&lab.cluster.alpha).unwrap();
    healed(&probe);
    probe.finish().unwrap();
}

#[test]
fn two_faults_at_once() {
    let lab = Lab::new();
    let (alpha, beta) = (&lab.cluster.alpha, &lab.cluster.beta);
    let probe = Lab::healthy(lab.alpha());
    beta.device(1, 4789).unwrap();
    beta.entries(alpha).unwrap();
    lab.alpha().ip("link set eth0 mtu 1400").unwrap();
    let both = |look: &Value| {
        finding(look, "port-mismatch", Some(BETA)).is_some() && finding(look, "mtu", None).is_some()
    };
    probe.wait_for(1, both).unwrap();
    lab.alpha().ip("link set eth0 mtu 1500").unwrap();
    beta.device(1, 8472).unwrap();
    beta.entries(alpha).unwrap();
    healed(&probe);
    let run = probe.finish().unwrap();
    assert_eq!(run.status.code(), Some(0), "healed at the end");
}

/// VXLAN between IPv6 addresses, on the standard's port, and with `how` a device is told its peer.
fn six(how: &[&str; 2], mtu: u32) -> [Pod; 2] {
    let Pair { client, server, .. } = Pair::new().unwrap();
    let pods = [client, server].map(|netns| Pod {
        netns,
        address: [0, 0, 0, 0].into(),
    });
    let mut number = 0;
    pods.map(|pod| {
        number += 1;
        let (other, netns) = (3 - number, &pod.netns);
        let mac = |number: u8| format!("02:00:00:00:77:0{number}");
        for command in [
            &format!(
                "link add vxlan7 address {} mtu {mtu} type vxlan id 7 dev eth0 local fd77::{number} dstport 4789 {}",
                mac(number),
                how[usize::from(number - 1)]
            ),
            "link set vxlan7 up",
            &format!("addr add 10.99.{number}.0/32 dev vxlan7"),
            &format!("route add 10.99.{other}.0/24 via 10.99.{other}.0 dev vxlan7 onlink"),
        ] {
            netns.ip(command).unwrap();
        }
        Pod {
            address: [10, 99, number, 0].into(),
            netns: pod.netns,
        }
    })
}

#[test]
fn an_underlay_of_ipv6() {
    let pods = six(&["nolearning"; 2], 1430);
    for (pod, other) in [(&pods[0], 2), (&pods[1], 1)] {
        let mac = format!("02:00:00:00:77:0{other}");
        let neighbour = format!("neigh add 10.99.{other}.0 lladdr {mac} dev vxlan7 nud permanent");
        pod.netns.ip(&neighbour).unwrap();
        let entry = format!("bridge fdb append {mac} dev vxlan7 dst fd77::{other}");
        pod.netns.run(&entry).unwrap();
    }
    let _chatter = Chatter::between(&pods[0], &pods[1]).unwrap();
    let netns = &pods[0].netns;
    let probe = Lab::healthy(netns);
    Pair::iptables(netns, Family::V6, "-A INPUT -p udp --dport 4789 -j DROP").unwrap();
    let fault = found(&probe, "filtered", Some("fd77::2"));
    says(
        &fault,
        &[
            "fd77::2 sends to UDP port 4789",
            "filter INPUT rule 1: -A INPUT -p udp",
        ],
    );
    netns.run("ip6tables -w -F INPUT").unwrap();
    healed(&probe);
    // IPv6 takes twenty bytes more.
    netns.ip("link set eth0 mtu 1450").unwrap();
    let fault = found(&probe, "mtu", None);
    says(&fault, &["eth0 carries only 1380 and VXLAN's 70 bytes"]);
    probe.finish().unwrap();
}

#[test]
fn a_device_that_learns_lacks_nothing() {
    let pods = six(&["remote fd77::2", "remote fd77::1"], 1430);
    let _chatter = Chatter::between(&pods[0], &pods[1]).unwrap();
    let probe = Lab::healthy(&pods[0].netns);
    let run = probe.finish().unwrap();
    let device = &run.summary["devices"][0];
    assert_eq!(
        (&device["name"], &device["kind"]),
        (&"vxlan7".into(), &"learning".into())
    );
    assert_eq!(run.summary["healthy"], true, "{:#}", run.summary);
}

/// `PROBE_SOAK`: for how many seconds.
#[test]
fn a_healthy_overlay_is_left_alone() {
    let seconds = std::env::var("PROBE_SOAK")
        .ok()
        .and_then(|text| text.parse().ok());
    let lasts = Duration::from_secs(seconds.unwrap_or(10));
    let lab = Lab::new();
    let probes = [Lab::healthy(lab.alpha()), Lab::healthy(lab.beta())];
    let mut ping = lab.pods[0].netns.command("ping");
    ping.args(["-q", "-i", "0.2", &lab.pods[1].address.to_string()])
        .stdout(std::process::Stdio::null());
    let _ping = probe_lab::Child::spawn(&mut ping).unwrap();
    let mut bulk = Bulk::between(&lab.pods[1], &lab.pods[0]).unwrap();
    let start = std::time::Instant::now();
    while start.elapsed() < lasts {
        bulk.run(20_000_000 / u64::from(patience())).unwrap();
        std::thread::park_timeout(Duration::from_millis(300));
    }
    for probe in probes {
        let looks = probe.since(0);
        let ill: Vec<_> = looks.iter().filter(|look| !is_healthy(look)).collect();
        assert!(ill.is_empty(), "{:#}", ill[0]);
        let run = probe.finish().unwrap();
        let lost = run.summary["lost"].as_object().unwrap();
        // What an interrupt hides is the kernel's affair: any drop of the machine may be, and a guest's processors are slow.
        let mut lacks = lost.iter().filter(|(name, _)| *name != "skipped");
        assert!(lacks.all(|(_, count)| count == 0), "{lost:?}");
        let end = &run.summary["peers"][0];
        println!(
            "{} looks without a fault, {} packets sent, {} received",
            looks.len(),
            end["sent"]["packets"],
            end["received"]["packets"]
        );
    }
}

#[test]
fn counts_are_those_of_tcpdump_and_of_the_device() {
    let cluster = Cluster::new().unwrap();
    let pods = [cluster.alpha.pod(5).unwrap(), cluster.beta.pod(5).unwrap()];
    // So that frames and packets are one: what is cut into segments is counted by segments.
    for pod in &pods {
        pod.netns.ip("link set eth0 gso_max_segs 1").unwrap();
    }
    let netns = &cluster.alpha.netns;
    let device = || {
        let text = netns.ip("-s -j link show dev flannel.1").unwrap();
        let links: Value = serde_json::from_str(&text).unwrap();
        let statistics = &links[0]["stats64"];
        ["tx", "rx"].map(|way| count(&statistics[way], "packets"))
    };
    let before_run = device();
    let probe = Probe::vxlan(netns, &["--flows"]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let dump = format!(
        "tcpdump -Z root -i eth0 -w {} -U --immediate-mode udp port 8472",
        file.path().display()
    );
    let mut words = dump.split(' ');
    let mut command = netns.command(words.next().unwrap());
    command
        .args(words)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut tcpdump = probe_lab::Child::spawn(&mut command).unwrap();
    wait_until("tcpdump writes its file's head", Duration::from_secs(20), || {
        (file.as_file().metadata().ok()?.len() >= 24).then_some(())
    })
    .unwrap();
    let chatter = Chatter::between(&pods[0], &pods[1]).unwrap();
    probe
        .wait_for(1, |look| count(&look["peers"][0]["sent"], "packets") > 100)
        .unwrap();
    drop(chatter);
    // What is under way arrives.
    let quiet = |look: &Value| {
        let ago = |way: &str| look["peers"][0][way]["last_seen_ms"].as_u64().unwrap_or(0);
        ago("sent").min(ago("received")) > 1500
    };
    probe.wait_for(1, quiet).unwrap();
    let end = probe.finish().unwrap().summary;
    tcpdump.signal(Signal::SIGINT).unwrap();
    tcpdump.wait().unwrap();
    let dumped = run(&format!(
        "tcpdump -Z root -n -r {} udp port 8472",
        file.path().display()
    ))
    .unwrap();
    let outgoing = dumped
        .lines()
        .filter(|line| line.contains(&format!("IP {ALPHA}.")))
        .count() as u64;
    let incoming = dumped
        .lines()
        .filter(|line| line.contains(&format!("IP {BETA}.")))
        .count() as u64;
    let (sent, received) = (&end["peers"][0]["sent"], &end["peers"][0]["received"]);
    assert_eq!(
        (count(sent, "packets"), count(sent, "frames")),
        (outgoing, outgoing)
    );
    assert_eq!(
        (count(received, "packets"), count(received, "frames")),
        (incoming, incoming)
    );
    let after = device();
    assert_eq!(
        (after[0] - before_run[0], after[1] - before_run[1]),
        (outgoing, incoming),
        "as the device counts"
    );
    // Each connection is there, both ways, and its bytes add up.
    let flows = end["flows"].as_array().unwrap();
    let bytes = |direction: &str| -> u64 {
        let flows = flows.iter().filter(|flow| flow["direction"] == direction);
        flows.map(|flow| count(flow, "bytes")).sum()
    };
    assert_eq!(bytes("out"), count(sent, "bytes"));
    assert_eq!(bytes("in"), count(received, "bytes"));
    assert!(count(sent, "syn") > 0 && count(received, "syn_ack") > 0);
}

/// What is sent whole and cut later counts as what is on the wire.
#[test]
fn segments_are_counted() {
    let lab = Lab::new();
    let probe = Lab::healthy(lab.alpha());
    let counted = |look: &Value, name: &str| count(&look["peers"][0]["sent"], name);
    let looks = probe
        .wait_for(1, |look| counted(look, "packets") > counted(look, "frames"))
        .unwrap();
    // 3000 bytes are three segments of at most 1398, and one frame.
    let (packets, frames) = (counted(&looks[0], "packets"), counted(&looks[0], "frames"));
    let syn = counted(&looks[0], "syn");
    assert!(
        (packets - frames).abs_diff(2 * syn) <= 4,
        "{packets} packets, {frames} frames, {syn} SYN"
    );
    probe.finish().unwrap();
    drop(lab.pods);
}

#[test]
fn a_killed_one_leaves_nothing_behind() {
    let lab = Lab::new();
    let probe = Lab::healthy(lab.alpha());
    let filters = || {
        ["ingress", "egress"]
            .map(|way| {
                lab.alpha()
                    .run(&format!("tc filter show dev eth0 {way}"))
                    .unwrap()
            })
            .join("")
    };
    let queues = || lab.alpha().run("tc qdisc show dev eth0").unwrap();
    let clsact = filters().contains("vxlan_in");
    assert_eq!(clsact, before((6, 6)), "{}", filters());
    let pid = probe.pid();
    probe.signal(Signal::SIGKILL).unwrap();
    wait_until("it is gone", Duration::from_secs(20), || {
        (!std::path::Path::new(&format!("/proc/{pid}/exe")).exists()).then_some(())
    })
    .unwrap();
    drop(probe);
    if clsact {
        // What can't be avoided before 6.6 is said, and swept by the next.
        let probe = Lab::healthy(lab.alpha());
        let run = probe.finish().unwrap();
        assert!(
            run.stderr.contains("removed the filter vxlan_in"),
            "{}",
            run.stderr
        );
        assert!(run.stderr.contains("if killed, they stay"), "{}", run.stderr);
    }
    assert!(!filters().contains("vxlan_"), "{}", filters());
    assert!(!queues().contains("clsact"), "{}", queues());
}
