//! What user space asked for: read-only globals, as [`globals`](probe_ebpf::kernel::globals).

use probe_ebpf::{
    contract::{
        connection::Address,
        path::{Direction, Prefix, Settings, Tuple},
    },
    kernel::{
        read::{Memory, Pointer},
        sock::peer_port,
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
    let (protocol, port) = (setting!(protocol), setting!(port));
    if protocol != 0 && tuple.protocol != protocol {
        return None;
    }
    let (from, to) = (setting!(from), setting!(to));
    // SAFETY: of a tuple, see there.
    let (source, destination) = unsafe { (words(&tuple.source), words(&tuple.destination)) };
    if (port == 0 || tuple.destination_port == port) && is_in(source, from) && is_in(destination, to) {
        return Some(Direction::Request);
    }
    if (port == 0 || tuple.source_port == port) && is_in(source, to) && is_in(destination, from) {
        return Some(Direction::Reply);
    }
    None
}

/// Whether a packet of these addresses may be one that [`begins`], whatever its ports.
#[inline(always)]
pub fn may_begin(tuple: &Tuple) -> bool {
    let (from, to) = (setting!(from), setting!(to));
    // SAFETY: of a tuple, see there.
    let (source, destination) = unsafe { (words(&tuple.source), words(&tuple.destination)) };
    is_in(source, from) && is_in(destination, to) || is_in(source, to) && is_in(destination, from)
}

/// Whether a packet that this socket sends may be a request of the port that is asked for, by what it dialled.
///
/// # Safety
/// `socket` is the packet's.
#[inline(always)]
pub unsafe fn may_have_dialled<M: Memory>(socket: Pointer) -> bool {
    let port = setting!(port);
    // SAFETY: the caller's.
    port == 0 || port == unsafe { peer_port::<M>(socket) }
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
