//! `probe bypass`: what slips past conntrack is counted, the rule is named, and so is what it breaks.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use probe_lab::{
    Cgroup, Child, Family, Netns, Pair, PodLogs, Probe, Shop, doctored, finish, in_matrix, patience, too_old,
    wait_until,
};
use serde_json::Value;

const SERVICE: &str = Shop::SERVICE;
const NAME: &str = Shop::NAME;

/// A Service, and who uses it.
struct Lab {
    shop: Shop,
}

impl Lab {
    fn new(tool: &str) -> Self {
        Self {
            shop: Shop::new(tool).unwrap(),
        }
    }

    fn node(&self) -> &Netns {
        self.shop.node()
    }

    fn dials_service(&self) -> bool {
        self.shop.dials_service().unwrap()
    }

    /// Dials until a look has such a finding.
    fn until_found(&self, probe: &Probe, fault: &str, words: &[&str]) -> Value {
        let found = |look: &Value| {
            let found = findings(look)
                .iter()
                .find(|finding| {
                    finding["kind"] == fault && words.iter().all(|word| text(finding).contains(word))
                })
                .cloned();
            found.filter(|_| look["event"] == "bypass")
        };
        let seen = probe.seen();
        let found = wait_until("the finding", Duration::from_secs(20), || {
            self.dials_service();
            probe.since(seen).iter().rev().find_map(found)
        });
        match found {
            Ok(found) => found,
            Err(error) => panic!("{error}: {:#}", probe.since(seen).last().unwrap_or(&Value::Null)),
        }
    }
}

fn shell(netns: &Netns, line: &str) {
    probe_lab::shell(netns, line).unwrap();
}

