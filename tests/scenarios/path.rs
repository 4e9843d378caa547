//! `probe path`: what each hop does to a packet, where it ends, and why.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    fmt::Write as _,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::MetadataExt as _,
    time::Duration,
};

use probe_lab::{
    Bulk, Cluster, Family, Netns, Node, Pair, Pod, Probe, Shop, accept_all, end, finish, patience, run,
    unique_port, wait_until,
};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

const SERVICE: &str = Shop::SERVICE;
/// As conclusions name the Service.
const NAMED: &str = "Service shop/web:https (10.96.7.7:443)";

fn shell(netns: &Netns, line: &str) {
    probe_lab::shell(netns, line).unwrap();
}

fn file(netns: &Netns) -> String {
    format!("/run/netns/{}", netns.name())
}

/// Follows packets that begin in a network namespace: those of other scenarios have the same addresses.
fn follow(netns: &Netns, more: &[&str]) -> Probe {
    let file = file(netns);
    Probe::path(&[&["--netns", &file], more].concat()).unwrap()
}

/// A socket that has begun to connect, and goes on with that as long as it is held.
fn dial(from: &Netns, to: impl Into<SocketAddr>) -> Socket {
    dial_as(from, None, to.into())
}

fn dial_as(from: &Netns, source: Option<IpAddr>, to: SocketAddr) -> Socket {
    from.enter(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        // It is under way, or was refused by a rule of its own host at once.
        let _ = socket.connect(&to.into());
        socket
    })
    .unwrap()
}

/// Three of these, begun moments apart, so that no two have their timers in one interrupt.
fn several(dial: impl Fn() -> Socket) -> Vec<Socket> {
    let begin = |_| {
        std::thread::park_timeout(Duration::from_millis(30));
        dial()
    };
    (0..3).map(begin).collect()
}

/// Accepts at all addresses of a host.
fn serve(host: &Netns, port: u16) {
    let any = IpAddr::from([0; 16]);
    accept_all(host.enter(|| TcpListener::bind((any, port)).unwrap()).unwrap());
}

/// Answers datagrams with the same.
fn echo(host: &Netns, port: u16) {
    let any = IpAddr::from([0; 16]);
    let socket = host.enter(|| UdpSocket::bind((any, port)).unwrap()).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
}

/// A datagram; its socket, which waits for the answer as long as it is held.
fn send(from: &Netns, to: impl Into<SocketAddr>, payload: &[u8]) -> UdpSocket {
    let to = to.into();
    from.enter(|| {
        let any: IpAddr = if to.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.send_to(payload, to).unwrap();
        socket
    })
    .unwrap()
}

/// The first exchange that is told.
fn told(probe: &Probe) -> Value {
    told_of(probe, |_| true)
}

/// The first exchange that is told of a request to a port.
fn told_to(probe: &Probe, port: u16) -> Value {
    told_of(probe, |exchange| {
        packets(exchange, "request").any(|packet| destination(first(packet)).port() == port)
    })
}

fn told_of(probe: &Probe, is: impl Fn(&Value) -> bool) -> Value {
    let told = probe
        .wait_for(1, |record| record["event"] == "path" && is(record))
        .unwrap_or_else(|error| {
            let all: String = probe.since(0).iter().map(brief).collect();
            panic!("{}; all that was told:\n{all}", error.root_cause())
        });
    let told = told.into_iter().next().unwrap();
    for packet in told["packets"].as_array().unwrap() {
        let times: Vec<_> = hops(packet).iter().map(|hop| hop["after_ns"].as_u64()).collect();
        assert!(times.is_sorted(), "{}", brief(&told));
    }
    told
}

/// An exchange for the messages of failures.
fn brief(exchange: &Value) -> String {
    let mut text = format!(
        "{} {}: {} {}\n",
        exchange["flow"], exchange["outcome"], exchange["conclusion"], exchange["fixes"]
    );
    for packet in exchange["packets"].as_array().into_iter().flatten() {
        let of = |name: &str| packet[name].as_str().unwrap_or_default().to_owned();
        let flag = |name: &'static str| if packet[name] == true { name } else { "" };
        let (direction, title, end) = (of("direction"), of("title"), of("end"));
        let (again, about) = (flag("again"), flag("about"));
        writeln!(text, "  {direction} {title} {again}{about} {end}").unwrap();
        for hop in hops(packet) {
            writeln!(
                text,
                "    {:>8} µs {} {} {} {} {} {} {}",
                hop["after_ns"].as_u64().unwrap_or(0) / 1000,
                hop["point"].as_str().unwrap_or_default(),
                hop["place"].as_str().unwrap_or_default(),
                hop["device"].as_str().unwrap_or_default(),
                hop["what"],
                hop["tracking"],
                hop["reason"],
                hop["at"],
            )
            .unwrap();
        }
    }
    text
}

fn hops(packet: &Value) -> &[Value] {
    packet["hops"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn first(packet: &Value) -> &Value {
    &hops(packet)[0]
}

/// Those of a direction that are no ICMP errors.
fn packets<'a>(exchange: &'a Value, direction: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = exchange["packets"].as_array().into_iter().flatten();
    all.filter(move |packet| packet["direction"] == direction && packet["about"] != true)
}

/// The first of a direction.
fn packet<'a>(exchange: &'a Value, direction: &'a str) -> &'a Value {
    let Some(packet) = packets(exchange, direction).next() else {
        panic!("no {direction}: {}", brief(exchange));
    };
    packet
}

/// The ICMP error in it.
fn error(exchange: &Value) -> &Value {
    let mut all = exchange["packets"].as_array().into_iter().flatten();
    let Some(error) = all.find(|packet| packet["about"] == true) else {
        panic!("no error: {}", brief(exchange));
    };
    error
}

fn source(hop: &Value) -> SocketAddr {
    end(hop, "source").unwrap()
}

fn destination(hop: &Value) -> SocketAddr {
    end(hop, "destination").unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Whether a hop is at a device of a network namespace.
fn is_at(hop: &Value, netns: &Netns, device: &str) -> bool {
    is_in(hop, netns) && hop["device"] == device
}

fn is_in(hop: &Value, netns: &Netns) -> bool {
    hop["place"]
        .as_str()
        .is_some_and(|place| place.contains(netns.name()))
}

/// The first hop of a packet at a device, where it is sent or comes in.
fn at<'a>(exchange: &'a Value, packet: &'a Value, point: &str, netns: &Netns, device: &str) -> &'a Value {
    let found = hops(packet)
        .iter()
        .find(|hop| hop["point"] == point && is_at(hop, netns, device));
    found.unwrap_or_else(|| panic!("not {point} at {device} of {}: {}", netns.name(), brief(exchange)))
}

/// Where it was dropped.
fn drop_of<'a>(exchange: &Value, packet: &'a Value) -> &'a Value {
    assert_eq!(packet["end"], "dropped", "{}", brief(exchange));
    let found = hops(packet).iter().rev().find(|hop| hop["point"] == "dropped");
    found.unwrap_or_else(|| panic!("not dropped: {}", brief(exchange)))
}

