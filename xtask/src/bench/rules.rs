//! What the packet filter's rules cost: the first connection that fails, one that fails again and again, and the agent while rules
//! change, with the rules that kube-proxy writes for many Services.

use std::{
    collections::HashSet,
    fmt::{self, Write as _},
    fs,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use probe_lab::{Agent, Netns, PACKAGES, Probe};

use super::agent::{cpu, megabytes, status};
use crate::{apt, progress::Progress, root, run};

/// Nothing listens there.
const CLOSED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7);
/// Between two dials.
const DIAL: Duration = Duration::from_millis(200);
/// How long a share of CPU time is measured.
const MEASURED: Duration = Duration::from_secs(20);
/// After the first failure, until memory is as it stays.
const SETTLED: Duration = Duration::from_secs(2);
/// Between two looks at a process' children.
const LOOK: Duration = Duration::from_millis(5);

#[derive(clap::Args)]
pub struct Args {
    /// Numbers of Services, of two endpoints each
    #[arg(long, value_name = "N", num_args = 1.., default_values_t = [1000, 10_000], value_parser = clap::value_parser!(u16).range(1..=20_000))]
    services: Vec<u16>,
}

/// What writes the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Legacy,
    IptablesNft,
    Nft,
}

impl Writer {
    const ALL: [Self; 3] = [Self::Legacy, Self::IptablesNft, Self::Nft];

    /// Loads the rules of so many Services.
    fn load(self, netns: &Netns, services: u16) -> Result<()> {
        let (program, arguments, text) = match self {
            Self::Legacy => ("iptables-legacy-restore", "", iptables(services)?),
            Self::IptablesNft => ("iptables-nft-restore", "", iptables(services)?),
            Self::Nft => ("nft", "-f ", nft(services)?),
        };
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), text)?;
        netns.run(&format!("{program} {arguments}{}", file.path().display()))?;
        Ok(())
    }

    /// Changes one rule: adds it, or takes it away.
    fn change(self, netns: &Netns, adds: bool) -> Result<()> {
        let change = if adds { "-A" } else { "-D" };
        match self {
            Self::Legacy => netns.run(&format!(
                "iptables-legacy {change} INPUT -p udp --dport 9 -j DROP"
            ))?,
            Self::IptablesNft => {
                netns.run(&format!("iptables-nft {change} INPUT -p udp --dport 9 -j DROP"))?
            }
            Self::Nft if adds => netns.run("nft add rule ip kube-proxy filter-input udp dport 9 drop")?,
            Self::Nft => netns.run("nft flush chain ip kube-proxy filter-input")?,
        };
        Ok(())
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "iptables-legacy",
            Self::IptablesNft => "iptables-nft",
            Self::Nft => "nftables",
        })
    }
}

pub fn run(args: &Args) -> Result<()> {
    run::build_probe()?;
    if !root::is() {
        return root::become_it("the benchmark lays network namespaces and loads BPF programs");
    }
    apt::install("the benchmark", &PACKAGES)?;
    println!(
        "| rules of | Services | first failure | memory, peak | memory, after | 5 failures/s | agent, peak | agent, CPU | its tables in the kernel | child processes |\n|---|---|---|---|---|---|---|---|---|---|"
    );
    row(None, 0)?;
    for services in &args.services {
        for writer in Writer::ALL {
            row(Some(writer), *services)?;
        }
    }
    Ok(())
}

fn row(writer: Option<Writer>, services: u16) -> Result<()> {
    let name = writer.map_or_else(|| "none".to_owned(), |writer| writer.to_string());
    let progress = Progress::start(format!("measuring {name}, {services} Services"), "2 min");
    let netns = Netns::new("rules")?;
    netns.ip("link set lo up")?;
    if let Some(writer) = writer {
        writer.load(&netns, services)?;
    }
    let watch = watch(&netns)?;
    let agent = agent(&netns, writer)?;
    progress.done();
    println!(
        "| {name} | {services} | {:.0} ms | {:+.1} MB | {:+.1} MB | {:.2} % of a core | {:.1} MB | {:.2} % of a core | {:.1} MB | {} |",
        watch.first.as_secs_f64() * 1e3,
        megabytes(watch.peak) - megabytes(watch.before),
        megabytes(watch.after) - megabytes(watch.before),
        100.0 * watch.share,
        megabytes(agent.peak),
        100.0 * agent.share,
        megabytes(agent.tables),
        agent.children,
    );
    Ok(())
}

/// What `probe watch` took.
struct Watched {
    /// From the first failed connection until it was printed.
    first: Duration,
    /// Bytes resident.
    before: u64,
    peak: u64,
    after: u64,
    /// Of a core, while a client fails again and again.
    share: f64,
}

