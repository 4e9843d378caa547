//! kube-proxy's modes IPVS and nftables, by the rules that it makes itself, and the kernel's own devices of other overlays. IPVS,
//! WireGuard and Geneve are modules that not every kernel has: Debian's have them.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    thread,
    time::Duration,
};

use probe_lab::{Chatter, Cluster, Netns, Pod, Probe, in_matrix, patience, shell, wait_until};
use serde_json::{Value, json};

const SERVICE: &str = "10.96.7.7:443";
const NODE_PORT: &str = "192.168.88.11:30443";
const EMPTY: &str = "10.96.5.5:443";
const ENDPOINT: &str = "10.244.2.7:8443";
/// alpha's address on its VXLAN device, which packets to pods of other nodes are masqueraded to.
const MASQUERADED: &str = "10.244.1.0";

fn sh(netns: &Netns, line: &str) {
    shell(netns, line).unwrap_or_else(|error| panic!("{line}: {error:#}"));
}

/// Whether this kernel has these modules. Those of the matrix do.
fn has_modules(modules: &str) -> bool {
    let loaded = probe_lab::finish(
        std::process::Command::new("modprobe")
            .args(["-a"])
            .args(modules.split(' ')),
    );
    let has = loaded.is_ok_and(|output| output.status.success());
    assert!(has || !in_matrix(), "no modules {modules}");
    if !has {
        eprintln!("skipped: this kernel has no {modules}");
    }
    has
}

/// A client's pod on alpha, and a server's on beta, which sends back what it gets.
struct Net {
    cluster: Cluster,
    client: Pod,
    server: Pod,
}

impl Net {
    fn new() -> Self {
        let cluster = Cluster::new().unwrap();
        let (client, server) = (cluster.alpha.pod(5).unwrap(), cluster.beta.pod(7).unwrap());
        let listen = || TcpListener::bind(("0.0.0.0", 8443)).unwrap();
        let listener = server.netns.enter(listen).unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut buffer = [0; 64];
                    while let Ok(read @ 1..) = stream.read(&mut buffer) {
                        let _ = stream.write_all(&buffer[..read]);
                    }
                });
            }
        });
        Self {
            cluster,
            client,
            server,
        }
    }

    fn node(&self) -> &Netns {
        &self.cluster.alpha.netns
    }

    fn outside(&self) -> &Netns {
        &self.cluster.beta.netns
    }

    /// Watches clients as alpha's probe would.
    fn watch(&self) -> Probe {
        let netns = file(self.node());
        let ports = "443,30443,30081";
        Probe::watch(&["--role", "client", "--all", "--port", ports, "--netns", &netns]).unwrap()
    }
}

fn file(netns: &Netns) -> String {
    format!("/run/netns/{}", netns.name())
}

/// Whether a client gets an answer from the server.
fn exchange(from: &Netns, to: &str, within: Duration) -> bool {
    let to: SocketAddr = to.parse().unwrap();
    let exchange = || {
        let mut stream = TcpStream::connect_timeout(&to, within).ok()?;
        stream.set_read_timeout(Some(within)).ok()?;
        stream.write_all(b"a request").ok()?;
        let read = stream.read(&mut [0; 64]).ok()?;
        (read > 0).then_some(())
    };
    from.enter(exchange).unwrap().is_some()
}

fn answers(from: &Netns, to: &str) {
    let within = Duration::from_secs(5) * patience();
    wait_until(&format!("{to} answers"), Duration::from_secs(20), || {
        exchange(from, to, within).then_some(())
    })
    .unwrap();
}

/// Long enough for three SYNs.
fn does_not_answer(from: &Netns, to: &str) {
    assert!(!exchange(from, to, Duration::from_secs(4)), "{to} answers");
}

fn address(end: &Value) -> Option<String> {
    let (address, port) = (end["address"].as_str()?, end["port"].as_u64()?);
    Some(format!("{address}:{port}"))
}

/// Whether a connection is a client's in this network namespace, to what it dialled: probe sees those of all scenarios.
fn is_of(record: &Value, from: &Netns, dialled: &str) -> bool {
    let asked = [&record["dialled"], &record["destination"]].map(address);
    let asked = asked.iter().flatten().next();
    let netns = std::fs::metadata(file(from)).unwrap().ino();
    record["netns"] == netns && asked.is_some_and(|asked| asked == dialled)
}

