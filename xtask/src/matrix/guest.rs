//! A kernel booted in QEMU, and the results of the scenarios in it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use probe_lab::Child;

use super::{image::Step, kernels::Kernel};
use crate::scenarios;

/// Longer means that the guest hangs.
const LONGEST: Duration = Duration::from_secs(90 * 60);
/// A silence as long as this is broken by a line of progress.
const SILENCE: Duration = Duration::from_secs(30);
/// A guest's processors. A kernel that patches itself, as it does whenever something is attached to a tracepoint, puts a
/// breakpoint there and waits until no processor can meet it any more. A second processor, which QEMU emulates in a thread of its
/// own, may meet it later and kill the guest, or meet it again and again. With one processor neither can happen.
pub const PROCESSORS: usize = 1;
/// A guest's clock counts instructions, 2 ns each, and jumps to the next timer when the guest is idle. So the guest has one speed
/// however busy this machine is, nothing times out because others run here, and waiting costs no time.
const TIME: &str = "shift=1,sleep=off";
/// Without fast string instructions: the kernel clears and copies pages with them byte by byte, each an iteration of the emulator,
/// a third of all that a guest did.
const CPU: &str = "max,-erms,-fsrm";

/// What became of one scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
    /// Why, and the kernel from which it must run.
    Skipped {
        minimum: String,
        reason: String,
    },
}

/// What a guest printed, understood.
#[derive(Debug, Default)]
pub struct Results {
    /// By program, and in it by the scenario's name.
    pub programs: BTreeMap<String, BTreeMap<String, Verdict>>,
    /// `probe check -o json`, and its exit code.
    pub check: Option<(String, i32)>,
    /// All lines.
    pub log: String,
    /// The program of scenarios that runs.
    running: String,
    /// Programs whose exit code did not fit their verdicts.
    pub crashed: Vec<String>,
    /// How long each program took.
    pub times: BTreeMap<String, Duration>,
    done: bool,
}

/// What a line of a guest means to whoever waits for it.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Up,
    Started,
    /// A scenario ended.
    Verdict,
    /// A program of scenarios ended.
    Ended(String),
    Other,
}

impl Results {
    /// Understands what init and the test runner print.
    fn line(&mut self, line: &str) -> Event {
        self.log.push_str(line);
        self.log.push('\n');
        if let Some(guest) = line.strip_prefix("guest: ") {
            let words: Vec<&str> = guest.splitn(3, ' ').collect();
            return match words.as_slice() {
                [_, "is", "up"] => Event::Up,
                ["check", status, json] => {
                    self.check = Some(((*json).to_owned(), status.parse().unwrap_or(-1)));
                    Event::Other
                }
                ["scenarios", program] => {
                    (*program).clone_into(&mut self.running);
                    self.programs.entry(self.running.clone()).or_default();
                    Event::Started
                }
                ["ended", program, status] => {
                    let verdicts = self.programs.get(*program);
                    let failed = verdicts
                        .is_some_and(|verdicts| verdicts.values().any(|verdict| *verdict == Verdict::Failed));
                    if (*status != "0") != failed {
                        self.crashed.push((*program).to_owned());
                    }
                    Event::Ended((*program).to_owned())
                }
                ["done"] => {
                    self.done = true;
                    Event::Other
                }
                _ => Event::Other,
            };
        }
        if let Some(skip) = line.strip_prefix("skipped\t") {
            let fields: Vec<&str> = skip.split('\t').collect();
            if let [program, name, minimum, reason] = fields.as_slice() {
                let verdict = Verdict::Skipped {
                    minimum: (*minimum).to_owned(),
                    reason: (*reason).to_owned(),
                };
                self.verdict(program, name, verdict);
            }
            return Event::Other;
        }
        if let Some((name, passed)) = scenarios::verdict(line) {
            let verdict = if passed { Verdict::Passed } else { Verdict::Failed };
            let program = self.running.clone();
            self.verdict(&program, name, verdict);
            return Event::Verdict;
        }
        Event::Other
    }

    fn verdict(&mut self, program: &str, name: &str, verdict: Verdict) {
        let verdicts = self.programs.entry(program.to_owned()).or_default();
        // One that failed before or after it was skipped in part did not pass.
        if verdicts.get(name) != Some(&Verdict::Failed) {
            verdicts.insert(name.to_owned(), verdict);
        }
    }
}