fn watch(netns: &Netns) -> Result<Watched> {
    let file = format!("/run/netns/{}", netns.name());
    let probe = Probe::watch(&[
        "--port",
        &CLOSED.port().to_string(),
        "--cri",
        "none",
        "--netns",
        &file,
    ])?;
    thread::sleep(SETTLED);
    let before = status(probe.pid(), "VmRSS:")?;
    // From here on the peak is another.
    fs::write(format!("/proc/{}/clear_refs", probe.pid()), "5").context("can't reset the peak of memory")?;
    let begun = Instant::now();
    dial(netns)?;
    probe.wait_for(1, |record| record["outcome"] == "refused")?;
    let first = begun.elapsed();
    thread::sleep(SETTLED);
    let (peak, after) = (status(probe.pid(), "VmHWM:")?, status(probe.pid(), "VmRSS:")?);
    let (start, used) = (Instant::now(), cpu(probe.pid())?);
    while start.elapsed() < MEASURED {
        dial(netns)?;
        thread::sleep(DIAL);
    }
    let share = (cpu(probe.pid())? - used) / start.elapsed().as_secs_f64();
    probe.finish()?;
    Ok(Watched {
        first,
        before,
        peak,
        after,
        share,
    })
}

fn dial(netns: &Netns) -> Result<()> {
    let refused = netns.enter(|| TcpStream::connect(CLOSED).is_err())?;
    ensure!(refused, "something listens on {CLOSED}");
    Ok(())
}

/// What `probe agent` took while a rule changed every second.
struct Measured {
    peak: u64,
    share: f64,
    /// Bytes of its maps.
    tables: u64,
    children: String,
}

fn agent(netns: &Netns, writer: Option<Writer>) -> Result<Measured> {
    // The machine's other connections are no part of it.
    let config = format!("[watch]\nports = [{}]\n", CLOSED.port());
    let agent = Agent::start(netns, &config, &[])?;
    let children = Children::of(agent.pid());
    // A failed connection has it read the rules for causes, too.
    dial(netns)?;
    thread::sleep(3 * SETTLED);
    let (start, used) = (Instant::now(), cpu(agent.pid())?);
    let mut adds = true;
    while start.elapsed() < MEASURED {
        let next = Instant::now() + Duration::from_secs(1);
        if let Some(writer) = writer {
            writer.change(netns, adds)?;
            adds = !adds;
        }
        dial(netns)?;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let share = (cpu(agent.pid())? - used) / start.elapsed().as_secs_f64();
    let (peak, tables) = (status(agent.pid(), "VmHWM:")?, maps(agent.pid())?);
    let children = children.end();
    let (ended, said) = agent.end()?;
    ensure!(ended.success(), "the agent ended with {ended}: {said}");
    Ok(Measured {
        peak,
        share,
        tables,
        children,
    })
}

/// Memory of a process' BPF maps.
fn maps(pid: u32) -> Result<u64> {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for file in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let Ok(text) = fs::read_to_string(file?.path()) else {
            continue;
        };
        let number = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse::<u64>().ok()
        };
        if let (Some(map), Some(size)) = (number("map_id:"), number("memlock:"))
            && seen.insert(map)
        {
            bytes += size;
        }
    }
    Ok(bytes)
}

/// The child processes of a process, as far as they live as long as a look takes.
struct Children {
    ends: Arc<AtomicBool>,
    seen: Arc<Mutex<(HashSet<u32>, u64)>>,
    thread: thread::JoinHandle<()>,
}

impl Children {
    fn of(pid: u32) -> Self {
        let (ends, seen) = (
            Arc::<AtomicBool>::default(),
            Arc::<Mutex<(HashSet<u32>, u64)>>::default(),
        );
        let thread = thread::spawn({
            let (ends, seen) = (Arc::clone(&ends), Arc::clone(&seen));
            move || {
                while !ends.load(Ordering::Relaxed) {
                    for child in children(pid) {
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.0.insert(child);
                        seen.1 = seen.1.max(status(child, "VmHWM:").unwrap_or_default());
                    }
                    thread::sleep(LOOK);
                }
            }
        });
        Self { ends, seen, thread }
    }

    /// How many there were, and the largest.
    fn end(self) -> String {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.0.len() {
            0 => "0".to_owned(),
            number => format!("{number}, the largest {:.1} MB", megabytes(seen.1)),
        }
    }
}

fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            let list = list.split_whitespace().map(str::parse);
            list.filter_map(Result::ok).collect::<Vec<u32>>()
        })
        .collect()
}

