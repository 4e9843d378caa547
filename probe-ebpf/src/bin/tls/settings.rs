//! What user space asked for: read-only globals, as [`globals`](probe_ebpf::kernel::globals), and which connections that is.

use core::mem::zeroed;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{LpmTrie, lpm_trie::Key},
};
use probe_ebpf::{
    contract::{
        connection::{Address, Ports},
        outcome::Role,
        tls::Settings,
    },
    kernel::globals::filled,
};

// SAFETY: both are `Zeroable`.
#[unsafe(no_mangle)]
static TLS: Settings = unsafe { zeroed() };
// SAFETY: as above.
#[unsafe(no_mangle)]
static PORTS: Ports = unsafe { zeroed() };

#[map]
static TLS_PREFIXES: LpmTrie<Address, u8> = LpmTrie::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Whether connections between these ports are watched.
#[inline(always)]
pub fn ports(local: u16, peer: u16) -> bool {
    let roles = filled(&TLS.roles);
    roles & Role::Client.bit() != 0 && port(peer) || roles & Role::Server.bit() != 0 && port(local)
}

#[inline(always)]
fn port(port: u16) -> bool {
    if filled(&TLS.by_port) == 0 {
        return true;
    }
    let word = (&raw const PORTS.words).cast::<u64>();
    // SAFETY: a u16 shifted right by 6 is below 1024, the length of the array.
    let word = unsafe { word.add(usize::from(port >> 6)).read_volatile() };
    word >> (port & 63) & 1 != 0
}

/// Whether connections between these addresses are watched.
#[inline(always)]
pub fn addresses(local: Address, peer: Address) -> bool {
    filled(&TLS.by_prefix) == 0 || is_in_prefix(peer) || is_in_prefix(local)
}

#[inline(always)]
fn is_in_prefix(address: Address) -> bool {
    TLS_PREFIXES.get(Key::new(128, address)).is_some()
}
