//! The command itself: filters, ends, bad input, and what it leaves behind.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{ChildStderr, Command, Output, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use probe_lab::{Child, Family, Pair, Probe, accept_all, end, finish, is, run, unique_port, wait_until};

const LONG: Duration = Duration::from_secs(30);

fn output(arguments: &[&str]) -> (Output, String) {
    let output = finish(&mut Probe::command(arguments).unwrap()).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, stderr)
}

#[test]
fn two_probes_at_once_see_the_same() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    accept_all(pair.listen(Family::V4, port).unwrap());
    let text = port.to_string();
    let probes = [
        Probe::watch(&["--port", &text]).unwrap(),
        Probe::watch(&["--port", &text]).unwrap(),
    ];
    let (client, source) = pair.connect(Family::V4, port).unwrap();
    drop(client);
    for probe in probes {
        for role in ["client", "server"] {
            probe.wait_for(1, |record| is(record, role, source)).unwrap();
        }
        assert_eq!(probe.finish().unwrap().records.len(), 2);
    }
}

/// Programs, links and maps of the kernel, by kind and id.
fn loaded() -> BTreeSet<String> {
    let ids = |kind: &str| {
        // It fails when one goes while it lists them.
        let list = wait_until("bpftool lists all", LONG, || {
            run(&format!("bpftool -j {kind} show")).ok()
        })
        .unwrap();
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        list.as_array()
            .unwrap()
            .iter()
            .map(|object| format!("{kind} {}", object["id"]))
            .collect::<Vec<_>>()
    };
    ["prog", "link", "map"].into_iter().flat_map(ids).collect()
}

/// Those that a process holds, by what the kernel says of its descriptors.
fn held_by(pid: u32) -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .unwrap()
        .flatten()
    {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        for (field, kind) in [("prog_id:", "prog"), ("link_id:", "link"), ("map_id:", "map")] {
            let id = text.lines().find_map(|line| line.strip_prefix(field));
            held.extend(id.map(|id| format!("{kind} {}", id.trim())));
        }
    }
    held
}

/// A connection that began before probe is rare enough for a message; `--kernel-log` prints it, and nothing else does.
#[test]
fn messages_of_the_kernel_programs() {
    const MESSAGE: &str = "kernel log: debug connection: connection ended, port ";
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    let listener = pair.listen(Family::V4, port).unwrap();
    let (client, _) = pair.connect(Family::V4, port).unwrap();
    let (server, _) = listener.accept().unwrap();
    let text = port.to_string();
    let quiet = Probe::watch(&["--port", &text]).unwrap();
    let debug = Probe::watch(&["--port", &text, "--kernel-log", "debug"]).unwrap();
    drop((client, server));
    debug.says(MESSAGE).unwrap();

    // Another one, from its begin: only `trace` has messages of those.
    let trace = Probe::watch(&["--kernel-log", "trace", "--port", &text]).unwrap();
    let begins = format!("kernel log: trace connection: connection to port {port} begins");
    let (client, _) = pair.connect(Family::V4, port).unwrap();
    drop((client, listener.accept().unwrap()));
    trace.says(&begins).unwrap();
    trace.finish().unwrap();
    let debug = debug.finish().unwrap();
    assert!(!debug.stderr.contains("kernel log: trace"), "{}", debug.stderr);
    let quiet = quiet.finish().unwrap();
    assert!(!quiet.stderr.contains("kernel log"), "{}", quiet.stderr);
    // It counts what the message is about all the same.
    assert_ne!(quiet.summary["lost"]["unfollowed"], 0, "{:#}", quiet.summary);
}

/// What bpftool shows of all that a process holds of one kind.
fn shown(kind: &str, pid: u32) -> Vec<serde_json::Value> {
    let ids = held_by(pid);
    let ids = ids.iter().filter_map(|object| object.strip_prefix(kind));
    ids.map(|id| serde_json::from_str(&run(&format!("bpftool -j {kind} show id {id}")).unwrap()).unwrap())
        .collect()
}

/// Without `--kernel-log` programs are loaded that were built without messages: there is no ring for them, and no
/// instruction. The unit tests of probe look into the objects themselves.
#[test]
fn messages_cost_nothing_without_kernel_log() {
    let port = unique_port().to_string();
    let run = |probe: Probe| {
        let names = shown("map", probe.pid());
        let has_ring = names.iter().any(|map| map["name"] == "AYA_LOGS");
        let sizes: BTreeMap<_, _> = shown("prog", probe.pid())
            .iter()
            .map(|program| {
                (
                    program["name"].to_string(),
                    program["bytes_xlated"].as_u64().unwrap(),
                )
            })
            .collect();
        probe.finish().unwrap();
        (has_ring, sizes)
    };
    for start in [Probe::watch, Probe::path] {
        let (has_ring, without) = run(start(&["--port", &port]).unwrap());
        assert!(!has_ring);
        let (has_ring, with) = run(start(&["--port", &port, "--kernel-log", "debug"]).unwrap());
        assert!(has_ring);
        assert!(without.keys().eq(with.keys()), "{without:?} {with:?}");
        for (program, bytes) in &without {
            assert!(with[program] >= *bytes, "{program}: {without:?} {with:?}");
        }
        assert!(
            with.values().sum::<u64>() > without.values().sum(),
            "{without:?} {with:?}"
        );
    }
}

