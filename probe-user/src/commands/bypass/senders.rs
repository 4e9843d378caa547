//! Senders of untracked packets.

use std::path::PathBuf;

use probe_ebpf::contract::connection::Task;

use crate::{
    attribution::{Attribution, KernelCommand, KernelNames, Paths, cri::Runtime},
    capture::cgroup,
    kernel::bypass::BypassProbe,
    model::bypass::{stream::UntrackedCount, view::Sender},
};

/// Names senders by their control groups.
pub struct Senders {
    attribution: Attribution,
    netns: u32,
}

impl Senders {
    /// `netns`: the network namespace whose packets are counted.
    pub fn new(pod_logs: PathBuf, runtime: Option<Runtime>, netns: u32) -> Self {
        let paths = Paths {
            proc: "/proc".into(),
            pod_logs,
        };
        Self {
            attribution: Attribution::new(paths, runtime, None),
            netns,
        }
    }

    pub fn runtime(&self) -> Option<&Runtime> {
        self.attribution.runtime()
    }

    /// Who sent the latest packet of a stream; `None` where that is not known, or it is in no group of its own.
    pub fn sender(&mut self, count: &UntrackedCount, probe: &BypassProbe) -> Option<Sender> {
        let id = count.sender?;
        let mut names = probe.cgroup_names(id)?;
        if names.is_empty() {
            return None;
        }
        let task = Task {
            cgroup: id,
            ..bytemuck::Zeroable::zeroed()
        };
        let owner = self.attribution.owner(&task, self.netns, probe);
        names.reverse();
        Some(Sender {
            cgroup: names.join("/"),
            owner,
            others: count.others,
        })
    }
}

impl KernelNames for BypassProbe {
    fn cgroup_names(&self, id: u64) -> Option<Vec<String>> {
        self.cgroup(id).as_ref().map(cgroup::names)
    }

    /// A socket has no reference to its process.
    fn command(&self, _pid: u32, _start_boot_ns: u64) -> Option<KernelCommand> {
        None
    }
}