/// Dials until a connection has a cause of this kind.
fn cause(watch: &Probe, from: &Netns, to: &str, kind: &str) -> Value {
    let seen = watch.seen();
    let found = wait_until("a connection with its cause", Duration::from_secs(40), || {
        does_not_answer(from, to);
        let records = watch.since(seen);
        let is_it = |record: &Value| is_of(record, from, to) && record["cause"]["kind"] == kind;
        records.into_iter().find(is_it)
    });
    match found {
        Ok(record) => record["cause"].clone(),
        Err(error) => panic!("{error:#}: {:#?}", watch.since(seen)),
    }
}

fn findings(snapshot: &Value) -> Vec<Value> {
    snapshot["findings"].as_array().cloned().unwrap_or_default()
}

/// The finding of `probe bypass` of a kind with this in its words, in a snapshot after so many.
fn finding(bypass: &Probe, seen: usize, kind: &str, what: &str) -> Value {
    let is_it = |finding: &Value| {
        finding["kind"] == kind && finding["what"].as_str().is_some_and(|text| text.contains(what))
    };
    let found = wait_until(what, Duration::from_secs(20), || {
        let snapshots = bypass.since(seen);
        snapshots.iter().flat_map(findings).find(is_it)
    });
    match found {
        Ok(finding) => finding,
        Err(error) => panic!("{error:#}: {:#?}", bypass.since(seen).last()),
    }
}

/// Waits for so many more snapshots, in which nothing may be found.
fn finds_nothing(probe: &Probe, seen: usize, snapshots: usize) -> Vec<Value> {
    wait_until("snapshots", Duration::from_secs(30), || {
        (probe.seen() >= seen + snapshots).then_some(())
    })
    .unwrap();
    let snapshots = probe.since(seen);
    for snapshot in &snapshots {
        assert_eq!(snapshot["findings"], json!([]), "{snapshot:#}");
    }
    snapshots
}

/// The first exchange that `probe path` follows at a node.
fn path(node: &Netns, port: &str, dial: impl Fn()) -> Value {
    let probe = Probe::path(&["--netns", &file(node), "--port", port]).unwrap();
    dial();
    let is_one = |record: &Value| record["event"] == "path";
    probe.wait_for(1, is_one).unwrap().remove(0)
}

/// What kube-proxy 1.30 makes of a Service with a NodePort and one endpoint, and one without endpoints, with
/// `--proxy-mode=ipvs --cluster-cidr=10.244.0.0/16`.
const IPSET: &str = "ipset restore <<'END'
create KUBE-LOOP-BACK hash:ip,port,ip family inet
create KUBE-CLUSTER-IP hash:ip,port family inet
create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
create KUBE-LOAD-BALANCER hash:ip,port family inet
create KUBE-EXTERNAL-IP hash:ip,port family inet
create KUBE-IPVS-IPS hash:ip family inet
add KUBE-LOOP-BACK 10.244.2.7,tcp:8443,10.244.2.7
add KUBE-CLUSTER-IP 10.96.7.7,tcp:443
add KUBE-CLUSTER-IP 10.96.5.5,tcp:443
add KUBE-NODE-PORT-TCP 30443
add KUBE-IPVS-IPS 10.96.7.7
add KUBE-IPVS-IPS 10.96.5.5
END";
const IPTABLES: &str = "iptables-restore -n <<'END'
*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-MARK-MASQ - [0:0]
-I OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-I PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-I POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-SERVICES -s 127.0.0.0/8 -j RETURN
-A KUBE-NODE-PORT -p tcp -m comment --comment \"Kubernetes nodeport TCP port for masquerade purpose\" -m set --match-set KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ
-A KUBE-POSTROUTING -m comment --comment \"Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose\" -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE
-A KUBE-SERVICES -m comment --comment \"Kubernetes service cluster ip + port for masquerade purpose\" -m set --match-set KUBE-CLUSTER-IP dst,dst ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
COMMIT
*filter
:KUBE-FORWARD - [0:0]
:KUBE-IPVS-FILTER - [0:0]
-I FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-I INPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-FILTER
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-IPVS-FILTER -m set --match-set KUBE-CLUSTER-IP dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT --reject-with icmp-port-unreachable
COMMIT
END";

