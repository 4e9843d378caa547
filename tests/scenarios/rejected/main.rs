//! Every way in which clients make the real etcd reject them: each line of its log is answered with the process that did it.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use probe_lab::{Cgroup, Cluster, Etcd, Pod, PodLogs, Probe, finish, run, unique_port, wait_until};
use serde_json::Value;

/// Makes one connection in one way, after which its process is called.
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/rejected/client.py");
/// etcd says no more when it said nothing for so long.
const QUIET: Duration = Duration::from_secs(1);

/// What etcd's log says of each way.
const ERRORS: [(&str, &str); 22] = [
    ("port-check", "EOF"),
    ("port-check-reset", "connection reset by peer"),
    ("slow-check", "EOF"),
    ("half-close", "EOF"),
    ("plain-http", "first record does not look like a TLS handshake"),
    ("one-byte", "EOF"),
    ("garbage", "first record does not look like a TLS handshake"),
    ("cut-hello", "EOF"),
    ("cut-hello-reset", "connection reset by peer"),
    // What the server answered is not read: then the kernel closes with a reset.
    ("hello-then-gone", "connection reset by peer"),
    ("hello-then-reset", "connection reset by peer"),
    ("no-cert-tls12", "didn't provide a certificate"),
    ("no-cert-tls13", "didn't provide a certificate"),
    ("other-ca", "error: tls: "),
    ("other-ca-tls12", "error: tls: "),
    ("other-name", "error: tls: "),
    ("unknown-issuer", "unknown authority"),
    ("expired", "certificate has expired"),
    ("expired-tls12", "certificate has expired"),
    ("server-cert-only", "incompatible key usage"),
    ("no-common-cipher", "no cipher suite supported"),
    ("old-tls", "unsupported version"),
];

/// Where etcd has its certificates, by its own arguments.
fn folder(etcd: &Etcd) -> PathBuf {
    let arguments = fs::read_to_string(format!("/proc/{}/cmdline", etcd.pid())).unwrap();
    let mut arguments = arguments.split('\0');
    arguments
        .find(|argument| *argument == "--trusted-ca-file")
        .unwrap();
    Path::new(arguments.next().unwrap()).parent().unwrap().to_owned()
}

/// Certificates that etcd takes for wrong, beside those it takes.
fn certificates(of: &Path, dir: &Path) {
    for name in ["ca.crt", "ca.key", "client.crt", "client.key"] {
        fs::copy(of.join(name), dir.join(name)).unwrap();
    }
    let path = |name: &str| dir.join(name).display().to_string();
    run(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=other -keyout {} -out {}",
        path("other-ca.key"),
        path("other-ca.crt")
    ))
    .unwrap();
    for (name, issuer, days, usage) in [
        ("stranger", "other-ca", 2, "clientAuth"),
        ("expired", "ca", -1, "clientAuth"),
        ("serveronly", "ca", 2, "serverAuth"),
    ] {
        fs::write(dir.join("ext"), format!("extendedKeyUsage={usage}\n")).unwrap();
        run(&format!(
            "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {} -out {}",
            path(&format!("{name}.key")),
            path("csr")
        ))
        .unwrap();
        run(&format!(
            "openssl x509 -req -in {} -CA {} -CAkey {} -CAcreateserial -days {days} -out {} -extfile {}",
            path("csr"),
            path(&format!("{issuer}.crt")),
            path(&format!("{issuer}.key")),
            path(&format!("{name}.crt")),
            path("ext")
        ))
        .unwrap();
    }
}

struct Node {
    name: &'static str,
    pod: Pod,
    cgroup: Cgroup,
}