#[test]
fn kill_leaves_nothing_behind() {
    killed(Probe::watch(&["--port", &unique_port().to_string()]).unwrap());
    killed(Probe::path(&["--port", &unique_port().to_string()]).unwrap());
}

fn killed(probe: Probe) {
    let mine = held_by(probe.pid());
    for kind in ["prog", "link", "map"] {
        assert!(
            mine.iter().any(|object| object.starts_with(kind)),
            "no {kind} of probe's seen: {mine:?}"
        );
    }
    let missing: Vec<_> = mine.difference(&loaded()).cloned().collect();
    assert!(missing.is_empty(), "{missing:?} of {mine:?}");
    probe.signal(Signal::SIGKILL).unwrap();
    drop(probe);
    wait_until("all that probe loaded is gone", LONG, || {
        loaded().is_disjoint(&mine).then_some(())
    })
    .unwrap();
}

#[test]
fn roles_peers_and_outcomes_are_filtered() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    accept_all(pair.listen(Family::V4, port).unwrap());
    let text = port.to_string();
    let watch = |extra: &[&str]| Probe::watch(&[&["--port", &text], extra].concat()).unwrap();
    let everything = watch(&["--all"]);
    let cases = [
        (watch(&["--role", "client"]), vec!["client"]),
        (watch(&["--role", "server"]), vec!["server"]),
        (watch(&["--outcome", "half-open"]), vec!["client", "server"]),
        (watch(&["--outcome", "refused,half-open-reset"]), vec![]),
        // The peer of a client is the server, of a server the client.
        (watch(&["--peer", "10.77.0.2"]), vec!["client"]),
        (watch(&["--peer", "10.77.0.1/32"]), vec!["server"]),
        (watch(&["--peer", "10.77.0.0/16"]), vec!["client", "server"]),
        (watch(&["--peer", "fd00::/8"]), vec![]),
    ];
    let (client, source) = pair.connect(Family::V4, port).unwrap();
    drop(client);
    for role in ["client", "server"] {
        everything.wait_for(1, |record| is(record, role, source)).unwrap();
    }
    for (number, (probe, roles)) in cases.into_iter().enumerate() {
        for role in &roles {
            probe.wait_for(1, |record| is(record, role, source)).unwrap();
        }
        let run = probe.finish().unwrap();
        assert_eq!(
            run.records.len(),
            roles.len(),
            "case {number}: {:#?}",
            run.records
        );
        // A server's local peer is named also when only servers are asked for.
        for record in run.records.iter().filter(|record| record["role"] == "server") {
            assert!(
                record["peer"]["process"]["pid"].is_u64(),
                "case {number}: {record:#}"
            );
        }
    }
    everything.finish().unwrap();
}

#[test]
fn only_watched_ports_are_reported() {
    let pair = Pair::new().unwrap();
    let (watched, unwatched) = (unique_port(), unique_port());
    for port in [watched, unwatched] {
        accept_all(pair.listen(Family::V4, port).unwrap());
    }
    // 64 ports, the most there can be.
    let ports: Vec<String> = (1..64)
        .map(|port: u16| port.to_string())
        .chain([watched.to_string()])
        .collect();
    let probe = Probe::watch(&["--all", "--port", &ports.join(",")]).unwrap();
    for port in [unwatched, watched] {
        drop(pair.connect(Family::V4, port).unwrap());
    }
    probe
        .wait_for(2, |record| end(record, "destination").unwrap().port() == watched)
        .unwrap();
    assert_eq!(probe.finish().unwrap().records.len(), 2);
}

#[test]
fn ends_by_count_and_by_time() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    accept_all(pair.listen(Family::V4, port).unwrap());
    let text = port.to_string();
    let probe = Probe::watch(&["--port", &text, "--count", "3"]).unwrap();
    for _ in 0..4 {
        drop(pair.connect(Family::V4, port).unwrap());
    }
    let run = probe.ended().unwrap();
    assert_eq!((run.records.len(), run.status.code()), (3, Some(0)));
    let run = Probe::watch(&["--port", &text, "--duration", "100ms"])
        .unwrap()
        .ended()
        .unwrap();
    assert_eq!(run.status.code(), Some(0));
    let probe = Probe::watch(&["--port", &text]).unwrap();
    probe.signal(Signal::SIGTERM).unwrap();
    assert_eq!(probe.ended().unwrap().status.code(), Some(0));
}