/// alpha with kube-proxy in mode ipvs; `None` where the kernel has none.
fn ipvs() -> Option<Net> {
    if !has_modules("ip_vs ip_vs_rr") {
        return None;
    }
    let net = Net::new();
    let node = net.node();
    for setting in ["conntrack", "expire_nodest_conn", "expire_quiescent_template"] {
        node.set(&format!("net.ipv4.vs.{setting}"), "1").unwrap();
    }
    node.ip("link add kube-ipvs0 type dummy").unwrap();
    for address in ["10.96.7.7", "10.96.5.5"] {
        node.ip(&format!("addr add {address}/32 dev kube-ipvs0")).unwrap();
    }
    sh(node, IPSET);
    sh(node, IPTABLES);
    for virtual_server in [SERVICE, NODE_PORT] {
        sh(node, &format!("ipvsadm -A -t {virtual_server} -s rr"));
        sh(
            node,
            &format!("ipvsadm -a -t {virtual_server} -r {ENDPOINT} -m -w 1"),
        );
    }
    sh(node, &format!("ipvsadm -A -t {EMPTY} -s rr"));
    Some(net)
}

#[test]
fn ipvs_translates_and_conntrack_masquerades() {
    let Some(net) = ipvs() else { return };
    let (node, pod) = (net.node(), &net.client.netns);
    let (watch, bypass) = (net.watch(), Probe::bypass(node, &[]).unwrap());
    for (from, to, seen_as) in [
        (pod, SERVICE, None),
        (node, SERVICE, Some(MASQUERADED)),
        (net.outside(), NODE_PORT, Some(MASQUERADED)),
        (pod, NODE_PORT, Some(MASQUERADED)),
    ] {
        answers(from, to);
        let records = watch.wait_for(1, |record| is_of(record, from, to)).unwrap();
        let record = &records[0];
        assert_eq!(address(&record["dialled"]).as_deref(), Some(to), "{record:#}");
        assert_eq!(
            address(&record["destination"]).as_deref(),
            Some(ENDPOINT),
            "{record:#}"
        );
        assert_eq!(record["seen_as"]["address"].as_str(), seen_as, "{record:#}");
        assert_eq!(record["cause"], Value::Null, "{record:#}");
    }
    finds_nothing(&bypass, 0, 4);
    for (port, from, to) in [("443", pod, SERVICE), ("30443", net.outside(), NODE_PORT)] {
        let followed = path(node, port, || answers(from, to));
        assert_eq!(followed["outcome"], "delivered", "{followed:#}");
    }
}

/// And with one of weight 0, as of a pod that terminates: it gets no new connection.
#[test]
fn ipvs_without_destinations() {
    let Some(net) = ipvs() else { return };
    let watch = net.watch();
    for weight in [None, Some(0)] {
        if let Some(weight) = weight {
            let line = format!("ipvsadm -a -t {EMPTY} -r {ENDPOINT} -m -w {weight}");
            sh(net.node(), &line);
        }
        for from in [&net.client.netns, net.node()] {
            let cause = cause(&watch, from, EMPTY, "no-endpoints");
            assert_eq!(
                cause["what"],
                format!("the Service at {EMPTY} has no endpoints"),
                "{cause:#}"
            );
        }
    }
}

