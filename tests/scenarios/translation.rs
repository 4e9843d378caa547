//! The join: what the node made of a client's addresses, asked of conntrack.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use probe_lab::{
    Cluster, Family, Monitor, Pair, Probe, accept_all, end, the_record, unique_port, without_forks,
};
use socket2::{SockRef, Socket};

/// Another address of the client's host, to be seen as.
fn other(family: Family, number: u16) -> IpAddr {
    match family {
        Family::V6 => IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, number]),
        Family::V4 | Family::Mapped => IpAddr::from([10, 77, 0, number as u8]),
    }
}

const SEEN_AS: u16 = 9;
const SERVICE: u16 = 99;

/// A pair whose client is translated on its own host, both ways.
fn translated(port: u16) -> Pair {
    let pair = Pair::new().unwrap();
    for (family, bits) in [(Family::V4, 16), (Family::V6, 64)] {
        let (seen_as, service) = (other(family, SEEN_AS), other(family, SERVICE));
        let nodad = if family == Family::V6 { "nodad" } else { "" };
        pair.client
            .ip(&format!("addr add {seen_as}/{bits} dev eth0 {nodad}"))
            .unwrap();
        let server = SocketAddr::new(Pair::server_ip(family), port);
        for rule in [
            format!("POSTROUTING -p tcp --dport {port} -j SNAT --to-source {seen_as} --random-fully"),
            format!("OUTPUT -d {service} -p tcp --dport {port} -j DNAT --to-destination {server}"),
        ] {
            Pair::iptables(&pair.client, family, &format!("-t nat -A {rule}")).unwrap();
        }
    }
    pair
}

fn path(name: &str) -> String {
    format!("/run/netns/{name}")
}

/// The server sees another address, and the client dialled one that is a Service's: both are told, and both ends meet.
#[test]
fn seen_as_and_dialled() {
    let port = unique_port();
    let pair = translated(port);
    // Listens for IPv4 too.
    accept_all(pair.listen(Family::V6, port).unwrap());
    let netns = path(pair.client.name());
    let probe = Probe::watch(&["--port", &port.to_string(), "--netns", &netns]).unwrap();
    let mut clients = Vec::new();
    for family in Family::PLAIN {
        let (socket, source) = pair.socket(family).unwrap();
        let service = SocketAddr::new(other(family, SERVICE), port);
        socket.connect(&service.into()).unwrap();
        clients.push((family, source, service));
    }
    probe.wait_for(4, |_| true).unwrap();
    let run = probe.finish().unwrap();
    for (family, source, service) in clients {
        let client = the_record(&run, "client", source);
        let seen_as = end(client, "seen_as").unwrap();
        assert_eq!(seen_as.ip(), other(family, SEEN_AS), "{client:#}");
        assert_eq!(end(client, "dialled"), Some(service), "{client:#}");
        let server = SocketAddr::new(Pair::server_ip(family), port);
        assert_eq!(end(client, "destination"), Some(server), "{client:#}");
        // The server's end has the translated address, and who is behind it.
        let server = the_record(&run, "server", seen_as);
        assert_eq!(server["peer"]["process"]["pid"], std::process::id(), "{server:#}");
    }
}

/// Two connections from one port, one right after the other: the kernel keeps one entry for both. probe asks for the first
/// in time, or, stopped meanwhile, too late: then nothing is claimed of the first.
#[test]
fn a_port_that_is_used_again_at_once() {
    let port = unique_port();
    let pair = translated(port);
    let listener = pair.listen(Family::V4, port).unwrap();
    let netns = path(pair.client.name());
    let arguments = ["--port", &port.to_string(), "--role", "client", "--netns", &netns];
    let probe = Probe::watch(&arguments).unwrap();
    let server = SocketAddr::new(Pair::server_ip(Family::V4), port);
    // Connects from a port and resets, which leaves nothing in the way of the next: who the server sees, and the port.
    let dial = |port: u16| {
        // A child that another scenario forks would hold the port for a moment.
        without_forks(|| {
            let stream: TcpStream = pair
                .client
                .enter(|| {
                    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                    let local = SocketAddr::new(Pair::client_ip(Family::V4), port);
                    socket.bind(&local.into()).unwrap();
                    socket.connect(&server.into()).unwrap();
                    socket.into()
                })
                .unwrap();
            let (_, seen_as) = listener.accept().unwrap();
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            (seen_as, stream.local_addr().unwrap().port())
        })
    };
    let (first, used) = dial(0);
    probe.wait_for(1, |_| true).unwrap();
    let (second, _) = dial(used);
    probe.wait_for(2, |_| true).unwrap();
    probe.signal(Signal::SIGSTOP).unwrap();
    let (third, used) = dial(0);
    let (fourth, _) = dial(used);
    probe.signal(Signal::SIGCONT).unwrap();
    probe.wait_for(4, |_| true).unwrap();
    let run = probe.finish().unwrap();
    assert_eq!(run.records.len(), 4, "{:#?}", run.records);
    assert_eq!(run.records[0]["source"], run.records[1]["source"]);
    assert_eq!(run.records[2]["source"], run.records[3]["source"]);
    for (record, seen_as) in run.records.iter().zip([first, second, third, fourth]) {
        let late = seen_as == third;
        assert_eq!(end(record, "seen_as"), (!late).then_some(seen_as), "{record:#}");
        assert_eq!(record["untranslated"] == "reused", late, "{record:#}");
    }
    assert_eq!(run.summary["misses"]["reused"], 1, "{:#}", run.summary);
}

