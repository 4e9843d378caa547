//! What a process must be allowed to do, and which of it this one is not.

use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit};

/// A capability, and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub capability: Capability,
    pub purpose: &'static str,
    /// What is lost without it; `None`: everything.
    pub lost: Option<&'static str>,
}

/// Before 5.11, maps count against RLIMIT_MEMLOCK, which only this may raise.
const MEMORY: Need = Need {
    capability: Capability::CAP_SYS_RESOURCE,
    purpose: "raise the limit of locked memory, which BPF maps count against before kernel 5.11",
    lost: None,
};

/// `CAP_SYS_ADMIN` stands for this and the next, as it does in the kernel.
const LOAD: Need = Need {
    capability: Capability::CAP_BPF,
    purpose: "load BPF programs and maps (kernel 5.8; before that CAP_SYS_ADMIN)",
    lost: None,
};
const TRACE: Need = Need {
    capability: Capability::CAP_PERFMON,
    purpose: "attach them to tracepoints and read kernel memory there",
    lost: None,
};

/// What `watch` needs.
pub const WATCH: [Need; 5] = [
    LOAD,
    TRACE,
    Need {
        capability: Capability::CAP_SYS_PTRACE,
        purpose: "read the executable, network namespace and sockets of other users' processes",
        lost: Some("executables and listening processes of other users"),
    },
    Need {
        capability: Capability::CAP_DAC_READ_SEARCH,
        purpose: "read the pod names of /var/log/pods and other users' /proc entries",
        lost: Some("names of pods"),
    },
    Need {
        capability: Capability::CAP_NET_ADMIN,
        purpose: "look up translated addresses in conntrack, and read the packet filter's rules",
        lost: Some("translated addresses (seen_as), and most causes of failed connections"),
    },
];

/// What `path` needs.
pub const PATH: [Need; 5] = [
    LOAD,
    TRACE,
    Need {
        capability: Capability::CAP_NET_ADMIN,
        purpose: "read the packet filter's rules",
        lost: Some("the rules that drop packets, or keep them from being translated"),
    },
    Need {
        capability: Capability::CAP_SYS_ADMIN,
        purpose: "enter the network namespace whose rules are read",
        lost: Some("the rules of other network namespaces"),
    },
    Need {
        capability: Capability::CAP_SYS_PTRACE,
        purpose: "read which process has a socket, and in which network namespace it is",
        lost: Some("names of processes"),
    },
];

/// What `vxlan` needs.
pub const VXLAN: [Need; 4] = [
    LOAD,
    TRACE,
    Need {
        capability: Capability::CAP_NET_ADMIN,
        purpose: "attach BPF programs to network devices, and read the packet filter's rules",
        lost: None,
    },
    Need {
        capability: Capability::CAP_SYS_PTRACE,
        purpose: "read which process has a UDP port",
        lost: Some("the name of a process that has VXLAN's port"),
    },
];

/// What `bypass` needs.
pub const BYPASS: [Need; 3] = [
    LOAD,
    TRACE,
    Need {
        capability: Capability::CAP_NET_ADMIN,
        purpose: "read the packet filter's rules, and load netfilter programs",
        lost: None,
    },
];

/// What of `needs` this process does not have on this kernel.
pub fn missing(needs: &[Need]) -> Vec<Need> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let admin = has(Capability::CAP_SYS_ADMIN);
    let unlimited = getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == libc::RLIM_INFINITY);
    let memory = (super::version(&super::release()) < (5, 11) && !unlimited).then_some(MEMORY);
    let stood_for =
        |need: &Need| admin && matches!(need.capability, Capability::CAP_BPF | Capability::CAP_PERFMON);
    needs
        .iter()
        .copied()
        .chain(memory)
        .filter(|need| !has(need.capability) && !stood_for(need))
        .collect()
}