fn address(first: u8, service: u16) -> String {
    let [a, b] = service.to_be_bytes();
    format!("10.{first}.{a}.{b}")
}

/// As kube-proxy writes them for iptables-restore.
fn iptables(services: u16) -> Result<String> {
    let (mut chains, mut rules) = (String::new(), String::new());
    for n in 1..=services {
        let name = format!("shop/web-{n}:http");
        writeln!(
            chains,
            ":KUBE-SVC-{n:0>16} - [0:0]\n:KUBE-SEP-A{n:0>15} - [0:0]\n:KUBE-SEP-B{n:0>15} - [0:0]"
        )?;
        writeln!(
            rules,
            "-A KUBE-SERVICES -d {cluster}/32 -p tcp -m comment --comment \"{name} cluster IP\" -m tcp --dport 80 -j KUBE-SVC-{n:0>16}\n\
             -A KUBE-SVC-{n:0>16} ! -s 10.244.0.0/16 -d {cluster}/32 -p tcp -m comment --comment \"{name} cluster IP\" -m tcp --dport 80 -j KUBE-MARK-MASQ\n\
             -A KUBE-SVC-{n:0>16} -m comment --comment \"{name} -> {one}:8080\" -m statistic --mode random --probability 0.5 -j KUBE-SEP-A{n:0>15}\n\
             -A KUBE-SVC-{n:0>16} -m comment --comment \"{name} -> {other}:8080\" -j KUBE-SEP-B{n:0>15}",
            cluster = address(96, n),
            one = address(244, n),
            other = address(245, n),
        )?;
        for (chain, endpoint) in [('A', address(244, n)), ('B', address(245, n))] {
            writeln!(
                rules,
                "-A KUBE-SEP-{chain}{n:0>15} -s {endpoint}/32 -m comment --comment \"{name}\" -j KUBE-MARK-MASQ\n\
                 -A KUBE-SEP-{chain}{n:0>15} -p tcp -m comment --comment \"{name}\" -m tcp -j DNAT --to-destination {endpoint}:8080"
            )?;
        }
    }
    Ok(format!(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
         :KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n{chains}\
         -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n-A KUBE-POSTROUTING -j MASQUERADE\n{rules}\
         -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n\
         *filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-FORWARD - [0:0]\n\
         -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         -A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\nCOMMIT\n"
    ))
}

/// As kube-proxy's mode nftables writes them.
fn nft(services: u16) -> Result<String> {
    let (mut chains, mut elements) = (String::new(), Vec::new());
    for n in 1..=services {
        let service = format!("service-NWBZK7IH-shop/web-{n}/tcp/http");
        let endpoints = [address(244, n), address(245, n)].map(|endpoint| {
            (
                format!("endpoint-5OJB2KTY-shop/web-{n}/tcp/http__{endpoint}/8080"),
                endpoint,
            )
        });
        for (chain, endpoint) in &endpoints {
            writeln!(
                chains,
                "chain {chain} {{\nip saddr {endpoint} jump mark-for-masquerade\nmeta l4proto tcp dnat to {endpoint}:8080\n}}"
            )?;
        }
        let [(one, _), (other, _)] = &endpoints;
        let cluster = address(96, n);
        writeln!(
            chains,
            "chain {service} {{\nip daddr {cluster} tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade\n\
             numgen random mod 2 vmap {{ 0 : goto {one}, 1 : goto {other} }}\n}}"
        )?;
        elements.push(format!("{cluster} . tcp . 80 : goto {service}"));
    }
    Ok(format!(
        "table ip kube-proxy {{\nchain mark-for-masquerade {{\nmeta mark set meta mark or 0x4000\n}}\nchain reject-chain {{\nreject\n}}\n{chains}\n\
         map service-ips {{\ntype ipv4_addr . inet_proto . inet_service : verdict\nelements = {{ {} }}\n}}\n\
         map no-endpoint-services {{\ntype ipv4_addr . inet_proto . inet_service : verdict\n}}\n\
         chain services {{\nip daddr . meta l4proto . th dport vmap @service-ips\n}}\n\
         chain nat-prerouting {{\ntype nat hook prerouting priority -100\njump services\n}}\n\
         chain nat-output {{\ntype nat hook output priority -100\njump services\n}}\n\
         chain filter-input {{\ntype filter hook input priority -110\n}}\n\
         chain filter-output {{\ntype filter hook output priority -110\n\
         ct state new ip daddr . meta l4proto . th dport vmap @no-endpoint-services\n}}\n}}\n",
        elements.join(", ")
    ))
}
