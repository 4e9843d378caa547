//! `probe doctor`: each check fails on its fault, for real, and passes where there is none.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

mod bridge;
mod bypass;
mod dns;
mod etcd;
mod ingress;
mod node;
mod settings;
mod tls;
mod vxlan;

use std::process::Command;

use probe_lab::{Netns, Probe, finish};
use serde_json::Value;

/// What `probe doctor` says of one check in a network namespace; its exit code fits.
fn doctor(netns: &Netns, check: &str, more: &[&str]) -> Value {
    let netns = format!("/run/netns/{}", netns.name());
    let mut command = Probe::command(&["doctor", "-o", "json", "--cri", "none", "--netns", &netns]).unwrap();
    let output = run(command.args(["--check", check, "--duration", "3s"]).args(more));
    let answers: Vec<Value> = output
        .0
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), 1, "{answers:#?}");
    let answer = answers.into_iter().next().unwrap();
    assert_eq!(answer["check"], check, "{answer:#}");
    assert_eq!(output.1, i32::from(answer["verdict"] == "failed"), "{answer:#}");
    answer
}

/// What a command printed, and its exit code.
fn run(command: &mut Command) -> (String, i32) {
    let output = finish(command).unwrap();
    let code = output.status.code().unwrap();
    assert!(code < 2, "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), code)
}

/// The fault that says so.
fn fault<'a>(answer: &'a Value, words: &str) -> &'a Value {
    let faults = answer["findings"].as_array().unwrap();
    let says = |fault: &&Value| fault["what"].as_str().unwrap().contains(words);
    faults
        .iter()
        .find(says)
        .unwrap_or_else(|| panic!("no {words:?} in {answer:#}"))
}

/// All of a list of sentences or fixes.
fn all(of: &Value) -> String {
    let sentences: Vec<_> = of
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let words = [one, &one["shell"], &one["text"]];
            words.into_iter().find_map(Value::as_str).unwrap()
        })
        .collect();
    sentences.join("\n")
}

#[test]
fn what_there_is() {
    let (list, code) = run(&mut Probe::command(&["doctor", "--list"]).unwrap());
    assert_eq!(code, 0);
    for check in [
        "bridge", "node", "etcd", "vxlan", "bypass", "dns", "ingress", "settings",
    ] {
        assert!(list.lines().any(|line| line.starts_with(check)), "{list}");
    }
}