/// The network namespaces that a packet passed, as it came to them.
fn passed(packet: &Value) -> Vec<u64> {
    let mut passed: Vec<_> = hops(packet)
        .iter()
        .filter_map(|hop| hop["netns"].as_u64())
        .collect();
    passed.dedup();
    passed
}

fn inode(netns: &Netns) -> u64 {
    std::fs::metadata(file(netns)).unwrap().ino()
}

/// Where hooks of netfilter are seen at all, which takes functions, the node's first one tells of this table.
fn passes_tables(exchange: &Value, node: &Netns, table: &str) {
    let request = hops(packet(exchange, "request"));
    let hook = request
        .iter()
        .find(|hop| hop["hook"] == "PREROUTING" && hop["verdict"] == "accepted" && is_in(hop, node));
    if let Some(hook) = hook {
        let tables = hook["tables"].as_array().unwrap();
        assert!(tables.iter().any(|told| told == table), "{}", brief(exchange));
    }
}

/// What must be in the last word on it.
fn concludes(exchange: &Value, outcome: &str, words: &[&str]) {
    assert_eq!(exchange["outcome"], outcome, "{}", brief(exchange));
    let conclusion = exchange["conclusion"].as_str().unwrap();
    for word in words {
        assert!(conclusion.contains(word), "no {word:?}: {}", brief(exchange));
    }
}

/// Delivered, and answered. Without functions nothing shows when a socket takes a packet.
fn is_delivered(exchange: &Value) {
    concludes(exchange, "delivered", &[" delivered to "]);
    for direction in ["request", "reply"] {
        assert!(came(packet(exchange, direction)), "{}", brief(exchange));
    }
}

fn came(packet: &Value) -> bool {
    packet["end"] == "delivered" || packet["end"] == "arrived"
}

/// Why it was dropped: the kernel's reason, or before 5.17 its function.
fn because(exchange: &Value, hop: &Value, reasons: &[&str], functions: &[&str]) {
    let is = |name: &str, of: &[&str]| {
        let told = hop[name].as_str().unwrap_or_default();
        of.iter()
            .any(|known| told == *known || told.starts_with(&format!("{known}.")))
    };
    assert!(
        is("reason", reasons) || is("at", functions),
        "neither {reasons:?} nor {functions:?}: {}",
        brief(exchange)
    );
}

#[test]
fn a_pod_to_its_neighbour() {
    let cluster = Cluster::new().unwrap();
    let (alpha, port) = (&cluster.alpha, unique_port());
    let pods = [alpha.pod(2).unwrap(), alpha.pod(3).unwrap()];
    serve(&pods[1].netns, port);
    let probe = follow(&pods[0].netns, &["--port", &port.to_string()]);
    let _dialled = dial(&pods[0].netns, (pods[1].address, port));
    let exchange = told(&probe);
    is_delivered(&exchange);
    concludes(
        &exchange,
        "delivered",
        &[
            "SYN delivered to",
            "the reply took the same way back",
            "10.244.1.3",
        ],
    );
    let [here, there] = [&pods[0].netns, &pods[1].netns].map(inode);
    let node = inode(&alpha.netns);
    for (direction, way, from) in [
        ("request", [here, node, there], &pods[0]),
        ("reply", [there, node, here], &pods[1]),
    ] {
        let packet = packet(&exchange, direction);
        assert_eq!(passed(packet), way, "{}", brief(&exchange));
        assert!(hops(packet).iter().all(|hop| source(hop).ip() == from.address));
        let veth = if direction == "request" {
            ["veth2", "veth3"]
        } else {
            ["veth3", "veth2"]
        };
        at(&exchange, packet, "received", &alpha.netns, veth[0]);
        at(&exchange, packet, "sent", &alpha.netns, veth[1]);
    }
    assert!(exchange.get("fixes").is_none());
}

#[test]
fn a_pod_to_another_node_through_vxlan() {
    let cluster = Cluster::new().unwrap();
    let (alpha, beta, port) = (&cluster.alpha, &cluster.beta, unique_port());
    let pods = [alpha.pod(2).unwrap(), beta.pod(2).unwrap()];
    serve(&pods[1].netns, port);
    let probe = follow(&pods[0].netns, &["--port", &port.to_string()]);
    let _dialled = dial(&pods[0].netns, (pods[1].address, port));
    let exchange = told(&probe);
    is_delivered(&exchange);
    concludes(&exchange, "delivered", &["the reply took the same way back"]);
    for (direction, from, to) in [("request", alpha, beta), ("reply", beta, alpha)] {
        let packet = packet(&exchange, direction);
        at(&exchange, packet, "received", &from.netns, "veth2");
        at(&exchange, packet, "sent", &from.netns, "flannel.1");
        for wrapped in [
            at(&exchange, packet, "sent", &from.netns, "eth0"),
            at(&exchange, packet, "received", &to.netns, "eth0"),
        ] {
            let tunnel = &wrapped["tunnel"];
            assert_eq!(tunnel["vni"], 1);
            assert_eq!(tunnel["source"]["address"], from.address.to_string());
            assert_eq!(destination(tunnel), SocketAddr::from((to.address, 8472)));
            assert!(wrapped["what"].as_str().unwrap().contains("VNI 1"), "{wrapped:#}");
        }
        let unwrapped = at(&exchange, packet, "received", &to.netns, "flannel.1");
        assert!(unwrapped.get("tunnel").is_none(), "{unwrapped:#}");
        at(&exchange, packet, "sent", &to.netns, "veth2");
    }
}

/// What a Service's exchange is like.
fn through_service(exchange: &Value, alpha: &Node, client: &Pod, server: &Pod) {
    is_delivered(exchange);
    let endpoint = SocketAddr::from((server.address, 443));
    let service = address("10.96.7.7:443");
    let request = packet(exchange, "request");
    assert_eq!(destination(first(request)), service);
    let wrapped = at(exchange, request, "sent", &alpha.netns, "eth0");
    assert_eq!(
        (source(wrapped).ip(), destination(wrapped)),
        (client.address.into(), endpoint)
    );
    let translated: Vec<_> = hops(request)
        .iter()
        .filter(|hop| hop["what"].as_str().unwrap().contains("became"))
        .collect();
    let [translated] = translated.as_slice() else {
        panic!("translated once: {}", brief(exchange));
    };
    assert!(is_in(translated, &alpha.netns), "{}", brief(exchange));
    let what = translated["what"].as_str().unwrap();
    assert!(
        what.contains("destination 10.96.7.7:443 became 10.244.2.7:443 (DNAT)"),
        "{what}"
    );

    // To the client it is of whom it dialled.
    let reply = packet(exchange, "reply");
    assert_eq!(source(first(reply)), endpoint);
    assert_eq!(
        source(at(exchange, reply, "received", &client.netns, "eth0")),
        service
    );
    let back = |hop: &Value| {
        let what = hop["what"].as_str().unwrap();
        what.contains("source 10.244.2.7:443 became 10.96.7.7:443 (translated back)")
    };
    assert_eq!(
        hops(reply).iter().filter(|hop| back(hop)).count(),
        1,
        "{}",
        brief(exchange)
    );
}

