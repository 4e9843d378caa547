//! The lab that probe is tested in: network namespaces, real etcd, real processes. See README.md.
//!
//! Everything made here is a guard: dropping it takes it away.

mod agent;
mod btf;
mod cgroup;
mod chatter;
mod cluster;
mod containerd;
mod doctor;
mod etcd;
mod kernel;
mod load;
mod monitor;
mod netns;
mod pair;
mod port;
mod probe;
mod process;
mod records;
mod relay;
mod server;
mod shop;
mod storm;
mod wait;

pub use agent::{Agent, Answer};
pub use btf::{BTF, doctored};
pub use cgroup::{Cgroup, PodLogs};
pub use chatter::Chatter;
pub use cluster::{Cluster, Node, Pod};
pub use containerd::{Containerd, CriPod, PodSpec};
pub use doctor::Files;
pub use etcd::{Etcd, Rejected};
pub use kernel::{before, in_matrix, release, too_old};
pub use load::{Bulk, Datagrams};
pub use monitor::Monitor;
pub use netns::Netns;
pub use pair::{Family, Pair};
pub use port::unique_port;
pub use probe::{Probe, Run};
pub use process::{Child, Stream, finish, run, without_forks};
pub use records::{end, is, the_record};
pub use relay::Relay;
pub use server::accept_all;
pub use shop::{Shop, shell};
pub use storm::{Close, Storm};
pub use wait::{patience, wait_until};

/// Debian packages that the lab runs.
pub const PACKAGES: [&str; 13] = [
    "bpftool",
    "conntrack",
    "etcd-server",
    "iproute2",
    "iptables",
    "iputils-ping",
    "netcat-openbsd",
    "nftables",
    "openssl",
    "procps",
    "python3-minimal",
    "tcpdump",
    "util-linux",
];

/// And those of its container runtime.
pub const RUNTIME_PACKAGES: [&str; 4] = [
    "busybox-static",
    "containerd",
    "containernetworking-plugins",
    "runc",
];
