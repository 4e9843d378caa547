//! As fast as the machine can: counts stay exact, whatever becomes of the records.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use probe_lab::{Close, Probe, Run, Storm, patience, unique_port};

/// As many as take a few seconds.
fn connections() -> u64 {
    20_000 / u64::from(patience())
}

const CLIENTS: u8 = 2;

/// Each storm has the machine for itself.
static ALONE: Mutex<()> = Mutex::new(());

/// A storm, and a probe that watches it.
fn watched(arguments: &[&str]) -> (Storm, Probe) {
    let port = unique_port();
    let storm = Storm::new(port, CLIENTS).unwrap();
    let probe = Probe::watch(&[&["--port", &port.to_string(), "--all"], arguments].concat()).unwrap();
    (storm, probe)
}

/// Connections of one role by the summary: those with records, and those that the kernel only counted.
fn counted(run: &Run, role: &str) -> u64 {
    let sources = run.summary["sources"].as_array().into_iter().flatten();
    sources
        .filter(|source| source["role"] == role)
        .filter_map(|source| source["count"].as_u64())
        .sum()
}

fn lost(run: &Run, name: &str) -> u64 {
    run.summary["lost"][name].as_u64().unwrap_or(u64::MAX)
}

/// Nothing may be missing that is not told: every connection is counted at both ends, or told as not followed.
fn exact(run: &Run) {
    let told = &run.summary["lost"];
    let total = counted(run, "client") + counted(run, "server");
    assert_eq!(run.summary["counted"], total, "{told:#}");
    // An interrupt in the middle of probe's program hides from it what the interrupt does: up to 64 packets at once.
    // Where it hides one end of a connection, that is told; where it hides both, only that something was hidden.
    let hidden = lost(run, "unfollowed") + lost(run, "unended");
    let untold = (2 * connections()).checked_sub(total + hidden);
    let untold = untold.unwrap_or_else(|| panic!("more than there were: {told:#}"));
    let skipped = lost(run, "skipped");
    assert!(2 * untold <= skipped, "{untold} are missing: {told:#}");
    assert!(hidden <= skipped.max(connections() / 50), "{told:#}");
    assert_eq!(lost(run, "connections"), 0, "{told:#}");
}

#[test]
fn counts_are_exact_and_nothing_is_lost() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (storm, probe) = watched(&["--max-rate", "none"]);
    storm.run(connections(), Close::Fin).unwrap();
    let run = probe.finish().unwrap();
    exact(&run);
    assert_eq!(lost(&run, "records"), 0);
    assert_eq!(run.summary["aggregated"], 0);
    assert_eq!(run.summary["counted"], run.records.len());
}

/// A reader that stands still, behind a small ring: records are lost, and every one of them is counted.
#[test]
fn a_full_ring_loses_records_but_not_counts() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (storm, probe) = watched(&["--ring-size", "64KiB", "--max-rate", "none"]);
    probe.signal(Signal::SIGSTOP).unwrap();
    storm.run(connections(), Close::Fin).unwrap();
    probe.signal(Signal::SIGCONT).unwrap();
    let run = probe.finish().unwrap();
    exact(&run);
    let lost = lost(&run, "records");
    assert!(lost > connections(), "only {lost} lost: this proves nothing");
    assert_eq!(run.summary["reported"], run.records.len());
    // What an interrupt hid the end of is still in the table: reported as open, and no record of it was lost.
    assert_eq!(run.summary["counted"], run.records.len() as u64 + lost);
}

/// Beyond the rate, what repeats itself is counted and not listed; a source that connects now and then is listed all the same.
#[test]
fn beyond_the_rate_sources_are_counted_and_quiet_ones_listed() {
    const RATE: u64 = 1000;
    const QUIET: u8 = 10;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (storm, probe) = watched(&["--max-rate", &RATE.to_string()]);
    let (quiet, took) = thread::scope(|scope| {
        let quiet = scope.spawn(|| {
            for host in 1..=QUIET {
                storm.connect_from(host).unwrap();
                thread::sleep(Duration::from_millis(20));
            }
        });
        let took = storm.run(connections(), Close::Fin).unwrap();
        (quiet.join(), took)
    });
    quiet.unwrap();
    let run = probe.finish().unwrap();
    let told = &run.summary;
    let aggregated = told["aggregated"].as_u64().unwrap();
    // Twice the rate at the most, in each second that the storm touched.
    let most = 2 * RATE * 1074 / 1000 * (took.as_secs() + 2);
    assert!(
        run.records.len() as u64 <= most,
        "{} in {took:?}: {told:#}",
        run.records.len()
    );
    assert!(
        aggregated > connections(),
        "only {aggregated}: this proves nothing"
    );
    assert_eq!(lost(&run, "records"), 0);
    let all = 2 * (connections() + u64::from(QUIET));
    let total = counted(&run, "client") + counted(&run, "server");
    assert_eq!(told["counted"], total, "{told:#}");
    assert_eq!(total, aggregated + run.records.len() as u64, "{told:#}");
    assert!(
        total <= all && all - total <= run.hidden(),
        "{total} of {all}: {told:#}"
    );
    for host in 1..=QUIET {
        let address = format!("127.2.0.{host}");
        let listed = run
            .records
            .iter()
            .filter(|record| record["source"]["address"] == address.as_str());
        let listed = listed.count() as u64;
        assert!(
            listed == 2 || listed + run.hidden() >= 2,
            "{address} is listed {listed} times: {told:#}"
        );
    }
}
