//! What user space asked for: read-only globals, as [`globals`](probe_ebpf::kernel::globals).

use probe_ebpf::{
    contract::{
        connection::Address,
        path::{Direction, Prefix, Settings, Tuple},
    },
    kernel::{
        read::{Memory, Pointer},
        sock::{self, peer_port},
    },
};

// SAFETY: it is `Zeroable`.
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = unsafe { core::mem::zeroed() };

/// One member of [`SETTINGS`]: `setting!(port)`.
macro_rules! setting {
    ($name:ident) => {
        probe_ebpf::kernel::globals::filled(&$crate::settings::SETTINGS.$name)
    };
}

pub(crate) use setting;

/// Whether a packet of this tuple is a request, or a reply, that begins a flow.
#[inline(always)]
pub fn begins(tuple: &Tuple) -> Option<Direction> {
    // SAFETY: of a tuple, see there.
    let (source, destination) = unsafe { (words(&tuple.source), words(&tuple.destination)) };
    let ports = (tuple.source_port, tuple.destination_port);
    begins_between(source, destination, ports, tuple.protocol)
}

/// The same of what a tuple is made of; addresses as two words, ports in host byte order.
#[inline(always)]
pub fn begins_between(
    source: [u64; 2],
    destination: [u64; 2],
    (source_port, destination_port): (u16, u16),
    protocol: u8,
) -> Option<Direction> {
    let (wanted, port) = (setting!(protocol), setting!(port));
    if wanted != 0 && protocol != wanted {
        return None;
    }
    let (from, to) = (setting!(from), setting!(to));
    if (port == 0 || destination_port == port) && is_in(source, from) && is_in(destination, to) {
        return Some(Direction::Request);
    }
    if (port == 0 || source_port == port) && is_in(source, to) && is_in(destination, from) {
        return Some(Direction::Reply);
    }
    None
}

/// Whether a packet that this socket sends may be a request of what is asked for, by what it dialled.
///
/// # Safety
/// `socket` is the packet's.
#[inline(always)]
pub unsafe fn may_have_dialled<M: Memory>(socket: Pointer) -> bool {
    let (port, to) = (setting!(port), setting!(to));
    // SAFETY: the caller's.
    unsafe {
        if port != 0 && port != peer_port::<M>(socket) {
            return false;
        }
        // Any address is meant: then there is none to read.
        if to.mask[0] == 0 && to.mask[1] == 0 {
            return true;
        }
        let (_, peer) = sock::addresses::<M>(socket);
        is_in(bytemuck::cast(peer), to)
    }
}

#[inline(always)]
fn is_in(address: [u64; 2], prefix: Prefix) -> bool {
    address[0] & prefix.mask[0] == prefix.address[0] && address[1] & prefix.mask[1] == prefix.address[1]
}

/// An address as two words; byte by byte would cost ten times as much.
///
/// # Safety
/// It is a tuple's: those are aligned to eight bytes, and begin with their addresses.
#[inline(always)]
unsafe fn words(address: &Address) -> [u64; 2] {
    // SAFETY: the caller's.
    unsafe { address.as_ptr().cast::<[u64; 2]>().read() }
}
