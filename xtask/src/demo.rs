//! `cargo xtask demo`: the incident, and `probe watch` on it.

use std::{
    io::{self, IsTerminal, Write},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::park_timeout,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use probe_lab::{Cgroup, Child, Cluster, Etcd, Monitor, Netns, PACKAGES, PodLogs};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{apt, progress::Progress, root, run};

const PORT: u16 = 2379;
/// Seconds between two connections of a monitor.
const EVERY: f64 = 2.0;

#[derive(clap::Args)]
pub struct Args {
    /// Watch for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
}

pub fn run(args: &Args) -> Result<()> {
    let probe = run::build_probe()?;
    if !root::is() {
        return root::become_it("the demo lays network namespaces and loads BPF programs");
    }
    apt::install("the demo", &PACKAGES)?;
    let stop = Arc::<AtomicBool>::default();
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("can't handle signals")?;
    }

    println!(
        "demo: two nodes in network namespaces, 192.168.88.11 (alpha) and 192.168.88.12 (beta), joined by VXLAN on\n\
         UDP 8472 with masquerade; etcd with TLS on alpha; a pod sdp-monitor on each, which connects to etcd every\n\
         {EVERY} s, sends nothing and closes. What etcd logs is marked `etcd |`; the rest is probe's. Ctrl-C ends it."
    );
    let progress = Progress::start("starting two nodes, etcd and the monitors", "some seconds");
    let incident = Incident::lay()?;
    progress.done();
    let mut command = Command::new(&probe);
    command
        .args(["watch", "--port", &PORT.to_string()])
        .args(["--duration", &format!("{}s", args.seconds)])
        .args(["--pod-logs", incident.logs.path()])
        .stdin(Stdio::null());
    let shown = format!("probe watch --port {PORT}");
    println!("\n$ sudo {shown}");
    let mut watching = Child::spawn(&mut command)?;
    let mut seen = 0;
    let mut told = false;
    let status = loop {
        incident.show_log(&mut seen)?;
        if let Some(status) = watching
            .inner()
            .try_wait()
            .with_context(|| format!("can't wait for {shown}"))?
        {
            break status;
        }
        if stop.load(Ordering::Relaxed) && !told {
            told = true;
            watching.signal(Signal::SIGINT)?;
        }
        park_timeout(Duration::from_millis(20));
    };
    drop(incident);
    println!("\ndemo: nodes, etcd and monitors are removed");
    if !status.success() {
        bail!("{shown} failed: {status}");
    }
    Ok(())
}

/// The cluster of the incident; dropping it clears it away.
struct Incident {
    _monitors: [(Monitor, Cgroup, Netns); 2],
    etcd: Etcd,
    _etcd_group: Cgroup,
    logs: PodLogs,
    _cluster: Cluster,
}

impl Incident {
    fn lay() -> Result<Self> {
        let (cluster, logs) = (Cluster::new()?, PodLogs::new()?);
        let etcd_group = Cgroup::pod()?;
        logs.add("kube-system", "etcd-alpha", &etcd_group.pod_uid)?;
        let etcd = Etcd::start_in(
            &cluster.alpha.netns,
            cluster.alpha.address,
            PORT,
            Some(&etcd_group),
        )?;
        let monitor = |node: &probe_lab::Node, name: &str| {
            let (pod, group) = (node.pod(2)?, Cgroup::pod()?);
            logs.add("monitoring", name, &group.pod_uid)?;
            let monitor = Monitor::start(&pod.netns, etcd.address, EVERY, Some(&group))?;
            anyhow::Ok((monitor, group, pod.netns))
        };
        let monitors = [
            monitor(&cluster.alpha, "sdp-monitor-5x2kq")?,
            monitor(&cluster.beta, "sdp-monitor-z8989")?,
        ];
        Ok(Self {
            _monitors: monitors,
            etcd,
            _etcd_group: etcd_group,
            logs,
            _cluster: cluster,
        })
    }

    /// Prints what etcd has logged about rejected connections since `seen` of them were shown.
    fn show_log(&self, seen: &mut usize) -> io::Result<()> {
        let rejected = self.etcd.rejected();
        let mut out = io::stdout().lock();
        for rejected in rejected.iter().skip(*seen) {
            if out.is_terminal() {
                writeln!(out, "\x1b[2metcd | {}\x1b[0m", rejected.line)?;
            } else {
                writeln!(out, "etcd | {}", rejected.line)?;
            }
        }
        *seen = rejected.len();
        out.flush()
    }
}