#[test]
fn a_service() {
    for tool in ["iptables-legacy", "iptables-nft"] {
        let shop = Shop::new(tool).unwrap();
        let client = shop.client.address.to_string();
        let probe = follow(
            &shop.client.netns,
            &["--from", &client, "--to", SERVICE, "--port", "443"],
        );
        let _dialled = dial(&shop.client.netns, address("10.96.7.7:443"));
        let exchange = told(&probe);
        through_service(&exchange, &shop.cluster.alpha, &shop.client, &shop.server);
        assert!(exchange.get("untracked").is_none(), "{}", brief(&exchange));
        passes_tables(&exchange, shop.node(), &format!("{tool} nat"));
    }
}

#[test]
fn a_service_of_native_nft() {
    let cluster = Cluster::new().unwrap();
    let (client, server) = (cluster.alpha.pod(5).unwrap(), cluster.beta.pod(7).unwrap());
    serve(&server.netns, 443);
    for line in [
        "nft add table ip own",
        "nft add chain ip own services '{ type nat hook prerouting priority -100; }'",
        "nft add rule ip own services ip daddr 10.96.7.7 tcp dport 443 dnat to 10.244.2.7:443",
    ] {
        shell(&cluster.alpha.netns, line);
    }
    let probe = follow(&client.netns, &["--to", SERVICE]);
    let _dialled = dial(&client.netns, address("10.96.7.7:443"));
    through_service(&told(&probe), &cluster.alpha, &client, &server);
}

#[test]
fn a_pod_to_the_outside_is_masqueraded() {
    let cluster = Cluster::new().unwrap();
    let (alpha, beta, port) = (&cluster.alpha, &cluster.beta, unique_port());
    let pod = alpha.pod(5).unwrap();
    serve(&beta.netns, port);
    let probe = follow(&pod.netns, &["--port", &port.to_string()]);
    let _dialled = dial(&pod.netns, (beta.address, port));
    let exchange = told(&probe);
    is_delivered(&exchange);
    concludes(&exchange, "delivered", &["the reply took the same way back"]);
    let request = packet(&exchange, "request");
    let sent = at(&exchange, request, "sent", &alpha.netns, "eth0");
    assert_eq!(source(sent).ip(), alpha.address);
    assert!(
        hops(request).iter().any(|hop| {
            let what = hop["what"].as_str().unwrap();
            what.contains("source 10.244.1.5:") && what.contains("(SNAT)") && is_in(hop, &alpha.netns)
        }),
        "{}",
        brief(&exchange)
    );
    let reply = packet(&exchange, "reply");
    assert_eq!(destination(first(reply)).ip(), alpha.address);
    let back = at(&exchange, reply, "received", &pod.netns, "eth0");
    assert_eq!(destination(back), source(first(request)));
}

/// A process of the node itself: its packets are translated on their way out, which tracepoints alone don't show.
#[test]
fn the_node_to_a_service() {
    let shop = Shop::new("iptables-nft").unwrap();
    let probe = follow(shop.node(), &["--to", SERVICE, "--port", "443"]);
    let _dialled = dial(shop.node(), address("10.96.7.7:443"));
    let exchange = told(&probe);
    is_delivered(&exchange);
    let request = packet(&exchange, "request");
    let sent = at(&exchange, request, "sent", shop.node(), "eth0");
    assert_eq!(destination(sent), address("10.244.2.7:443"));
    let reply = packet(&exchange, "reply");
    let last = hops(reply)
        .iter()
        .rev()
        .find(|hop| hop["point"] != "consumed")
        .unwrap();
    assert!(is_in(last, shop.node()), "{}", brief(&exchange));
    assert_eq!(passed(request)[0], inode(shop.node()));
}

/// A Service whose endpoint is the client: there and back by the same device.
#[test]
fn a_hairpin() {
    let cluster = Cluster::new().unwrap();
    let (alpha, port) = (&cluster.alpha, unique_port());
    let pod = alpha.pod(5).unwrap();
    serve(&pod.netns, port);
    alpha
        .netns
        .ip("link set veth5 type bridge_slave hairpin on")
        .unwrap();
    for rule in [
        format!(
            "-I PREROUTING -d {SERVICE}/32 -p tcp --dport 443 -j DNAT --to-destination 10.244.1.5:{port}"
        ),
        format!("-I POSTROUTING -s 10.244.1.5 -d 10.244.1.5 -p tcp --dport {port} -j MASQUERADE"),
    ] {
        alpha.netns.run(&format!("iptables -w -t nat {rule}")).unwrap();
    }
    let probe = follow(&pod.netns, &["--to", SERVICE]);
    let _dialled = dial(&pod.netns, address("10.96.7.7:443"));
    let exchange = told(&probe);
    is_delivered(&exchange);
    let request = packet(&exchange, "request");
    assert_eq!(source(first(request)).ip(), pod.address);
    let back = at(&exchange, request, "received", &pod.netns, "eth0");
    assert_eq!(destination(back), SocketAddr::from((pod.address, port)));
    assert_eq!(
        source(back).ip(),
        IpAddr::from([10, 244, 1, 1]),
        "{}",
        brief(&exchange)
    );
    let [here, node] = [&pod.netns, &alpha.netns].map(inode);
    assert_eq!(passed(request), [here, node, here], "{}", brief(&exchange));
    let reply = packet(&exchange, "reply");
    assert_eq!(passed(reply), [here, node, here], "{}", brief(&exchange));
    let home = at(&exchange, reply, "received", &pod.netns, "eth0");
    assert_eq!(source(home), address("10.96.7.7:443"));
}

