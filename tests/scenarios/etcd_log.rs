//! The incident answered: the pod behind each rejected line of the real etcd, from recordings of both nodes.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    fs,
    net::SocketAddr,
    process::Output,
    time::{Duration, Instant},
};

use probe_lab::{Cgroup, Cluster, Etcd, Monitor, PodLogs, Probe, finish, patience, unique_port, wait_until};
use serde_json::Value;

/// Each monitor's connections; below the 100 a second that etcd's log samples at.
const TIMES: usize = 50;
/// etcd says no more when it said nothing for so long.
const QUIET: Duration = Duration::from_millis(500);

fn probe(arguments: &[&str]) -> Output {
    finish(&mut Probe::command(arguments).unwrap()).unwrap()
}

fn objects(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn every_rejected_line_has_its_pod() {
    let cluster = Cluster::new().unwrap();
    let etcd = Etcd::start(&cluster.alpha.netns, cluster.alpha.address, unique_port()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let logs = PodLogs::new().unwrap();
    let port = etcd.address.port().to_string();

    // A probe and a pod on each node. Both probes are of one kernel and see both pods, but each asks only its own node.
    let nodes = [("alpha", &cluster.alpha), ("beta", &cluster.beta)];
    let mut running = Vec::new();
    for (name, node) in nodes {
        let recording = dir.path().join(format!("{name}.jsonl")).display().to_string();
        let netns = format!("/run/netns/{}", node.netns.name());
        let arguments = [
            "--port",
            &port,
            "--node",
            name,
            "--netns",
            &netns,
            "--record",
            &recording,
            "--pod-logs",
            logs.path(),
        ];
        let watch = Probe::watch(&arguments).unwrap();
        let (pod, cgroup) = (node.pod(2).unwrap(), Cgroup::pod().unwrap());
        logs.add("monitoring", &format!("sdp-monitor-{name}"), &cgroup.pod_uid)
            .unwrap();
        running.push((watch, recording, pod, cgroup));
    }
    let mut monitors = Vec::new();
    for (_, _, pod, cgroup) in &running {
        monitors.push(Monitor::start(&pod.netns, etcd.address, 0.05, Some(cgroup)).unwrap());
    }
    let lines = || -> Vec<SocketAddr> { etcd.rejected().into_iter().map(|line| line.peer).collect() };
    let of = |name: &str| match name {
        "alpha" => running[0].2.address.to_string(),
        _ => cluster.beta.address.to_string(),
    };
    wait_until("etcd logs both", Duration::from_secs(60), || {
        let lines = lines();
        let enough = |name| {
            lines
                .iter()
                .filter(|peer| peer.ip().to_string() == of(name))
                .count()
                >= TIMES
        };
        (enough("alpha") && enough("beta")).then_some(())
    })
    .unwrap();
    drop(monitors);
    // The pods are gone before anybody asks. etcd may still be busy with what they dialled last.
    let (mut last, mut since) = (0, Instant::now());
    wait_until("etcd is quiet", Duration::from_secs(20), || {
        let now = lines().len();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() >= QUIET * patience()).then_some(())
    })
    .unwrap();
    let mut recordings = Vec::new();
    for (watch, recording, ..) in &running {
        watch.signal(nix::sys::signal::Signal::SIGINT).unwrap();
        recordings.push(recording.clone());
    }
    let log = dir.path().join("etcd.log");
    fs::write(&log, etcd.log()).unwrap();
    for (watch, ..) in running {
        watch.ended().unwrap();
    }

    let log = log.display().to_string();
    let output = probe(&[
        "etcd-log",
        &log,
        "-o",
        "json",
        "--flows",
        &recordings[0],
        &recordings[1],
    ]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut answers = objects(&output);
    let summary = answers.pop().unwrap();
    assert_eq!(answers.len(), lines().len());
    for answer in &answers {
        let name = if answer["peer"]["address"] == cluster.beta.address.to_string() {
            "beta"
        } else {
            "alpha"
        };
        assert_eq!(answer["pod"]["name"], format!("sdp-monitor-{name}"), "{answer:#}");
        assert_eq!(answer["node"], name, "{answer:#}");
        assert!(
            answer["process"]["name"].as_str().unwrap().starts_with("python3"),
            "{answer:#}"
        );
        assert!(answer["distance_ms"].as_u64().unwrap() < 1000, "{answer:#}");
    }
    assert_eq!(summary["matched"], answers.len(), "{summary:#}");

    // The same for one of them, by its address alone.
    let peer = answers.iter().find(|answer| answer["node"] == "beta").unwrap();
    let address = format!(
        "{}:{}",
        peer["peer"]["address"].as_str().unwrap(),
        peer["peer"]["port"]
    );
    let time = peer["time"].as_str().unwrap();
    let output = probe(&[
        "who",
        &address,
        "--at",
        time,
        "-o",
        "json",
        "--flows",
        &recordings[1],
    ]);
    assert_eq!(objects(&output)[0]["pod"]["name"], "sdp-monitor-beta");

    // With the recording of etcd's node alone, the other node's are not guessed.
    let output = probe(&["etcd-log", &log, "-o", "json", "--flows", &recordings[0]]);
    for answer in objects(&output)
        .iter()
        .filter(|answer| answer["event"] == "etcd-log")
    {
        let far = answer["peer"]["address"] == cluster.beta.address.to_string();
        assert_eq!(answer.get("pod").is_none(), far, "{answer:#}");
        assert_eq!(answer.get("unmatched").is_some(), far, "{answer:#}");
    }
    let output = probe(&["who", "192.168.88.99:1", "--flows", &recordings[0]]);
    assert_eq!(output.status.code(), Some(3));
}
