//! Names by a real container runtime: containerd, with pods made as a kubelet makes them.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::{Duration, Instant},
};

use probe_lab::{
    Cgroup, Cluster, Containerd, Monitor, Node, PodLogs, PodSpec, Probe, Relay, accept_all, patience,
    unique_port, wait_until,
};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(60);

/// A server on the node, and how many connections it has closed.
fn serve(node: &Node) -> (SocketAddr, Arc<AtomicU64>) {
    let address = SocketAddr::new(node.address.into(), unique_port());
    let listener = node.netns.enter(|| TcpListener::bind(address)).unwrap().unwrap();
    (address, accept_all(listener))
}

fn watch(servers: &[SocketAddr], socket: &std::path::Path, logs: &PodLogs) -> Probe {
    let ports: Vec<String> = servers.iter().map(|server| server.port().to_string()).collect();
    let socket = socket.display().to_string();
    let mut arguments = vec!["--role", "client", "--cri", &socket, "--pod-logs", logs.path()];
    for port in &ports {
        arguments.extend(["--port", port]);
    }
    Probe::watch(&arguments).unwrap()
}

/// A shell's words that dial and close, once.
fn dial(server: SocketAddr) -> String {
    format!("nc.openbsd -z {} {}", server.ip(), server.port())
}

fn again_and_again(server: SocketAddr) -> String {
    format!("while :; do {}; sleep 0.2; done", dial(server))
}

fn shell(script: &str) -> [&str; 3] {
    ["/bin/sh", "-c", script]
}

/// How often a pod was named by the runtime, with its container.
fn is_named(record: &Value, pod: &str, container: &str) -> bool {
    record["pod"]["name"] == pod
        && record["container"]["name"] == container
        && record["pod"]["source"] == "cri"
}

#[test]
fn pods_made_through_cri() {
    let cluster = Cluster::new().unwrap();
    let containerd = Containerd::start(&cluster.alpha).unwrap();
    let (server, _) = serve(&cluster.alpha);
    // For the one that lives 200 ms alone, so that it is known when it has dialled.
    let (once, dialled) = serve(&cluster.alpha);
    let logs = PodLogs::new().unwrap();
    let probe = watch(&[server, once], &containerd.socket(), &logs);
    let script = again_and_again(server);

    let forking = PodSpec {
        namespace: "shop",
        name: "till-7d9f6c5b8d-x2x4z",
        labels: &[("pod-template-hash", "7d9f6c5b8d")],
        ..PodSpec::default()
    };
    let host = PodSpec {
        namespace: "monitoring",
        name: "node-monitor-z8989",
        labels: &[
            ("controller-revision-hash", "5c9d"),
            ("pod-template-generation", "1"),
        ],
        host_network: true,
    };
    let double = PodSpec {
        namespace: "shop",
        name: "cart-0",
        ..PodSpec::default()
    };
    let short = PodSpec {
        namespace: "batch",
        name: "blink-28912-abcde",
        labels: &[("job-name", "blink-28912")],
        ..PodSpec::default()
    };
    let mut uids = Vec::new();
    let mut pods = Vec::new();
    for (spec, containers) in [
        (forking, &["app"][..]),
        (host, &["agent"]),
        (double, &["app", "proxy"]),
    ] {
        let pod = containerd.pod(spec).unwrap();
        for container in containers {
            let id = pod.run(container, &shell(&script)).unwrap();
            uids.push((spec, *container, pod.uid.clone(), id));
        }
        pods.push(pod);
    }
    // It lives 200 ms after it has dialled, and is removed at once.
    let pod = containerd.pod(short).unwrap();
    let id = pod
        .run("once", &shell(&format!("{}; sleep 0.2", dial(once))))
        .unwrap();
    uids.push((short, "once", pod.uid.clone(), id));
    wait_until("it dialled", LONG, || {
        (dialled.load(Ordering::Relaxed) > 0).then_some(())
    })
    .unwrap();
    drop(pod);

    for (spec, container, ..) in &uids {
        probe
            .wait_for_within(LONG, 1, |record| is_named(record, spec.name, container))
            .unwrap();
    }
    drop(pods);
    let run = probe.finish().unwrap();
    // Every record, from the first on.
    for record in &run.records {
        let known = uids
            .iter()
            .find(|(.., id)| record["container"]["id"] == id.as_str());
        let (spec, container, uid, _) = known.unwrap_or_else(|| panic!("{record:#}"));
        let pod = &record["pod"];
        assert!(is_named(record, spec.name, container), "{record:#}");
        assert_eq!(pod["namespace"], spec.namespace, "{record:#}");
        assert_eq!(pod["uid"], uid.as_str(), "{record:#}");
        assert_eq!(record["process"]["name"], "nc.openbsd", "{record:#}");
        let workload = match spec.name {
            "till-7d9f6c5b8d-x2x4z" => Some(("Deployment", "till")),
            "node-monitor-z8989" => Some(("DaemonSet", "node-monitor")),
            "blink-28912-abcde" => Some(("Job", "blink-28912")),
            _ => None,
        };
        let found = pod["workload"]["kind"]
            .as_str()
            .zip(pod["workload"]["name"].as_str());
        assert_eq!(found, workload, "{record:#}");
    }
    assert_eq!(run.summary["misses"]["pods"], 0, "{:#}", run.summary);
}