/// In every chain of every table that can: each rule has a port of its own.
#[test]
fn dropped_in_every_chain() {
    let cluster = Cluster::new().unwrap();
    let (alpha, beta) = (&cluster.alpha, &cluster.beta);
    let (client, server) = (alpha.pod(5).unwrap(), beta.pod(7).unwrap());
    let gateway = Ipv4Addr::new(10, 244, 1, 1);
    let mut cases = Vec::new();
    for tool in ["iptables-legacy", "iptables-nft"] {
        for (table, chain) in [
            ("raw", "PREROUTING"),
            ("mangle", "PREROUTING"),
            ("mangle", "INPUT"),
            ("filter", "INPUT"),
            ("mangle", "FORWARD"),
            ("filter", "FORWARD"),
            ("raw", "OUTPUT"),
            ("mangle", "OUTPUT"),
            ("filter", "OUTPUT"),
            ("mangle", "POSTROUTING"),
        ] {
            let port = unique_port();
            let rule = format!("{chain} -p tcp -m tcp --dport {port} -j DROP");
            shell(&alpha.netns, &format!("{tool} -w -t {table} -A {rule}"));
            cases.push((tool, table, chain, port, rule));
        }
    }
    let probe = follow(&alpha.netns, &[]);
    let dialled: Vec<_> = cases
        .iter()
        .map(|(_, _, chain, port, _)| match *chain {
            "INPUT" => dial(&client.netns, (gateway, *port)),
            "OUTPUT" => dial(&alpha.netns, (server.address, *port)),
            _ => dial(&client.netns, (server.address, *port)),
        })
        .collect();
    for (tool, table, chain, port, rule) in &cases {
        let exchange = told_to(&probe, *port);
        let named = format!("{tool}: {table} {chain} rule ");
        concludes(
            &exchange,
            "dropped",
            &["SYN was dropped", "the packet filter", &named, rule],
        );
        let hop = drop_of(&exchange, packet(&exchange, "request"));
        assert!(is_in(hop, &alpha.netns), "{}", brief(&exchange));
        because(&exchange, hop, &["NETFILTER_DROP"], &["nf_hook_slow"]);
        assert_eq!(hop["rule"]["certain"], true, "{}", brief(&exchange));
        assert!(hop["rule"]["text"].as_str().unwrap().contains(rule), "{hop:#}");
        let removal = format!("{tool} -t {table} -D {rule}");
        for fixes in [&hop["rule"]["fixes"], &exchange["fixes"]] {
            assert!(
                fixes[0]["shell"].as_str().unwrap().contains(&removal),
                "{}",
                brief(&exchange)
            );
        }
    }
    drop(dialled);
}

/// The request comes through, and the answer does not come back.
#[test]
fn a_reply_that_is_dropped() {
    let shop = Shop::new("iptables-legacy").unwrap();
    let rule = "FORWARD -s 10.244.2.0/24 -p tcp -m tcp --sport 443 -j DROP";
    shell(shop.node(), &format!("iptables-legacy -w -A {rule}"));
    let probe = follow(&shop.client.netns, &["--to", SERVICE]);
    let _dialled = dial(&shop.client.netns, address("10.96.7.7:443"));
    let exchange = told(&probe);
    concludes(
        &exchange,
        "dropped",
        &[
            "SYN was delivered to",
            "but its reply was dropped",
            "filter FORWARD rule",
            rule,
        ],
    );
    assert!(came(packet(&exchange, "request")), "{}", brief(&exchange));
    let hop = drop_of(&exchange, packet(&exchange, "reply"));
    assert!(is_in(hop, shop.node()), "{}", brief(&exchange));
    because(&exchange, hop, &["NETFILTER_DROP"], &["nf_hook_slow"]);
    let remedy = exchange["fixes"][0]["shell"].as_str().unwrap();
    assert!(remedy.contains(&format!("-D {rule}")), "{remedy}");
}

/// Rules of nft itself, and a chain's policy.
#[test]
fn dropped_by_native_nft_and_by_a_policy() {
    let cluster = Cluster::new().unwrap();
    let (alpha, port) = (&cluster.alpha, unique_port());
    let (client, server) = (alpha.pod(5).unwrap(), cluster.beta.pod(7).unwrap());
    for line in [
        "nft add table inet own",
        "nft add chain inet own own '{ type filter hook forward priority -5; }'",
        "nft add chain inet own web",
        "nft add rule inet own own iifname cni0 jump web",
        &format!("nft add rule inet own web tcp dport {port} counter drop"),
    ] {
        shell(&alpha.netns, line);
    }
    let probe = follow(&client.netns, &["--proto", "tcp"]);
    let _dialled = dial(&client.netns, (server.address, port));
    let exchange = told_to(&probe, port);
    let rule = format!("tcp dport {port}");
    concludes(
        &exchange,
        "dropped",
        &["the packet filter", "nft: inet own web handle ", &rule],
    );
    let hop = drop_of(&exchange, packet(&exchange, "request"));
    assert!(is_in(hop, &alpha.netns), "{}", brief(&exchange));
    let remedy = exchange["fixes"][0]["shell"].as_str().unwrap();
    assert!(
        remedy.contains("nft delete rule inet own web handle "),
        "{remedy}"
    );

    // What a chain does with what no rule took; without it, the packets come through.
    for (line, named, undo) in [
        (
            "nft add chain inet own last '{ type filter hook forward priority 7; policy drop; }'",
            "nft: inet own last policy drop",
            "nft chain inet own last '{ policy accept; }'",
        ),
        (
            "iptables-legacy -P FORWARD DROP",
            "iptables-legacy: filter FORWARD policy DROP",
            "iptables-legacy -P FORWARD ACCEPT",
        ),
        (
            "iptables-nft -P FORWARD DROP",
            "iptables-nft: filter FORWARD policy DROP",
            "iptables-nft -P FORWARD ACCEPT",
        ),
    ] {
        let port = unique_port();
        serve(&server.netns, port);
        shell(&alpha.netns, line);
        let dialled = dial(&client.netns, (server.address, port));
        let exchange = told_to(&probe, port);
        concludes(&exchange, "dropped", &["the packet filter", named]);
        drop(dialled);
        let seen = probe.seen();
        // The policy stays: request and reply are accepted before it.
        for fix in exchange["fixes"].as_array().unwrap() {
            shell(&alpha.netns, fix["shell"].as_str().unwrap());
        }
        let _dialled = dial(&client.netns, (server.address, port));
        let delivered = || {
            let told = probe.since(seen);
            told.iter()
                .any(|exchange| exchange["outcome"] == "delivered")
                .then_some(())
        };
        wait_until("it is delivered", Duration::from_secs(20), delivered).unwrap();
        shell(&alpha.netns, undo);
    }
}

#[test]
fn rejected() {
    let cluster = Cluster::new().unwrap();
    let alpha = &cluster.alpha;
    let (client, server) = (alpha.pod(5).unwrap(), cluster.beta.pod(7).unwrap());
    let mut cases = Vec::new();
    for (tool, with, told) in [
        (
            "iptables-legacy",
            "icmp-port-unreachable",
            "ICMP port unreachable",
        ),
        ("iptables-nft", "tcp-reset", "RST"),
    ] {
        let port = unique_port();
        let rule = format!("FORWARD -p tcp -m tcp --dport {port} -j REJECT --reject-with {with}");
        shell(&alpha.netns, &format!("{tool} -w -A {rule}"));
        cases.push((tool, told, port, rule));
    }
    let probe = follow(&client.netns, &["--proto", "tcp"]);
    for (tool, told, port, rule) in cases {
        let _dialled = dial(&client.netns, (server.address, port));
        let exchange = told_to(&probe, port);
        let named = format!("{tool}: filter FORWARD rule ");
        concludes(&exchange, "dropped", &["SYN was dropped", &named, &rule, told]);
        let hop = drop_of(&exchange, packet(&exchange, "request"));
        assert!(is_in(hop, &alpha.netns), "{}", brief(&exchange));
        let remedy = exchange["fixes"][0]["shell"].as_str().unwrap();
        assert!(
            remedy.contains(&format!("{tool} -t filter -D {rule}")),
            "{remedy}"
        );
        match told {
            "RST" => {
                let reply = packet(&exchange, "reply");
                assert_eq!(reply["title"], "RST", "{}", brief(&exchange));
            }
            told => assert_eq!(error(&exchange)["title"], told, "{}", brief(&exchange)),
        }
    }
}

