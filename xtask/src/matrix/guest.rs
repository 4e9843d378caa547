//! A kernel booted in QEMU, and what the scenarios said in it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use probe_lab::Child;

use super::kernels::Kernel;
use crate::scenarios;

/// Longer means that the guest hangs.
const LONGEST: Duration = Duration::from_secs(45 * 60);
/// How often a guest may be booted when the emulator kills it.
const BOOTS: u32 = 5;
/// A guest's processors.
pub const PROCESSORS: u32 = 2;

/// What became of one scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
    /// Failed among all others and passed when it ran again without them.
    Unsteady,
    /// Why, and the kernel from which it must not be.
    Skipped {
        minimum: String,
        reason: String,
    },
}

/// What a guest said.
#[derive(Debug, Default)]
pub struct Said {
    /// By program and name.
    pub verdicts: BTreeMap<(String, String), Verdict>,
    /// All of it.
    pub log: String,
    /// The program of scenarios that ran last.
    running: String,
    /// Whether it came to its end.
    pub done: bool,
}

impl Said {
    /// What another boot said: of what both ran, its verdicts.
    fn add(&mut self, later: Self) {
        self.verdicts.extend(later.verdicts);
        self.log.push_str(&later.log);
        self.done = later.done;
    }

    /// Programs and names of the scenarios that failed.
    pub fn failed(&self) -> Vec<(String, String)> {
        let failed = self
            .verdicts
            .iter()
            .filter(|(_, verdict)| **verdict == Verdict::Failed);
        failed.map(|(key, _)| key.clone()).collect()
    }

    /// What failed here and passed in `again` is not steady.
    pub fn settle(&mut self, again: &Self) {
        for (key, verdict) in &mut self.verdicts {
            if *verdict == Verdict::Failed && again.verdicts.get(key) == Some(&Verdict::Passed) {
                *verdict = Verdict::Unsteady;
            }
        }
    }

    /// Understands what init and the test runner print.
    fn line(&mut self, line: &str) {
        if let Some(program) = line.strip_prefix("guest: scenarios ") {
            program.clone_into(&mut self.running);
        } else if line.starts_with("guest: done") {
            // The kernel's own last words may come in the same line.
            self.done = true;
        } else if let Some(skip) = line.strip_prefix("skipped\t") {
            let mut fields = skip.split('\t').map(str::to_owned);
            if let (Some(program), Some(name), Some(minimum), Some(reason)) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            {
                self.verdicts
                    .insert((program, name), Verdict::Skipped { minimum, reason });
            }
        } else if let Some((name, passed)) = scenarios::verdict(line) {
            let verdict = if passed { Verdict::Passed } else { Verdict::Failed };
            self.verdicts
                .insert((self.running.clone(), name.to_owned()), verdict);
        }
    }
}

/// Boots `kernel` on `archive`, runs these programs of scenarios and waits until it is off. What it says goes to the
/// file `log` as it comes.
pub fn run(kernel: &Kernel, archive: &Path, settings: &str, programs: &[String], log: &Path) -> Result<Said> {
    let mut all = Said::default();
    let mut left = programs;
    let mut boots = 1;
    loop {
        let settings = format!("{settings} lab.scenarios={}", left.join(","));
        // One processor alone can't be killed this way.
        let processors = if boots == 1 { PROCESSORS } else { 1 };
        let mut said = boot(kernel, archive, &settings, processors, log)?;
        let running = std::mem::take(&mut said.running);
        let emulator = emulator_killed(&said.log);
        let died = !said.done;
        let last = tail(&said.log);
        all.add(said);
        if !died {
            return Ok(all);
        }
        if boots == BOOTS || !emulator {
            bail!("kernel {} died; it said last:\n{last}", kernel.release);
        }
        boots += 1;
        // What ran to its end has its verdicts.
        let ran = left.iter().position(|program| *program == running).unwrap_or(0);
        left = &left[ran..];
        println!(
            "kernel {} was killed by the emulator, and is booted again on one processor for {}",
            kernel.release,
            left.join(", ")
        );
    }
}

/// Whether a guest that died did so by a known fault of the emulator, and not of its own. A kernel that patches itself,
/// as it does whenever something is attached to a tracepoint, puts a breakpoint there and waits until no processor can
/// meet it any more before it forgets it. A processor that QEMU emulates in a thread of its own may meet it later, or again and
/// again. A guest that spins for a reason of its own does so on one processor, too.
fn emulator_killed(log: &str) -> bool {
    !log.contains(" is up\n") || log.contains("int3: 0000 [#1]") || spins(log)
}

/// Whether its processors do nothing but one thing, as the kernel has found several times: half a minute apart each.
fn spins(log: &str) -> bool {
    const TIMES: usize = 4;
    log.matches("watchdog: BUG: soft lockup").count() >= TIMES
}

