//! What probe runs in the kernel, and the contract with it.
//!
//! [`contract`] compiles for every target and is tested on the host. `kernel` compiles for BPF only: it is
//! the shared part of the objects in `src/bin`, one object a feature.

#![no_std]
#![cfg_attr(
    target_arch = "bpf",
    feature(asm_experimental_arch),
    expect(
        unstable_features,
        reason = "BPF targets build with a nightly or bootstrap compiler"
    )
)]

pub mod contract;

#[cfg(target_arch = "bpf")]
pub mod kernel;
