//! What CI runs on every kernel: each object, and each fallback, once from end to end.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{image::Step, record::must_run};

/// Scenarios, and what each exercises.
pub const SCENARIOS: [(&str, &str, &str); 16] = [
    (
        "connection",
        "half_open",
        "connection.o: connections, by BTF tracepoints, before 5.12 by raw ones",
    ),
    (
        "connection",
        "refused_at_the_server",
        "tcp_send_reset with its reason, before 6.10 kfree_skb",
    ),
    ("connection", "syn_only", "tcp_retransmit_synack"),
    (
        "check",
        "everything_runs_fully",
        "the programs that are used on each kernel",
    ),
    (
        "check",
        "raw_tracepoints_do_the_same",
        "raw tracepoints instead of BTF ones",
    ),
    (
        "check",
        "kfree_skb_tells_of_refused_connections",
        "kfree_skb instead of tcp_send_reset",
    ),
    (
        "check",
        "with_little_privilege",
        "capabilities instead of root, before 5.11 the limit of locked memory",
    ),
    (
        "attribution",
        "a_process_that_exits_at_once",
        "control groups of either version",
    ),
    (
        "cause",
        "dropped_by_a_rule",
        "drops.o, before 5.17 without reasons",
    ),
    ("bypass", "requests_to_a_service", "bypass.o: what is sent"),
    ("bypass", "delivered", "bypass.o: what is delivered, by fentry"),
    (
        "bypass",
        "delivered_past_a_netfilter_program",
        "a netfilter program instead of fentry",
    ),
    ("bypass", "delivered_past_a_kprobe", "a kprobe instead of both"),
    (
        "vxlan",
        "port_and_vni_differ",
        "vxlan.o: by tcx, before 6.6 by clsact; drops, before 5.17 without reasons",
    ),
    (
        "tls",
        "server_name_version_and_alpn_at_both_ends",
        "tls.o: both tracepoints",
    ),
    (
        "path",
        "a_pod_to_its_neighbour",
        "path.o: tracepoints, functions, modules",
    ),
];

/// Programs that a kernel may refuse, and the version from which it must not.
const REFUSED: [(&str, &str); 8] = [
    // An atomic compare-and-exchange.
    ("conn_state", "5.12"),
    ("conn_again", "5.12"),
    // The tracepoint's third argument.
    ("conn_rstout", "6.10"),
    ("conn_rstout_raw", "6.10"),
    ("conn_nosock", "5.17"),
    ("conn_nosock_raw", "5.17"),
    // Netfilter programs.
    ("bypass_in_nf", "6.4"),
    ("bypass_in6_nf", "6.4"),
];

/// What a guest runs.
pub fn plan() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (program, name, _) in SCENARIOS {
        match steps.iter_mut().find(|step| step.program == program) {
            Some(step) => step.arguments.push(name.to_owned()),
            None => steps.push(Step {
                program: program.to_owned(),
                arguments: vec!["--exact".to_owned(), name.to_owned()],
            }),
        }
    }
    steps
}

/// Whether `probe check -o json` loaded and attached on a kernel all that must run there.
///
/// # Errors
/// Names what did not.
pub fn judge(release: &str, json: &str, status: i32) -> Result<()> {
    let check: Value = serde_json::from_str(json)
        .with_context(|| format!("probe check exited with {status} and printed: {json}"))?;
    let mut faults = Vec::new();
    if status != 0 {
        faults.push(format!("probe check exited with {status}"));
    }
    let commands = check["commands"]
        .as_array()
        .context("probe check lists no commands")?;
    for command in commands {
        let name = command["command"].as_str().unwrap_or_default();
        let hooks = command["hooks"].as_array().map(Vec::as_slice).unwrap_or_default();
        if hooks.is_empty() {
            faults.push(format!("{name}: {command}"));
        }
        for hook in hooks {
            for (program, reason) in hook["refused"].as_object().into_iter().flatten() {
                let minimum = REFUSED.iter().find(|(refused, _)| refused == program);
                if minimum.is_none_or(|(_, minimum)| must_run(release, minimum)) {
                    faults.push(format!("{name}: {program} does not load or attach: {reason}"));
                }
            }
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{bytecode, matrix::sources};

    #[test]
    fn every_scenario_is_there() {
        let programs: BTreeSet<&str> = SCENARIOS.iter().map(|(program, ..)| *program).collect();
        let programs: Vec<&str> = programs.into_iter().collect();
        let sources = sources::programs(&programs).unwrap();
        for (program, name, _) in SCENARIOS {
            assert!(
                sources[program].scenarios.contains(name),
                "{} has no {name}",
                sources[program].path
            );
        }
    }

    #[test]
    fn every_object_is_exercised() {
        for object in bytecode::objects() {
            let name = format!("{object}.o");
            assert!(
                SCENARIOS.iter().any(|(.., what)| what.contains(&name)),
                "no scenario for {name}"
            );
        }
    }

    #[test]
    fn one_step_a_program() {
        let plan = plan();
        let programs: BTreeSet<&str> = plan.iter().map(|step| step.program.as_str()).collect();
        assert_eq!(programs.len(), plan.len());
        let scenarios: usize = plan.iter().map(|step| step.arguments.len() - 1).sum();
        assert_eq!(scenarios, SCENARIOS.len());
        assert!(plan.iter().all(|step| step.arguments[0] == "--exact"));
    }

    #[test]
    fn what_must_load() {
        let check = |program: &str| {
            format!(
                r#"{{"commands":[{{"command":"watch","runs":"fully","hooks":[
                {{"gives":"connections","program":"x","refused":{{"{program}":"no"}}}}]}}]}}"#
            )
        };
        for (release, json, status, expected) in [
            ("6.1.0-50-cloud-amd64", check("bypass_in_nf"), 0, None),
            (
                "6.12.117+deb13-cloud-amd64",
                check("bypass_in_nf"),
                0,
                Some("bypass_in_nf"),
            ),
            ("5.10.0-32-cloud-amd64", check("conn_state"), 0, None),
            ("6.1.0-50-cloud-amd64", check("conn_state"), 0, Some("conn_state")),
            (
                "5.10.0-32-cloud-amd64",
                check("conn_state_raw"),
                0,
                Some("conn_state_raw"),
            ),
            (
                "5.10.0-32-cloud-amd64",
                check("conn_state"),
                1,
                Some("exited with 1"),
            ),
            (
                "6.1.0",
                "Segmentation fault".to_owned(),
                139,
                Some("exited with 139"),
            ),
            (
                "6.1.0",
                r#"{"commands":[{"command":"path","runs":"not at all"}]}"#.to_owned(),
                0,
                Some("path"),
            ),
            ("6.1.0", "{}".to_owned(), 0, Some("no commands")),
        ] {
            match (judge(release, &json, status), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (result, expected) => panic!("{release} {json}: {result:?}, not {expected:?}"),
            }
        }
    }
}
