//! The only room that names aya: what this kernel offers, and how the objects get into it.

mod batched;
mod bpf_syscall;
pub mod btf;
pub mod bypass;
pub mod capabilities;
pub mod cgroup;
pub mod clock_sync;
pub mod connection;
pub mod drops;
pub mod filters;
mod gone_peers;
pub mod hooks;
pub mod losses;
mod maps;
pub mod memory;
pub mod messages;
mod netfilter;
pub mod object;
pub mod path;
mod ports;
pub mod statistics;
pub mod symbols;
pub mod system;
pub mod tls;
pub mod types;
pub mod vxlan;

use std::path::PathBuf;

/// Every object, as the manifest of probe-ebpf lists them.
const OBJECTS: [&object::Object; 6] = [
    &bypass::OBJECT,
    &connection::OBJECT,
    &drops::OBJECT,
    &path::OBJECT,
    &tls::OBJECT,
    &vxlan::OBJECT,
];

/// Why a feature can't run, or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(transparent)]
    Btf(#[from] btf::BtfError),
    #[error("the ids of the kernel's tracepoints and functions can't be used: {0}")]
    Ids(String),
    #[error("the BPF object of `{feature}` can't be loaded into this kernel: {reason}")]
    Object { feature: &'static str, reason: String },
    #[error("no usable hook for {gives}, which is required: {reason}")]
    Hook { gives: &'static str, reason: String },
    #[error(
        "the BPF object of `{feature}` has no {kind} {name}: probe and its objects are of different builds"
    )]
    Mismatch {
        feature: &'static str,
        kind: &'static str,
        name: &'static str,
    },
    #[error("can't attach a program to {device}: {reason}")]
    Attach { device: String, reason: String },
    #[error("reading the kernel's map {map} failed: {reason}")]
    Map { map: &'static str, reason: String },
    #[error("reading {path} failed: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
}

/// The running kernel's release, as `uname -r` says it.
pub fn release() -> String {
    nix::sys::utsname::uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The first two numbers of a release; zeros where there are none.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut number = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (number(), number())
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_of_releases() {
        for (release, expected) in [
            ("5.10.0-32-cloud-amd64", (5, 10)),
            ("6.18.44", (6, 18)),
            ("7.3.4+deb13-cloud-amd64", (7, 3)),
            ("6.1-rc1", (6, 1)),
            ("", (0, 0)),
            ("none", (0, 0)),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }
}