/// A pod whose packets conntrack does not follow: said, and counted.
#[test]
fn a_pod_that_conntrack_does_not_know() {
    let cluster = Cluster::new().unwrap();
    let pod = cluster.beta.pod(2).unwrap();
    let port = unique_port();
    for chain in ["PREROUTING", "OUTPUT"] {
        let rule = format!("iptables -w -t raw -A {chain} -p tcp --dport {port} -j CT --notrack");
        cluster.beta.netns.run(&rule).unwrap();
    }
    let node = path(cluster.beta.netns.name());
    let arguments = ["--port", &port.to_string(), "--role", "client", "--netns", &node];
    let probe = Probe::watch(&arguments).unwrap();
    let far = SocketAddr::new(cluster.alpha.address.into(), port);
    let dial = || Monitor::run(&pod.netns, far, 0.1, 1).unwrap();
    // Nobody answers a pod's own address outside: given up after a second.
    std::thread::scope(|scope| {
        scope.spawn(dial);
        probe.wait_for(1, |_| true).unwrap();
    });
    let run = probe.finish().unwrap();
    assert_eq!(run.records[0]["untranslated"], "no-entry", "{:#}", run.records[0]);
    assert_eq!(run.summary["misses"]["untracked"], 1, "{:#}", run.summary);
}

/// Where conntrack can't be asked, everything else goes on.
#[test]
fn a_conntrack_that_cant_be_asked() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    accept_all(pair.listen(Family::V4, port).unwrap());
    let arguments = [
        "--port",
        &port.to_string(),
        "--role",
        "client",
        "--netns",
        "/run/netns/none",
    ];
    let probe = Probe::watch(&arguments).unwrap();
    drop(pair.connect(Family::V4, port).unwrap());
    probe.wait_for(1, |_| true).unwrap();
    let run = probe.finish().unwrap();
    assert_eq!(run.records[0]["outcome"], "half-open");
    assert_eq!(
        run.records[0]["untranslated"], "unavailable",
        "{:#}",
        run.records[0]
    );
    assert!(run.stderr.contains("/run/netns/none"), "{}", run.stderr);
    assert_eq!(run.summary["misses"]["conntrack"], 1, "{:#}", run.summary);
}

/// Where conntrack is not loaded, it is not loaded by asking; said, and the rest goes on.
#[test]
fn a_conntrack_that_is_not_loaded() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    accept_all(pair.listen(Family::V4, port).unwrap());
    // Hidden from this process, as it is not there on a node without it.
    let hide = "for directory in /proc/sys/net/netfilter /sys/module; do \
                [ ! -d $directory ] || mount -t tmpfs none $directory; done; exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", hide])
        .arg(Probe::binary().unwrap());
    let probe = Probe::start(&mut command, &["--port", &port.to_string(), "--role", "client"]).unwrap();
    drop(pair.connect(Family::V4, port).unwrap());
    probe.wait_for(1, |_| true).unwrap();
    let run = probe.finish().unwrap();
    assert_eq!(
        run.records[0]["untranslated"], "unavailable",
        "{:#}",
        run.records[0]
    );
    assert_eq!(run.summary["misses"]["conntrack"], 1, "{:#}", run.summary);
    assert!(run.stderr.contains("conntrack is not loaded"), "{}", run.stderr);
}
