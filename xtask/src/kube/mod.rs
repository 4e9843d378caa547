//! `cargo xtask kube-test`: the incident on a running cluster, every answer compared with what the cluster itself says.

mod agents;
mod truth;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use self::truth::Pod;
use crate::{
    progress::{self, Progress},
    run,
};

const PODS: &str = include_str!("pods.yaml");
const NAMESPACE: &str = "probe-kube-test";
/// How long a step of the cluster may take.
const PATIENCE: &str = "90s";
/// Until what etcd logged is in a recording.
const SETTLED: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub struct Args {
    /// Directory of the cluster's lab, from which the defaults below derive
    #[arg(long, value_name = "DIR", env = "KUBE_LAB", default_value = "/run/kube-lab")]
    lab: PathBuf,
    /// Credentials that may create a namespace. Default: LAB/admin.conf
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Program that runs a command on a node as root: `PROGRAM NODE COMMAND...`; nodes share this file system. Default: LAB/node
    #[arg(long, value_name = "PROGRAM")]
    on_node: Option<PathBuf>,
    /// Log file of etcd. Default: LAB/log/etcd
    #[arg(long, value_name = "FILE")]
    etcd_log: Option<PathBuf>,
    /// Address that etcd listens on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "192.168.88.11:2379")]
    etcd: SocketAddr,
    /// Image of the pods: links into /usr, which is mounted from the node
    #[arg(long, value_name = "IMAGE", default_value = "docker.io/lab/host:1")]
    image: String,
    /// Query the cluster's agents instead of recordings of `probe watch` on each node, also while one is deleted
    #[arg(long)]
    agents: bool,
    /// Import this image of probe on the nodes first; `cargo xtask image` builds it
    #[arg(long, value_name = "FILE", requires = "agents")]
    agent_image: Option<PathBuf>,
    /// Kustomization that deploys the agents. Default: deploy/ of this repository
    #[arg(long, value_name = "DIR", requires = "agents")]
    agent_manifests: Option<PathBuf>,
    /// Let the pods dial for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    seconds: u64,
}

struct Cluster<'a> {
    args: &'a Args,
    kubeconfig: PathBuf,
    on_node: PathBuf,
    etcd_log: PathBuf,
}

/// A process on a node; dropping it ends it as Ctrl-C does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Negative: what it started too.
        let _ = kill(Pid::from_raw(-self.0.id().cast_signed()), Signal::SIGINT);
        let _ = self.0.wait();
    }
}

fn flows(dir: &Path, node: &str) -> PathBuf {
    dir.join(format!("{node}.flows"))
}

fn conntrack(dir: &Path, node: &str) -> PathBuf {
    dir.join(format!("{node}.conntrack"))
}

pub fn run(args: &Args) -> Result<()> {
    let cluster = Cluster {
        args,
        kubeconfig: args
            .kubeconfig
            .clone()
            .unwrap_or_else(|| args.lab.join("admin.conf")),
        on_node: args.on_node.clone().unwrap_or_else(|| args.lab.join("node")),
        etcd_log: args.etcd_log.clone().unwrap_or_else(|| args.lab.join("log/etcd")),
    };
    let probe = run::build_probe()?;
    let nodes = cluster.nodes()?;
    println!("nodes: {}", nodes.join(", "));
    cluster.clear()?;
    let dir = tempfile::tempdir()?;
    let result = cluster.test(&probe, &nodes, dir.path());
    cluster.clear()?;
    if result.is_err() {
        println!("recordings and logs are kept in {}", dir.keep().display());
    }
    result
}

