//! What the kernel side could not keep.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
    programs::Program,
};

/// Adds up one counter over all CPUs.
pub fn total(map: &PerCpuArray<MapData, u64>, loss: u32) -> u64 {
    map.get(&loss, 0).map_or(0, |per_cpu| per_cpu.iter().sum())
}

/// How often the kernel skipped a program because it was already running on that CPU: an interrupt came in while
/// it ran, and needed it too. The kernel counts these since 6.1; before, it skips none. Programs in `stood_in`
/// have another run for them then.
pub fn skipped(ebpf: &Ebpf, stood_in: &[&str]) -> u64 {
    ebpf.programs()
        .filter(|(name, _)| !stood_in.contains(name))
        .filter_map(|(_, program)| field(&fdinfo(program)?, "recursion_misses"))
        .sum()
}

/// What the kernel says of a program that it runs.
#[derive(Clone, Debug)]
pub struct Run {
    pub program: String,
    pub time: Duration,
    pub runs: u64,
}

/// The loaded programs that ran; none where the kernel does not count (`kernel.bpf_stats_enabled`).
pub fn runs(ebpf: &Ebpf) -> Vec<Run> {
    let run = |(name, program): (&str, &Program)| {
        let info = fdinfo(program)?;
        Some(Run {
            program: name.to_owned(),
            time: Duration::from_nanos(field(&info, "run_time_ns")?),
            runs: field(&info, "run_cnt").filter(|runs| *runs > 0)?,
        })
    };
    ebpf.programs().filter_map(run).collect()
}

fn fdinfo(program: &Program) -> Option<String> {
    let fd = program.fd().ok()?.as_fd().as_raw_fd();
    fs::read_to_string(format!("/proc/thread-self/fdinfo/{fd}")).ok()
}

fn field(fdinfo: &str, name: &str) -> Option<u64> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_of_fdinfo() {
        assert_eq!(
            field(
                "prog_type:\t26\nrun_cnt:\t9\nrecursion_misses:\t3\n",
                "recursion_misses"
            ),
            Some(3)
        );
        assert_eq!(field("prog_type:\t26\n", "recursion_misses"), None);
        assert_eq!(field("recursion_misses:\tx\n", "recursion_misses"), None);
    }
}