/// What is known stays known, what is new is named by other means, and told is both the end and the new beginning.
#[test]
fn a_runtime_that_is_killed_and_started_again() {
    let cluster = Cluster::new().unwrap();
    let containerd = Containerd::start(&cluster.alpha).unwrap();
    let (server, _) = serve(&cluster.alpha);
    let logs = PodLogs::new().unwrap();
    let spec = |name| PodSpec {
        namespace: "shop",
        name,
        ..PodSpec::default()
    };
    let script = again_and_again(server);
    let old = containerd.pod(spec("old")).unwrap();
    old.run("app", &shell(&script)).unwrap();
    let probe = watch(&[server], &containerd.socket(), &logs);
    let named = |record: &Value| is_named(record, "old", "app");
    probe.wait_for_within(LONG, 1, named).unwrap();

    containerd.kill();
    probe.says("unavailable, containers have no names").unwrap();
    let known = probe.wait_for(1, named).unwrap().len();
    probe.wait_for_within(LONG, known + 3, named).unwrap();
    let (pod, cgroup) = (cluster.alpha.pod(200).unwrap(), Cgroup::pod().unwrap());
    logs.add("shop", "new", &cgroup.pod_uid).unwrap();
    let monitor = Monitor::start(&pod.netns, server, 0.2, Some(&cgroup)).unwrap();
    probe
        .wait_for_within(LONG, 2, |record| {
            record["pod"]["name"] == "new" && record["pod"]["source"] == "pod-log-dir"
        })
        .unwrap();
    drop(monitor);

    containerd.begin().unwrap();
    probe.says("answers again").unwrap();
    let newest = containerd.pod(spec("newest")).unwrap();
    newest.run("app", &shell(&script)).unwrap();
    probe
        .wait_for_within(LONG, 1, |record| is_named(record, "newest", "app"))
        .unwrap();
    drop((old, newest));
    let run = probe.finish().unwrap();
    assert_eq!(
        run.stderr
            .matches("unavailable, containers have no names")
            .count(),
        1,
        "{}",
        run.stderr
    );
    assert_eq!(run.stderr.matches("answers again").count(), 1, "{}", run.stderr);
}

/// One that takes its time still names all; one that hangs holds nothing up for long, and is told of.
#[test]
fn a_runtime_that_is_slow() {
    let cluster = Cluster::new().unwrap();
    let containerd = Containerd::start(&cluster.alpha).unwrap();
    let (server, _) = serve(&cluster.alpha);
    let logs = PodLogs::new().unwrap();
    let relay = Relay::start(&containerd.socket().with_extension("relay"), &containerd.socket()).unwrap();
    let probe = watch(&[server], relay.path(), &logs);
    let script = again_and_again(server);
    let pod = |name| {
        let spec = PodSpec {
            namespace: "shop",
            name,
            ..PodSpec::default()
        };
        let pod = containerd.pod(spec).unwrap();
        pod.run("app", &shell(&script)).unwrap();
        pod
    };

    relay.delay(Duration::from_millis(100));
    let slow = pod("slow");
    let records = probe.wait_for_within(LONG, 3, |_| true).unwrap();
    assert!(
        records.iter().all(|record| is_named(record, "slow", "app")),
        "{records:#?}"
    );
    drop(slow);

    relay.hold();
    let hung = pod("hung");
    logs.add("shop", "hung", &hung.uid).unwrap();
    let start = Instant::now();
    let by_directory = |record: &Value| record["pod"]["uid"] == hung.uid.as_str();
    let records = probe.wait_for_within(LONG, 1, by_directory).unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(4) * patience(),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(records[0]["pod"]["source"], "pod-log-dir", "{:#}", records[0]);
    assert_eq!(records[0]["pod"]["name"], "hung", "{:#}", records[0]);
    probe.says("unavailable, containers have no names").unwrap();

    relay.delay(Duration::ZERO);
    probe.says("answers again").unwrap();
    probe
        .wait_for_within(LONG, 1, |record| is_named(record, "hung", "app"))
        .unwrap();
    drop(hung);
    probe.finish().unwrap();
}