impl Cluster<'_> {
    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("kubectl");
        run::output(command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments))
            .context("is a cluster up, and kubectl in PATH? (`. $KUBE_LAB/env`)")
    }

    fn nodes(&self) -> Result<Vec<String>> {
        let names = self.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"])?;
        let names: Vec<_> = names.split_whitespace().map(str::to_owned).collect();
        ensure!(
            names.len() > 1,
            "{} is not a cluster of several nodes",
            names.join("")
        );
        Ok(names)
    }

    fn clear(&self) -> Result<()> {
        let progress = Progress::start(format!("deleting namespace {NAMESPACE}"), "up to 90 s");
        self.kubectl(&[
            "delete",
            "namespace",
            NAMESPACE,
            "--ignore-not-found",
            "--wait",
            "--timeout",
            PATIENCE,
        ])?;
        progress.done();
        Ok(())
    }

    /// Starts a command on a node, its output in a file.
    fn start(&self, node: &str, output: &Path, command: &mut Command) -> Result<Running> {
        use std::os::unix::process::CommandExt as _;

        let mut on_node = Command::new(&self.on_node);
        on_node
            .arg(node)
            .arg(command.get_program())
            .args(command.get_args())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(File::create(output)?)
            .stderr(File::create(output.with_extension("err"))?);
        let child = on_node
            .spawn()
            .with_context(|| format!("can't run {}", self.on_node.display()))?;
        Ok(Running(child))
    }

    fn test(&self, probe: &Path, nodes: &[String], dir: &Path) -> Result<()> {
        let (etcd, seconds) = (self.args.etcd, self.args.seconds);
        let port = etcd.port().to_string();
        let before = fs::metadata(&self.etcd_log)
            .with_context(|| format!("no log of etcd at {}", self.etcd_log.display()))?
            .len();
        let (mut watching, mut tracking) = (Vec::new(), Vec::new());
        for node in nodes {
            let mut track = Command::new("conntrack");
            track.args(["-E", "-e", "NEW", "-p", "tcp", "--orig-port-dst", &port]);
            tracking.push(self.start(node, &conntrack(dir, node), &mut track)?);
        }
        if self.args.agents {
            self.deploy()?;
        } else {
            for node in nodes {
                watching.push(self.watch(probe, node, dir, &port)?);
            }
            for node in nodes {
                watches(&dir.join(format!("{node}.err")), node)?;
            }
        }

        let manifest = dir.join("pods.yaml");
        let text = PODS
            .replace("SERVER_SERVICE_HOST", "\u{0}")
            .replace("SERVER", &etcd.ip().to_string())
            .replace('\u{0}', "SERVER_SERVICE_HOST")
            .replace("PORT", &port)
            .replace("IMAGE", &self.args.image);
        fs::write(&manifest, text)?;
        let progress = Progress::start("starting the pods that dial", "up to 90 s each workload");
        self.kubectl(&["apply", "-f", &manifest.display().to_string()])?;
        for workload in [
            "daemonset/monitor",
            "daemonset/host-monitor",
            "deployment/checker",
        ] {
            progress.set(workload);
            self.kubectl(&[
                "rollout",
                "status",
                "-n",
                NAMESPACE,
                workload,
                "--timeout",
                PATIENCE,
            ])?;
        }
        progress.done();
        let pods = truth::pods(&self.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "json"])?)?;
        progress::sleep(
            format!("waiting while {} pods dial {etcd}", pods.len()),
            &format!("{seconds} s"),
            Duration::from_secs(seconds),
        );

        let mut dialled = HashMap::<SocketAddr, Pod>::new();
        for pod in &pods {
            let log = self.kubectl(&["logs", "-n", NAMESPACE, &pod.name, "-c", "dial"])?;
            dialled.extend(truth::dialled(&log).map(|address| (address, pod.clone())));
        }
        println!("\nwhile the pods run:");
        self.compare(probe, dir, nodes, before, &dialled)?;
        if self.args.agents {
            self.count(nodes, &port)?;
        }
        let deleting = Timestamp::now();
        self.clear()?;
        drop(tracking);
        println!("\nafter the pods were deleted:");
        self.compare(probe, dir, nodes, before, &dialled)?;
        if self.args.agents {
            return self.disturb(probe, nodes, dir);
        }
        drop(watching);
        let mut services = 0;
        for node in nodes {
            services += judge_services(&fs::read_to_string(flows(dir, node))?, etcd, deleting)?;
        }
        println!("{services} connections to the Service: address dialled and server known");
        ensure!(services > 0, "no record of a connection to the Service");
        Ok(())
    }

    /// `probe watch` on a node, which records.
    fn watch(&self, probe: &Path, node: &str, dir: &Path, port: &str) -> Result<Running> {
        let mut watch = Command::new(probe);
        watch
            .args(["watch", "-o", "json", "--port", port, "--node-name", node])
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--record")
            .arg(flows(dir, node));
        self.start(node, &dir.join(format!("{node}.watch")), &mut watch)
    }

    /// Asks probe for every line that etcd logged, and compares.
    fn compare(
        &self,
        probe: &Path,
        dir: &Path,
        nodes: &[String],
        before: u64,
        dialled: &HashMap<SocketAddr, Pod>,
    ) -> Result<()> {
        let log = dir.join("etcd.log");
        fs::write(&log, self.log_since(before)?)?;
        // What the last line is about ends at once, and is recorded soon after.
        thread::sleep(SETTLED);
        let mut seen_as = HashMap::<SocketAddr, HashSet<&Pod>>::new();
        for node in nodes {
            for (original, seen) in truth::translations(&fs::read_to_string(conntrack(dir, node))?) {
                for address in seen {
                    if let Some(pod) = dialled.get(&original) {
                        seen_as.entry(address).or_default().insert(pod);
                    }
                }
            }
        }
        let mut ask = Command::new(probe);
        ask.arg("etcd-log").arg(&log).args(["-o", "json"]);
        if self.args.agents {
            ask.arg("--cluster").arg("--kubeconfig").arg(&self.kubeconfig);
        } else {
            for node in nodes {
                ask.arg("--flows").arg(flows(dir, node));
            }
        }
        let answers = run::output(&mut ask)?;
        let expected = fs::read_to_string(&log)?.matches("rejected connection").count();
        judge(&answers, expected, &seen_as)
    }

    /// What etcd logged after its first `before` bytes.
    fn log_since(&self, before: u64) -> Result<Vec<u8>> {
        let mut file = File::open(&self.etcd_log)?;
        file.seek(SeekFrom::Start(before))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(text)
    }
}

