//! What probe costs, kept within bounds: hooks only where there may be something to see, and CPU time.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    collections::BTreeSet,
    fs,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use probe_lab::{Agent, Close, Netns, Probe, Storm, finish, unique_port, wait_until};

/// Each has the machine for itself.
static ALONE: Mutex<()> = Mutex::new(());

/// The programs that a process holds, by the numbers the kernel gave them.
fn programs(pid: u32) -> BTreeSet<u32> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    files
        .filter_map(|file| fs::read_to_string(file.ok()?.path()).ok())
        .filter_map(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
        })
        .collect()
}

fn watch_in(netns: &Netns, port: u16) -> Probe {
    let file = format!("/run/netns/{}", netns.name());
    Probe::watch(&["--port", &port.to_string(), "--cri", "none", "--netns", &file]).unwrap()
}

/// On a node without a rule that exempts packets from conntrack, and without a VXLAN device, nothing runs for either; each gets its
/// programs when it is there.
#[test]
fn hooks_for_evidence_come_with_what_there_is_to_see() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let netns = Netns::new("limits").unwrap();
    // Rules that exempt nothing, also before conntrack.
    netns
        .run("nft add table ip raw ; add chain ip raw pre { type filter hook prerouting priority raw ; } ; add rule ip raw pre tcp dport 80 accept")
        .unwrap();
    let probe = watch_in(&netns, unique_port());
    let bare = programs(probe.pid());
    thread::sleep(Duration::from_secs(3));
    assert_eq!(programs(probe.pid()), bare);

    let more = |than: usize, what: &str| {
        wait_until(what, Duration::from_secs(20), || {
            let now = programs(probe.pid());
            (now.len() > than).then_some(now)
        })
        .unwrap()
    };
    netns
        .run("ip link add v0 type vxlan id 7 dstport 4789 dev lo")
        .unwrap();
    let with_vxlan = more(bare.len(), "the hooks for VXLAN are attached");
    netns.run("nft add rule ip raw pre tcp dport 81 notrack").unwrap();
    more(with_vxlan.len(), "the hooks for untracked packets are attached");

    // They are there at once where the rule is.
    let other = watch_in(&netns, unique_port());
    let all = programs(other.pid()).len();
    wait_until("both have the same hooks", Duration::from_secs(20), || {
        let now = programs(probe.pid());
        (now.len() == all && now.is_superset(&bare)).then_some(())
    })
    .unwrap();
}

/// iptables-legacy has its own table for it.
#[test]
fn a_notrack_rule_of_iptables_legacy_is_seen() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let netns = Netns::new("limits").unwrap();
    let probe = watch_in(&netns, unique_port());
    let bare = programs(probe.pid()).len();
    netns
        .run("iptables-legacy -t raw -A PREROUTING -p tcp --dport 80 -j ACCEPT")
        .unwrap();
    thread::sleep(Duration::from_secs(3));
    assert_eq!(programs(probe.pid()).len(), bare);
    netns
        .run("iptables-legacy -t raw -A OUTPUT -p tcp --dport 80 -j CT --notrack")
        .unwrap();
    wait_until("the hooks are attached", Duration::from_secs(20), || {
        (programs(probe.pid()).len() > bare).then_some(())
    })
    .unwrap();
}

/// The agent too has the programs and tables for untracked packets only while there may be some.
#[test]
fn an_agent_counts_untracked_packets_while_there_may_be_some() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let netns = Netns::new("limits").unwrap();
    let config = "[snapshots]\ninterval = \"1s\"\n";
    let agent = Agent::start(&netns, config, &[]).unwrap();
    let ready = agent.get(Agent::METRICS, "/readyz").unwrap();
    assert!(ready.body.contains("bypass runs"), "{ready:?}");
    let settled = |what: &str, fits: &dyn Fn(usize) -> bool| {
        wait_until(what, Duration::from_secs(20), || {
            let count = programs(agent.pid()).len();
            fits(count).then_some(count)
        })
        .unwrap()
    };
    let bare = programs(agent.pid()).len();
    let exempt = || {
        netns
            .run("nft add table ip raw ; add chain ip raw out { type filter hook output priority raw ; } ; add rule ip raw out udp dport 9 notrack")
            .unwrap();
        settled("the hooks are attached", &|count| count > bare)
    };
    let with = exempt();
    netns.run("nft delete table ip raw").unwrap();
    settled("the hooks are taken away", &|count| count == bare);
    assert_eq!(exempt(), with);
    // What passes is counted.
    netns.run("ip link set lo up").unwrap();
    let send = || {
        let mut bash = netns.command("bash");
        let sent = finish(bash.args(["-c", "echo x > /dev/udp/127.0.0.1/9"])).unwrap();
        assert!(sent.status.success());
    };
    wait_until("the packets are counted", Duration::from_secs(20), || {
        send();
        let answer = agent.get(Agent::QUERY, "/v1/bypass").unwrap();
        let view = answer.lines().unwrap().pop().unwrap();
        let streams = view["streams"].as_array().cloned().unwrap_or_default();
        streams
            .iter()
            .any(|stream| stream["packets"].as_u64() > Some(1))
            .then_some(())
    })
    .unwrap();
    netns.run("nft delete table ip raw").unwrap();
    // The stream is of interest for a while.
    thread::sleep(Duration::from_secs(3));
    assert_eq!(programs(agent.pid()).len(), with);
    agent.end().unwrap();
}

/// CPU time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..15]
        .iter()
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// In a storm as fast as the machine makes one, the run keeps to its share, says what it gives up, and counts everything.
#[test]
fn a_storm_is_held_to_the_share_of_a_core_and_counted() {
    const PERCENT: f64 = 3.0;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let port = unique_port();
    let storm = Storm::new(port, 2).unwrap();
    let arguments = [
        "--port",
        &port.to_string(),
        "--all",
        "--max-rate",
        "none",
        "--max-cpu",
        "3%",
    ];
    let probe = Probe::watch(&arguments).unwrap();
    let mut connections = 0;
    let mut run = |seconds: u64| {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(seconds) {
            storm.run(5000, Close::Fin).unwrap();
            connections += 5000;
        }
        begun.elapsed()
    };
    // Until it has found its rate.
    run(6);
    let before = cpu(probe.pid());
    let took = run(15);
    let used = (cpu(probe.pid()) - before).as_secs_f64() / took.as_secs_f64() * 100.0;
    assert!(used <= PERCENT + 1.0, "{used:.1} % of a core");
    probe.says("--max-cpu").unwrap();
    let run = probe.finish().unwrap();
    let summary = &run.summary;
    assert!(
        summary["aggregated"].as_u64().unwrap() > connections,
        "this proves nothing: {:#}",
        summary["lost"]
    );
    let counted = summary["counted"].as_u64().unwrap();
    assert!(
        counted <= 2 * connections && 2 * connections - counted <= run.hidden(),
        "{counted} of {}: {:#}",
        2 * connections,
        summary["lost"]
    );
    // What was not listed is with its source, both sides of all 200 addresses of each client.
    let sources = summary["sources"].as_array().unwrap();
    let all: u64 = sources
        .iter()
        .map(|source| source["count"].as_u64().unwrap())
        .sum();
    assert_eq!(all, counted);
    let unlisted: u64 = sources
        .iter()
        .filter_map(|source| source["unlisted"]["count"].as_u64())
        .sum();
    assert_eq!(unlisted, summary["aggregated"].as_u64().unwrap());
}