/// IPVS translates untracked packets by itself, so pods reach the Service. Who has to be masqueraded does not.
#[test]
fn ipvs_without_conntrack() {
    let Some(net) = ipvs() else { return };
    let (node, pod) = (net.node(), &net.client.netns);
    let (watch, bypass) = (net.watch(), Probe::bypass(node, &[]).unwrap());
    let raw = |rule: &str| sh(node, &format!("iptables -w -t raw {rule}"));

    raw("-A PREROUTING -p tcp -m multiport --dports 443,30443,8443 -j NOTRACK");
    raw("-A PREROUTING -p tcp -m multiport --sports 443,8443 -j NOTRACK");
    answers(pod, SERVICE);
    // Not all of these snapshots have the stream yet.
    let snapshots = finds_nothing(&bypass, 0, 6);
    let is_left =
        |stream: &Value| stream["source"]["address"] == "10.244.1.5" && stream["intended"] == "IPVS";
    let streams = snapshots
        .iter()
        .filter_map(|snapshot| snapshot["streams"].as_array());
    assert!(
        streams.flatten().any(is_left),
        "{:#}",
        snapshots[snapshots.len() - 1]
    );
    let records = watch.wait_for(1, |record| is_of(record, pod, SERVICE)).unwrap();
    assert_eq!(records[0]["cause"], Value::Null, "{:#}", records[0]);

    let seen = bypass.seen();
    does_not_answer(net.outside(), NODE_PORT);
    let what = format!(
        "the Service at {NODE_PORT} does not answer 192.168.88.12: its packets bypass conntrack, so IPVS translates them to an \
         endpoint, but nothing masquerades them"
    );
    let found = finding(&bypass, seen, "untracked", &what);
    assert_eq!(found["service"], NODE_PORT, "{found:#}");
    // Not every kube-proxy has to masquerade this client.
    assert_eq!(found["certain"], false, "{found:#}");
    raw("-F");
    answers(net.outside(), NODE_PORT);

    let rule = "OUTPUT -p tcp -m multiport --dports 443,8443 -j NOTRACK";
    raw(&format!("-A {rule}"));
    let seen = bypass.seen();
    let cause = cause(&watch, node, SERVICE, "untracked");
    let what =
        format!("packets to the Service at {SERVICE} went to {ENDPOINT} as from 10.96.7.7, not masqueraded");
    assert!(cause["what"].as_str().unwrap().contains(&what), "{cause:#}");
    let found = finding(
        &bypass,
        seen,
        "untracked",
        &format!("the Service at {SERVICE} does not answer 10.96.7.7"),
    );
    assert_eq!(found["certain"], true, "{found:#}");
    let fix = found["fixes"][0]["shell"].as_str().unwrap();
    assert!(fix.contains(&format!("-t raw -D {rule}")), "{found:#}");
    sh(node, fix);
    answers(node, SERVICE);

    // Replies to a masqueraded client are for conntrack to translate back.
    raw("-A PREROUTING -p tcp -m multiport --sports 8443 -j NOTRACK");
    let seen = bypass.seen();
    does_not_answer(net.outside(), NODE_PORT);
    let what = format!("the Service at {NODE_PORT} is unreachable from");
    let found = finding(&bypass, seen, "untracked-reply", &what);
    assert_eq!(found["certain"], true, "{found:#}");
    raw("-F");
    answers(net.outside(), NODE_PORT);
}

/// What kube-proxy 1.33 makes of the same Services with `--proxy-mode=nftables`.
const NFTABLES: &str = "nft -f - <<'END'
table ip kube-proxy {
  comment \"rules for kube-proxy\"
  set cluster-ips {
    type ipv4_addr
    comment \"Active ClusterIPs\"
    elements = { 10.96.7.7, 10.96.5.5 }
  }
  set nodeport-ips {
    type ipv4_addr
    comment \"IPs that accept NodePort traffic\"
    elements = { 192.168.88.11 }
  }
  map no-endpoint-services {
    type ipv4_addr . inet_proto . inet_service : verdict
    comment \"vmap to drop or reject packets to services with no endpoints\"
    elements = { 10.96.5.5 . tcp . 443 comment \"shop/empty:https\" : goto reject-chain }
  }
  map no-endpoint-nodeports {
    type inet_proto . inet_service : verdict
    comment \"vmap to drop or reject packets to service nodeports with no endpoints\"
    elements = { tcp . 30081 comment \"shop/empty:https\" : goto reject-chain }
  }
  map firewall-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    comment \"destinations that are subject to LoadBalancerSourceRanges\"
  }
  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    comment \"ClusterIP, ExternalIP and LoadBalancer IP traffic\"
    elements = { 10.96.7.7 . tcp . 443 : goto service-4AT6LBPK-shop/web/tcp/https }
  }
  map service-nodeports {
    type inet_proto . inet_service : verdict
    comment \"NodePort traffic\"
    elements = { tcp . 30443 : goto external-4AT6LBPK-shop/web/tcp/https }
  }
  chain reject-chain {
    comment \"helper for @no-endpoint-services / @no-endpoint-nodeports\"
    reject
  }
  chain mark-for-masquerade {
    meta mark set meta mark | 0x4000
  }
  chain masquerading {
    meta mark & 0x4000 == 0 return
    meta mark set meta mark ^ 0x4000
    masquerade fully-random
  }
  chain endpoint-2CRNCTTE-shop/web/tcp/https__10.244.2.7/8443 {
    ip saddr 10.244.2.7 jump mark-for-masquerade
    meta l4proto tcp dnat to 10.244.2.7:8443
  }
  chain service-4AT6LBPK-shop/web/tcp/https {
    ip daddr 10.96.7.7 tcp dport 443 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
    numgen random mod 1 vmap { 0 : goto endpoint-2CRNCTTE-shop/web/tcp/https__10.244.2.7/8443 }
  }
  chain external-4AT6LBPK-shop/web/tcp/https {
    jump mark-for-masquerade
    goto service-4AT6LBPK-shop/web/tcp/https
  }
  chain services {
    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }
  chain service-endpoints-check {
    ip daddr . meta l4proto . th dport vmap @no-endpoint-services
  }
  chain nodeport-endpoints-check {
    ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
  }
  chain firewall-check {
    ip daddr . meta l4proto . th dport vmap @firewall-ips
  }
  chain cluster-ips-check {
    ip daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\"
    ip daddr 10.96.0.0/12 drop comment \"Drop traffic to unallocated ClusterIPs\"
  }
  chain filter-prerouting {
    type filter hook prerouting priority -110;
    ct state new jump firewall-check
  }
  chain filter-input {
    type filter hook input priority -110;
    ct state new jump nodeport-endpoints-check
    ct state new jump service-endpoints-check
  }
  chain filter-forward {
    type filter hook forward priority -110;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }
  chain filter-output {
    type filter hook output priority -110;
    ct state new jump service-endpoints-check
    ct state new jump firewall-check
  }
  chain filter-output-post-dnat {
    type filter hook output priority -90;
    ct state new jump cluster-ips-check
  }
  chain nat-prerouting {
    type nat hook prerouting priority -100;
    jump services
  }
  chain nat-output {
    type nat hook output priority -100;
    jump services
  }
  chain nat-postrouting {
    type nat hook postrouting priority 100;
    jump masquerading
  }
}
END";

