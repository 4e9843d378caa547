//! What `probe agent` takes on a busy node: memory that must not grow, and CPU.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::unistd::{SysconfVar, sysconf};
use probe_lab::{Agent, Child, Netns, PACKAGES, accept_all, wait_until};

use super::sample::slope;
use crate::{apt, progress::Progress, root, run};

const PORT: u16 = 2379;
/// Processes that hold connections open, each as many as its descriptors allow, both ends.
const HOLDERS: u16 = 4;
const HELD: usize = 9000;
/// Between two looks at the memory.
const LOOK: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Args {
    /// Number of network namespaces that connect, as pods do
    #[arg(long, value_name = "N", default_value_t = 110, value_parser = clap::value_parser!(u16).range(1..=500))]
    pods: u16,
    /// Connections per second while CPU is measured
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Number of connections made after that, as fast as the machine can; the default is an hour of 1,000 per second
    #[arg(long, value_name = "N", default_value_t = 3_600_000)]
    churn: u64,
    /// Make --rate connections per second for so many minutes instead: does memory grow?
    #[arg(long, value_name = "MINUTES", conflicts_with = "churn", value_parser = clap::value_parser!(u32).range(1..=1440))]
    soak: Option<u32>,
}

/// A pod that connects to itself, sends nothing and closes.
struct Pods {
    namespaces: Vec<Netns>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// Microseconds between two connections of a pod.
    pause: Arc<AtomicU64>,
    made: Arc<AtomicU64>,
}

impl Pods {
    fn new(number: u16) -> Result<Self> {
        let mut pods = Self {
            namespaces: Vec::new(),
            threads: Vec::new(),
            stop: Arc::default(),
            pause: Arc::new(AtomicU64::new(u64::MAX)),
            made: Arc::default(),
        };
        let server = SocketAddr::from(([127, 0, 0, 1], PORT));
        for _ in 0..number {
            let netns = Netns::new("pod")?;
            accept_all(netns.enter(|| TcpListener::bind(server))??);
            let (stop, pause, made) = (
                Arc::clone(&pods.stop),
                Arc::clone(&pods.pause),
                Arc::clone(&pods.made),
            );
            pods.threads.push(netns.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let pause = pause.load(Ordering::Relaxed);
                    if pause == u64::MAX {
                        thread::park_timeout(Duration::from_millis(50));
                        continue;
                    }
                    if TcpStream::connect(server).is_ok() {
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                    if pause > 0 {
                        thread::park_timeout(Duration::from_micros(pause));
                    }
                }
            })?);
            pods.namespaces.push(netns);
        }
        Ok(pods)
    }

    fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    run::build_probe()?;
    if !root::is() {
        return root::become_it("the benchmark lays network namespaces and loads BPF programs");
    }
    apt::install("the benchmark", &PACKAGES)?;
    let node = Netns::new("node")?;
    // The machine's other connections are no part of it.
    let ports: Vec<_> = holder_ports().chain([PORT]).collect();
    let config = format!("[watch]\nports = {ports:?}\n");
    let agent = Agent::start(&node, &config, &[])?;
    let pods = Pods::new(args.pods)?;
    println!("{} pods; each connection half-open, both ends seen", args.pods);
    let progress = Progress::start("measuring an idle agent", "15 s");
    thread::sleep(LOOK);
    tell(&agent, "idle")?;

    let idle = cpu(agent.pid())?;
    thread::sleep(2 * LOOK);
    let idle = (cpu(agent.pid())? - idle) / (2 * LOOK).as_secs_f64();
    println!("idle: {:.2} % of a core", 100.0 * idle);

    progress.done();
    let progress = Progress::start("opening 65,536 connections", "up to a minute");
    let _holders = hold(&node)?;
    wait_until("the agent has all connections", Duration::from_secs(60), || {
        let entries = agent
            .metric("probe_map_entries", &["map=\"connections\""])
            .ok()??;
        (entries >= 65_536.0).then_some(())
    })?;
    tell(&agent, "65,536 connections followed")?;
    progress.done();

    let progress = Progress::start(
        format!("measuring an agent at {} connections a second", args.rate),
        "35 s",
    );
    pods.pause.store(
        1_000_000 * u64::from(args.pods) / u64::from(args.rate),
        Ordering::Relaxed,
    );
    thread::sleep(LOOK);
    let (start, before, made) = (Instant::now(), cpu(agent.pid())?, pods.made());
    thread::sleep(6 * LOOK);
    let seconds = start.elapsed().as_secs_f64();
    let rate = (pods.made() - made) as f64 / seconds;
    let share = (cpu(agent.pid())? - before) / seconds;
    println!(
        "at {rate:.0} connections a second: {:.2} % of a core",
        100.0 * share
    );
    tell(&agent, "at that rate")?;
    progress.done();

    match args.soak {
        Some(minutes) => soak(&agent, &pods, minutes)?,
        None => churn(&agent, &pods, args.churn)?,
    }
    pods.pause.store(u64::MAX, Ordering::Relaxed);
    thread::sleep(2 * LOOK);
    tell(&agent, "after it")?;
    for (name, labels) in [
        ("probe_lost_total", ["part=\"watch\"", "reason=\"records\""]),
        ("probe_lost_total", ["part=\"watch\"", "reason=\"connections\""]),
        ("probe_series_overflow_total", ["", ""]),
    ] {
        let value = agent.metric(name, &labels)?.unwrap_or_default();
        println!("{name} {}: {value}", labels.join(" "));
    }
    let (status, said) = agent.end()?;
    ensure!(status.success(), "the agent ended with {status}: {said}");
    Ok(())
}

