//! `probe watch` tells why a connection failed, when that was seen, and only then.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::MetadataExt,
    time::Duration,
};

use probe_lab::{Netns, Probe, Shop, Stream, shell, too_old, wait_until};
use serde_json::Value;
use socket2::SockRef;

fn path(netns: &Netns) -> String {
    format!("/run/netns/{}", netns.name())
}

/// Whether it is the pod's own: probe sees those of all scenarios, whose addresses are the same.
fn is_of(shop: &Shop, record: &Value) -> bool {
    let netns = std::fs::metadata(path(&shop.client.netns)).unwrap();
    record["netns"] == netns.ino()
}

/// Watches the pod's connections as alpha's probe would.
fn watch(shop: &Shop, more: &[&str]) -> Probe {
    let netns = path(shop.node());
    let arguments = ["--port", "443", "--role", "client", "--netns", &netns];
    Probe::watch(&[arguments.as_slice(), more].concat()).unwrap()
}

/// Dials until a connection is told with such a cause.
fn until_told(shop: &Shop, probe: &Probe, address: &str, kind: &str) -> Value {
    let seen = probe.seen();
    let told = wait_until("a connection with its cause", Duration::from_secs(30), || {
        assert!(!shop.dials(address).unwrap(), "{address} answers");
        let records = probe.since(seen);
        records
            .into_iter()
            .find(|record| is_of(shop, record) && record["cause"]["kind"] == kind)
    });
    match told {
        Ok(record) => record,
        Err(error) => panic!("{error}: {:#}", probe.since(seen).last().unwrap_or(&Value::Null)),
    }
}

fn what(record: &Value) -> &str {
    record["cause"]["what"].as_str().unwrap_or_default()
}

/// Both rules of the incident, in either direction: with the Service's own rules in the same tool.
#[test]
fn untracked() {
    for (tool, ports, words) in [
        (
            "iptables-legacy",
            "--dports",
            "packets to Service shop/web:https (10.96.7.7:443) left untranslated",
        ),
        (
            "iptables-nft",
            "--sports",
            "an endpoint of Service shop/web:https (10.96.7.7:443), came back untranslated",
        ),
    ] {
        let shop = Shop::new(tool).unwrap();
        shop.reaches_service().unwrap();
        let probe = watch(&shop, &[]);
        let rule = format!("PREROUTING -p tcp -m multiport {ports} 80,443 -j");
        shell(shop.node(), &format!("{tool} -w -t raw -A {rule} NOTRACK")).unwrap();
        let record = until_told(&shop, &probe, "10.96.7.7:443", "untracked");
        // The next hop may say that it has no way to it, in time or not.
        assert!(
            ["unanswered", "unreachable"].contains(&record["outcome"].as_str().unwrap()),
            "{record:#}"
        );
        assert!(what(&record).contains(words), "{record:#}");
        let named = format!("{tool}: raw PREROUTING rule 1: -A {rule}");
        assert!(what(&record).contains(&named), "{record:#}");
        let cause = &record["cause"];
        assert_eq!(
            (&cause["service"], &cause["certain"]),
            (&"shop/web:https".into(), &true.into())
        );
        assert!(cause["rule"].as_str().unwrap().starts_with(&named), "{record:#}");
        let remedy = cause["fixes"][0]["shell"].as_str().unwrap();
        assert!(remedy.contains(&format!("{tool} -t raw -D {rule}")), "{remedy}");

        // Without the rule it works again, and nothing is blamed for what fails now.
        shell(shop.node(), &format!("{tool} -w -t raw -F")).unwrap();
        shop.reaches_service().unwrap();
        let run = probe.finish().unwrap();
        let told = run.summary["causes"].as_array().unwrap();
        assert!(
            told.iter().any(|told| told["rule"] == cause["rule"]),
            "{:#}",
            run.summary
        );
    }
}

