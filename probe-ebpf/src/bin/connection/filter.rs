//! What is followed at all: ports, roles, peer prefixes.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{LpmTrie, lpm_trie::Key},
};

use probe_ebpf::contract::{connection::Address, outcome::Role};

use crate::settings::{PORTS, setting};

#[map]
static PREFIXES: LpmTrie<Address, u8> = LpmTrie::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Whether a server's port is watched.
#[inline(always)]
pub fn port(port: u16) -> bool {
    if setting!(by_port) == 0 {
        return true;
    }
    let word = (&raw const PORTS.words).cast::<u64>();
    // SAFETY: a u16 shifted right by 6 is below 1024, the length of the array.
    let word = unsafe { word.add(usize::from(port >> 6)).read_volatile() };
    word >> (port & 63) & 1 != 0
}

#[inline(always)]
pub fn role(role: Role) -> bool {
    setting!(roles) & role.bit() != 0
}

#[inline(always)]
pub fn by_prefix() -> bool {
    setting!(by_prefix) != 0
}

/// Whether an address is in one of the watched prefixes.
#[inline(always)]
pub fn prefix(address: Address) -> bool {
    PREFIXES.get(Key::new(128, address)).is_some()
}
