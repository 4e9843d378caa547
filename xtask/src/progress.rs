//! Progress of what takes longer than a few seconds: what runs, how far it is, how long it took. On standard error, so
//! that standard output keeps the results.

use std::{
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::run;

/// Between two heartbeats.
const INTERVAL: Duration = Duration::from_secs(30);

/// Something that takes a while. Prints a line when it starts, one every 30 s while it runs, and one when it is done; the
/// last is left out when it is dropped before `done`, as on an error.
pub struct Progress {
    what: String,
    start: Instant,
    how_far: Arc<Mutex<String>>,
    heartbeat: Option<Heartbeat>,
}

impl Progress {
    /// Starts `what`, such as "building probe"; `note` says how long it usually takes, or is empty.
    pub fn start(what: impl Into<String>, note: &str) -> Self {
        let mut progress = Self::without_heartbeat(what, note);
        let (what, start, how_far) = (
            progress.what.clone(),
            progress.start,
            Arc::clone(&progress.how_far),
        );
        progress.heartbeat = Some(Heartbeat::start(INTERVAL, move || {
            eprintln!("{}", still(&what, start.elapsed(), &text(&how_far)));
        }));
        progress
    }

    /// The same for a child process that shows its own progress, as cargo does on a terminal.
    pub fn without_heartbeat(what: impl Into<String>, note: &str) -> Self {
        let what = what.into();
        eprintln!("{}", started(&what, note));
        Self {
            what,
            start: Instant::now(),
            how_far: Arc::default(),
            heartbeat: None,
        }
    }

    /// How far it is, such as "12 of 40 scenarios": the next heartbeat prints it.
    pub fn set(&self, how_far: impl Into<String>) {
        *self.how_far.lock().unwrap_or_else(PoisonError::into_inner) = how_far.into();
    }

    /// Prints that step `number` of `all` begins, such as "round 2 of 7: bpftrace; 41 s so far".
    pub fn step(&self, step: &str, number: impl Into<u64>, all: impl Into<u64>, detail: &str) {
        let how_far = of(step, number.into(), all.into(), detail);
        eprintln!("{how_far}; {} so far", duration(self.start.elapsed()));
        self.set(how_far);
    }

    /// Prints how long it took.
    pub fn done(self) {
        // The heartbeat ends first: its line would come after.
        drop(self.heartbeat);
        eprintln!("{}: done in {}", self.what, duration(self.start.elapsed()));
    }
}

/// Runs a command as `run::run` does, with progress.
///
/// # Errors
/// When it can't be run or fails.
pub fn run(what: impl Into<String>, note: &str, command: &mut Command) -> Result<()> {
    let progress = Progress::start(what, note);
    run::run(command)?;
    progress.done();
    Ok(())
}

/// Waits for a fixed time, with progress.
pub fn sleep(what: impl Into<String>, note: &str, time: Duration) {
    let progress = Progress::start(what, note);
    thread::sleep(time);
    progress.done();
}

/// A length of time as a person reads it: `0.4 s`, `41 s`, `2 min 10 s`, `1 h 2 min`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{seconds}.{} s", duration.subsec_millis() / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600.. => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

fn text(how_far: &Mutex<String>) -> String {
    how_far.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn started(what: &str, note: &str) -> String {
    if note.is_empty() {
        what.to_owned()
    } else {
        format!("{what} ({note})")
    }
}

fn still(what: &str, elapsed: Duration, how_far: &str) -> String {
    let elapsed = duration(elapsed);
    if how_far.is_empty() {
        format!("still {what}: {elapsed}")
    } else {
        format!("still {what}: {elapsed}, {how_far}")
    }
}

fn of(step: &str, number: u64, all: u64, detail: &str) -> String {
    if detail.is_empty() {
        format!("{step} {number} of {all}")
    } else {
        format!("{step} {number} of {all}: {detail}")
    }
}

/// A thread that does something at an interval, until it is dropped.
struct Heartbeat {
    /// Dropping it wakes the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    fn start(interval: Duration, beat: impl Fn() + Send + 'static) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                beat();
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (milliseconds, expected) in [
            (0, "0.0 s"),
            (449, "0.4 s"),
            (9_999, "9.9 s"),
            (10_000, "10 s"),
            (59_999, "59 s"),
            (60_000, "1 min 0 s"),
            (130_000, "2 min 10 s"),
            (3_599_000, "59 min 59 s"),
            (3_720_000, "1 h 2 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn lines() {
        assert_eq!(started("building probe", ""), "building probe");
        assert_eq!(
            started("building probe", "about a minute"),
            "building probe (about a minute)"
        );
        let elapsed = Duration::from_secs(130);
        assert_eq!(
            still("building probe", elapsed, ""),
            "still building probe: 2 min 10 s"
        );
        assert_eq!(
            still("building probe", elapsed, "12 of 373: serde"),
            "still building probe: 2 min 10 s, 12 of 373: serde"
        );
        assert_eq!(of("round", 2, 7, ""), "round 2 of 7");
        assert_eq!(of("round", 2, 7, "bpftrace"), "round 2 of 7: bpftrace");
    }

    #[test]
    fn a_heartbeat_ends_with_its_owner() {
        let (beats, received) = mpsc::channel();
        let heartbeat = Heartbeat::start(Duration::from_millis(1), move || {
            let _ = beats.send(());
        });
        assert!(received.recv().is_ok() && received.recv().is_ok());
        drop(heartbeat);
        while received.try_recv() == Ok(()) {}
        // The thread has ended and dropped its end.
        assert_eq!(received.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}
