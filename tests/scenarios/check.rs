//! What runs on this kernel, what does not and why; and with how little privilege.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{fs, net::SocketAddr, path::Path, process::Command};

use probe_lab::{
    BTF, Cgroup, Child, Family, Pair, PodLogs, Probe, accept_all, before, doctored, end, finish, is, release,
    too_old, unique_port,
};
use serde_json::Value;

const NOBODY: &str = "65534";

/// `probe check -o json`, and whether it says that all runs.
fn check(arguments: &[&str]) -> (Value, bool) {
    let arguments = [&["check", "-o", "json"], arguments].concat();
    let output = finish(&mut Probe::command(&arguments).unwrap()).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (serde_json::from_str(&text).unwrap(), output.status.success())
}

/// What `probe watch` says when it can't run, one line.
fn refusal(arguments: &[&str]) -> String {
    let arguments = [&["watch"], arguments].concat();
    let output = finish(&mut Probe::command(&arguments).unwrap()).unwrap();
    assert_eq!(output.status.code(), Some(4));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn everything_runs_fully() {
    let (check, runs) = check(&[]);
    assert!(runs, "{check:#}");
    assert_eq!(check["kernel"], release());
    assert!(check["btf"].as_str().unwrap().starts_with(BTF), "{check:#}");
    for fact in [
        "lockdown",
        "tracefs",
        "control_groups",
        "conntrack",
        "capabilities",
    ] {
        assert!(check[fact].is_string(), "{fact}: {check:#}");
    }
    let watch = &check["commands"][0];
    assert_eq!(watch["command"], "watch");
    let lost: &[&str] = if before((5, 17)) {
        &["server-side refused connections"]
    } else {
        &[]
    };
    assert_eq!(without(&check), lost, "{check:#}");
    assert_eq!(watch["runs"], if lost.is_empty() { "fully" } else { "degraded" });
    for hook in watch["hooks"].as_array().unwrap() {
        if lost.contains(&hook["gives"].as_str().unwrap()) {
            assert!(hook.get("program").is_none(), "{hook:#}");
            continue;
        }
        // Typed loads wherever the verifier takes them: not without compare-and-exchange.
        let program = hook["program"].as_str().unwrap();
        let probed = before((5, 12)) && hook["tracepoint"] == "inet_sock_set_state";
        assert_eq!(program.ends_with("_raw"), probed, "{hook:#}");
    }
}

/// What check says of one hook.
fn hook<'a>(check: &'a Value, gives: &str) -> &'a Value {
    let hooks = check["commands"][0]["hooks"].as_array().unwrap();
    hooks.iter().find(|hook| hook["gives"] == gives).unwrap()
}

/// Programs with messages are accepted wherever those without are, at every level.
#[test]
fn with_messages_the_same_runs() {
    /// The programs that this kernel accepts, of each hook of each command.
    fn accepted(check: &Value) -> Vec<(String, Vec<Value>)> {
        let commands = check["commands"].as_array().unwrap().iter();
        commands
            .map(|command| {
                let hooks = command["hooks"].as_array().into_iter().flatten();
                let accepted = hooks.map(|hook| {
                    let refused = hook["refused"].as_object().into_iter().flatten();
                    let refused: Vec<_> = refused.map(|(program, _)| program.clone()).collect();
                    serde_json::json!([hook["gives"], hook["program"], refused])
                });
                (command["command"].to_string(), accepted.collect())
            })
            .collect()
    }
    let (without, _) = check(&[]);
    for level in ["debug", "trace"] {
        let (with, runs) = check(&["--kernel-log", level]);
        assert!(runs, "{level}: {with:#}");
        assert_eq!(accepted(&with), accepted(&without), "{level}: {with:#}");
    }
}

/// Netfilter programs are tried on every kernel, and taken since 6.4.
#[test]
fn netfilter_programs() {
    let (check, _) = check(&[]);
    let bypass = &check["commands"][2];
    assert_eq!(bypass["command"], "bypass");
    assert_eq!(bypass["runs"], "fully", "{check:#}");
    let hooks = bypass["hooks"].as_array().unwrap();
    for (family, program) in [("IPv4", "bypass_in_nf"), ("IPv6", "bypass_in6_nf")] {
        let gives = format!("untracked {family} packets that are delivered here");
        let hook = hooks.iter().find(|hook| hook["gives"] == gives).unwrap();
        let refused = &hook["refused"][program];
        assert_eq!(refused.is_string(), before((6, 4)), "{hook:#}");
        // Where nothing better is taken, it is used.
        let best = hook["program"].as_str().unwrap();
        assert!(
            best == program || best == program.trim_end_matches("_nf"),
            "{hook:#}"
        );
    }
}