#[test]
fn nftables() {
    let net = Net::new();
    let (node, pod, outside) = (net.node(), &net.client.netns, net.outside());
    // What is not translated leaves for somewhere, as it would at a node with a default route.
    node.ip("route add 10.96.0.0/12 via 192.168.88.12").unwrap();
    sh(node, NFTABLES);
    let (watch, bypass) = (net.watch(), Probe::bypass(node, &[]).unwrap());
    for (from, to, seen_as) in [
        (pod, SERVICE, None),
        (node, SERVICE, Some(MASQUERADED)),
        (outside, NODE_PORT, Some(MASQUERADED)),
    ] {
        answers(from, to);
        let records = watch.wait_for(1, |record| is_of(record, from, to)).unwrap();
        let record = &records[0];
        assert_eq!(
            address(&record["destination"]).as_deref(),
            Some(ENDPOINT),
            "{record:#}"
        );
        assert_eq!(record["seen_as"]["address"].as_str(), seen_as, "{record:#}");
    }
    for (from, to, named) in [
        (pod, EMPTY, "Service shop/empty:https (10.96.5.5:443)"),
        (node, EMPTY, "Service shop/empty:https (10.96.5.5:443)"),
        (
            outside,
            "192.168.88.11:30081",
            "Service shop/empty:https (NodePort 30081)",
        ),
    ] {
        let cause = cause(&watch, from, to, "no-endpoints");
        assert_eq!(cause["what"], format!("{named} has no endpoints"), "{cause:#}");
        assert_eq!(cause["service"], "shop/empty:https", "{cause:#}");
    }
    let followed = path(node, "30443", || answers(outside, NODE_PORT));
    assert_eq!(followed["outcome"], "delivered", "{followed:#}");
    let conclusion = followed["conclusion"].to_string();
    let named = "Service shop/web:https (NodePort 30443)";
    assert!(conclusion.contains(named), "{followed:#}");
    finds_nothing(&bypass, 0, 1);

    sh(
        node,
        "iptables-nft -w -t raw -A PREROUTING -p tcp -m multiport --dports 443,30443 -j NOTRACK",
    );
    for (from, to, what) in [
        (
            pod,
            SERVICE,
            "Service shop/web:https (10.96.7.7:443) is unreachable from 10.244.1.5",
        ),
        (
            outside,
            NODE_PORT,
            "packets to Service shop/web:https (NodePort 30443)",
        ),
    ] {
        let seen = bypass.seen();
        does_not_answer(from, to);
        let found = finding(&bypass, seen, "untracked-request", what);
        assert_eq!(found["certain"], true, "{found:#}");
    }
}