#[test]
fn dropped_by_a_rule() {
    for (tool, target, address, outcome) in [
        ("iptables-legacy", "DROP", "10.96.7.7:443", "unanswered"),
        (
            "iptables-nft",
            "REJECT --reject-with tcp-reset",
            "10.244.2.7:443",
            "refused",
        ),
    ] {
        let shop = Shop::new(tool).unwrap();
        let probe = watch(&shop, &[]);
        let rule = "FORWARD -d 10.244.2.7/32 -p tcp -m tcp --dport 443";
        shell(shop.node(), &format!("{tool} -w -I {rule} -j {target}")).unwrap();
        let record = until_told(&shop, &probe, address, "dropped");
        assert_eq!(record["outcome"], outcome, "{record:#}");
        let named = format!("dropped by {tool}: filter FORWARD rule 1: -A {rule} -j {target}");
        assert!(what(&record).contains(&named), "{record:#}");
        assert_eq!(record["cause"]["certain"], true, "{record:#}");
    }
}

#[test]
fn a_service_without_endpoints() {
    let shop = Shop::new("iptables-legacy").unwrap();
    for rule in [
        "-N KUBE-SERVICES",
        "-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES",
        "-A KUBE-SERVICES -d 10.96.5.5/32 -p tcp -m comment --comment \"shop/empty:http has no endpoints\" -m tcp --dport 443 \
         -j REJECT --reject-with icmp-port-unreachable",
    ] {
        shell(shop.node(), &format!("iptables-legacy -w {rule}")).unwrap();
    }
    let probe = watch(&shop, &[]);
    let record = until_told(&shop, &probe, "10.96.5.5:443", "no-endpoints");
    assert_eq!(
        what(&record),
        "Service shop/empty:http (10.96.5.5:443) has no endpoints",
        "{record:#}"
    );
    assert_eq!(record["cause"]["service"], "shop/empty:http");
    let remedy = record["cause"]["fixes"][0]["shell"].as_str().unwrap();
    assert!(remedy.contains("kubectl -n shop get endpoints empty"), "{remedy}");
}

/// The other node drops VXLAN: here nothing comes back, which takes some seconds to be sure of.
#[test]
fn a_silent_vxlan_peer() {
    let shop = Shop::new("iptables-legacy").unwrap();
    let probe = watch(&shop, &[]);
    let beta = &shop.cluster.beta.netns;
    shell(beta, "iptables-legacy -w -I INPUT -p udp --dport 8472 -j DROP").unwrap();
    let record = until_told(&shop, &probe, "10.96.7.7:443", "vxlan");
    assert!(what(&record).contains("192.168.88.12"), "{record:#}");
}

/// The other node loses large packets of the overlay without an ICMP error; the last, smaller segment arrives.
#[test]
fn a_path_mtu_black_hole() {
    let shop = Shop::new("iptables-legacy").unwrap();
    let probe = watch(&shop, &[]);
    let lose = "nft -f - <<'END'
table netdev wire {
  chain in {
    type filter hook ingress device eth0 priority 0
    udp dport 8472 meta length > 1400 drop
  }
}
END";
    shell(&shop.cluster.beta.netns, lose).unwrap();
    let server = (shop.server.address, 443);
    let connect = || TcpStream::connect(server).unwrap();
    let mut client = Stream::from(shop.client.netns.enter(connect).unwrap());
    // Four time-outs: 0.2, 0.6, 1.4 and 3 s after the first transmission.
    SockRef::from(&*client)
        .set_tcp_user_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    client.write_all(&[1; 4000]).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    let records = probe.wait_for(1, |record| is_of(&shop, record)).unwrap();
    let record = &records[0];
    assert_eq!(record["outcome"], "timed-out", "{record:#}");
    assert_eq!(record["unacknowledged"]["sacked_segments"], 1, "{record:#}");
    assert_eq!(record["cause"]["kind"], "black-hole", "{record:#}");
    assert!(
        what(record).contains("full-size packets (1450 bytes)"),
        "{record:#}"
    );
}

/// The same time-out where nothing arrives any more: the peer may be gone.
#[test]
fn a_silent_peer_is_no_black_hole() {
    let shop = Shop::new("iptables-legacy").unwrap();
    let probe = watch(&shop, &[]);
    let server = (shop.server.address, 443);
    let connect = || TcpStream::connect(server).unwrap();
    let mut client = Stream::from(shop.client.netns.enter(connect).unwrap());
    shop.server.netns.ip("link set eth0 down").unwrap();
    SockRef::from(&*client)
        .set_tcp_user_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    client.write_all(&[1; 4000]).unwrap();
    // The pod's node tells that the address is gone, or nobody does.
    client.read(&mut [0]).unwrap_err();
    let records = probe.wait_for(1, |record| is_of(&shop, record)).unwrap();
    let record = &records[0];
    assert_ne!(record["cause"]["kind"], "black-hole", "{record:#}");
}

