//! The control group hierarchy that identifies containers on this node.

use std::{fs, path::Path};

use probe_ebpf::contract::connection::CGROUP_V2;

use super::types::KernelTypes;

/// Controllers that kubelets and container runtimes make a group for in every container, the surest first, with
/// their names in `enum cgroup_subsys_id`.
const CONTROLLERS: [(&str, &str); 5] = [
    ("pids", "pids_cgrp_id"),
    ("memory", "memory_cgrp_id"),
    ("cpu", "cpu_cgrp_id"),
    ("devices", "devices_cgrp_id"),
    ("freezer", "freezer_cgrp_id"),
];

/// The index of the version 1 controller to read control groups from, or [`CGROUP_V2`].
///
/// A node with version 1 controllers, even next to a version 2 hierarchy (hybrid), has its containers there for
/// sure; in the other hierarchy only with newer runtimes.
pub fn subsystem(mountinfo: &Path, types: &KernelTypes) -> u32 {
    let mounts = fs::read_to_string(mountinfo).unwrap_or_default();
    CONTROLLERS
        .into_iter()
        .filter(|(controller, _)| mounted(&mounts, controller))
        .find_map(|(_, enumerator)| {
            let mut subsystems = types.subsystems.iter();
            subsystems.find_map(|(index, name)| (name == enumerator).then_some(*index))
        })
        .unwrap_or(CGROUP_V2)
}

/// Whether `/proc/self/mountinfo` has a version 1 hierarchy with this controller.
fn mounted(mounts: &str, controller: &str) -> bool {
    mounts.lines().any(|line| {
        let Some((_, after)) = line.split_once(" - ") else {
            return false;
        };
        let mut fields = after.split(' ');
        fields.next() == Some("cgroup")
            && fields
                .nth(1)
                .is_some_and(|options| options.split(',').any(|option| option == controller))
    })
}

#[cfg(test)]
mod tests {
    use super::mounted;

    #[test]
    fn version_one_controllers_of_mountinfo() {
        let hybrid = "33 32 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                      41 32 0:37 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        assert!(mounted(hybrid, "cpu"));
        assert!(mounted(hybrid, "cpuacct"));
        assert!(!mounted(hybrid, "pids"));
        let unified = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,pids,memory\n";
        assert!(!mounted(unified, "pids"));
        for malformed in ["", "-", " - ", " - cgroup", "a b - cgroup x", "\n\n"] {
            assert!(!mounted(malformed, "pids"));
        }
    }
}