/// The incident's rules, and what they break.
#[test]
fn untracked() {
    for (tool, ports, words) in [
        (
            "iptables-legacy",
            "--dports",
            ["SYN left ", &format!("for {NAMED} untranslated")],
        ),
        (
            "iptables-nft",
            "--sports",
            [
                "the reply came back as from 10.244.2.7:443",
                &format!("not from {NAMED}"),
            ],
        ),
    ] {
        let shop = Shop::new(tool).unwrap();
        let rule = format!("PREROUTING -p tcp -m multiport {ports} 80,443 -j");
        shell(shop.node(), &format!("{tool} -w -t raw -A {rule} NOTRACK"));
        let probe = follow(&shop.client.netns, &["--to", SERVICE]);
        let _dialled = dial(&shop.client.netns, address("10.96.7.7:443"));
        let exchange = told(&probe);
        let named = format!("{tool}: raw PREROUTING rule 1: -A {rule}");
        concludes(
            &exchange,
            "untranslated",
            &[words[0], words[1], &named, "exempted it from conntrack"],
        );
        let untracked = &exchange["untracked"];
        assert_eq!(untracked["service"], NAMED);
        assert_eq!(untracked["rule"]["certain"], true);
        assert!(untracked["rule"]["text"].as_str().unwrap().starts_with(&named));
        for fixes in [&untracked["rule"]["fixes"], &exchange["fixes"]] {
            let remedy = fixes[0]["shell"].as_str().unwrap();
            assert!(remedy.contains(&format!("{tool} -t raw -D {rule}")), "{remedy}");
        }
        let direction = if ports == "--dports" { "request" } else { "reply" };
        let packet = packet(&exchange, direction);
        let untracked = |hop: &&Value| hop["tracking"] == "untracked";
        let hop = hops(packet).iter().find(untracked);
        assert!(
            hop.is_some_and(|hop| is_in(hop, shop.node())),
            "{}",
            brief(&exchange)
        );
    }
}

/// Another answers in place of the Service: that it is no refusal of the Service's is what matters.
#[test]
fn untracked_and_refused() {
    let shop = Shop::new("iptables-nft").unwrap();
    shop.cluster
        .beta
        .netns
        .ip(&format!("addr add {SERVICE}/32 dev lo"))
        .unwrap();
    let rule = "PREROUTING -p tcp -m multiport --dports 80,443 -j";
    shell(shop.node(), &format!("iptables-nft -w -t raw -A {rule} NOTRACK"));
    let probe = follow(&shop.client.netns, &["--to", SERVICE]);
    let _dialled = dial(&shop.client.netns, address("10.96.7.7:443"));
    let exchange = told(&probe);
    assert_eq!(packet(&exchange, "reply")["title"], "RST", "{}", brief(&exchange));
    let words = [&format!("for {NAMED} untranslated"), rule];
    concludes(&exchange, "untranslated", &[words[0], words[1]]);
}

#[test]
fn no_route() {
    let cluster = Cluster::new().unwrap();
    let (alpha, port) = (&cluster.alpha, unique_port());
    let pod = alpha.pod(5).unwrap();
    let probe = follow(&pod.netns, &["--port", &port.to_string()]);
    let _dialled = dial(&pod.netns, (Ipv4Addr::new(10, 200, 0, 1), port));
    let exchange = told(&probe);
    concludes(
        &exchange,
        "dropped",
        &["SYN was dropped", "no route to the destination"],
    );
    let hop = drop_of(&exchange, packet(&exchange, "request"));
    assert!(is_at(hop, &alpha.netns, "cni0"), "{}", brief(&exchange));
    because(
        &exchange,
        hop,
        &["IP_INNOROUTES"],
        &["ip_error", "ip_rcv_finish_core", "ip_route_input_slow"],
    );
    assert_eq!(
        error(&exchange)["title"],
        "ICMP no route to network",
        "{}",
        brief(&exchange)
    );
    assert!(exchange.get("fixes").is_none());
}

/// The way back to a source is by another device, and the host is strict about that.
#[test]
fn a_reverse_path_filter() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    pair.client.ip("addr add 10.88.0.1/32 dev lo").unwrap();
    for line in [
        "ip link add away type veth peer name awaypeer",
        "ip link set away up",
        "ip link set awaypeer up",
        "ip route add 10.88.0.0/16 dev away",
        "sysctl -qw net.ipv4.conf.all.rp_filter=1",
        "sysctl -qw net.ipv4.conf.eth0.rp_filter=1",
    ] {
        shell(&pair.server, line);
    }
    // The server would not even answer for its address.
    pair.client.run("ping -n -c 1 10.77.0.2").unwrap();
    let probe = follow(&pair.client, &["--port", &port.to_string()]);
    let source = Some(IpAddr::from([10, 88, 0, 1]));
    let _dialled = dial_as(&pair.client, source, (Pair::server_ip(Family::V4), port).into());
    let exchange = told(&probe);
    concludes(
        &exchange,
        "dropped",
        &["SYN was dropped", "at eth0", "reverse path filter"],
    );
    let hop = drop_of(&exchange, packet(&exchange, "request"));
    assert!(is_at(hop, &pair.server, "eth0"), "{}", brief(&exchange));
    because(
        &exchange,
        hop,
        &["IP_RPFILTER"],
        &["ip_rcv_finish_core", "ip_rcv_finish"],
    );
}

#[test]
fn larger_than_a_device_takes() {
    let cluster = Cluster::new().unwrap();
    let (alpha, port) = (&cluster.alpha, unique_port());
    let (client, server) = (alpha.pod(5).unwrap(), cluster.beta.pod(7).unwrap());
    alpha.netns.ip("link set flannel.1 mtu 1000").unwrap();
    let probe = follow(&client.netns, &["--port", &port.to_string()]);
    // Linux forbids to fragment what fits the first device.
    let _sent = send(&client.netns, (server.address, port), &[0; 1400]);
    let exchange = told(&probe);
    concludes(
        &exchange,
        "dropped",
        &[
            "UDP, 1400 bytes was dropped",
            "larger than",
            "answered with ICMP packet too big",
        ],
    );
    let hop = drop_of(&exchange, packet(&exchange, "request"));
    assert!(is_in(hop, &alpha.netns), "{}", brief(&exchange));
    because(&exchange, hop, &["PKT_TOO_BIG"], &["ip_forward"]);
    let error = error(&exchange);
    assert_eq!(error["title"], "ICMP packet too big");
    let end = hops(error).last().unwrap();
    assert!(is_in(end, &client.netns), "{}", brief(&exchange));
}