/// One guest to boot.
pub struct Boot<'a> {
    pub name: &'a str,
    pub kernel: &'a Kernel,
    /// The initial RAM file system.
    pub archive: &'a Path,
    /// Version of its control groups.
    pub cgroup: u8,
    /// Whether `probe check` runs before the scenarios.
    pub check: bool,
    /// What runs in it; with it, how many scenarios.
    pub steps: &'a [(Step, usize)],
    /// Where all that it prints is kept.
    pub log: PathBuf,
}

impl Boot<'_> {
    /// The file of what the kernel itself prints.
    fn console(&self) -> PathBuf {
        self.log.with_extension("kernel.log")
    }

    /// Boots it and waits until it is off. `ended` is called with each program of scenarios that ends.
    ///
    /// # Errors
    /// When it dies, or hangs.
    pub fn run(&self, mut ended: impl FnMut(&str, &Results)) -> Result<Results> {
        let mut file =
            File::create(&self.log).with_context(|| format!("can't write {}", self.log.display()))?;
        let mut child = Child::spawn(&mut self.command()).context("can't start QEMU")?;
        let stdout = child.inner().stdout.take().context("no stdout of QEMU")?;
        let lines = lines(stdout);
        let start = Instant::now();
        let (mut since, mut printed) = (start, start);
        let mut results = Results::default();
        let mut ended_programs = 0;
        println!("{}: booting {}", self.name, self.kernel.release);
        loop {
            // Also one that prints without end.
            if start.elapsed() > LONGEST {
                bail!(
                    "kernel {} hangs: not off after {} min; its last lines ({} and {} have all):\n{}",
                    self.kernel.release,
                    LONGEST.as_secs() / 60,
                    self.log.display(),
                    self.console().display(),
                    self.tail(&results.log)
                );
            }
            let line = match lines.recv_timeout(SILENCE) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.progress(&results, ended_programs, since);
                    printed = Instant::now();
                    continue;
                }
            };
            writeln!(file, "{line}")?;
            match results.line(&line) {
                Event::Up => println!(
                    "{}: {} is up after {:.0} s",
                    self.name,
                    self.kernel.release,
                    start.elapsed().as_secs_f64()
                ),
                Event::Started => {
                    since = Instant::now();
                    printed = since;
                }
                Event::Verdict if printed.elapsed() > SILENCE => {
                    self.progress(&results, ended_programs, since);
                    printed = Instant::now();
                }
                Event::Ended(program) => {
                    ended_programs += 1;
                    results.times.insert(program.clone(), since.elapsed());
                    self.progress(&results, ended_programs, since);
                    printed = Instant::now();
                    ended(&program, &results);
                }
                Event::Verdict | Event::Other => {}
            }
        }
        if !results.done {
            bail!(
                "kernel {} died after {:.0} s; its last lines ({} and {} have all):\n{}",
                self.kernel.release,
                start.elapsed().as_secs_f64(),
                self.log.display(),
                self.console().display(),
                self.tail(&results.log)
            );
        }
        Ok(results)
    }

    /// One line: the program that runs or ended, how many of its scenarios ended, how long it runs.
    fn progress(&self, results: &Results, ended: usize, since: Instant) {
        let seconds = since.elapsed().as_secs_f64();
        let program = &results.running;
        let Some((number, (_, scenarios))) = self
            .steps
            .iter()
            .enumerate()
            .find(|(_, (step, _))| step.program == *program)
        else {
            println!("{}: booting for {seconds:.0} s", self.name);
            return;
        };
        let verdicts = results.programs.get(program);
        let failed = verdicts.map_or(0, |verdicts| {
            verdicts
                .values()
                .filter(|verdict| **verdict == Verdict::Failed)
                .count()
        });
        let failed = if failed == 0 {
            String::new()
        } else {
            format!(", {failed} FAILED")
        };
        println!(
            "{}: {program} ({} of {}): {} of {scenarios} scenarios{failed}, {} {seconds:.0} s",
            self.name,
            number + 1,
            self.steps.len(),
            verdicts.map_or(0, BTreeMap::len),
            if ended > number { "done in" } else { "running for" },
        );
    }

    fn command(&self) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args([
                "-accel",
                "tcg,thread=single",
                "-icount",
                TIME,
                "-cpu",
                CPU,
                "-m",
                "2G",
                "-smp",
            ])
            .arg(PROCESSORS.to_string())
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            // The kernel's lines have a port of their own: in the middle of a result they would hide it.
            .arg("-serial")
            .arg(format!("file:{}", self.console().display()))
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.archive)
            .arg("-append")
            .arg(self.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    /// The kernel's command line.
    fn arguments(&self) -> String {
        let mut arguments = format!(
            "console=ttyS0 quiet panic=-1 rdinit=/init lab.cgroup={} lab.check={}",
            self.cgroup,
            u8::from(self.check)
        );
        if self.kernel.enforce_signatures {
            arguments.push_str(" module.sig_enforce=1");
        }
        arguments
    }

    /// The end of what scenarios and kernel printed.
    fn tail(&self, log: &str) -> String {
        let kernel = fs::read(self.console()).unwrap_or_default();
        let kernel = String::from_utf8_lossy(&kernel);
        format!("{}\n(kernel)\n{}", tail(log), tail(&kernel))
    }
}

