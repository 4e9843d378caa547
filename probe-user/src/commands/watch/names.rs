//! The kernel's tables as the attribution room asks for them.

use crate::{
    attribution::{KernelCommand, KernelNames},
    kernel::connection::Tables,
};

impl KernelNames for Tables {
    fn cgroup_names(&self, id: u64) -> Option<Vec<String>> {
        let path = self.cgroup(id)?;
        Some(
            path.names
                .iter()
                .map(|name| text(until_zero(name)))
                .take_while(|name| !name.is_empty())
                .collect(),
        )
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

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
