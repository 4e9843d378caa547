//! What the kernel side could not keep.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};

/// Adds up one counter over all CPUs.
pub fn total(map: &PerCpuArray<MapData, u64>, loss: u32) -> u64 {
    map.get(&loss, 0).map(|per_cpu| per_cpu.iter().sum()).unwrap_or(0)
}

/// How often the kernel skipped a program because it was already running on that CPU: an interrupt came in while
/// it ran, and needed it too. The kernel counts these since 6.1; before, it skips none. Programs in `stood_in`
/// have another run for them then.
pub fn skipped(ebpf: &Ebpf, stood_in: &[&str]) -> u64 {
    ebpf.programs()
        .filter(|(name, _)| !stood_in.contains(name))
        .filter_map(|(_, program)| {
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            misses(&fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?)
        })
        .sum()
}

fn misses(fdinfo: &str) -> Option<u64> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::misses;

    #[test]
    fn recursion_misses_of_fdinfo() {
        assert_eq!(
            misses("prog_type:\t26\nrun_cnt:\t9\nrecursion_misses:\t3\n"),
            Some(3)
        );
        assert_eq!(misses("prog_type:\t26\n"), None);
        assert_eq!(misses("recursion_misses:\tx\n"), None);
    }
}
