//! lab
/// Debian packages the lab runs.
pub const PACKAGES: [&str; 9] = [
    "bpftool",
    "conntrack",
    "etcd-server",
    "iproute2",
    "iptables",
    "netcat-openbsd",
    "openssl",
    "procps",
    "python3-minimal",
];
