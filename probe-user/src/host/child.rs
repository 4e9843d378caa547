//! A program of the node, run with bounds: of time, of output, and of memory. What it started ends with it.

use std::{
    io::{self, Read},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        prctl::set_pdeathsig,
        resource::{Resource, setrlimit},
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

/// How often a program that has closed its output is checked for its end.
const CHECK_EVERY: Duration = Duration::from_millis(5);
/// How much of stderr is kept.
const STDERR_BYTES: usize = 4096;
/// Bytes read at once.
const CHUNK: usize = 16 << 10;

/// Keeps a program that a command will run from using more than so many bytes of memory: it can't map more.
pub fn limit_memory(command: &mut Command, bytes: u64) {
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe {
        command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_AS, bytes, bytes)?));
    }
}

/// What a program printed, and its end.
#[derive(Debug)]
pub struct ChildOutput {
    /// Until its end, or the limit.
    pub stdout: Vec<u8>,
    /// The beginning.
    pub stderr: Vec<u8>,
    pub end: ChildEnd,
}

/// How a program ended.
#[derive(Debug)]
pub enum ChildEnd {
    Exited(ExitStatus),
    /// It was killed, since it ran too long.
    TimedOut,
    /// It was killed, since it printed too much.
    TooMuch,
    /// It was killed, since it could not be read from or waited for.
    Lost(io::Error),
}

/// Runs a program until then, without input; `limit`: how many bytes it may print. It runs in the calling thread's namespaces,
/// as children do.
///
/// # Errors
/// When it can't be started.
pub fn run(mut command: Command, until: Instant, limit: usize) -> io::Result<ChildOutput> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    // A group of its own gets no Ctrl-C of the terminal.
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe {
        command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
    }
    let mut child = Group(command.spawn()?);
    let stderr = child
        .0
        .stderr
        .take()
        .map(|pipe| Collected::of(pipe, STDERR_BYTES));
    let stdout = child.0.stdout.take().map(|pipe| Collected::of(pipe, limit));
    let (stdout, stderr) = (stdout.transpose()?, stderr.transpose()?);
    let early = child.listen(stdout.as_ref(), until);
    let status = child.stop();
    let end = match (early, status) {
        (Some(end), _) => end,
        (None, Ok(status)) => ChildEnd::Exited(status),
        (None, Err(error)) => ChildEnd::Lost(error),
    };
    if let (ChildEnd::Exited(_), Some(stderr)) = (&end, &stderr) {
        // What it says of a failure is there, or soon.
        let _ = stderr.wait(until);
    }
    Ok(ChildOutput {
        stdout: stdout.map(Collected::taken).unwrap_or_default(),
        stderr: stderr.map(Collected::taken).unwrap_or_default(),
        end,
    })
}

/// A child that leads a process group.
struct Group(Child);

impl Group {
    /// Waits until it has closed its output and ended; else why it is to be killed.
    fn listen(&self, stdout: Option<&Collected>, until: Instant) -> Option<ChildEnd> {
        if let Some(end) = stdout.and_then(|stdout| stdout.wait(until)) {
            return Some(end);
        }
        let id = Pid::from_raw(self.0.id().cast_signed());
        // It is not reaped yet: until then nobody else has its number.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        loop {
            match waitid(Id::Pid(id), flags) {
                Ok(WaitStatus::StillAlive) if Instant::now() < until => thread::sleep(CHECK_EVERY),
                Ok(WaitStatus::StillAlive) => return Some(ChildEnd::TimedOut),
                Ok(_) => return None,
                Err(error) => return Some(ChildEnd::Lost(error.into())),
            }
        }
    }

    /// Kills what is left of the group.
    fn stop(&mut self) -> io::Result<ExitStatus> {
        // Where nothing is left there is nothing to kill.
        let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        self.0.wait()
    }
}

/// What comes out of a pipe, read by a thread of its own.
struct Collected {
    kept: Arc<Mutex<Vec<u8>>>,
    /// Whether all of it is kept, as soon as that is known.
    done: Receiver<io::Result<bool>>,
}

