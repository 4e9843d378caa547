//! The only room that names aya: what this kernel offers, and how the objects get into it.

pub mod btf;
pub mod capabilities;
pub mod cgroup;
pub mod connection;
pub mod hooks;
mod losses;
mod maps;
mod memory;

use std::path::PathBuf;

/// Why a feature can't run, or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(transparent)]
    Btf(#[from] btf::BtfError),
    #[error("the BPF object of `{feature}` can't be loaded into this kernel: {reason}")]
    Object { feature: &'static str, reason: String },
    #[error(
        "`{feature}` can't attach to the kernel's tracepoint {tracepoint}, which it can't do without \
         (that loses {lost}): {reason}"
    )]
    Hook {
        feature: &'static str,
        tracepoint: &'static str,
        lost: &'static str,
        reason: String,
    },
    #[error(
        "the BPF object of `{feature}` has no {kind} {name}: probe and its objects are of different builds"
    )]
    Mismatch {
        feature: &'static str,
        kind: &'static str,
        name: &'static str,
    },
    #[error("reading the kernel's map {map} failed: {reason}")]
    Map { map: &'static str, reason: String },
    #[error("reading {path} failed: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
}

/// An error and all its causes in one line: aya puts the verifier's last words in the cause.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
