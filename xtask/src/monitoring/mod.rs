//! `cargo xtask monitoring`: the alert rules, checked by Prometheus' own tool, and what is made of them.

mod promtool;
#[cfg(test)]
mod tests;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::run;

#[derive(clap::Args)]
pub struct Args {
    /// Regenerate prometheusrule.yaml from rules.yaml
    #[arg(long)]
    pub write: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let directory = directory();
    let rules = read("rules.yaml")?;
    let made = prometheus_rule(&rules);
    if args.write {
        fs::write(directory.join(MADE), &made).with_context(|| format!("can't write {MADE}"))?;
    } else if read(MADE)? != made {
        bail!("{MADE} is not what rules.yaml gives: run `cargo xtask monitoring --write`");
    }
    let promtool = promtool::find()?;
    let run = |what: &str, file: &str| {
        let mut command = promtool.command();
        run::run(command.args([what, "rules", file]).current_dir(&directory))
    };
    run("check", "rules.yaml")?;
    run("test", "rules_test.yaml")
}

/// Made of rules.yaml, for the Prometheus operator.
const MADE: &str = "prometheusrule.yaml";

fn directory() -> PathBuf {
    run::root().join("deploy/monitoring")
}

fn read(name: &str) -> Result<String> {
    fs::read_to_string(directory().join(name)).with_context(|| format!("can't read {name}"))
}

/// The rules as an object of the operator's: they are its spec, as they stand.
fn prometheus_rule(rules: &str) -> String {
    let mut text = "\
# Made of rules.yaml by `cargo xtask monitoring --write`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: probe-agent
  labels:
    app.kubernetes.io/name: probe
    app.kubernetes.io/component: agent
spec:
"
    .to_owned();
    for line in rules.lines().skip_while(|line| line.starts_with('#')) {
        if !line.is_empty() {
            text.push_str("  ");
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}