impl Collected {
    /// Reads on beyond `limit` without keeping more: else the writer would wait.
    fn of(mut pipe: impl Read + Send + 'static, limit: usize) -> io::Result<Self> {
        let kept = Arc::new(Mutex::new(Vec::new()));
        // One is sent at the limit, and one at the end.
        let (sender, done) = mpsc::sync_channel(2);
        let shared = Arc::clone(&kept);
        let read = move || {
            let mut chunk = vec![0; CHUNK];
            let mut is_full = false;
            loop {
                let bytes = match pipe.read(&mut chunk) {
                    Ok(0) => return drop(sender.send(Ok(!is_full))),
                    Ok(length) => chunk.get(..length).unwrap_or_default(),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return drop(sender.send(Err(error))),
                };
                if is_full {
                    continue;
                }
                let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let room = limit.saturating_sub(kept.len());
                kept.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
                is_full = bytes.len() > room;
                drop(kept);
                if is_full && sender.send(Ok(false)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("child-output".to_owned())
            .spawn(read)?;
        Ok(Self { kept, done })
    }

    /// Waits until the pipe is closed; else why that is not to be waited for.
    fn wait(&self, until: Instant) -> Option<ChildEnd> {
        match self
            .done
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            Ok(Ok(true)) => None,
            Ok(Ok(false)) => Some(ChildEnd::TooMuch),
            Ok(Err(error)) => Some(ChildEnd::Lost(error)),
            Err(RecvTimeoutError::Timeout) => Some(ChildEnd::TimedOut),
            Err(RecvTimeoutError::Disconnected) => {
                Some(ChildEnd::Lost(io::Error::other("the thread that reads it ended")))
            }
        }
    }

    /// What is there by now.
    fn taken(self) -> Vec<u8> {
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shell(script: &str, until: Duration, limit: usize) -> ChildOutput {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, Instant::now() + until, limit).unwrap()
    }

    #[test]
    fn what_it_printed_and_its_end() {
        let long = Duration::from_secs(20);
        let output = shell("echo out; echo err >&2; exit 3", long, 100);
        assert_eq!(
            (output.stdout.as_slice(), output.stderr.as_slice()),
            (b"out\n".as_slice(), b"err\n".as_slice())
        );
        assert!(matches!(output.end, ChildEnd::Exited(status) if status.code() == Some(3)));
        let output = shell("head -c 1000000 /dev/zero >&2; printf 0123456789", long, 10);
        assert!(
            matches!(output.end, ChildEnd::Exited(status) if status.success()),
            "{:?}",
            output.end
        );
        assert_eq!(
            (output.stdout.as_slice(), output.stderr.len()),
            (b"0123456789".as_slice(), STDERR_BYTES)
        );
        let output = shell("printf 0123456789a; exec sleep 100", long, 10);
        assert!(matches!(output.end, ChildEnd::TooMuch), "{:?}", output.end);
        assert_eq!(output.stdout, b"0123456789");
        assert!(run(Command::new("/nonexistent"), Instant::now() + long, 10).is_err());
    }

    #[test]
    fn memory_is_limited() {
        let uses = |megabytes: u64| {
            let mut command = Command::new("sh");
            command.args([
                "-c",
                &format!("head -c {megabytes}M /dev/zero | tail -n 1 | wc -c"),
            ]);
            limit_memory(&mut command, 64 << 20);
            run(command, Instant::now() + Duration::from_secs(20), 100).unwrap()
        };
        assert_eq!(uses(1).stdout, b"1048576\n");
        // A line that is no end is kept as a whole.
        let output = uses(200);
        assert_eq!(output.stdout, b"0\n", "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("memory"),
            "{output:?}"
        );
    }

    /// What it started ends with it, whether it ended itself, closed its output or neither.
    #[test]
    fn nobody_is_left() {
        for (script, is_late) in [
            ("sleep 100 & echo $!; wait", true),
            ("sleep 100 & echo $!", true),
            ("sleep 100 >&- 2>&- & echo $!", false),
            ("sleep 100 & echo $!; exec >&- 2>&-; wait", true),
        ] {
            let begun = Instant::now();
            let output = shell(script, Duration::from_secs(1), 100);
            assert!(begun.elapsed() < Duration::from_secs(10), "{script}");
            assert_eq!(
                matches!(output.end, ChildEnd::TimedOut),
                is_late,
                "{script}: {:?}",
                output.end
            );
            let left = String::from_utf8(output.stdout).unwrap();
            let stat = Path::new("/proc").join(left.trim()).join("stat");
            let runs = || {
                let stat = std::fs::read_to_string(&stat).unwrap_or_default();
                // A zombie is only not waited for yet by process 1.
                stat.split_whitespace().nth(2).is_some_and(|state| state != "Z")
            };
            let gone = (0..500).any(|_| {
                thread::sleep(Duration::from_millis(10));
                !runs()
            });
            assert!(gone, "{script}: {left}");
        }
    }
}