/// Both nodes with a device in place of flannel's, and traffic through it: neither `vxlan` nor `bypass` has anything to say.
fn is_left_alone(net: &Net, device: &str) {
    let nodes = [&net.cluster.alpha, &net.cluster.beta];
    let _chatter = Chatter::between(&net.client, &net.server).unwrap();
    answers(&net.client.netns, ENDPOINT);
    let probes = nodes.map(|node| {
        let vxlan = Probe::vxlan(&node.netns, &[]).unwrap();
        (vxlan, Probe::bypass(&node.netns, &[]).unwrap())
    });
    let sent = |node: &Netns| {
        let devices = node.run("cat /proc/net/dev").unwrap();
        let counts = devices.lines().find_map(|line| line.trim().strip_prefix(device));
        let packets = counts.and_then(|counts| counts.split_whitespace().nth(10));
        packets.unwrap().parse::<u64>().unwrap()
    };
    for (vxlan, bypass) in &probes {
        for snapshot in finds_nothing(vxlan, 0, 6) {
            assert_eq!(snapshot["devices"], json!([]), "{snapshot:#}");
        }
        finds_nothing(bypass, 0, 6);
    }
    for node in nodes {
        assert!(sent(&node.netns) > 20);
    }
    answers(&net.client.netns, ENDPOINT);
}

/// flannel's backend `wireguard`.
#[test]
fn a_wireguard_device_is_left_alone() {
    if !has_modules("wireguard") {
        return;
    }
    let net = Net::new();
    let nodes = [&net.cluster.alpha, &net.cluster.beta];
    let directory = std::env::temp_dir().join(format!("probe-lab-wg-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let key = |name: &str| directory.join(name).display().to_string();
    let public = nodes.map(|node| {
        let (name, private) = (&node.netns, key(node.netns.name()));
        sh(
            name,
            &format!("umask 077; wg genkey > {private}; wg pubkey < {private} > {private}.pub"),
        );
        std::fs::read_to_string(format!("{private}.pub"))
            .unwrap()
            .trim()
            .to_owned()
    });
    for (node, peer, public) in [(nodes[0], nodes[1], &public[1]), (nodes[1], nodes[0], &public[0])] {
        let (subnet, private, endpoint) = (peer.subnet(), key(node.netns.name()), peer.address);
        let overlay = |subnet: String| subnet.trim_end_matches("/24").to_owned();
        node.netns
            .ip_each([
                "link del flannel.1",
                "link add flannel-wg mtu 1420 type wireguard",
                &format!("addr add {}/32 dev flannel-wg", overlay(node.subnet())),
            ])
            .unwrap();
        sh(
            &node.netns,
            &format!(
                "wg set flannel-wg listen-port 51820 private-key {private} peer {public} endpoint {endpoint}:51820 \
                 allowed-ips {subnet}"
            ),
        );
        node.netns
            .ip_each([
                "link set flannel-wg up",
                &format!("route add {subnet} dev flannel-wg scope link"),
            ])
            .unwrap();
    }
    let _ = std::fs::remove_dir_all(&directory);
    is_left_alone(&net, "flannel-wg");
}

/// Antrea's tunnel, which its own rules exempt from conntrack.
#[test]
fn a_geneve_device_is_left_alone() {
    if !has_modules("geneve") {
        return;
    }
    let net = Net::new();
    for (node, peer) in [
        (&net.cluster.alpha, &net.cluster.beta),
        (&net.cluster.beta, &net.cluster.alpha),
    ] {
        let overlay = |subnet: String| subnet.trim_end_matches("/24").to_owned();
        let (own, far) = (overlay(node.subnet()), overlay(peer.subnet()));
        node.netns
            .ip_each([
                "link del flannel.1".to_owned(),
                format!(
                    "link add genev_sys_6081 mtu 1450 type geneve id 1 remote {} dstport 6081",
                    peer.address
                ),
                format!("addr add {own}/32 dev genev_sys_6081"),
                "link set genev_sys_6081 up".to_owned(),
                format!("route add {} via {far} dev genev_sys_6081 onlink", peer.subnet()),
            ])
            .unwrap();
        sh(
            &node.netns,
            "iptables-restore -n <<'END'
*raw
:ANTREA-PREROUTING - [0:0]
:ANTREA-OUTPUT - [0:0]
-A PREROUTING -m comment --comment \"Antrea: jump to Antrea prerouting rules\" -j ANTREA-PREROUTING
-A OUTPUT -m comment --comment \"Antrea: jump to Antrea output rules\" -j ANTREA-OUTPUT
-A ANTREA-PREROUTING -p udp -m comment --comment \"Antrea: do not track incoming encapsulation packets\" -m udp --dport 6081 -m addrtype --dst-type LOCAL -j NOTRACK
-A ANTREA-OUTPUT -p udp -m comment --comment \"Antrea: do not track outgoing encapsulation packets\" -m udp --dport 6081 -m addrtype --src-type LOCAL -j NOTRACK
COMMIT
END",
        );
    }
    is_left_alone(&net, "genev_sys_6081");
}