fn findings(look: &Value) -> &[Value] {
    look["findings"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn streams(look: &Value) -> &[Value] {
    look["streams"].as_array().map(Vec::as_slice).unwrap_or_default()
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

/// Datagrams from one host to a port of another.
fn send(from: &Netns, to: SocketAddr, number: u64) {
    from.enter(|| {
        let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let socket = UdpSocket::bind(any).unwrap();
        for _ in 0..number {
            // An earlier one may have been answered with an ICMP error.
            while socket.send_to(b"x", to).is_err() {}
        }
    })
    .unwrap();
}

/// Packets to a port in the streams of one direction.
fn packets(look: &Value, direction: &str, port: u16) -> u64 {
    let of = |stream: &&Value| stream["direction"] == direction && stream["destination"]["port"] == port;
    let packets = streams(look).iter().filter(of).map(|stream| &stream["packets"]);
    packets.filter_map(Value::as_u64).sum()
}

#[test]
fn requests_to_a_service() {
    for (tool, rule, removal) in [
        (
            "iptables-legacy",
            "-A PREROUTING -p tcp -m multiport --dports 80,443 -j",
            "iptables-legacy -t raw -D PREROUTING -p tcp -m multiport --dports 80,443 -j",
        ),
        (
            "iptables-nft",
            "-A PREROUTING -p tcp -m multiport --dports 80,443 -j",
            "iptables-nft -t raw -D PREROUTING -p tcp -m multiport --dports 80,443 -j",
        ),
    ] {
        let lab = Lab::new(tool);
        lab.shop.reaches_service().unwrap();
        let probe = Probe::bypass(lab.node(), &[]).unwrap();
        probe.wait_for(1, |look| look["healthy"] == true).unwrap();
        shell(
            lab.node(),
            &format!("{tool} -w -t raw -A PREROUTING -p tcp -m multiport --dports 80,443 -j NOTRACK"),
        );
        assert!(!lab.dials_service(), "the Service is broken");
        let place = format!("{tool}: raw PREROUTING rule 1: {rule}");
        let named = format!("Service {NAME} ({SERVICE}:443)");
        let client = lab.shop.client.address.to_string();
        let found = lab.until_found(
            &probe,
            "untracked-request",
            &[&place, &named, &client, removal, "SYN", "(+"],
        );
        assert_eq!(
            (&found["service"], &found["certain"]),
            (&NAME.into(), &true.into())
        );
        assert_eq!(found["felt_by"][0]["address"], client);

        // Without the rule all is well again, and what was is told no longer than it is true.
        shell(lab.node(), &format!("{tool} -w -t raw -F PREROUTING"));
        lab.shop.reaches_service().unwrap();
        let seen = probe.seen();
        wait_until("the finding is over", Duration::from_secs(30), || {
            let healthy = |look: &Value| look["healthy"] == true;
            let unexplained =
                |look: &Value| findings(look).iter().any(|f| f["rules"] == Value::Array(vec![]));
            let looks = probe.since(seen);
            assert!(!looks.iter().any(unexplained), "{looks:#?}");
            looks.iter().any(healthy).then_some(())
        })
        .unwrap();
        let run = probe.finish().unwrap();
        assert_eq!(run.status.code(), Some(0), "{}", run.stderr);
    }
}

#[test]
fn replies_of_an_endpoint() {
    for (tool, table) in [("iptables-legacy", "raw"), ("iptables-nft", "raw")] {
        let lab = Lab::new(tool);
        let probe = Probe::bypass(lab.node(), &[]).unwrap();
        shell(
            lab.node(),
            &format!("{tool} -w -t {table} -A PREROUTING -p tcp -m multiport --sports 80,443 -j NOTRACK"),
        );
        let rule =
            format!("{tool}: raw PREROUTING rule 1: -A PREROUTING -p tcp -m multiport --sports 80,443");
        let endpoint = format!("{}:443", lab.shop.server.address);
        let found = lab.until_found(&probe, "untracked-reply", &[&rule, NAME, &endpoint, "SYN-ACK"]);
        assert_eq!(
            found["felt_by"][0]["address"],
            lab.shop.client.address.to_string()
        );
        // Conntrack knows that it was asked by way of the Service.
        assert_eq!(found["certain"], true);
        // Who asks the endpoint itself misses nothing.
        lab.shop.reaches(&endpoint).unwrap();
    }
}

#[test]
fn native_nft() {
    let lab = Lab::new("iptables-nft");
    let probe = Probe::bypass(lab.node(), &[]).unwrap();
    for line in [
        "nft add table inet own",
        "nft add chain inet own early '{ type filter hook prerouting priority raw; }'",
        "nft add chain inet own web",
        "nft add rule inet own early iifname cni0 jump web",
        "nft add rule inet own web tcp dport '{ 80, 443 }' counter notrack",
    ] {
        shell(lab.node(), line);
    }
    let found = lab.until_found(
        &probe,
        "untracked-request",
        &["nft: inet own web handle", NAME, "(+"],
    );
    let fix = found["fixes"][0]["shell"].as_str().unwrap();
    assert!(fix.starts_with("nft delete rule inet own web handle "), "{fix}");
}

/// On a node that has none of the tools, as Talos has none: the kernel itself tells its rules, and Services in them.
#[test]
fn on_a_node_without_tools() {
    for (rules, place, removal) in [
        (
            ["iptables-nft -w -t raw -A PREROUTING -p tcp -m multiport --dports 80,443 -j NOTRACK"]
                .as_slice(),
            "iptables-nft: raw PREROUTING rule 1: -A PREROUTING -p tcp -m multiport --dports 80,443 -j",
            "iptables-nft -t raw -D PREROUTING -p tcp -m multiport --dports 80,443 -j",
        ),
        (
            &[
                "nft add table inet own",
                "nft add chain inet own early '{ type filter hook prerouting priority raw; }'",
                "nft add chain inet own web",
                "nft add rule inet own early iifname cni0 jump web",
                "nft add rule inet own web tcp dport '{ 80, 443 }' counter notrack",
            ],
            "nft: inet own web handle",
            "nft delete rule inet own web handle ",
        ),
    ] {
        let lab = Lab::new("iptables-nft");
        for rule in rules {
            shell(lab.node(), rule);
        }
        // The first process of the node has the same mounts as probe, and nothing where tools would be.
        let script = "mount -t tmpfs none /usr/sbin && ! command -v nft iptables-save && \"$0\" \"$@\"; exit";
        let mut node = Probe::in_container(script).unwrap();
        let probe = Probe::bypass_by(&mut node, lab.node(), &[]).unwrap();
        let found = lab.until_found(&probe, "untracked-request", &[place, NAME, "(+"]);
        assert_eq!(
            (&found["service"], &found["certain"]),
            (&NAME.into(), &true.into())
        );
        let fix = found["fixes"][0]["shell"].as_str().unwrap();
        assert!(fix.starts_with(removal), "{fix}");
        let looks = probe.wait_for(1, |look| look["event"] == "bypass").unwrap();
        assert!(looks[0].get("unread").is_none(), "{:#}", looks[0]);
        probe.end_in_container(lab.node().name()).unwrap();
    }
}

#[test]
fn rules_of_many_kinds() {
    let lab = Lab::new("iptables-legacy");
    let probe = Probe::bypass(lab.node(), &[]).unwrap();
    let client = lab.shop.client.address;
    for (rules, named) in [
        (
            vec!["-A PREROUTING -p tcp --dport 443 -j NOTRACK".to_owned()],
            "PREROUTING rule 1: -A PREROUTING -p tcp -m tcp --dport 443",
        ),
        (
            vec!["-A PREROUTING -i cni0 -j CT --notrack".to_owned()],
            "PREROUTING rule 1: -A PREROUTING -i cni0 -j",
        ),
        (
            vec![format!("-A PREROUTING -s {client} -d {SERVICE} -j NOTRACK")],
            "PREROUTING rule 1: -A PREROUTING -s 10.244.1.5/32 -d 10.96.7.7/32",
        ),
        (
            vec!["-A PREROUTING ! -i lo -p tcp ! --dport 22 -j NOTRACK".to_owned()],
            "PREROUTING rule 1: -A PREROUTING ! -i lo -p tcp -m tcp ! --dport 22",
        ),
        (
            vec![
                "-N OWN".to_owned(),
                "-A PREROUTING -p udp -j NOTRACK".to_owned(),
                "-A PREROUTING -p tcp -j OWN".to_owned(),
                "-A OWN -p tcp --dport 22 -j NOTRACK".to_owned(),
                "-A OWN -p tcp --dport 443 -j NOTRACK".to_owned(),
            ],
            "OWN rule 2: -A OWN -p tcp -m tcp --dport 443",
        ),
    ] {
        for rule in &rules {
            shell(lab.node(), &format!("iptables-legacy -w -t raw {rule}"));
        }
        let named = format!("by iptables-legacy: raw {named}");
        let found = lab.until_found(&probe, "untracked-request", &[&named]);
        assert_eq!(found["rules"].as_array().unwrap().len(), 1, "{found:#}");
        shell(lab.node(), "iptables-legacy -w -t raw -F");
        shell(lab.node(), "iptables-legacy -w -t raw -X");
    }
}

/// Nobody has the Service's address, so what goes there untranslated never leaves: only the rule's counter tells.
#[test]
fn packets_that_never_leave() {
    let lab = Lab::new("iptables-legacy");
    lab.node().ip("route replace 10.96.0.0/12 dev eth0").unwrap();
    let probe = Probe::bypass(lab.node(), &[]).unwrap();
    shell(
        lab.node(),
        "iptables-legacy -w -t raw -A PREROUTING -p tcp --dport 443 -j NOTRACK",
    );
    let found = lab.until_found(
        &probe,
        "untracked",
        &["raw PREROUTING rule 1: ", "(+", "were not seen"],
    );
    assert_eq!(found["certain"], false);
}

/// An earlier ACCEPT takes the Service's packets away from the rule, which then is latent.
#[test]
fn a_shadowed_rule_is_not_blamed() {
    let lab = Lab::new("iptables-legacy");
    for rule in [
        "-A PREROUTING -p tcp --dport 443 -j ACCEPT",
        "-A PREROUTING -p tcp -m multiport --dports 80,443 -j NOTRACK",
        "-A OUTPUT -p udp --dport 9 -j ACCEPT",
        "-A OUTPUT -p udp --dport 9 -j NOTRACK",
    ] {
        shell(lab.node(), &format!("iptables-legacy -w -t raw {rule}"));
    }
    let probe = Probe::bypass(lab.node(), &[]).unwrap();
    lab.shop.reaches_service().unwrap();
    send(lab.node(), "192.168.88.12:9".parse().unwrap(), 5);
    let looks = probe.wait_for(3, |look| look["event"] == "bypass").unwrap();
    for look in &looks {
        assert!(findings(look).is_empty() && streams(look).is_empty(), "{look:#}");
        let rules = look["rules"].as_array().unwrap();
        assert_eq!(rules.len(), 2, "{look:#}");
        assert!(rules.iter().all(|rule| rule["state"] == "latent"), "{look:#}");
    }

    // Something else lets packets past, and the one behind the ACCEPT is still innocent.
    shell(
        lab.node(),
        "iptables-legacy -w -t raw -I PREROUTING -p tcp --dport 443 -j NOTRACK",
    );
    let found = lab.until_found(&probe, "untracked-request", &["raw PREROUTING rule 1: "]);
    assert!(!text(&found).contains("multiport"), "{found:#}");
}

#[test]
fn a_clean_node_has_no_finding() {
    let lab = Lab::new("iptables-legacy");
    let file = format!("/run/netns/{}", lab.node().name());
    let probe = Probe::bypass(lab.node(), &[]).unwrap();
    lab.shop.reaches_service().unwrap();
    send(lab.node(), "192.168.88.12:9".parse().unwrap(), 5);
    // Neighbour discovery is untracked by the kernel itself.
    lab.node().ip("addr add fd88::11/64 dev eth0 nodad").unwrap();
    send(lab.node(), "[fd88::12]:9".parse().unwrap(), 1);
    let looks = probe.wait_for(3, |look| look["event"] == "bypass").unwrap();
    for look in &looks {
        assert!(findings(look).is_empty() && streams(look).is_empty(), "{look:#}");
    }
    let run = probe.finish().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", run.stderr);

    let arguments = ["bypass", "--once", "--duration", "1s", "--netns", &file];
    let once = finish(&mut Probe::command(&arguments).unwrap()).unwrap();
    let told = String::from_utf8_lossy(&once.stdout).into_owned();
    assert_eq!(once.status.code(), Some(0), "{told}");
    assert!(
        told.contains("no packet bypassed conntrack, and no rule exempts any"),
        "{told}"
    );
}

#[test]
fn node_local_dns_is_intended() {
    let lab = Lab::new("iptables-legacy");
    let node = lab.node();
    node.ip("addr add 169.254.20.10/32 dev lo").unwrap();
    for rule in [
        "-A PREROUTING -d 169.254.20.10/32 -p udp -m udp --dport 53",
        "-A OUTPUT -s 169.254.20.10/32 -p udp -m udp --sport 53",
        "-A OUTPUT -d 169.254.20.10/32 -p udp -m udp --dport 53",
    ] {
        shell(
            node,
            &format!(
                "iptables-legacy -w -t raw {rule} -m comment --comment 'NodeLocal DNS Cache: skip conntrack' -j NOTRACK"
            ),
        );
    }
    let probe = Probe::bypass(node, &[]).unwrap();
    let server = node
        .enter(|| UdpSocket::bind("169.254.20.10:53").unwrap())
        .unwrap();
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    send(&lab.shop.client.netns, "169.254.20.10:53".parse().unwrap(), 3);
    let mut buffer = [0; 16];
    for _ in 0..3 {
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(b"answer", from).unwrap();
    }
    let looks = probe
        .wait_for(1, |look| {
            streams(look).iter().any(|stream| stream["packets"] == 3)
        })
        .unwrap();
    let look = looks.last().unwrap();
    assert!(findings(look).is_empty(), "{look:#}");
    let intended = |of: &Value| of["intended"] == "NodeLocal DNSCache";
    assert!(streams(look).iter().all(intended), "{look:#}");
    assert!(look["rules"].as_array().unwrap().iter().all(intended), "{look:#}");
}

/// Every packet once, though a bridge and its port both send it.
#[test]
fn as_many_as_were_sent() {
    const NUMBER: u64 = 500;
    let lab = Lab::new("iptables-legacy");
    let node = lab.node();
    for chain in ["PREROUTING", "OUTPUT"] {
        shell(
            node,
            &format!("iptables-legacy -w -t raw -A {chain} -p udp --dport 9:12 -j NOTRACK"),
        );
    }
    let probe = Probe::bypass(node, &[]).unwrap();
    let local = format!("{}:10", lab.shop.client.address).parse().unwrap();
    // Through VXLAN, whose own packets are tracked; into a pod by way of the bridge; over the loopback device.
    let remote = format!("{}:9", lab.shop.server.address).parse().unwrap();
    send(&lab.shop.client.netns, remote, NUMBER);
    send(node, local, NUMBER);
    send(node, "127.0.0.1:11".parse().unwrap(), NUMBER);
    send(node, "192.168.88.12:12".parse().unwrap(), NUMBER);
    let counts = |look: &Value| {
        [
            packets(look, "forwarded", 9),
            packets(look, "outgoing", 10),
            packets(look, "outgoing", 11),
            packets(look, "outgoing", 12),
        ]
    };
    let looks = probe
        .wait_for(1, |look| counts(look).iter().all(|packets| *packets >= NUMBER))
        .unwrap();
    assert_eq!(counts(&looks[0]), [NUMBER; 4], "{:#}", looks[0]);
    let run = probe.finish().unwrap();
    assert_eq!(counts(&run.summary), [NUMBER; 4], "{:#}", run.summary);
    assert_eq!(run.summary["lost"]["packets"], 0);
    assert_eq!(run.status.code(), Some(1));
}

#[test]
fn ipv6() {
    const NUMBER: u64 = 40;
    let pair = Pair::new().unwrap();
    Pair::iptables(
        &pair.client,
        Family::V6,
        "-t raw -A OUTPUT -p udp --dport 9 -j NOTRACK",
    )
    .unwrap();
    let probe = Probe::bypass(&pair.client, &[]).unwrap();
    let server = pair.server.enter(|| UdpSocket::bind("[::]:9").unwrap()).unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(10) * patience()))
        .unwrap();
    send(
        &pair.client,
        SocketAddr::new(Pair::server_ip(Family::V6), 9),
        NUMBER,
    );
    for number in 0..NUMBER {
        let arrived = server.recv_from(&mut [0; 16]);
        assert!(
            arrived.is_ok(),
            "{number} of {NUMBER} packets arrived: {arrived:?}"
        );
    }
    let looks = probe
        .wait_for(1, |look| {
            packets(look, "outgoing", 9) >= NUMBER && !findings(look).is_empty()
        })
        .unwrap();
    assert_eq!(packets(&looks[0], "outgoing", 9), NUMBER);
    let found = &findings(&looks[0])[0];
    assert!(
        text(found).contains("raw OUTPUT rule 1: -A OUTPUT -p udp"),
        "{found:#}"
    );
    assert!(text(found).contains("ip6tables"), "{found:#}");
}

/// On the node itself an address is nobody's: the socket's control group tells whose the packets are.
#[test]
fn who_sends_from_the_node() {
    const REQUEST: u16 = 9;
    const REPLY: u16 = 10;
    const NOBODY: u16 = 11;
    let (pair, logs) = (Pair::new().unwrap(), PodLogs::new().unwrap());
    let (client, server) = (Cgroup::pod().unwrap(), Cgroup::pod().unwrap());
    for (name, cgroup) in [("client", &client), ("server", &server)] {
        logs.add("shop", name, &cgroup.pod_uid).unwrap();
    }
    // In a hierarchy of version 2 alone: a socket is in no other.
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let told = mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("cgroup2"));
    for family in Family::PLAIN {
        for ports in ["--dport 9", "--sport 10:11"] {
            let rule = format!("-t raw -A OUTPUT -p tcp {ports} -j NOTRACK");
            Pair::iptables(&pair.client, family, &rule).unwrap();
        }
        let probe = Probe::bypass(&pair.client, &["--pod-logs", logs.path()]).unwrap();
        let (here, there) = (Pair::client_ip(family), Pair::server_ip(family));
        let mut listen = pair.client.command("nc");
        listen.args(["-lk", &here.to_string(), &REPLY.to_string()]);
        let _listener = Child::spawn(server.place(&mut listen)).unwrap();
        let dial = |port| {
            let to = SocketAddr::new(here, port);
            let dial = || TcpStream::connect_timeout(&to, Duration::from_secs(2)).is_ok();
            pair.server.enter(dial).unwrap()
        };
        wait_until("it listens", Duration::from_secs(10), || {
            dial(REPLY).then_some(())
        })
        .unwrap();
        assert!(!dial(NOBODY));
        let mut request = pair.client.command("nc");
        request.args(["-z", &there.to_string(), &REQUEST.to_string()]);
        Child::spawn(client.place(&mut request)).unwrap().wait().unwrap();

        let stream = |look: &Value, end: &str, port: u16| {
            let of = |stream: &&Value| stream["direction"] == "outgoing" && stream[end]["port"] == port;
            streams(look).iter().find(of).cloned()
        };
        let three = |look: &Value| {
            Some([
                stream(look, "destination", REQUEST)?,
                stream(look, "source", REPLY)?,
                stream(look, "source", NOBODY)?,
            ])
        };
        let look = probe.wait_for(1, |look| three(look).is_some()).unwrap().remove(0);
        let [request, reply, nobody] = three(&look).unwrap();
        assert!(nobody.get("owner").is_none() && nobody["rst"] != 0, "{look:#}");
        for (stream, name, cgroup) in [(request, "client", &client), (reply, "server", &server)] {
            if !told {
                assert!(stream.get("owner").is_none(), "{stream:#}");
                continue;
            }
            let owner = &stream["owner"];
            assert_eq!(owner["pod"]["namespace"], "shop", "{stream:#}");
            assert_eq!(owner["pod"]["name"], name, "{stream:#}");
            assert_eq!(owner["pod"]["uid"], cgroup.pod_uid, "{stream:#}");
            assert_eq!(owner["container"]["id"], cgroup.container_id, "{stream:#}");
            assert_eq!(owner["others"], false, "{stream:#}");
            let found = findings(&look).iter().map(text).collect::<String>();
            assert!(found.contains(&format!("sent by shop/{name}")), "{found}");
        }
    }
}