#[test]
fn whoever_etcd_rejects_is_named() {
    let cluster = Cluster::new().unwrap();
    let etcd = Etcd::start(&cluster.alpha.netns, cluster.alpha.address, unique_port()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    certificates(&folder(&etcd), dir.path());
    let logs = PodLogs::new().unwrap();
    let port = etcd.address.port().to_string();

    // As the README says: a recording on each node, with its filters as they are by default.
    let mut nodes = Vec::new();
    let mut running = Vec::new();
    for (name, node) in [("alpha", &cluster.alpha), ("beta", &cluster.beta)] {
        let recording = dir.path().join(format!("{name}.jsonl")).display().to_string();
        let netns = format!("/run/netns/{}", node.netns.name());
        let arguments = ["--port", &port, "--node", name, "--netns", &netns];
        let more = ["--record", &recording, "--pod-logs", logs.path()];
        running.push(Probe::watch(&[&arguments[..], &more].concat()).unwrap());
        let (pod, cgroup) = (node.pod(2).unwrap(), Cgroup::pod().unwrap());
        logs.add("monitoring", &format!("clients-{name}"), &cgroup.pod_uid)
            .unwrap();
        nodes.push((Node { name, pod, cgroup }, recording));
    }

    let listed = finish(Command::new("python3").args([CLIENT, "", "0", "", "list"])).unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let ways: BTreeSet<&str> = listed.lines().collect();
    assert_eq!(
        ways,
        ERRORS.iter().map(|(way, _)| *way).collect(),
        "each way has its error"
    );
    let host = etcd.address.ip().to_string();
    for (node, _) in &nodes {
        for way in &ways {
            let mut client = node.pod.netns.command("python3");
            let certificates = dir.path().display().to_string();
            client.args([CLIENT, &host, &port, &certificates, way]);
            let ended = finish(node.cgroup.place(&mut client)).unwrap();
            assert!(
                ended.status.success(),
                "{way}: {}",
                String::from_utf8_lossy(&ended.stderr)
            );
        }
        etcdctl(node, dir.path(), &format!("https://{host}:{port}"), "other-ca");
        etcdctl(node, dir.path(), &format!("http://{host}:{port}"), "ca");
    }

    let (mut last, mut since) = (0, Instant::now());
    wait_until("etcd is quiet", Duration::from_secs(20), || {
        let now = etcd.rejected().len();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() >= QUIET).then_some(())
    })
    .unwrap();
    for watch in &running {
        watch.signal(nix::sys::signal::Signal::SIGINT).unwrap();
    }
    for watch in running {
        watch.ended().unwrap();
    }
    let log = dir.path().join("etcd.log");
    fs::write(&log, etcd.log()).unwrap();
    let mut command =
        Probe::command(&["etcd-log", &log.display().to_string(), "-o", "json", "--flows"]).unwrap();
    let output = finish(command.arg(&nodes[0].1).args(["--flows", &nodes[1].1])).unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let mut answers: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let summary = answers.pop().unwrap();
    let lines = etcd.rejected();
    assert_eq!(answers.len(), lines.len(), "{summary:#}");
    assert_eq!(summary["matched"], lines.len(), "{summary:#}\n{answers:#?}");

    let mut told: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (answer, line) in answers.iter().zip(&lines) {
        let peer = format!(
            "{}:{}",
            answer["peer"]["address"].as_str().unwrap(),
            answer["peer"]["port"]
        );
        assert_eq!(
            peer,
            line.peer.to_string(),
            "answers stand in the order of the lines"
        );
        // The pod of etcd's node is seen as itself, the other as its node.
        let name = if line.peer.ip() == nodes[0].0.pod.address {
            "alpha"
        } else {
            assert_eq!(line.peer.ip(), cluster.beta.address, "{line:?}");
            "beta"
        };
        assert_eq!(
            answer["pod"]["name"],
            format!("clients-{name}"),
            "{}\n{answer:#}",
            line.line
        );
        assert_eq!(answer["node"], name, "{}\n{answer:#}", line.line);
        let process = answer["process"]["name"].as_str().unwrap();
        if process != "etcdctl" {
            let (_, error) = ERRORS
                .iter()
                .find(|(way, _)| process == &way[..way.len().min(15)])
                .unwrap();
            assert!(line.error.contains(error), "{process} made etcd log {line:?}");
        }
        *told.entry((name.to_owned(), process.to_owned())).or_default() += 1;
    }
    for (node, _) in &nodes {
        for way in &ways {
            let process = way[..way.len().min(15)].to_owned();
            assert!(
                told.contains_key(&(node.name.to_owned(), process)),
                "{way} of {}: {told:#?}",
                node.name
            );
        }
        assert!(
            told[&(node.name.to_owned(), "etcdctl".to_owned())] >= 2,
            "{told:#?}"
        );
    }
}

/// etcd's own client, with a CA that did not sign etcd's certificate, or without TLS.
fn etcdctl(node: &Node, certificates: &Path, endpoint: &str, ca: &str) {
    let path = |name: &str| certificates.join(name).display().to_string();
    let mut client = node.pod.netns.command("etcdctl");
    // It takes each of its options from the environment too, and refuses one that is given twice.
    for option in ["ENDPOINTS", "CACERT", "CERT", "KEY"] {
        client.env_remove(format!("ETCDCTL_{option}"));
    }
    client
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", endpoint, "--cacert", &path(&format!("{ca}.crt"))])
        .args(["--cert", &path("client.crt"), "--key", &path("client.key")])
        .args(["--dial-timeout", "500ms", "--command-timeout", "700ms"])
        .args(["endpoint", "health"]);
    let ended = finish(node.cgroup.place(&mut client)).unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        !ended.status.success() && said.contains("is unhealthy"),
        "{ended:?}"
    );
}
