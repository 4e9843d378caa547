//! Control groups as the kernel side took them.

use probe_ebpf::contract::connection::CgroupPath;

/// The names of a control group and of those above it, leaf first.
pub fn names(path: &CgroupPath) -> Vec<String> {
    path.names
        .iter()
        .map(|name| name.split(|byte| *byte == 0).next().unwrap_or_default())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .take_while(|name| !name.is_empty())
        .collect()
}
