//! What a process must be allowed to do, and which of it this one is not.

use caps::{CapSet, Capability};

/// A capability, and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub capability: Capability,
    pub purpose: &'static str,
    /// Without it nothing runs; otherwise only some names are missing.
    pub required: bool,
}

/// What `watch` needs. `CAP_SYS_ADMIN` stands for the first two, as it does in the kernel.
pub const WATCH: [Need; 4] = [
    Need {
        capability: Capability::CAP_BPF,
        purpose: "load BPF programs and maps (kernel 5.8; before that CAP_SYS_ADMIN)",
        required: true,
    },
    Need {
        capability: Capability::CAP_PERFMON,
        purpose: "attach them to tracepoints and read kernel memory there",
        required: true,
    },
    Need {
        capability: Capability::CAP_SYS_PTRACE,
        purpose: "read the executable, network namespace and sockets of other users' processes",
        required: false,
    },
    Need {
        capability: Capability::CAP_DAC_READ_SEARCH,
        purpose: "read the pod names of /var/log/pods and other users' /proc entries",
        required: false,
    },
];

/// Those of `needs` that this process does not have.
pub fn missing(needs: &[Need]) -> Vec<Need> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let admin = has(Capability::CAP_SYS_ADMIN);
    needs
        .iter()
        .filter(|need| !(has(need.capability) || need.required && admin))
        .copied()
        .collect()
}