/// What is lost, as check says it.
fn without(check: &Value) -> Vec<&str> {
    let without = check["commands"][0]["without"].as_array();
    without.into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn no_type_information() {
    let (check, runs) = check(&["--btf", "/nonexistent"]);
    assert!(!runs);
    assert_eq!(check["commands"][0]["runs"], "not at all", "{check:#}");
    let text = refusal(&["--btf", "/nonexistent"]);
    for word in ["watch", &release(), "/nonexistent", "CONFIG_DEBUG_INFO_BTF=y"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn a_required_field_is_missing() {
    let (_dir, btf) = doctored(&[("bytes_retrans", "bytes_retranz")]).unwrap();
    assert!(!check(&["--btf", &btf]).1);
    let text = refusal(&["--btf", &btf]);
    for word in ["watch", &release(), "struct tcp_sock.bytes_retrans"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn an_optional_field_is_missing() {
    let (_dir, btf) = doctored(&[("dfl_cgrp", "dfl_cgrq")]).unwrap();
    let (check, runs) = check(&["--btf", &btf]);
    assert!(runs);
    let watch = &check["commands"][0];
    assert_eq!(watch["runs"], "degraded", "{check:#}");
    assert!(
        without(&check).contains(&"names of containers and pods"),
        "{check:#}"
    );
    // And it does run.
    let run = Probe::watch(&["--btf", &btf, "--port", "1"])
        .unwrap()
        .finish()
        .unwrap();
    assert!(run.stderr.contains("struct css_set.dfl_cgrp"), "{}", run.stderr);
    assert!(run.stderr.contains(&release()), "{}", run.stderr);
}

/// Type information that is not this kernel's: the verifier compares, and refuses what does not fit.
#[test]
fn the_verifier_refuses() {
    let (_dir, btf) = doctored(&[("sk_protocol", "sk_shutdown"), ("sk_shutdown", "sk_protocol")]).unwrap();
    let (check, runs) = check(&["--btf", &btf]);
    assert!(runs, "{check:#}");
    let hook = hook(&check, "connections");
    assert_eq!(hook["program"], "conn_state_raw", "{check:#}");
    let reason = hook["refused"]["conn_state"].as_str().unwrap();
    assert!(reason.starts_with("the verifier refuses it: "), "{reason}");
    assert!(!reason.contains('\n') && reason.len() < 400, "{reason}");
}

#[test]
fn a_tracepoint_is_missing() {
    let (check, runs) = check(&["--without", "tcp_retransmit_synack"]);
    assert!(runs);
    let watch = &check["commands"][0];
    assert_eq!(watch["runs"], "degraded");
    assert!(without(&check).contains(&"syn-only"), "{check:#}");
    let text = refusal(&["--without", "inet_sock_set_state"]);
    for word in ["watch", &release(), "inet_sock_set_state", "connections"] {
        assert!(text.contains(word), "{word}: {text}");
    }

    // The rest goes on.
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    accept_all(pair.listen(Family::V4, port).unwrap());
    let without = "tcp_retransmit_synack,tcp_send_reset,kfree_skb";
    let probe = Probe::watch(&["--without", without, "--port", &port.to_string()]).unwrap();
    drop(pair.connect(Family::V4, port).unwrap());
    probe
        .wait_for(2, |record| record["outcome"] == "half-open")
        .unwrap();
    let stderr = probe.finish().unwrap().stderr;
    let words = [
        "watch",
        &release(),
        "syn-only",
        "tcp_retransmit_synack: ",
        "server-side refused connections",
        "kfree_skb: ",
    ];
    for word in words {
        assert!(stderr.contains(word), "{word}: {stderr}");
    }
}

/// What tells of a refused connection since 6.10 is not needed: kernels since 5.17 have another.
#[test]
fn kfree_skb_tells_of_refused_connections() {
    if too_old((5, 17), "no tracepoint tells of a SYN to a closed port") {
        return;
    }
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    let probe = Probe::watch(&["--without", "tcp_send_reset", "--port", &port.to_string()]).unwrap();
    for family in Family::PLAIN {
        let (socket, source) = pair.socket(family).unwrap();
        let destination = SocketAddr::new(Pair::server_ip(family), port);
        socket.connect(&destination.into()).unwrap_err();
        let here = |record: &Value| is(record, "server", source);
        let record = probe.wait_for(1, here).unwrap().remove(0);
        assert_eq!(record["outcome"], "refused", "{record:#}");
        assert_eq!(end(&record, "destination"), Some(destination), "{record:#}");
    }
    assert_eq!(probe.finish().unwrap().records.len(), 4);
}

/// Without typed programs, raw tracepoints do all the same.
#[test]
fn raw_tracepoints_do_the_same() {
    let (_dir, btf) =
        doctored(&[("btf_trace_inet_sock_set_state", "btf_trace_inet_sock_set_statx")]).unwrap();
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    accept_all(pair.listen(Family::V6, port).unwrap());
    let probe = Probe::watch(&["--btf", &btf, "--port", &port.to_string()]).unwrap();
    let (stream, source) = pair.connect(Family::V6, port).unwrap();
    drop(stream);
    let records = probe
        .wait_for(2, |record| record["outcome"] == "half-open")
        .unwrap();
    for record in &records {
        assert_eq!(record["source"]["port"], source.port(), "{record:#}");
        assert_eq!(record["process"]["pid"], std::process::id(), "{record:#}");
    }
    probe.finish().unwrap();
    let (check, _) = check(&["--btf", &btf]);
    assert_eq!(
        hook(&check, "connections")["program"],
        "conn_state_raw",
        "{check:#}"
    );
}

/// CAP_BPF and CAP_PERFMON to watch, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH to name, CAP_NET_ADMIN to ask conntrack;
/// CAP_SYS_RESOURCE before 5.11.
#[test]
fn with_little_privilege() {
    let (pair, port, logs) = (Pair::new().unwrap(), unique_port(), PodLogs::new().unwrap());
    accept_all(pair.listen(Family::V4, port).unwrap());
    // Where cargo builds may be closed to others.
    let dir = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let binary = dir.path().join("probe");
    fs::copy(Probe::binary().unwrap(), &binary).unwrap();
    let probe = Probe::start(
        &mut unprivileged(&binary),
        &[
            "--port",
            &port.to_string(),
            "--role",
            "client",
            "--pod-logs",
            logs.path(),
        ],
    )
    .unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", probe.pid())).unwrap();
    assert!(status.contains(&format!("Uid:\t{NOBODY}")), "{status}");
    assert_eq!(effective(&status) & 1 << CAP_SYS_ADMIN, 0, "{status}");

    let cgroup = Cgroup::pod().unwrap();
    logs.add("monitoring", "sdp-monitor-z8989", &cgroup.pod_uid)
        .unwrap();
    let mut nc = pair.client.command("nc");
    nc.args(["-z", &Pair::server_ip(Family::V4).to_string(), &port.to_string()]);
    Child::spawn(cgroup.place(&mut nc)).unwrap().wait().unwrap();
    let record = probe
        .wait_for(1, |record| record["role"] == "client")
        .unwrap()
        .remove(0);
    assert_eq!(record["outcome"], "half-open", "{record:#}");
    assert_eq!(record["process"]["name"], "nc", "{record:#}");
    assert_eq!(record["pod"]["name"], "sdp-monitor-z8989", "{record:#}");
    let run = probe.finish().unwrap();
    assert!(!run.stderr.contains("CAP_"), "{}", run.stderr);
}

const CAP_SYS_ADMIN: u32 = 21;

/// The effective capabilities of `/proc/PID/status`.
fn effective(status: &str) -> u64 {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

fn unprivileged(binary: &Path) -> Command {
    let mut capabilities = String::from("-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search,+net_admin");
    if before((5, 11)) {
        capabilities.push_str(",+sys_resource");
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .arg(format!("--bounding-set={capabilities}"))
        .arg(format!("--inh-caps={capabilities}"))
        .arg(format!("--ambient-caps={capabilities}"))
        .arg(binary);
    command
}