/// Nobody listens: the kernel says so since 5.17.
#[test]
fn no_socket() {
    if too_old((5, 17), "the kernel gives no reasons for drops") {
        return;
    }
    let shop = Shop::new("iptables-legacy").unwrap();
    let netns = path(shop.node());
    let probe = Probe::watch(&["--port", "444", "--role", "client", "--netns", &netns]).unwrap();
    let address = format!("{}:444", shop.server.address);
    let record = until_told(&shop, &probe, &address, "dropped");
    assert_eq!(record["outcome"], "refused", "{record:#}");
    assert_eq!(record["cause"]["reason"], "NO_SOCKET", "{record:#}");
    assert!(
        what(&record).contains("found no socket in the network namespace"),
        "{record:#}"
    );
}

/// What nobody answers, and nothing here was seen to be the reason for, has no cause; nor has what is not looked into.
#[test]
fn no_evidence_no_cause() {
    let shop = Shop::new("iptables-legacy").unwrap();
    // The bridge sends it to all pods, and none is it.
    let _other = shop.cluster.alpha.pod(6).unwrap();
    let neighbour = "ip neigh replace 10.244.1.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent";
    shell(&shop.client.netns, neighbour).unwrap();
    // Rules that are there, and have nothing to do with it.
    for rule in [
        "-t raw -A PREROUTING -p tcp --dport 9999 -j NOTRACK",
        "-A FORWARD -p tcp --dport 9999 -j DROP",
    ] {
        shell(shop.node(), &format!("iptables-legacy -w {rule}")).unwrap();
    }
    let probe = watch(&shop, &[]);
    for _ in 0..3 {
        assert!(!shop.dials("10.244.1.77:443").unwrap());
    }
    let unanswered = |record: &Value| is_of(&shop, record) && record["outcome"] == "unanswered";
    for record in probe.wait_for(3, unanswered).unwrap() {
        assert!(record["cause"].is_null(), "{record:#}");
    }
    drop(probe);

    shell(
        shop.node(),
        "iptables-legacy -w -t raw -A PREROUTING -p tcp --dport 443 -j NOTRACK",
    )
    .unwrap();
    let probe = watch(&shop, &["--no-explain"]);
    assert!(!shop.dials_service().unwrap());
    let records = probe.wait_for(1, |record| is_of(&shop, record)).unwrap();
    assert!(records[0]["cause"].is_null(), "{:#}", records[0]);
    let run = probe.finish().unwrap();
    assert_eq!(
        run.summary["causes"].as_array().map(Vec::len),
        Some(0),
        "{:#}",
        run.summary
    );
}

/// In a container that has no tools of its own the rules are read with the node's.
#[test]
fn in_a_container_without_tools() {
    let shop = Shop::new("iptables-legacy").unwrap();
    let rule = "iptables-legacy -w -t raw -A PREROUTING -p tcp --dport 443 -j NOTRACK";
    shell(shop.node(), rule).unwrap();
    // The first process has the node's mounts, the second, which sees it, others.
    let script =
        "unshare --mount sh -c 'mount -t tmpfs none /usr/sbin && exec \"$0\" \"$@\"' \"$0\" \"$@\"; exit";
    let mut container = Probe::in_container(script).unwrap();
    let netns = path(shop.node());
    let arguments = ["--port", "443", "--role", "client", "--netns", &netns];
    let probe = Probe::start(&mut container, &arguments).unwrap();
    let record = until_told(&shop, &probe, "10.96.7.7:443", "untracked");
    let rule = record["cause"]["rule"].as_str().unwrap();
    assert!(
        rule.starts_with("iptables-legacy: raw PREROUTING rule 1: "),
        "{record:#}"
    );
    probe.end_in_container(&netns).unwrap();
}
