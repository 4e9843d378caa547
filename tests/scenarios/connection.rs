//! Every outcome, at both ends, IPv4, IPv6 and IPv4 between IPv6 sockets.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use probe_lab::{
    Family, Pair, Probe, Run, end, is, the_record, too_old, unique_port, wait_until, without_forks,
};
use serde_json::Value;
use socket2::SockRef;

const LONG: Duration = Duration::from_secs(30);

/// A pair of hosts, a port, and a probe that watches it.
struct Lab {
    pair: Pair,
    port: u16,
    probe: Probe,
}

impl Lab {
    fn new() -> Self {
        let port = unique_port();
        let pair = Pair::new().unwrap();
        let probe = Probe::watch(&["--port", &port.to_string(), "--all"]).unwrap();
        Self { pair, port, probe }
    }

    fn server(&self, family: Family) -> SocketAddr {
        SocketAddr::new(Pair::server_ip(family), self.port)
    }

    /// An established connection: both ends and the client's address.
    fn established(&self, listener: &TcpListener, family: Family) -> (TcpStream, TcpStream, SocketAddr) {
        let (client, source) = self.pair.connect(family, self.port).unwrap();
        let (server, _) = listener.accept().unwrap();
        (client, server, source)
    }

    /// Ends probe once the records of this connection came.
    fn finish(self, roles: &[&str], source: SocketAddr) -> Run {
        for role in roles {
            self.probe.wait_for(1, |record| is(record, role, source)).unwrap();
        }
        let run = self.probe.finish().unwrap();
        assert!(run.status.success(), "{run:?}");
        run
    }
}

/// What every record of a connection must say, whatever became of it.
fn check(
    run: &Run,
    role: &str,
    outcome: &str,
    (source, destination): (SocketAddr, SocketAddr),
    bytes: (u64, u64),
) {
    let record = the_record(run, role, source);
    assert_eq!(record["event"], "connection", "{record:#}");
    assert_eq!(record["outcome"], outcome, "{record:#}");
    assert_eq!(end(record, "destination"), Some(destination), "{record:#}");
    assert_eq!(
        (&record["bytes_sent"], &record["bytes_received"]),
        (&bytes.0.into(), &bytes.1.into()),
        "{record:#}"
    );
    assert!(
        record["duration_us"].is_u64() && record["netns"].is_u64(),
        "{record:#}"
    );
}

/// The process that did it is this test.
fn check_process(record: &Value) {
    assert_eq!(record["process"]["pid"], std::process::id(), "{record:#}");
    assert!(
        record["process"]["command"][0]
            .as_str()
            .unwrap()
            .contains("connection"),
        "{record:#}"
    );
    assert!(record["process"]["executable"].is_string(), "{record:#}");
    assert_eq!(record["process"]["uid"], 0, "{record:#}");
}

/// Runs one connection that both ends see, and checks both records.
fn both_ends(families: &[Family], outcome: &str, bytes: (u64, u64), talk: impl Fn(TcpStream, TcpStream)) {
    for family in families {
        let lab = Lab::new();
        let listener = lab.pair.listen(*family, lab.port).unwrap();
        let source = without_forks(|| {
            let (client, server, source) = lab.established(&listener, *family);
            talk(client, server);
            source
        });
        let destination = lab.server(*family);
        let run = lab.finish(&["client", "server"], source);
        for role in ["client", "server"] {
            check(&run, role, outcome, (source, destination), bytes);
            check_process(the_record(&run, role, source));
        }
        // Both ends are this test: the server's record knows the client's owner as well.
        let server = the_record(&run, "server", source);
        assert_eq!(server["peer"]["process"]["pid"], std::process::id(), "{server:#}");
        assert_eq!(run.records.len(), 2, "{family:?}: {:#?}", run.records);
    }
}

fn read_to_end(stream: &mut TcpStream) -> usize {
    stream.read_to_end(&mut Vec::new()).unwrap()
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Request and answer, both read to the last byte.
fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(&[1; 1234]).unwrap();
    server.read_exact(&mut [0; 1234]).unwrap();
    // Less than the socket buffers hold: nobody need read while this is written.
    server.write_all(&[2; 56_789]).unwrap();
    client.read_exact(&mut [0; 56_789]).unwrap();
}

#[test]
fn half_open() {
    both_ends(&Family::ALL, "half-open", (0, 0), |client, mut server| {
        drop(client);
        assert_eq!(read_to_end(&mut server), 0);
    });
}

