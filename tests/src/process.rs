//! Processes that end with their guard, and commands that must succeed.

use std::{
    io::Write as _,
    mem::ManuallyDrop,
    net::TcpStream,
    ops::{Deref, DerefMut},
    os::unix::process::CommandExt as _,
    process::{Command, ExitStatus, Output, Stdio},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::prctl::set_pdeathsig,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A child has copies of all sockets until it executes its program. One that is closed meanwhile is closed for good when the
/// child executes, and the kernel, and with it probe, rightly reports that the child closed it. So nothing is closed while
/// a child has not yet executed its program.
struct Forks {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Children that have not yet executed their program.
    forking: u32,
    /// Those that keep others from forking, and those that wait to.
    quiet: u32,
    waiting: u32,
}

static FORKS: Forks = Forks {
    state: Mutex::new(State {
        forking: 0,
        quiet: 0,
        waiting: 0,
    }),
    changed: Condvar::new(),
};

impl Forks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waiting = self.changed.wait_while(self.state(), |state| !until(state));
        waiting.unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }
}

/// Ends what it stands for, also after a panic.
struct Ended(fn(&mut State));

impl Drop for Ended {
    fn drop(&mut self) {
        FORKS.change(self.0);
    }
}

/// Runs `talk` while nobody forks: sockets closed in it are closed by this process. May be used inside itself; never waits
/// for a fork that waits.
pub fn without_forks<T>(talk: impl FnOnce() -> T) -> T {
    FORKS.state().waiting += 1;
    let mut state = FORKS.wait(|state| state.forking == 0);
    state.waiting -= 1;
    state.quiet += 1;
    drop(state);
    let _quiet = Ended(|state| state.quiet -= 1);
    talk()
}

/// Every process of the lab is started by this one function.
#[expect(clippy::disallowed_methods, reason = "the one place that counts forks")]
fn fork(command: &mut Command) -> std::io::Result<std::process::Child> {
    FORKS.wait(|state| state.quiet + state.waiting == 0).forking += 1;
    let _forking = Ended(|state| state.forking -= 1);
    // With something to do before it executes, the child is forked, and its start reported by the end of a pipe, which the kernel
    // closes after all copies. Otherwise it is started by posix_spawn, which returns earlier: as soon as the child has its new
    // memory (vfork), before the kernel closes the copies (`begin_new_exec`).
    // SAFETY: it does nothing.
    unsafe {
        command.pre_exec(|| Ok(()));
    }
    command.spawn()
}

/// An end of a connection that is closed while nobody forks, hence by this process.
#[derive(Debug)]
pub struct Stream(ManuallyDrop<TcpStream>);

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self(ManuallyDrop::new(stream))
    }
}

impl Deref for Stream {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

impl DerefMut for Stream {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.0
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: dropped here only, and not used after.
        without_forks(|| unsafe { ManuallyDrop::drop(&mut self.0) });
    }
}

/// A running process; dropping it kills it.
#[derive(Debug)]
pub struct Child(std::process::Child);

impl Child {
    /// Starts it in a process group of its own: Ctrl-C is for the lab, which ends what it started. It ends with the
    /// thread that started it, also when the lab is killed.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        command.process_group(0);
        // SAFETY: prctl is async-signal-safe.
        unsafe {
            command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from));
        }
        let program = command.get_program().to_string_lossy().into_owned();
        Ok(Self(
            fork(command).with_context(|| format!("can't start {program}"))?,
        ))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn inner(&mut self) -> &mut std::process::Child {
        &mut self.0
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).context("can't signal a process of the lab")
    }

    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.0.wait().context("can't wait for a process of the lab")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command line, split at spaces, to its end; what it printed is in the error when it fails.
pub fn run(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    output(command.args(words))
}

/// Runs a command to its end, whatever comes of it: what it printed, and how it ended.
pub fn finish(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = fork(command).and_then(std::process::Child::wait_with_output);
    output.with_context(|| format!("can't run {command:?}"))
}

/// Runs a command to its end, with `input` on its standard input.
pub fn feed(command: &mut Command, input: &str) -> Result<()> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = fork(command).with_context(|| format!("can't run {command:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ended early says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{command:?} failed: {}: {} of {input}",
            output.status,
            error.trim()
        );
    }
    Ok(())
}

/// Runs a command to its end and gives back what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = finish(command)?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed: {}: {}", output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read as _, pipe},
        sync::atomic::{AtomicBool, AtomicU32, Ordering},
        thread,
    };

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    /// A pipe ends at once when its last writer is closed: while a child still has a copy, there is nothing to read yet.
    #[test]
    fn what_is_closed_without_forks_is_closed_for_good() {
        let (done, ran) = (AtomicBool::new(false), AtomicU32::new(0));
        let mut held = 0;
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        run("true").unwrap();
                        ran.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..500 {
                let (mut reader, writer) = pipe().unwrap();
                fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
                // Some begin while it is open.
                let before = ran.load(Ordering::Relaxed);
                while ran.load(Ordering::Relaxed) == before {
                    thread::yield_now();
                }
                without_forks(|| drop(writer));
                match reader.read(&mut [0]) {
                    Ok(0) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => held += 1,
                    other => panic!("{other:?}"),
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(held, 0, "a child had a copy of the pipe");
    }
}
