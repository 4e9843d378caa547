//! Facts of the running system that decide what probe can do.

use std::{fs, os::unix::fs::MetadataExt, path::Path, sync::LazyLock};

use super::symbols;
use crate::namespace::FIRST_PID;

/// Under lockdown `confidentiality` the kernel refuses BPF programs that read its memory; under `integrity` it does not.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const CONNTRACK: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const PID_NAMESPACE: &str = "/proc/thread-self/ns/pid";
/// Held by an exiting process from 3.18 on, until commit 1612160b9127 of 6.9.
const EXIT_LOCK: &str = "tasks_rcu_exit_srcu";
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// `none`, `integrity`, `confidentiality`, or that this kernel does not say.
pub fn lockdown() -> String {
    match fs::read_to_string(LOCKDOWN) {
        Ok(text) => chosen(&text).unwrap_or("unknown").to_owned(),
        Err(_) => "not in this kernel".to_owned(),
    }
}

/// The word in brackets: `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<&str> {
    Some(text.split_once('[')?.1.split_once(']')?.0)
}

/// Where it is mounted; probe needs no tracefs.
pub fn tracefs() -> String {
    let mounted = TRACEFS
        .iter()
        .find(|path| Path::new(path).join("events").exists());
    mounted.map_or_else(
        || "not mounted, or not readable by this user (optional)".to_owned(),
        |path| format!("mounted on {path} (optional)"),
    )
}

/// Whether this kernel may hang forever when this process ends with fentry programs: it is in a pid namespace of a
/// container, whose first process waits at its end for all others, and holds meanwhile what taking such programs away waits
/// for. Kernels that have mended it (6.9, and some before) lack the symbol.
pub fn may_hang() -> bool {
    static HANGS: LazyLock<bool> = LazyLock::new(|| {
        let contained = fs::metadata(PID_NAMESPACE).is_ok_and(|file| file.ino() != FIRST_PID);
        contained && symbols::has(EXIT_LOCK)
    });
    *HANGS
}

/// Which control group hierarchies are mounted.
pub fn control_groups() -> String {
    let mounts = fs::read_to_string(MOUNTINFO).unwrap_or_default();
    match hierarchies(&mounts) {
        (false, false) => "not mounted: containers can't be identified",
        (true, false) => "version 1",
        (false, true) => "version 2",
        (true, true) => "version 1, and version 2 is mounted too",
    }
    .to_owned()
}

/// Whether there are hierarchies of version 1 and of version 2.
fn hierarchies(mountinfo: &str) -> (bool, bool) {
    let kinds = || {
        mountinfo
            .lines()
            .filter_map(|line| line.split_once(" - ")?.1.split(' ').next())
    };
    (
        kinds().any(|kind| kind == "cgroup"),
        kinds().any(|kind| kind == "cgroup2"),
    )
}

/// Whether this network namespace tracks connections.
pub fn conntrack() -> String {
    match fs::read_to_string(CONNTRACK) {
        Ok(count) => format!("{} entries", count.trim()),
        Err(_) => "not loaded".to_owned(),
    }
}

/// The type information's file and its size.
pub fn type_information(path: &Path) -> String {
    match fs::metadata(path) {
        Ok(metadata) => format!("{}, {:.1} MB", path.display(), metadata.len() as f64 / 1e6),
        Err(error) => format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::{chosen, hierarchies};

    #[test]
    fn lockdown_in_brackets() {
        for (text, expected) in [
            ("[none] integrity confidentiality\n", Some("none")),
            ("none [integrity] confidentiality\n", Some("integrity")),
            ("", None),
            ("[", None),
            ("]none[", None),
        ] {
            assert_eq!(chosen(text), expected);
        }
    }

    #[test]
    fn hierarchies_of_mountinfo() {
        let v1 = "33 32 0:29 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n";
        let v2 = "41 32 0:37 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(hierarchies(v1), (true, false));
        assert_eq!(hierarchies(v2), (false, true));
        assert_eq!(hierarchies(&format!("{v1}{v2}")), (true, true));
        assert_eq!(hierarchies("no such thing\n - \n"), (false, false));
    }
}
