//! The kernel's tables as the attribution room asks for them.

use crate::{
    attribution::{KernelCommand, KernelNames},
    capture::cgroup,
    kernel::connection::Tables,
};

impl KernelNames for Tables {
    fn cgroup_names(&self, id: u64) -> Option<Vec<String>> {
        self.cgroup(id).as_ref().map(cgroup::names)
    }

    fn command(&self, pid: u32, start_boot_ns: u64) -> Option<KernelCommand> {
        let process = self
            .process(pid)
            .filter(|process| process.start_boot_ns == start_boot_ns)?;
        let bytes = process.command.get(..process.length as usize)?;
        let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        if bytes.is_empty() {
            return None;
        }
        Some(KernelCommand {
            arguments: bytes.split(|byte| *byte == 0).map(text).collect(),
            cut: process.full_length > process.length,
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