/// Conntrack puts the parts of a packet together: what becomes of the whole is what matters.
#[test]
fn fragments() {
    let cluster = Cluster::new().unwrap();
    let (alpha, open, closed) = (&cluster.alpha, unique_port(), unique_port());
    let (client, server) = (alpha.pod(5).unwrap(), cluster.beta.pod(7).unwrap());
    echo(&server.netns, open);
    let rule = format!("FORWARD -p udp -m udp --dport {closed} -j DROP");
    alpha.netns.run(&format!("iptables -w -A {rule}")).unwrap();
    let probe = follow(&client.netns, &["--proto", "udp"]);
    let _sent = [open, closed].map(|port| send(&client.netns, (server.address, port), &[0; 2000]));
    let exchange = told_to(&probe, open);
    concludes(
        &exchange,
        "delivered",
        &[&format!("delivered to 10.244.2.7:{open}")],
    );
    let exchange = told_to(&probe, closed);
    concludes(&exchange, "dropped", &["was dropped", "the packet filter", &rule]);
}

/// TCP hears that its packets are too large, and sends them again in smaller parts.
#[test]
fn a_connection_over_a_smaller_device() {
    let cluster = Cluster::new().unwrap();
    let (client, server) = (cluster.alpha.pod(5).unwrap(), cluster.beta.pod(7).unwrap());
    let mut bulk = Bulk::between(&client, &server).unwrap();
    cluster.alpha.netns.ip("link set flannel.1 mtu 1000").unwrap();
    let probe = follow(&client.netns, &["--proto", "tcp"]);
    bulk.run(5000).unwrap();
    let exchange = told(&probe);
    // An emulated machine may take longer to send it again than a flow rests before it is told.
    if exchange["outcome"] == "dropped" && patience() > 1 {
        concludes(&exchange, "dropped", &["at cni0", "ICMP packet too big"]);
    } else {
        concludes(
            &exchange,
            "delivered",
            &["delivered to 10.244.2.7", "dropped at first and sent again"],
        );
    }
    assert_eq!(error(&exchange)["title"], "ICMP packet too big");
    let hop = drop_of(&exchange, packet(&exchange, "request"));
    because(&exchange, hop, &["PKT_TOO_BIG"], &["ip_forward"]);
}

/// A firewall that knows nothing of the overlay: it is the outer packet that meets its rule. That this one is exempted from
/// conntrack is nobody's business.
#[test]
fn vxlan_that_is_filtered() {
    let cluster = Cluster::new().unwrap();
    let (alpha, beta, port) = (&cluster.alpha, &cluster.beta, unique_port());
    let (client, server) = (alpha.pod(5).unwrap(), beta.pod(7).unwrap());
    alpha
        .netns
        .run("iptables -w -t raw -A OUTPUT -p udp --dport 8472 -j NOTRACK")
        .unwrap();
    let rule = "INPUT -p udp -m udp --dport 8472 -j DROP";
    beta.netns.run(&format!("iptables-legacy -w -A {rule}")).unwrap();
    let probe = follow(&client.netns, &["--port", &port.to_string()]);
    let _dialled = dial(&client.netns, (server.address, port));
    let exchange = told(&probe);
    concludes(
        &exchange,
        "dropped",
        &["SYN was dropped", "by iptables-legacy: filter INPUT rule 1", rule],
    );
    let hop = drop_of(&exchange, packet(&exchange, "request"));
    assert!(is_at(hop, &beta.netns, "eth0"), "{}", brief(&exchange));
    assert_eq!(hop["tunnel"]["vni"], 1, "{}", brief(&exchange));
    let remedy = exchange["fixes"][0]["shell"].as_str().unwrap();
    assert!(remedy.contains(&format!("-D {rule}")), "{remedy}");
    assert!(exchange.get("untracked").is_none(), "{}", brief(&exchange));
}

/// A pod that is gone: nobody answers for its address.
#[test]
fn an_address_that_nobody_has() {
    let cluster = Cluster::new().unwrap();
    let (alpha, port) = (&cluster.alpha, unique_port());
    let client = alpha.pod(5).unwrap();
    let gone = Ipv4Addr::new(10, 244, 2, 99);
    let probe = follow(&client.netns, &["--port", &port.to_string()]);
    let _dialled = dial(&client.netns, (gone, port));
    // A timer drops it, and may be hidden (see [`sent_again`]); it is sent again, and dropped again.
    let exchange = told_of(&probe, |exchange| exchange["outcome"] == "dropped");
    concludes(&exchange, "dropped", &["the next hop does not answer"]);
    let hop = drop_of(&exchange, packet(&exchange, "request"));
    assert!(is_at(hop, &cluster.beta.netns, "cni0"), "{}", brief(&exchange));
}

#[test]
fn a_forwarding_entry_that_is_missing() {
    let cluster = Cluster::new().unwrap();
    let (alpha, beta, port) = (&cluster.alpha, &cluster.beta, unique_port());
    let (client, server) = (alpha.pod(5).unwrap(), beta.pod(7).unwrap());
    serve(&server.netns, port);
    alpha
        .netns
        .run(&format!(
            "bridge fdb del {} dev flannel.1 dst {}",
            beta.mac(),
            beta.address
        ))
        .unwrap();
    let probe = follow(&client.netns, &["--port", &port.to_string()]);
    let _dialled = dial(&client.netns, (server.address, port));
    let exchange = told(&probe);
    concludes(
        &exchange,
        "dropped",
        &["SYN was dropped", "at flannel.1", "no forwarding entry"],
    );
    let request = packet(&exchange, "request");
    let hop = drop_of(&exchange, request);
    assert!(is_at(hop, &alpha.netns, "flannel.1"), "{}", brief(&exchange));
    assert!(
        hops(request).iter().all(|hop| hop.get("tunnel").is_none()),
        "{}",
        brief(&exchange)
    );
}

#[test]
fn a_device_with_another_vni() {
    let cluster = Cluster::new().unwrap();
    let (alpha, beta, port) = (&cluster.alpha, &cluster.beta, unique_port());
    let (client, server) = (alpha.pod(5).unwrap(), beta.pod(7).unwrap());
    serve(&server.netns, port);
    beta.device(2, 8472).unwrap();
    beta.entries(alpha).unwrap();
    let probe = follow(&client.netns, &["--port", &port.to_string()]);
    let _dialled = dial(&client.netns, (server.address, port));
    let exchange = told(&probe);
    concludes(
        &exchange,
        "dropped",
        &["SYN was dropped", "no VXLAN device here", "VNI"],
    );
    let hop = drop_of(&exchange, packet(&exchange, "request"));
    assert!(is_in(hop, &beta.netns), "{}", brief(&exchange));
    because(&exchange, hop, &["VXLAN_VNI_NOT_FOUND"], &["vxlan_rcv"]);
    assert_eq!(hop["tunnel"]["vni"], 1, "{}", brief(&exchange));
}