/// Waits until it says that it watches.
fn watches(said: &Path, node: &str) -> Result<()> {
    let start = Instant::now();
    while !fs::read_to_string(said)?.contains("watching ") {
        ensure!(
            start.elapsed() < Duration::from_secs(20),
            "probe does not watch on {node}: {}",
            fs::read_to_string(said)?
        );
        thread::park_timeout(Duration::from_millis(50));
    }
    Ok(())
}

/// Compares every answer about one of the test's pods, and counts them by pod.
fn judge(answers: &str, expected: usize, seen_as: &HashMap<SocketAddr, HashSet<&Pod>>) -> Result<()> {
    let mut counts = BTreeMap::<&Pod, [usize; 2]>::new();
    let (mut lines, mut others, mut wrong) = (0, 0, Vec::new());
    let answers = answers.lines().map(serde_json::from_str::<Value>);
    for answer in answers {
        let answer = answer?;
        if answer["event"] != "etcd-log" {
            continue;
        }
        lines += 1;
        let peer = &answer["peer"];
        let address = format!(
            "{}:{}",
            peer["address"].as_str().unwrap_or_default(),
            peer["port"]
        );
        let truth = address.parse().ok().and_then(|address| seen_as.get(&address));
        let Some(pods) = truth else {
            others += 1;
            continue;
        };
        let is = |pod: &&&Pod| {
            answer["pod"]["name"] == pod.name
                && answer["pod"]["namespace"] == NAMESPACE
                && answer["node"] == pod.node
                && answer["pod"]["workload"]["name"] == pod.workload
        };
        let right = pods.iter().find(is);
        if let Some(pod) = right.or(pods.iter().next()) {
            counts.entry(pod).or_default()[usize::from(right.is_none())] += 1;
        }
        if right.is_none() {
            wrong.push(answer.to_string());
        }
    }
    println!("\n{:<28}{:<10}{:>6}{:>7}", "POD", "NODE", "RIGHT", "WRONG");
    let (mut right, mut all) = (0, 0);
    for (pod, [good, bad]) in &counts {
        println!("{:<28}{:<10}{good:>6}{bad:>7}", pod.name, pod.node);
        (right, all) = (right + good, all + good + bad);
    }
    println!(
        "{right} of {all} rejected lines answered with the right pod, node and workload; {others} lines of others"
    );
    ensure!(
        lines == expected,
        "etcd-log answered {lines} lines, the log has {expected}"
    );
    ensure!(all > 0, "etcd rejected none of the pods' connections");
    let dialled: usize = seen_as.len();
    ensure!(
        all >= dialled * 9 / 10,
        "etcd logged {all} of the {dialled} connections that conntrack saw: is it the right log?"
    );
    if !wrong.is_empty() {
        bail!("{} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
    Ok(())
}

/// Counts the records of clients that dialled the Service; each must tell the server and what it sees. `deleting`: when the
/// deletion of the namespace began.
fn judge_services(recording: &str, etcd: SocketAddr, deleting: Timestamp) -> Result<usize> {
    let mut count = 0;
    for line in recording.lines() {
        let record: Value = serde_json::from_str(line)?;
        if record["role"] != "client" || record["pod"]["workload"]["name"] != "checker" {
            continue;
        }
        // The Service may go before its clients: what they dial then is nobody's address.
        let time: Timestamp = record["time"].as_str().unwrap_or_default().parse()?;
        let outcome = record["outcome"].as_str().unwrap_or_default();
        if time >= deleting && ["unanswered", "unreachable", "refused"].contains(&outcome) {
            continue;
        }
        ensure!(
            record["dialled"]["address"].is_string()
                && record["destination"]["address"] == etcd.ip().to_string()
                && record["pod"]["workload"]["kind"] == "Deployment",
            "not as dialled through a Service: {record}"
        );
        count += 1;
    }
    Ok(count)
}
