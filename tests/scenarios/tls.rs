//! What `watch --tls` says, with OpenSSL at one end or both.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::fd::AsRawFd,
    path::PathBuf,
    process::Stdio,
    thread,
    time::Duration,
};

use probe_lab::{Child, Family, Pair, Probe, Stream, finish, is, run, the_record, unique_port, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);
const NAME: &str = "shop.example";
/// What a client offers that is asked for all of it.
const FULL: &[&str] = &["-servername", NAME, "-alpn", "h2,http/1.1"];

/// A pair of hosts, a port, a probe that watches it, and a certificate that nobody trusts.
struct Lab {
    pair: Pair,
    port: u16,
    probe: Probe,
    files: TempDir,
    server: Option<Child>,
}

impl Lab {
    fn new() -> Self {
        Self::with(&["--tls"])
    }

    fn with(arguments: &[&str]) -> Self {
        let port = unique_port();
        let pair = Pair::new().unwrap();
        let files = tempfile::tempdir().unwrap();
        let at = |name: &str| files.path().join(name).display().to_string();
        run(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={NAME} -keyout {} -out {}",
            at("key"),
            at("certificate"),
        ))
        .unwrap();
        let number = port.to_string();
        let arguments = [&["--port", &number, "--all"], arguments].concat();
        let probe = Probe::watch(&arguments).unwrap();
        Self {
            pair,
            port,
            probe,
            files,
            server: None,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Starts `openssl s_server`.
    fn serve(mut self, arguments: &[&str]) -> Self {
        let mut command = self.pair.server.command("openssl");
        command
            .args(["s_server", "-quiet", "-accept", &self.port.to_string()])
            .arg("-cert")
            .arg(self.file("certificate"))
            .arg("-key")
            .arg(self.file("key"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.server = Some(Child::spawn(&mut command).unwrap());
        // IPv6 that takes IPv4 too; a state of 0A is LISTEN.
        let listens = format!(":{:04X} 00000000000000000000000000000000:0000 0A ", self.port);
        wait_until("openssl listens", SOON, || {
            let sockets = || std::fs::read_to_string("/proc/thread-self/net/tcp6");
            let sockets = self.pair.server.enter(sockets).ok()?.ok()?;
            sockets.contains(&listens).then_some(())
        })
        .unwrap();
        self
    }

    /// Runs `openssl s_client` to its end, whatever comes of it.
    fn dial(&self, family: Family, arguments: &[&str]) {
        let server = std::net::SocketAddr::new(Pair::server_ip(family), self.port);
        let mut command = self.pair.client.command("openssl");
        command
            .args(["s_client", "-connect", &server.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Child::spawn(&mut command).unwrap().wait().unwrap();
    }

    /// What probe says of the only connection, at the client's and at the server's end.
    fn said(self) -> [Value; 2] {
        let is_connection = |record: &Value| record["event"] == "connection";
        let records = self.probe.wait_for(2, is_connection).unwrap();
        let run = self.probe.finish().unwrap();
        assert_eq!(records.len(), 2, "{records:#?}");
        assert_eq!(run.summary["lost"]["tls_segments"], 0, "{:#}", run.summary);
        ["client", "server"].map(|role| {
            let mut all = records.iter().filter(|record| record["role"] == role);
            all.next().unwrap()["tls"].clone()
        })
    }

    /// What `openssl s_client` begins with.
    fn hello(&self) -> Vec<u8> {
        let listener = self.pair.listen(Family::V4, 1).unwrap();
        let mut command = self.pair.client.command("openssl");
        command
            .args(["s_client", "-connect", "10.77.0.2:1"])
            .args(FULL)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let _client = Child::spawn(&mut command).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut header = [0; 5];
        stream.read_exact(&mut header).unwrap();
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        stream.read_exact(&mut body).unwrap();
        [&header[..], &body].concat()
    }
}

/// Reads all that the only client says, and closes.
fn listen(lab: &Lab, family: Family) {
    let listener = lab.pair.listen(family, lab.port).unwrap();
    thread::spawn(move || {
        let mut stream = Stream::from(listener.accept().unwrap().0);
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
}

/// Sends pieces in segments of their own, and closes.
fn send(mut stream: Stream, pieces: &[&[u8]]) {
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        stream.write_all(piece).unwrap();
        wait_until("the other end has it", SOON, || {
            (unacknowledged(&stream) == 0).then_some(())
        })
        .unwrap();
    }
}

/// Bytes that were sent and have no answer.
fn unacknowledged(stream: &TcpStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: the socket is open, and the call writes a number.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    bytes
}

fn alerts(said: &Value) -> Vec<(&str, &str)> {
    let alerts = said["alerts"].as_array().map(Vec::as_slice).unwrap_or_default();
    alerts
        .iter()
        .map(|alert| {
            (
                alert["from"].as_str().unwrap(),
                alert["description"].as_str().unwrap(),
            )
        })
        .collect()
}

#[test]
fn server_name_version_and_alpn_at_both_ends() {
    for (family, version, name, chosen) in [
        (Family::V4, "-tls1_3", "TLS 1.3", Value::Null),
        (Family::V6, "-tls1_3", "TLS 1.3", Value::Null),
        (Family::V4, "-tls1_2", "TLS 1.2", json!("h2")),
    ] {
        let lab = Lab::new().serve(&["-alpn", "h2"]);
        lab.dial(family, &[FULL, &[version]].concat());
        for said in lab.said() {
            assert_eq!(said["sni"], NAME, "{family:?} {said:#}");
            assert_eq!(said["version"], name, "{family:?} {said:#}");
            assert_eq!(said["alpn"], json!(["h2", "http/1.1"]), "{family:?} {said:#}");
            assert_eq!(said["alpn_chosen"], chosen, "{family:?} {said:#}");
            assert_eq!(said["versions_offered"], json!([name]), "{family:?} {said:#}");
            for absent in ["no_sni", "not_tls", "incomplete", "alerts"] {
                assert!(said[absent].is_null(), "{family:?} {said:#}");
            }
        }
    }
}

#[test]
fn a_client_without_a_server_name() {
    let lab = Lab::new().serve(&[]);
    lab.dial(Family::V4, &["-noservername"]);
    for said in lab.said() {
        assert_eq!(said["no_sni"], true, "{said:#}");
        assert!(said["sni"].is_null(), "{said:#}");
        assert_eq!(said["version"], "TLS 1.3", "{said:#}");
    }
}

#[test]
fn plain_http_on_a_tls_port() {
    let lab = Lab::new().serve(&[]);
    let (stream, _) = lab.pair.connect(Family::V4, lab.port).unwrap();
    send(stream, &[b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"]);
    for said in lab.said() {
        assert_eq!(said["not_tls"], json!({"client": "HTTP"}), "{said:#}");
        assert!(said["version"].is_null(), "{said:#}");
    }
}

#[test]
fn a_server_that_speaks_something_else() {
    let lab = Lab::new();
    let listener = lab.pair.listen(Family::V4, lab.port).unwrap();
    let server = thread::spawn(move || {
        let stream = listener.accept().unwrap().0.into();
        send(stream, &[b"HTTP/1.1 400 Bad Request\r\n\r\n"]);
    });
    lab.dial(Family::V4, FULL);
    server.join().unwrap();
    let [client, _] = lab.said();
    assert_eq!(client["not_tls"], json!({"server": "HTTP"}), "{client:#}");
    assert_eq!(client["sni"], NAME, "{client:#}");
}

#[test]
fn a_client_that_refuses_the_certificate() {
    let lab = Lab::new().serve(&[]);
    lab.dial(Family::V4, &[FULL, &["-tls1_2", "-verify_return_error"]].concat());
    for said in lab.said() {
        assert_eq!(alerts(&said), [("client", "unknown_ca")], "{said:#}");
        assert_eq!(said["version"], "TLS 1.2", "{said:#}");
        assert_eq!(said["alerts"][0]["code"], 48, "{said:#}");
        assert_eq!(said["alerts"][0]["level"], "fatal", "{said:#}");
    }
}

#[test]
fn no_version_in_common() {
    let lab = Lab::new().serve(&["-tls1_2"]);
    lab.dial(Family::V4, &[FULL, &["-tls1_3"]].concat());
    for said in lab.said() {
        assert_eq!(alerts(&said), [("server", "protocol_version")], "{said:#}");
        assert!(said["version"].is_null(), "{said:#}");
        assert_eq!(said["versions_offered"], json!(["TLS 1.3"]), "{said:#}");
    }
}

/// The alert comes behind the server's certificate.
#[test]
fn a_server_that_wants_a_certificate() {
    let lab = Lab::new().serve(&["-tls1_2", "-Verify", "1", "-verify_return_error"]);
    lab.dial(Family::V4, &[FULL, &["-tls1_2"]].concat());
    for said in lab.said() {
        assert_eq!(alerts(&said), [("server", "handshake_failure")], "{said:#}");
        assert_eq!(said["version"], "TLS 1.2", "{said:#}");
    }
}

#[test]
fn a_client_hello_in_pieces() {
    fn in_segments(hello: &[u8]) -> Vec<Vec<u8>> {
        hello.chunks(23).map(<[u8]>::to_vec).collect()
    }
    fn in_records(hello: &[u8]) -> Vec<Vec<u8>> {
        let record = |part: &[u8]| [&[22, 3, 1, 0, part.len() as u8][..], part].concat();
        vec![hello[5..].chunks(100).flat_map(record).collect()]
    }
    for cut in [in_segments, in_records] {
        let lab = Lab::new();
        let pieces = cut(&lab.hello());
        listen(&lab, Family::V4);
        let (stream, _) = lab.pair.connect(Family::V4, lab.port).unwrap();
        send(stream, &pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for said in lab.said() {
            assert_eq!(said["sni"], NAME, "{said:#}");
            assert_eq!(said["alpn"], json!(["h2", "http/1.1"]), "{said:#}");
            assert!(said["version"].is_null(), "{said:#}");
        }
    }
}

#[test]
fn a_client_hello_that_ends_too_soon() {
    let lab = Lab::new();
    let hello = lab.hello();
    listen(&lab, Family::V4);
    let (stream, _) = lab.pair.connect(Family::V4, lab.port).unwrap();
    send(stream, &[&hello[..105]]);
    for said in lab.said() {
        let expected = json!({"client": {"seen": 100, "of": hello.len() - 5, "why": "cut"}});
        assert_eq!(said["incomplete"], expected, "{said:#}");
        assert!(said["sni"].is_null() && said["no_sni"].is_null(), "{said:#}");
    }
}

#[test]
fn what_says_nothing_has_no_tls() {
    let lab = Lab::new();
    listen(&lab, Family::V4);
    drop(lab.pair.connect(Family::V4, lab.port).unwrap());
    assert_eq!(lab.said(), [Value::Null, Value::Null]);
}

#[test]
fn one_that_is_still_open_has_it_too() {
    let lab = Lab::new();
    let hello = lab.hello();
    let listener = lab.pair.listen(Family::V6, lab.port).unwrap();
    let (mut stream, source) = lab.pair.connect(Family::V6, lab.port).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    stream.write_all(&hello).unwrap();
    accepted.read_exact(&mut vec![0; hello.len()]).unwrap();
    let run = lab.probe.finish().unwrap();
    for role in ["client", "server"] {
        let record = the_record(&run, role, source);
        assert_eq!(record["outcome"], "open", "{record:#}");
        assert_eq!(record["tls"]["sni"], NAME, "{record:#}");
    }
}

#[test]
fn without_the_option_there_is_none() {
    let lab = Lab::with(&[]).serve(&[]);
    lab.dial(Family::V4, FULL);
    let is_connection = |record: &Value| record["event"] == "connection";
    lab.probe.wait_for(2, is_connection).unwrap();
    let run = lab.probe.finish().unwrap();
    assert!(run.records.iter().all(|record| record["tls"].is_null()));
    assert!(run.summary["lost"]["tls_segments"].is_null(), "{:#}", run.summary);
}

/// Other ports, and other peers, are none of its business.
#[test]
fn only_what_is_watched() {
    let lab = Lab::with(&["--tls", "--peer", "fd77::/64"]).serve(&[]);
    lab.dial(Family::V4, FULL);
    lab.dial(Family::V6, FULL);
    let [client, server] = lab.said();
    assert_eq!((&client["sni"], &server["sni"]), (&json!(NAME), &json!(NAME)));
}

/// A kernel without one of the tracepoints gives half of it, and says so; without both there is nothing to do.
#[test]
fn a_tracepoint_that_is_missing() {
    let lab = Lab::with(&["--tls", "--without", "tcp_probe"]).serve(&[]);
    lab.probe
        .says("watch runs without TLS of what is received (--tls)")
        .unwrap();
    let hello = lab.hello();
    let (stream, source) = lab.pair.connect(Family::V4, lab.port).unwrap();
    send(stream, &[&hello]);
    lab.probe
        .wait_for(2, |record| record["event"] == "connection")
        .unwrap();
    let run = lab.probe.finish().unwrap();
    let client = &the_record(&run, "client", source)["tls"];
    assert_eq!(client["sni"], NAME, "{client:#}");
    let server = &the_record(&run, "server", source)["tls"];
    assert_eq!(server["version"], "TLS 1.3", "{server:#}");
    assert_eq!(server["incomplete"]["client"]["why"], "unseen", "{server:#}");
    assert!(run.records.iter().any(|record| is(record, "client", source)));

    let both = "tcp_probe,net_dev_start_xmit";
    let arguments = ["watch", "--tls", "--port", "1", "--without", both];
    let output = finish(&mut Probe::command(&arguments).unwrap()).unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{error}");
    assert!(
        error.contains("--tls") && error.contains("left out by --without"),
        "{error}"
    );
}