#[test]
fn a_closed_port() {
    let pair = Pair::new().unwrap();
    let probe = follow(&pair.client, &[]);
    for family in Family::PLAIN {
        let server = Pair::server_ip(family);
        let (tcp, udp) = (unique_port(), unique_port());
        let _dialled = dial(&pair.client, (server, tcp));
        let _sent = send(&pair.client, (server, udp), b"hello");
        let exchange = told_to(&probe, tcp);
        let to = SocketAddr::new(server, tcp).to_string();
        concludes(&exchange, "refused", &[&format!("refused by {to}")]);
        let reply = packet(&exchange, "reply");
        assert_eq!(reply["title"], "RST", "{}", brief(&exchange));

        // With UDP it is said by ICMP.
        let exchange = told_to(&probe, udp);
        let to = SocketAddr::new(server, udp).to_string();
        concludes(&exchange, "refused", &["UDP, 5 bytes", &to, "no socket listens"]);
        assert_eq!(error(&exchange)["title"], "ICMP port unreachable");
    }
}

/// More connections than are accepted: the next is not answered, and sent again, by a timer (see [`sent_again`]).
#[test]
fn a_full_accept_queue() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    let server = SocketAddr::new(Pair::server_ip(Family::V4), port);
    let _listener = pair
        .server
        .enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&server.into()).unwrap();
            socket.listen(1).unwrap();
            socket
        })
        .unwrap();
    let _waiting: Vec<_> = (0..2)
        .map(|_| {
            let dial = || std::net::TcpStream::connect(server).unwrap();
            pair.client.enter(dial).unwrap()
        })
        .collect();
    let probe = follow(&pair.client, &["--port", &port.to_string()]);
    let _dialled = several(|| dial(&pair.client, server));
    let exchange = told_of(&probe, |exchange| packets(exchange, "request").count() > 1);
    let pid = format!("(pid {}) at {server}", std::process::id());
    concludes(
        &exchange,
        "unanswered",
        &[
            &pid,
            "did not answer: 2 connections wait to be accepted",
            "accept queue",
        ],
    );
    assert_eq!(exchange["listener"]["waiting"], 2);
    let requests: Vec<_> = packets(&exchange, "request").collect();
    assert!(requests[0].get("again").is_none(), "{}", brief(&exchange));
    assert!(
        requests[1..].iter().all(|packet| packet["again"] == true),
        "{}",
        brief(&exchange)
    );
}

/// Dropped at first, a SYN is sent again after a second: by a timer, which the kernel of the lab's machine may hide (see
/// the lab's README.md). So several are, moments apart.
#[test]
fn sent_again() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    serve(&pair.server, port);
    let rule = format!("INPUT -p tcp --dport {port} -j DROP");
    Pair::iptables(&pair.server, Family::V4, &format!("-A {rule}")).unwrap();
    let probe = follow(&pair.client, &["--port", &port.to_string()]);
    let dialled = several(|| dial(&pair.client, (Pair::server_ip(Family::V4), port)));
    let is_path = |record: &Value| record["event"] == "path";
    let dropped = probe.wait_for(dialled.len(), is_path).unwrap();
    for dropped in &dropped {
        concludes(dropped, "dropped", &["filter INPUT rule 1"]);
    }
    Pair::iptables(&pair.server, Family::V4, &format!("-D {rule}")).unwrap();
    let delivered = told_of(&probe, |exchange| exchange["outcome"] == "delivered");
    let is_same = |dropped: &Value| dropped["flow"] == delivered["flow"];
    assert!(
        dropped.iter().any(is_same),
        "the same flow: {}",
        brief(&delivered)
    );
    assert_eq!(
        packet(&delivered, "request")["title"],
        "SYN",
        "{}",
        brief(&delivered)
    );
    assert_eq!(
        packet(&delivered, "request")["again"],
        true,
        "{}",
        brief(&delivered)
    );
}

#[test]
fn datagrams_and_their_answers() {
    let pair = Pair::new().unwrap();
    let probe = follow(&pair.client, &["--proto", "udp"]);
    for family in Family::PLAIN {
        let port = unique_port();
        echo(&pair.server, port);
        let socket = send(&pair.client, (Pair::server_ip(family), port), b"hello");
        let exchange = told_to(&probe, port);
        is_delivered(&exchange);
        let words = ["UDP, 5 bytes delivered to", "the same way back"];
        concludes(&exchange, "delivered", &words);
        for direction in ["request", "reply"] {
            assert_eq!(packet(&exchange, direction)["protocol"], 17);
        }
        let here = source(first(packet(&exchange, "request")));
        assert_eq!(here.port(), socket.local_addr().unwrap().port());
        assert_eq!(here.ip(), Pair::client_ip(family));
    }
}

#[test]
fn pings() {
    let pair = Pair::new().unwrap();
    let probe = follow(&pair.client, &[]);
    for (family, protocol) in [(Family::V4, 1), (Family::V6, 58)] {
        let server = Pair::server_ip(family);
        pair.client.run(&format!("ping -n -c 1 {server}")).unwrap();
        let exchange = told_of(&probe, |exchange| {
            packets(exchange, "request").any(|packet| {
                packet["title"] == "ICMP echo request" && destination(first(packet)).ip() == server
            })
        });
        let words = ["ICMP echo request delivered to", "the same way back"];
        concludes(&exchange, "delivered", &words);
        let reply = packet(&exchange, "reply");
        assert_eq!(reply["title"], "ICMP echo reply");
        assert_eq!(reply["protocol"], protocol);
        assert!(is_in(hops(reply).last().unwrap(), &pair.client));
        let what = hops(reply).iter().map(|hop| hop["what"].as_str().unwrap());
        assert!(
            !what.clone().any(|what| what.contains("no use")),
            "{}",
            brief(&exchange)
        );
    }
}

#[test]
fn connections_over_ipv6() {
    let (pair, open, closed) = (Pair::new().unwrap(), unique_port(), unique_port());
    let server = Pair::server_ip(Family::V6);
    serve(&pair.server, open);
    let rule = format!("INPUT -p tcp -m tcp --dport {closed} -j DROP");
    Pair::iptables(&pair.server, Family::V6, &format!("-A {rule}")).unwrap();
    let probe = follow(&pair.client, &["--to", "fd77::/64", "--proto", "tcp"]);
    let _dialled = [open, closed].map(|port| dial(&pair.client, (server, port)));
    let exchange = told_to(&probe, open);
    is_delivered(&exchange);
    let words = [&format!("[fd77::2]:{open}"), "the same way back"];
    concludes(&exchange, "delivered", &words);
    let exchange = told_to(&probe, closed);
    concludes(&exchange, "dropped", &["the packet filter", "ip6tables", &rule]);
    let hop = drop_of(&exchange, packet(&exchange, "request"));
    assert!(is_at(hop, &pair.server, "eth0"), "{}", brief(&exchange));
}