fn boot(kernel: &Kernel, archive: &Path, settings: &str, processors: u32, log: &Path) -> Result<Said> {
    let mut file = File::create(log).with_context(|| format!("can't write {}", log.display()))?;
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "2G", "-smp"])
        .arg(processors.to_string())
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-serial",
            "stdio",
        ])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(archive)
        .args([
            "-append",
            &format!("console=ttyS0 quiet panic=-1 rdinit=/init {settings}"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = Child::spawn(&mut command).context("can't start QEMU")?;
    let stdout = child.inner().stdout.take().context("no stdout of QEMU")?;
    let (lines, said) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if lines
                .send(String::from_utf8_lossy(&line).trim_end().to_owned())
                .is_err()
            {
                return;
            }
            line.clear();
        }
    });
    let start = Instant::now();
    let mut all = Said::default();
    loop {
        match said.recv_timeout(LONGEST.saturating_sub(start.elapsed())) {
            Ok(line) => {
                all.line(&line);
                writeln!(file, "{line}")?;
                all.log.push_str(&line);
                all.log.push('\n');
                if processors > 1 && line.contains("soft lockup") && spins(&all.log) {
                    break;
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => bail!(
                "kernel {} did not come to its end within {} minutes; it said last ({} has all):\n{}",
                kernel.release,
                LONGEST.as_secs() / 60,
                log.display(),
                tail(&all.log)
            ),
        }
    }
    Ok(all)
}

/// The end of a guest's words.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// What the failed scenarios said, from the test runner's own account of them.
pub fn failures(log: &str) -> String {
    let mut told = String::new();
    let mut inside = false;
    for line in log.lines() {
        if line.starts_with("---- ") {
            inside = true;
        } else if line == "failures:" || line.starts_with("test result: ") {
            inside = false;
        }
        if inside {
            told.push_str(line);
            told.push('\n');
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::{Said, Verdict, emulator_killed, failures};

    #[test]
    fn whose_fault_a_death_is() {
        let up = "guest: 6.18 is up\n";
        for (log, emulator) in [
            ("[    0.1] Run /init as init process\n".to_owned(), true),
            (format!("{up}[  440.8] Oops: int3: 0000 [#1] SMP NOPTI\n"), true),
            (format!("{up}[  440.8] int3: 0000 [#1] SMP NOPTI\n"), true),
            (
                format!(
                    "{up}{}",
                    "[  116.8] watchdog: BUG: soft lockup - CPU#1\n".repeat(4)
                ),
                true,
            ),
            (
                format!("{up}[  116.8] watchdog: BUG: soft lockup - CPU#1\n"),
                false,
            ),
            (format!("{up}[  440.8] Oops: general protection fault\n"), false),
            // The first fault tells why, later ones follow from it.
            (format!("{up}[  440.8] Oops: int3: 0000 [#2] SMP NOPTI\n"), false),
            (format!("{up}test a ... ok\n"), false),
        ] {
            assert_eq!(emulator_killed(&log), emulator, "{log}");
        }
    }

    #[test]
    fn a_later_boot_knows_better() {
        let mut all = Said::default();
        for line in [
            "guest: scenarios vxlan",
            "test a ... ok",
            "guest: scenarios cause",
            "test b ... FAILED",
        ] {
            all.line(line);
        }
        assert_eq!(all.running, "cause");
        let mut later = Said::default();
        for line in ["guest: scenarios cause", "test b ... ok", "guest: done"] {
            later.line(line);
        }
        all.add(later);
        assert!(
            all.done && all.failed().is_empty() && all.verdicts.len() == 2,
            "{all:?}"
        );
    }

    #[test]
    fn what_failed_scenarios_said() {
        let log = "test a ... FAILED\n\nfailures:\n\n---- a stdout ----\npanicked\n\nfailures:\n    a\n\ntest result: FAILED.\n";
        assert_eq!(failures(log), "---- a stdout ----\npanicked\n\n");
        assert_eq!(failures("test a ... ok\n"), "");
    }

    #[test]
    fn what_a_guest_says() {
        let mut said = Said::default();
        for line in [
            "guest: scenarios connection",
            "test half_open ... ok",
            "test refused ... ok",
            "test no_reply ... FAILED",
            "test result: FAILED. 2 passed; 1 failed",
            "guest: scenarios etcd",
            "test half_open ... ok",
            "skipped\tconnection\trefused\t6.10\tno hook",
            "guest: done[   18.101541] sysrq: Power Off",
        ] {
            said.line(line);
        }
        let verdict =
            |program: &str, name: &str| said.verdicts[&(program.to_owned(), name.to_owned())].clone();
        assert_eq!(said.verdicts.len(), 4);
        assert_eq!(verdict("connection", "half_open"), Verdict::Passed);
        assert_eq!(verdict("connection", "no_reply"), Verdict::Failed);
        assert_eq!(verdict("etcd", "half_open"), Verdict::Passed);
        assert!(
            matches!(verdict("connection", "refused"), Verdict::Skipped { minimum, .. } if minimum == "6.10")
        );
        assert!(said.done);
        assert_eq!(said.failed(), [("connection".to_owned(), "no_reply".to_owned())]);
        // Only what passes when it runs again is not steady.
        let mut again = Said::default();
        again.line("guest: scenarios connection");
        again.line("test no_reply ... FAILED");
        said.settle(&again);
        assert_eq!(said.failed().len(), 1);
        again.line("test no_reply ... ok");
        said.settle(&again);
        assert_eq!(said.failed(), []);
        assert_eq!(
            said.verdicts[&("connection".to_owned(), "no_reply".to_owned())],
            Verdict::Unsteady
        );
    }
}