/// The lines of a stream as they come, whatever bytes are in them.
fn lines(stream: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if sender
                .send(String::from_utf8_lossy(&line).trim_end().to_owned())
                .is_err()
            {
                return;
            }
            line.clear();
        }
    });
    lines
}

/// The last lines of a text.
fn tail(log: &str) -> String {
    const LINES: usize = 20;
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// What the failed scenarios printed, from the test runner's own account of them.
pub fn failures(log: &str) -> String {
    let mut output = String::new();
    let mut inside = false;
    for line in log.lines() {
        if line.starts_with("---- ") {
            inside = true;
        } else if line == "failures:" || line.starts_with("test result: ") {
            inside = false;
        }
        if inside {
            output.push_str(line);
            output.push('\n');
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::{Event, Results, Verdict, failures};

    #[test]
    fn output_of_failed_scenarios() {
        let log = "test a ... FAILED\n\nfailures:\n\n---- a stdout ----\npanicked\n\nfailures:\n    a\n\ntest result: FAILED.\n";
        assert_eq!(failures(log), "---- a stdout ----\npanicked\n\n");
        assert_eq!(failures("test a ... ok\n"), "");
    }

    #[test]
    fn lines_of_a_guest() {
        let mut results = Results::default();
        for (line, event) in [
            ("guest: 6.1.0-50-cloud-amd64 is up", Event::Up),
            ("guest: check 0 {\"kernel\": \"6.1\"}", Event::Other),
            ("guest: scenarios connection", Event::Started),
            ("", Event::Other),
            ("running 3 tests", Event::Other),
            ("test half_open ... ok", Event::Verdict),
            ("test refused ... ok", Event::Verdict),
            ("test no_reply ... FAILED", Event::Verdict),
            ("test result: FAILED. 2 passed; 1 failed", Event::Other),
            ("skipped\tconnection\trefused\t6.10\tno hook", Event::Other),
            ("skipped\tconnection\tno_reply\t6.10\tno hook", Event::Other),
            (
                "guest: ended connection 101",
                Event::Ended("connection".to_owned()),
            ),
            ("guest: scenarios etcd", Event::Started),
            ("test half_open ... ok", Event::Verdict),
            ("guest: ended etcd 0", Event::Ended("etcd".to_owned())),
            ("guest: scenarios tls", Event::Started),
            ("guest: ended tls 139", Event::Ended("tls".to_owned())),
        ] {
            assert_eq!(results.line(line), event, "{line}");
        }
        assert!(!results.done);
        results.line("guest: done");
        assert!(results.done);
        let verdict = |program: &str, name: &str| results.programs[program][name].clone();
        assert_eq!(verdict("connection", "half_open"), Verdict::Passed);
        assert_eq!(verdict("connection", "no_reply"), Verdict::Failed);
        assert_eq!(verdict("etcd", "half_open"), Verdict::Passed);
        assert!(
            matches!(verdict("connection", "refused"), Verdict::Skipped { minimum, .. } if minimum == "6.10")
        );
        assert_eq!(results.crashed, ["tls"]);
        assert_eq!(results.check, Some(("{\"kernel\": \"6.1\"}".to_owned(), 0)));
    }
}