/// In front of a socket, where conntrack's mark is cleared right after: both families, every packet once, and seen by one
/// of these programs.
fn delivered_to(programs: [&[&str]; 2], arguments: &[&str]) {
    const NUMBER: u64 = 40;
    const PORTS: [u16; 2] = [9, 10];
    let pair = Pair::new().unwrap();
    let rule = "-t raw -A PREROUTING -p udp --dport 9:10 -j NOTRACK";
    for (family, netns) in Family::PLAIN
        .into_iter()
        .flat_map(|family| [(family, &pair.server), (family, &pair.client)])
    {
        Pair::iptables(netns, family, rule).unwrap();
    }
    // Another one beside it is in nobody's way.
    let beside = Probe::bypass(&pair.server, arguments).unwrap();
    let probe = Probe::bypass(&pair.server, arguments).unwrap();
    for (family, port) in Family::PLAIN.into_iter().zip(PORTS) {
        let to = SocketAddr::new(Pair::server_ip(family), port);
        send(&pair.client, to, NUMBER);
        // What conntrack follows is no matter, nor is another network namespace's traffic.
        send(&pair.client, SocketAddr::new(to.ip(), 11), NUMBER);
        send(
            &pair.client,
            SocketAddr::new(Pair::client_ip(family), port),
            NUMBER,
        );
    }
    let counts = |look: &Value| PORTS.map(|port| packets(look, "delivered", port));
    let all = |look: &Value| counts(look).iter().all(|packets| *packets >= NUMBER);
    let look = probe
        .wait_for(1, |look| all(look) && !findings(look).is_empty())
        .unwrap()
        .remove(0);
    assert_eq!(counts(&look), [NUMBER; 2], "{look:#}");
    assert_eq!(packets(&look, "delivered", 11), 0, "{look:#}");
    assert!(look.get("unseen").is_none(), "{look:#}");
    let hooks = look["hooks"].as_array().unwrap();
    for (family, programs) in ["IPv4", "IPv6"].into_iter().zip(programs) {
        let gives = format!("untracked {family} packets that are delivered here");
        let hook = hooks.iter().find(|hook| hook["gives"] == gives).unwrap();
        assert!(programs.contains(&hook["program"].as_str().unwrap()), "{look:#}");
    }
    let text: String = findings(&look).iter().map(text).collect();
    for words in [
        "iptables-",
        "ip6tables-",
        "raw PREROUTING rule 1: -A PREROUTING -p udp",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let run = probe.finish().unwrap();
    assert_eq!(counts(&run.summary), [NUMBER; 2], "{:#}", run.summary);
    let run = beside.finish().unwrap();
    assert_eq!(counts(&run.summary), [NUMBER; 2], "{:#}", run.summary);
}

#[test]
fn delivered() {
    // Each kernel of the matrix has fentry, which comes first; others may have netfilter programs alone.
    delivered_to(
        [&["bypass_in", "bypass_in_nf"], &["bypass_in6", "bypass_in6_nf"]],
        &[],
    );
}

/// Type information in which nobody finds where fentry would go.
fn without_fentry() -> (tempfile::TempDir, String) {
    let functions = [
        ("ip_local_deliver_finish", "ip_local_deliver_finisx"),
        ("ip6_protocol_deliver_rcu", "ip6_protocol_deliver_rcx"),
    ];
    doctored(&functions).unwrap()
}

#[test]
fn delivered_past_a_netfilter_program() {
    if too_old((6, 4), "there are no netfilter programs") {
        return;
    }
    let (_dir, btf) = without_fentry();
    delivered_to([&["bypass_in_nf"], &["bypass_in6_nf"]], &["--btf", &btf]);
}

#[test]
fn delivered_past_a_kprobe() {
    if !std::path::Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        // Every kernel of the matrix has them.
        assert!(!in_matrix());
        eprintln!("skipped: this kernel is built without kprobes");
        return;
    }
    let (_dir, btf) = without_fentry();
    delivered_to(
        [&["bypass_in_kp"], &["bypass_in6_kp"]],
        &["--btf", &btf, "--without", "NF_INET_LOCAL_IN"],
    );
}