#[test]
fn half_open_reset() {
    both_ends(&Family::ALL, "half-open-reset", (0, 0), |client, mut server| {
        reset(client);
        assert_eq!(
            server.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    });
}

#[test]
fn no_reply() {
    both_ends(&Family::PLAIN, "no-reply", (1234, 0), |mut client, mut server| {
        client.write_all(&[1; 1234]).unwrap();
        drop(client);
        assert_eq!(read_to_end(&mut server), 1234);
    });
}

#[test]
fn closed_by_the_client_first() {
    both_ends(
        &Family::PLAIN,
        "closed",
        (1234, 56_789),
        |mut client, mut server| {
            exchange(&mut client, &mut server);
            drop(client);
            assert_eq!(read_to_end(&mut server), 0);
        },
    );
}

#[test]
fn closed_by_the_server_first() {
    both_ends(
        &Family::PLAIN,
        "closed",
        (1234, 56_789),
        |mut client, mut server| {
            exchange(&mut client, &mut server);
            drop(server);
            assert_eq!(read_to_end(&mut client), 0);
        },
    );
}

#[test]
fn reset_by_client() {
    both_ends(
        &Family::PLAIN,
        "reset-by-client",
        (1234, 56_789),
        |mut client, mut server| {
            exchange(&mut client, &mut server);
            reset(client);
            assert_eq!(
                server.read(&mut [0]).unwrap_err().kind(),
                ErrorKind::ConnectionReset
            );
        },
    );
}

#[test]
fn reset_by_server() {
    both_ends(
        &Family::PLAIN,
        "reset-by-server",
        (1234, 56_789),
        |mut client, mut server| {
            exchange(&mut client, &mut server);
            reset(server);
            assert_eq!(
                client.read(&mut [0]).unwrap_err().kind(),
                ErrorKind::ConnectionReset
            );
        },
    );
}

#[test]
fn reset_by_server_before_any_payload() {
    both_ends(&Family::PLAIN, "reset-by-server", (0, 0), |mut client, server| {
        reset(server);
        assert_eq!(
            client.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    });
}

/// Payload that arrives after close() makes the client's own kernel send RST: the client did it, not the server.
#[test]
fn payload_after_close_is_the_clients_reset() {
    for family in Family::PLAIN {
        let lab = Lab::new();
        let listener = lab.pair.listen(family, lab.port).unwrap();
        let (mut client, mut server, source) = lab.established(&listener, family);
        client.write_all(&[1; 10]).unwrap();
        server.read_exact(&mut [0; 10]).unwrap();
        // The server's payload meets the client's FIN on the cable.
        Pair::iptables(
            &lab.pair.server,
            family,
            &format!("-I INPUT -p tcp --dport {} -j DROP", lab.port),
        )
        .unwrap();
        drop(client);
        server.write_all(&[2; 20]).unwrap();
        lab.probe
            .wait_for(1, |record| is(record, "client", source))
            .unwrap();
        Pair::iptables(&lab.pair.server, family, "-F INPUT").unwrap();
        // Its retransmission finds no socket and is answered by RST.
        assert_eq!(
            server.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        drop(server);
        let run = lab.finish(&["client", "server"], source);
        for role in ["client", "server"] {
            assert_eq!(
                the_record(&run, role, source)["outcome"],
                "reset-by-client",
                "{:#?}",
                run.records
            );
        }
    }
}

/// Runs a connection that is refused, and looks at it from these ends.
fn refusal(roles: &[&str], look: impl Fn(&Value)) {
    for family in Family::PLAIN {
        let lab = Lab::new();
        let (socket, source) = lab.pair.socket(family).unwrap();
        let destination = lab.server(family);
        let error = socket.connect(&destination.into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let run = lab.finish(roles, source);
        for role in roles {
            check(&run, role, "refused", (source, destination), (0, 0));
            look(the_record(&run, role, source));
        }
    }
}

#[test]
fn refused_at_the_client() {
    refusal(&["client"], check_process);
}

#[test]
fn refused_at_the_server() {
    if too_old((5, 17), "no tracepoint tells of a SYN to a closed port") {
        return;
    }
    refusal(&["server"], |record| {
        assert!(
            record.get("process").is_none(),
            "nobody listens there: {record:#}"
        );
    });
}

/// Drops what the client sends, before it reaches the server's sockets.
fn cut_off_server(lab: &Lab, family: Family) {
    Pair::iptables(
        &lab.pair.server,
        family,
        &format!("-A INPUT -p tcp --dport {} -j DROP", lab.port),
    )
    .unwrap();
}

/// Drops what the server sends, before it reaches the client's sockets.
fn cut_off_client(lab: &Lab, family: Family) {
    Pair::iptables(
        &lab.pair.client,
        family,
        &format!("-A INPUT -p tcp --sport {} -j DROP", lab.port),
    )
    .unwrap();
}

#[test]
fn unanswered_timed_out() {
    for family in Family::PLAIN {
        let lab = Lab::new();
        lab.pair
            .client
            .run("sysctl -qw net.ipv4.tcp_syn_retries=1")
            .unwrap();
        cut_off_server(&lab, family);
        let (socket, source) = lab.pair.socket(family).unwrap();
        let destination = lab.server(family);
        assert_eq!(
            socket.connect(&destination.into()).unwrap_err().kind(),
            ErrorKind::TimedOut
        );
        let run = lab.finish(&["client"], source);
        check(&run, "client", "unanswered", (source, destination), (0, 0));
        assert_eq!(run.records.len(), 1, "{:#?}", run.records);
    }
}

#[test]
fn unanswered_given_up() {
    for family in Family::PLAIN {
        let lab = Lab::new();
        cut_off_server(&lab, family);
        let (socket, source) = lab.pair.socket(family).unwrap();
        let destination = lab.server(family);
        assert!(
            socket
                .connect_timeout(&destination.into(), Duration::from_millis(20))
                .is_err()
        );
        drop(socket);
        let run = lab.finish(&["client"], source);
        check(&run, "client", "unanswered", (source, destination), (0, 0));
        check_process(the_record(&run, "client", source));
    }
}

#[test]
fn unreachable_by_a_routers_word() {
    for (family, network, target) in [
        (Family::V4, "10.78.0.0/24", "10.78.0.1"),
        (Family::V6, "fd78::/64", "fd78::1"),
    ] {
        let lab = Lab::new();
        let (client, router) = (&lab.pair.client, &lab.pair.server);
        router
            .run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
            .unwrap();
        router.ip(&format!("route add unreachable {network}")).unwrap();
        client
            .ip(&format!("route add {network} via {}", Pair::server_ip(family)))
            .unwrap();
        let (socket, source) = lab.pair.socket(family).unwrap();
        let destination = SocketAddr::new(target.parse().unwrap(), lab.port);
        let error = socket.connect(&destination.into()).unwrap_err().kind();
        assert!(
            matches!(error, ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable),
            "{error}"
        );
        let run = lab.finish(&["client"], source);
        check(&run, "client", "unreachable", (source, destination), (0, 0));
    }
}

/// A port unreachable message leaves the same error in the socket as RST does.
#[test]
fn unreachable_by_a_reject_rule() {
    for (family, with) in [
        (Family::V4, "icmp-port-unreachable"),
        (Family::V6, "icmp6-port-unreachable"),
    ] {
        let lab = Lab::new();
        let rule = format!(
            "-A INPUT -p tcp --dport {} -j REJECT --reject-with {with}",
            lab.port
        );
        Pair::iptables(&lab.pair.server, family, &rule).unwrap();
        let (socket, source) = lab.pair.socket(family).unwrap();
        let destination = lab.server(family);
        assert_eq!(
            socket.connect(&destination.into()).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        let run = lab.finish(&["client"], source);
        check(&run, "client", "unreachable", (source, destination), (0, 0));
    }
}

#[test]
fn unreachable_dead_neighbour() {
    for (family, stack, target) in [
        (Family::V4, "ipv4", "10.77.0.99"),
        (Family::V6, "ipv6", "fd77::99"),
    ] {
        let lab = Lab::new();
        let neighbour = format!("net.{stack}.neigh.eth0");
        lab.pair
            .client
            .run(&format!(
                "sysctl -qw {neighbour}.mcast_solicit=1 {neighbour}.retrans_time_ms=100"
            ))
            .unwrap();
        let (socket, source) = lab.pair.socket(family).unwrap();
        let destination = SocketAddr::new(target.parse().unwrap(), lab.port);
        assert_eq!(
            socket.connect(&destination.into()).unwrap_err().kind(),
            ErrorKind::HostUnreachable
        );
        let run = lab.finish(&["client"], source);
        check(&run, "client", "unreachable", (source, destination), (0, 0));
    }
}

/// A user time-out, as keepalive-minded servers set it, instead of the default quarter of an hour.
fn soon_given_up(stream: &TcpStream) {
    SockRef::from(stream)
        .set_tcp_user_timeout(Some(Duration::from_millis(500)))
        .unwrap();
}

#[test]
fn timed_out_at_the_client() {
    for family in Family::PLAIN {
        let lab = Lab::new();
        let listener = lab.pair.listen(family, lab.port).unwrap();
        let (mut client, server, source) = lab.established(&listener, family);
        cut_off_server(&lab, family);
        soon_given_up(&client);
        client.write_all(&[1; 100]).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        let destination = lab.server(family);
        let run = lab.finish(&["client"], source);
        assert_eq!(the_record(&run, "client", source)["outcome"], "timed-out");
        assert_eq!(
            end(the_record(&run, "client", source), "destination"),
            Some(destination)
        );
        drop(server);
    }
}

#[test]
fn timed_out_at_the_server() {
    for family in Family::PLAIN {
        let lab = Lab::new();
        let listener = lab.pair.listen(family, lab.port).unwrap();
        let (client, mut server, source) = lab.established(&listener, family);
        cut_off_client(&lab, family);
        soon_given_up(&server);
        server.write_all(&[1; 100]).unwrap();
        assert_eq!(server.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        let run = lab.finish(&["server"], source);
        let record = the_record(&run, "server", source);
        assert_eq!(record["outcome"], "timed-out", "{record:#}");
        check_process(record);
        drop(client);
    }
}

#[test]
fn still_open() {
    for family in Family::PLAIN {
        let lab = Lab::new();
        let listener = lab.pair.listen(family, lab.port).unwrap();
        let (client, server, source) = lab.established(&listener, family);
        let destination = lab.server(family);
        let run = lab.probe.finish().unwrap();
        for role in ["client", "server"] {
            let record = the_record(&run, role, source);
            assert_eq!(record["outcome"], "open", "{record:#}");
            assert_eq!(end(record, "destination"), Some(destination));
            assert!(record.get("bytes_sent").is_none(), "not known of what is open");
            check_process(record);
        }
        drop((client, server));
    }
}

/// SYN-ACKs that were dropped on their way so far.
fn dropped_syn_acks(lab: &Lab, family: Family) -> u64 {
    let rules = Pair::iptables(&lab.pair.client, family, "-nvxL INPUT").unwrap();
    rules
        .lines()
        .find(|line| line.contains("DROP"))
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn syn_only() {
    for family in Family::PLAIN {
        let lab = Lab::new();
        let listener = lab.pair.listen(family, lab.port).unwrap();
        lab.pair
            .server
            .run("sysctl -qw net.ipv4.tcp_synack_retries=1")
            .unwrap();
        cut_off_client(&lab, family);
        let (socket, source) = lab.pair.socket(family).unwrap();
        let destination = lab.server(family);
        assert!(
            socket
                .connect_timeout(&destination.into(), Duration::from_millis(20))
                .is_err()
        );
        drop(socket);
        // While it runs, not at its end: when the kernel has given the handshake up.
        lab.probe
            .wait_for_within(LONG, 1, |record| is(record, "server", source))
            .unwrap();
        let run = lab.probe.finish().unwrap();
        check(&run, "server", "syn-only", (source, destination), (0, 0));
        check_process(the_record(&run, "server", source));
        drop(listener);
    }
}

/// A handshake that needs a second SYN-ACK is late, not `syn-only`.
#[test]
fn a_late_handshake_is_not_syn_only() {
    for family in Family::PLAIN {
        let lab = Lab::new();
        let listener = lab.pair.listen(family, lab.port).unwrap();
        cut_off_client(&lab, family);
        let (socket, source) = lab.pair.socket(family).unwrap();
        let destination = lab.server(family);
        socket.set_nonblocking(true).unwrap();
        assert!(socket.connect(&destination.into()).is_err());
        wait_until("a SYN-ACK sent again", LONG, || {
            (dropped_syn_acks(&lab, family) >= 2).then_some(())
        })
        .unwrap();
        Pair::iptables(&lab.pair.client, family, "-F INPUT").unwrap();
        let (mut server, _) = listener.accept().unwrap();
        drop(socket);
        assert_eq!(read_to_end(&mut server), 0);
        drop(server);
        let run = lab.finish(&["client", "server"], source);
        check(&run, "server", "half-open", (source, destination), (0, 0));
        assert_eq!(run.records.len(), 2, "{:#?}", run.records);
    }
}
