//! The same, asked of the cluster's agents from outside; and what disturbs them.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Cluster, NAMESPACE, PATIENCE};
use crate::{progress::Progress, run};

/// Where the agents are.
const AGENTS: &str = "probe";
const DAEMON_SET: &str = "daemonset/probe-agent";

impl Cluster<'_> {
    /// Puts the agents on every node, and waits until all are ready.
    pub(super) fn deploy(&self) -> Result<()> {
        if let Some(image) = &self.args.agent_image {
            let progress = Progress::start(format!("importing {} on every node", image.display()), "");
            for node in self.nodes()? {
                progress.set(node.as_str());
                let mut import = Command::new(&self.on_node);
                run::output(
                    import
                        .args([&node, "ctr", "-n", "k8s.io", "images", "import"])
                        .arg(image),
                )?;
            }
            progress.done();
        }
        let usual = || run::root().join("deploy");
        let folder = self.args.agent_manifests.clone().unwrap_or_else(usual);
        self.kubectl(&["apply", "-k", &folder.display().to_string()])?;
        self.ready()
    }

    fn ready(&self) -> Result<()> {
        let progress = Progress::start("waiting for the agents", "up to 90 s");
        self.kubectl(&[
            "rollout",
            "status",
            "-n",
            AGENTS,
            DAEMON_SET,
            "--timeout",
            PATIENCE,
        ])?;
        progress.done();
        let agents = self.agents()?;
        for (node, agent) in &agents {
            println!("agent of {node}: {agent}");
        }
        Ok(())
    }

    /// Node and pod of each.
    fn agents(&self) -> Result<Vec<(String, String)>> {
        let list = self.kubectl(&[
            "get",
            "pods",
            "-n",
            AGENTS,
            "-l",
            "app.kubernetes.io/component=agent",
            "--field-selector=status.phase=Running",
            "-o",
            "jsonpath={range .items[*]}{.spec.nodeName} {.metadata.name}{\"\\n\"}{end}",
        ])?;
        let pairs = list.lines().filter_map(|line| line.split_once(' '));
        Ok(pairs
            .map(|(node, pod)| (node.to_owned(), pod.to_owned()))
            .collect())
    }

    /// What an agent says at a path of its port for metrics, through the API server.
    fn scrape(&self, agent: &str, path: &str) -> Result<String> {
        self.kubectl(&[
            "get",
            "--raw",
            &format!("/api/v1/namespaces/{AGENTS}/pods/{agent}:9471/proxy{path}"),
        ])
    }

    /// Each node's metrics and log must name the pods that dial.
    pub(super) fn count(&self, nodes: &[String], port: &str) -> Result<()> {
        let agents = self.agents()?;
        ensure!(agents.len() == nodes.len(), "not one agent a node: {agents:?}");
        for (node, agent) in &agents {
            let metrics = self.scrape(agent, "/metrics")?;
            let monitor = metrics.lines().find(|line| {
                line.starts_with("probe_connections_total")
                    && [
                        "outcome=\"half-open\"",
                        "role=\"client\"",
                        &format!("namespace=\"{NAMESPACE}\",workload=\"monitor\",port=\"{port}\""),
                    ]
                    .iter()
                    .all(|label| line.contains(label))
            });
            let monitor =
                monitor.with_context(|| format!("{node} does not count the monitor:\n{metrics}"))?;
            println!("{node}: {monitor}");
            let log = self.kubectl(&["logs", "-n", AGENTS, agent])?;
            let logged = log
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .any(|line| {
                    line["pod"]["workload"]["name"] == "monitor" && line["pod"]["namespace"] == NAMESPACE
                });
            ensure!(logged, "{node} does not log the monitor");
        }
        Ok(())
    }

    /// An agent is deleted while it is asked: who asks is told, the others answer, and after a while all do.
    /// A process on each node dials etcd meanwhile, in `dir` is what it said.
    pub(super) fn disturb(&self, probe: &Path, nodes: &[String], dir: &Path) -> Result<()> {
        let etcd = self.args.etcd;
        let script = format!(
            "while sleep 0.5; do exec 3<>/dev/tcp/{}/{}; exec 3>&-; done",
            etcd.ip(),
            etcd.port()
        );
        let _dialling: Vec<_> = nodes
            .iter()
            .map(|node| {
                let said = dir.join(format!("{node}.dialling"));
                self.start(node, &said, Command::new("bash").args(["-c", &script]))
            })
            .collect::<Result<_>>()?;
        let agents = self.agents()?;
        let (node, agent) = agents.first().context("no agent")?;
        println!("\nthe agent of {node} is deleted while it is followed:");
        let mut follow = Command::new(probe);
        let follow = follow
            .args([
                "watch",
                "--cluster",
                "-o",
                "json",
                "--duration",
                "60s",
                "--all",
                "--kubeconfig",
            ])
            .arg(&self.kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("can't run probe")?;
        thread::sleep(Duration::from_secs(10));
        self.kubectl(&["delete", "pod", "-n", AGENTS, agent, "--wait=false"])?;
        let progress = Progress::start("following the agents", "60 s");
        let followed = follow.wait_with_output()?;
        progress.done();
        let said = String::from_utf8_lossy(&followed.stderr);
        println!("{said}");
        ensure!(said.contains(node.as_str()), "nothing was said of {node}: {said}");
        let out = String::from_utf8_lossy(&followed.stdout);
        let seen = |node: &String| {
            out.lines()
                .filter(|line| {
                    line.contains("\"event\":\"connection\"")
                        && line.contains(&format!("\"node\":\"{node}\""))
                })
                .count()
        };
        for node in nodes {
            println!("{node}: {} connections followed", seen(node));
            ensure!(seen(node) > 0, "none of {node}");
        }
        self.ready()
    }
}
