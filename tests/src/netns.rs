//! Network namespaces.

use std::{
    fs::File,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::Path,
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    process::{Child, feed, output, run},
    wait::wait_until,
};

const DIRECTORY: &str = "/run/netns";
/// Of all that the lab makes; the process follows.
pub const PREFIX: &str = "probe-lab-";

/// A network namespace of the lab's own; dropping it removes it with all that is in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
    /// Holds the namespace as a pod's pause container does; ends first.
    pause: Option<Child>,
}

impl Netns {
    /// A new one, its loopback up. `role` makes its name speak in `ip netns`.
    pub fn new(role: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        let name = format!(
            "{PREFIX}{}-{}-{role}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        run(&format!("ip netns add {name}")).context("the lab needs root and iproute2")?;
        let path = Path::new(DIRECTORY).join(&name);
        let file = File::open(&path).with_context(|| format!("can't open {}", path.display()))?;
        let mut netns = Self {
            name,
            file,
            pause: None,
        };
        netns.ip("link set lo up")?;
        netns.pause = Some(Child::spawn(netns.command("sleep").arg("infinity"))?);
        Ok(netns)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip` inside.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        run(&format!("ip -n {} {arguments}", self.name))
    }

    /// Several `ip` commands inside, by one process.
    pub fn ip_each<S: AsRef<str>>(&self, commands: impl IntoIterator<Item = S>) -> Result<()> {
        let mut lines = String::new();
        for command in commands {
            lines.push_str(command.as_ref());
            lines.push('\n');
        }
        feed(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), &lines)
    }

    /// Waits until a device carries packets. A worker of the kernel takes one into use when its other end comes up; what is
    /// sent until then is dropped. An address of IPv6 is taken into use later still.
    pub fn carries(&self, device: &str) -> Result<()> {
        let is_ready = || {
            let shown = self.ip(&format!("addr show dev {device}")).ok()?;
            let tentative = |line: &str| line.contains("scope global") && line.contains("tentative");
            (shown.contains(" state UP ") && !shown.lines().any(tentative)).then_some(())
        };
        let what = format!("{device} of {} carries packets", self.name);
        wait_until(&what, Duration::from_secs(10), is_ready)
    }

    /// Sets one of `sysctl`'s settings inside.
    pub fn set(&self, setting: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(setting.replace('.', "/"));
        self.enter(|| std::fs::write(&path, value))?
            .with_context(|| format!("can't set {setting} to {value}"))
    }

    /// Any command line inside, split at spaces.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        output(self.command(words.next().unwrap_or_default()).args(words))
    }

    /// A command that will run inside. Unlike `ip netns exec` it keeps /sys, and with it the control groups.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let fd = self.file.as_raw_fd();
        // SAFETY: setns is async-signal-safe, and the descriptor stays open as long as this guard, which outlives
        // the start of everything in it.
        unsafe {
            command.pre_exec(move || {
                let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
                setns(fd, CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)
            });
        }
        command
    }

    /// Runs `inside` in a thread that has entered. Sockets made there stay there, whoever uses them.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("can't enter {}", self.name))?;
                Ok(inside())
            });
            thread
                .join()
                .map_err(|_| anyhow!("what ran in {} panicked", self.name))?
        })
    }
}

impl Netns {
    /// A thread that has entered, and runs on.
    pub fn spawn(&self, inside: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
        let (file, name) = (self.file.try_clone()?, self.name.clone());
        Ok(thread::spawn(move || {
            match setns(&file, CloneFlags::CLONE_NEWNET) {
                Ok(()) => inside(),
                Err(error) => eprintln!("can't enter {name}: {error}"),
            }
        }))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.pause = None;
        remove(&self.name);
    }
}

fn remove(name: &str) {
    for pid in run(&format!("ip netns pids {name}"))
        .unwrap_or_default()
        .split_whitespace()
    {
        let pid = pid.parse().map(Pid::from_raw);
        let _ = pid.map(|pid| kill(pid, Signal::SIGKILL));
    }
    let _ = run(&format!("ip netns del {name}"));
}

/// Removes what processes that were killed left behind.
fn sweep() {
    for entry in std::fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|name| orphaned(name)) {
            remove(name);
        }
    }
}

/// Whether `name`, of a thing that the lab made, names a process that is no more.
pub fn orphaned(name: &str) -> bool {
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists())
}
