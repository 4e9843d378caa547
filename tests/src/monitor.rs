//! The incident's monitor: `connect_ex` and `close`, and nothing else.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
};

use anyhow::Result;

use crate::{cgroup::Cgroup, netns::Netns, process::Child};

const SCRIPT: &str = "\
import socket, sys, time
address, every, times = (sys.argv[1], int(sys.argv[2])), float(sys.argv[3]), int(sys.argv[4])
due = time.monotonic()
while times != 0:
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    result = s.connect_ex(address)
    s.close()
    times -= 1
    due += every
    if times != 0:
        time.sleep(max(0, due - time.monotonic()))
";

/// A running monitor; dropping it ends it.
#[derive(Debug)]
pub struct Monitor(Child);

impl Monitor {
    /// Dials `etcd` every `every` seconds until dropped; late once, it is not late for ever after.
    pub fn start(netns: &Netns, etcd: SocketAddr, every: f64, cgroup: Option<&Cgroup>) -> Result<Self> {
        let mut command = script(netns, etcd, every, -1);
        if let Some(cgroup) = cgroup {
            cgroup.place(&mut command);
        }
        Ok(Self(Child::spawn(&mut command)?))
    }

    /// Dials `times` times, `every` seconds apart, to its end.
    pub fn run(netns: &Netns, etcd: SocketAddr, every: f64, times: u32) -> Result<()> {
        crate::process::output(&mut script(netns, etcd, every, i64::from(times)))?;
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.0.pid()
    }
}

fn script(netns: &Netns, etcd: SocketAddr, every: f64, times: i64) -> Command {
    let mut command = netns.command("python3");
    let (ip, port) = (etcd.ip().to_string(), etcd.port().to_string());
    command
        .args(["-c", SCRIPT, &ip, &port, &every.to_string(), &times.to_string()])
        .stdin(Stdio::null());
    command
}