/// As much as the machine can: nothing hangs, what is too much is counted, and packets are told before they are cut.
#[test]
fn a_large_transfer() {
    let cluster = Cluster::new().unwrap();
    let (client, server) = (cluster.alpha.pod(5).unwrap(), cluster.beta.pod(7).unwrap());
    let mut bulk = Bulk::between(&client, &server).unwrap();
    let probe = follow(&client.netns, &["--proto", "tcp"]);
    bulk.run(20_000_000 / u64::from(patience())).unwrap();
    let is_whole = |exchange: &Value| {
        let mut hops = packets(exchange, "request").flat_map(hops);
        hops.any(|hop| hop["segments"].as_u64() > Some(1))
    };
    let exchange = told_of(&probe, is_whole);
    assert_eq!(exchange["outcome"], "delivered", "{}", exchange["conclusion"]);
    let run = probe.finish().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", run.stderr);
    assert_eq!(run.summary["lost"]["malformed"], 0, "{:#}", run.summary);
}

#[test]
fn what_is_expected() {
    let (pair, open, closed) = (Pair::new().unwrap(), unique_port(), unique_port());
    serve(&pair.server, open);
    let server = Pair::server_ip(Family::V4);
    let [open_port, closed_port, silent] = [open, closed, unique_port()].map(|port| port.to_string());
    let short = format!("{}s", patience());
    let for_a_while = ["--duration", &short];
    let runs = [
        // Nothing seen is not what was expected.
        (
            &silent,
            "delivered",
            for_a_while.as_slice(),
            1,
            "expected delivered, but no packet was seen",
        ),
        (&open_port, "delivered", &[], 0, ""),
        (&closed_port, "refused", &[], 0, ""),
        (
            &closed_port,
            "delivered",
            &[],
            1,
            "probe: expected delivered, seen 1 refused",
        ),
        (&open_port, "delivered", &for_a_while, 0, ""),
    ]
    .map(|(port, expected, more, code, said)| {
        let arguments = [&["--port", port.as_str(), "--expect", expected], more].concat();
        (follow(&pair.client, &arguments), code, said)
    });
    let _dialled = [open, closed].map(|port| dial(&pair.client, (server, port)));
    for (probe, code, said) in runs {
        let run = probe.ended().unwrap();
        assert_eq!(run.status.code(), Some(code), "{}", run.stderr);
        assert!(run.stderr.contains(said), "{}", run.stderr);
        assert_eq!(run.stderr.contains("expected"), code == 1, "{}", run.stderr);
    }
}

#[test]
fn as_many_as_asked_for_and_in_a_file() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    serve(&pair.server, port);
    let written = tempfile::NamedTempFile::new().unwrap();
    let path = written.path().display().to_string();
    let probe = follow(
        &pair.client,
        &["--port", &port.to_string(), "--count", "2", "--write", &path],
    );
    let _dialled: Vec<_> = (0..3)
        .map(|_| dial(&pair.client, (Pair::server_ip(Family::V4), port)))
        .collect();
    let run_of_probe = probe.ended().unwrap();
    assert_eq!(run_of_probe.records.len(), 2, "{:#?}", run_of_probe.records);
    assert_eq!(run_of_probe.summary["exchanges"], 2);
    assert_eq!(run_of_probe.status.code(), Some(0), "{}", run_of_probe.stderr);

    let mut magic = [0; 4];
    std::fs::File::open(&path)
        .unwrap()
        .read_exact(&mut magic)
        .unwrap();
    assert_eq!(magic, [0x0a, 0x0d, 0x0d, 0x0a]);
    let dumped = run(&format!("tcpdump -Z root -n -r {path}")).unwrap();
    let hops: usize = run_of_probe
        .records
        .iter()
        .flat_map(|exchange| exchange["packets"].as_array().unwrap())
        .map(|packet| hops(packet).len())
        .sum();
    assert_eq!(dumped.lines().count(), hops, "{dumped}");
    assert!(
        dumped.contains(&format!("10.77.0.2.{port}: Flags [S]")),
        "{dumped}"
    );
}

#[test]
fn filters() {
    let cluster = Cluster::new().unwrap();
    let (alpha, port) = (&cluster.alpha, unique_port());
    let pods = [
        alpha.pod(2).unwrap(),
        alpha.pod(3).unwrap(),
        alpha.pod(4).unwrap(),
    ];
    serve(&pods[2].netns, port);
    let text = port.to_string();
    let node = file(&alpha.netns);
    let asked: [&[&str]; 5] = [
        &["--netns", &file(&pods[0].netns), "--port", &text],
        &["--netns", &node, "--device", "veth3", "--port", &text],
        &["--port", &text, "--from", "10.244.1.3", "--to", "10.244.1.4/31"],
        &["--port", &text, "--proto", "udp"],
        &["--port", &text, "--from", "10.244.1.4"],
    ];
    let probes = asked.map(|arguments| Probe::path(arguments).unwrap());
    let everything = Probe::path(&["--port", &text]).unwrap();
    let _dialled = [&pods[0], &pods[1]].map(|pod| dial(&pod.netns, (pods[2].address, port)));
    everything
        .wait_for(2, |record| record["event"] == "path")
        .unwrap();
    let pod = |number| vec![Ipv4Addr::new(10, 244, 1, number).to_string()];
    for ((probe, expected), arguments) in probes
        .into_iter()
        .zip([pod(2), pod(3), pod(3), vec![], vec![]])
        .zip(asked)
    {
        if !expected.is_empty() {
            told(&probe);
        }
        let run = probe.finish().unwrap();
        let sources: Vec<_> = run
            .records
            .iter()
            .map(|exchange| source(first(packet(exchange, "request"))).ip().to_string())
            .collect();
        assert_eq!(sources, expected, "{arguments:?}");
        if arguments.contains(&"--device") {
            let hop = first(packet(&run.records[0], "request"));
            assert!(is_at(hop, &alpha.netns, "veth3"), "{hop:#}");
            concludes(&run.records[0], "delivered", &["the same way back"]);
        }
    }
}

#[test]
fn what_is_not_there_is_said() {
    let pair = Pair::new().unwrap();
    let netns = file(&pair.client);
    for (arguments, words) in [
        (
            ["--from", "shop/nobody", "--cri", "none"].as_slice(),
            "\"shop/nobody\" is no address",
        ),
        (&["--netns", "/run/netns/probe-lab-nowhere"], "probe-lab-nowhere"),
        (
            &["--netns", &netns, "--device", "eth7"],
            "has no device \"eth7\"; it has lo, eth0",
        ),
    ] {
        let mut command = Probe::command(&["path", "--duration", "1s"]).unwrap();
        let output = finish(command.args(arguments)).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