/// As many connections a second as the machine can make.
fn churn(agent: &Agent<'_>, pods: &Pods, connections: u64) -> Result<()> {
    let progress = Progress::start(
        format!("making {connections} connections"),
        "as many a second as the machine can; minutes by default",
    );
    pods.pause.store(0, Ordering::Relaxed);
    let (start, made) = (Instant::now(), pods.made());
    let mut seen = Vec::new();
    while pods.made() - made < connections {
        thread::sleep(LOOK);
        let bytes = resident(agent.pid())?;
        seen.push(bytes);
        progress.set(format!(
            "{} of {connections}, {:.1} MB resident",
            pods.made() - made,
            megabytes(bytes)
        ));
    }
    progress.done();
    println!(
        "{} connections in {:.0} s; resident memory every {} s, MB: {}",
        pods.made() - made,
        start.elapsed().as_secs_f64(),
        LOOK.as_secs(),
        listed(&seen)
    );
    Ok(())
}

/// The same rate for long.
fn soak(agent: &Agent<'_>, pods: &Pods, minutes: u32) -> Result<()> {
    let progress = Progress::start(format!("at that rate for {minutes} min"), "");
    let (start, made, before) = (Instant::now(), pods.made(), cpu(agent.pid())?);
    let mut seen = Vec::new();
    for minute in 1..=minutes {
        thread::sleep((MINUTE * minute).saturating_sub(start.elapsed()));
        let bytes = resident(agent.pid())?;
        seen.push(bytes);
        progress.step("minute", minute, minutes, &format!("{:.1} MB", megabytes(bytes)));
    }
    progress.done();
    let seconds = start.elapsed().as_secs_f64();
    let hourly = |bytes: &[u64]| {
        let values: Vec<f64> = bytes.iter().copied().map(megabytes).collect();
        60.0 * slope(&values)
    };
    println!(
        "{} connections in {seconds:.0} s, {:.2} % of a core; resident memory every minute, MB: {}",
        pods.made() - made,
        100.0 * (cpu(agent.pid())? - before) / seconds,
        listed(&seen)
    );
    let later = seen.get(seen.len() / 2..).unwrap_or_default();
    println!(
        "growth: {:.2} MB an hour, {:.2} MB an hour in the second half",
        hourly(&seen),
        hourly(later)
    );
    Ok(())
}

fn listed(bytes: &[u64]) -> String {
    let values: Vec<_> = bytes
        .iter()
        .map(|bytes| format!("{:.1}", megabytes(*bytes)))
        .collect();
    values.join(" ")
}

/// Their servers' ports.
fn holder_ports() -> impl Iterator<Item = u16> {
    (1..=HOLDERS).map(|holder| PORT + holder)
}

/// Processes that hold connections to themselves.
fn hold(node: &Netns) -> Result<Vec<Child>> {
    let script = |port: u16| {
        format!(
            "import resource, socket, time\n\
         limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n\
         resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))\n\
         server = socket.create_server(('127.0.0.1', {port}), backlog=1024)\n\
         held = []\n\
         for _ in range({HELD}):\n\
         \x20   held.append(socket.create_connection(server.getsockname()))\n\
         \x20   held.append(server.accept()[0])\n\
         time.sleep(100000)\n"
        )
    };
    holder_ports()
        .map(|port| {
            let mut command: Command = node.command("python3");
            command.args(["-c", &script(port)]).stdin(Stdio::null());
            Child::spawn(&mut command)
        })
        .collect()
}

fn tell(agent: &Agent<'_>, when: &str) -> Result<()> {
    println!(
        "memory, {when}: {:.1} MB resident",
        megabytes(resident(agent.pid())?)
    );
    Ok(())
}

pub(super) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn resident(pid: u32) -> Result<u64> {
    status(pid, "VmRSS:")
}

/// Bytes of a process' memory, of a line of its status.
pub(super) fn status(pid: u32, line: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let found = status.lines().find_map(|found| found.strip_prefix(line));
    let kilobytes = found.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kilobytes.with_context(|| format!("no {line}"))? * 1024)
}

/// CPU time of a process and of its children that ended, seconds.
pub(super) fn cpu(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the agent has ended")?;
    let (_, after) = stat.rsplit_once(") ").context("no stat")?;
    let ticks: u64 = after
        .split(' ')
        .skip(11)
        .take(4)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    let a_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(ticks as f64 / a_second as f64)
}