/// Waits until it watches; before that it says what this kernel has not.
fn watching(child: &mut Child) -> BufReader<ChildStderr> {
    let mut stderr = BufReader::new(child.inner().stderr.take().unwrap());
    let mut said = String::new();
    while !said.lines().any(|line| line.starts_with("watching ")) {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
    }
    stderr
}

/// `probe watch | head -1`
#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    accept_all(pair.listen(Family::V4, port).unwrap());
    let mut command = Probe::command(&["watch", "-o", "json", "--port", &port.to_string()]).unwrap();
    let mut child = Child::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap();
    let mut stderr = watching(&mut child);
    drop(child.inner().stdout.take());
    drop(pair.connect(Family::V4, port).unwrap());
    let status = wait_until("probe ends", LONG, || child.inner().try_wait().unwrap()).unwrap();
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!((status.code(), rest.as_str()), (Some(0), ""));
}

#[test]
fn not_root_is_told_what_is_missing() {
    const NOBODY: u32 = 65_534;
    // Where cargo builds may be closed to others.
    let dir = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir();
    let dir = dir.unwrap();
    let copy = dir.path().join("probe");
    std::fs::copy(Probe::binary().unwrap(), &copy).unwrap();
    let mut command = Command::new(&copy);
    let output = finish(command.arg("watch").uid(NOBODY).gid(NOBODY)).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    for word in ["CAP_BPF", "CAP_PERFMON", "load BPF programs", "sudo"] {
        assert!(stderr.contains(word), "{word}: {stderr}");
    }
}

#[test]
fn bad_usage_is_told_and_exits_with_2() {
    for (arguments, says) in [
        (vec!["watch", "--port", "0"], "1..=65535"),
        (vec!["watch", "--port", "70000"], "1..=65535"),
        (vec!["watch", "--outcome", "half-opn"], "half-open"),
        (
            vec!["watch", "--all", "--outcome", "closed"],
            "cannot be used with",
        ),
        (
            vec!["watch", "--role", "client", "--outcome", "syn-only"],
            "never sees",
        ),
        (vec!["watch", "--peer", "10.0.0.0/99"], "prefix"),
        (vec!["wach"], "watch"),
    ] {
        let (output, stderr) = output(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(says), "{arguments:?}: {stderr}");
    }
}

/// Table and wide say the same as JSON, for people.
#[test]
fn people_read_who_and_what() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    accept_all(pair.listen(Family::V4, port).unwrap());
    for format in ["table", "wide"] {
        let arguments = [
            "watch",
            "-o",
            format,
            "--port",
            &port.to_string(),
            "--role",
            "client",
            "--count",
            "1",
        ];
        let mut command = Probe::command(&arguments).unwrap();
        let mut child = Child::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap();
        watching(&mut child);
        let (client, source) = pair.connect(Family::V4, port).unwrap();
        drop(client);
        let mut text = String::new();
        child
            .inner()
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        let line = text
            .lines()
            .find(|line| line.contains(&source.to_string()))
            .unwrap();
        for word in [
            "half-open",
            &std::process::id().to_string(),
            &format!("{}:{port}", Pair::server_ip(Family::V4)),
        ] {
            assert!(line.contains(word), "{format}, {word}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "colour without a terminal: {text:?}");
        assert!(text.contains("COUNT"), "no summary: {text}");
    }
}

/// Called as kubectl calls a plugin: the agents are meant, and help says how it was called.
#[test]
fn as_a_plugin_of_kubectl() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = dir.path().join("kubectl-probe");
    let probe = Probe::command(&[]).unwrap();
    std::os::unix::fs::symlink(probe.get_program(), &plugin).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&plugin);
        let command = command.args(arguments).env("KUBECONFIG", dir.path().join("none"));
        let output = finish(command).unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    for (arguments, code, says) in [
        (&["who", "--help"][..], 0, "kubectl probe who"),
        (&["who", "10.0.0.1:1"], 4, "kubeconfig"),
        (&["vxlan"], 4, "kubeconfig"),
        (&["etcd-log"], 4, "kubeconfig"),
        (&["watch", "--netns", "/proc/self/ns/net"], 2, "--cluster"),
    ] {
        let (is, text) = run(arguments);
        assert_eq!(is, Some(code), "{arguments:?}: {text}");
        assert!(text.contains(says), "{arguments:?}: {text}");
    }
    // The same executable by its own name asks nobody.
    let (refused, stderr) = output(&["who", "10.0.0.1:1"]);
    assert_eq!(refused.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--flows"), "{stderr}");
}
