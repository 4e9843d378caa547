//! Sockets: addresses, ports, network namespace.

use super::{
    globals::offset,
    read::{Memory, Pointer, bytes, mapped, pointer, sixteen},
};
use crate::contract::{connection::Address, offsets::ABSENT};

const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;

/// The local and the peer's address of a `struct sock_common`, which sockets and request sockets begin with.
///
/// # Safety
/// `sock` is one that a hook handed over.
#[inline(always)]
pub unsafe fn addresses<M: Memory>(sock: Pointer) -> (Address, Address) {
    // SAFETY: the caller's; offsets are of struct sock_common.
    unsafe {
        if offset!(local_v6) != ABSENT && M::read::<u16>(sock, offset!(family)) == AF_INET6 {
            // An IPv6 socket that talks IPv4 has both addresses mapped here already.
            return (
                bytes(sixteen::<M>(sock, offset!(local_v6))),
                bytes(sixteen::<M>(sock, offset!(peer_v6))),
            );
        }
        (
            bytes(mapped(M::read::<u32>(sock, offset!(local_v4)))),
            bytes(mapped(M::read::<u32>(sock, offset!(peer_v4)))),
        )
    }
}

/// The peer's port of a `struct sock_common`.
///
/// # Safety
/// As [`addresses`].
#[inline(always)]
pub unsafe fn peer_port<M: Memory>(sock: Pointer) -> u16 {
    // SAFETY: the caller's.
    u16::from_be(unsafe { M::read::<u16>(sock, offset!(peer_port)) })
}

/// The local port of a `struct sock_common`; 0 before the kernel chose one, and again at close.
///
/// # Safety
/// As [`addresses`].
#[inline(always)]
pub unsafe fn local_port<M: Memory>(sock: Pointer) -> u16 {
    // SAFETY: the caller's.
    unsafe { M::read::<u16>(sock, offset!(local_port)) }
}

/// The inode of the socket's network namespace.
///
/// # Safety
/// As [`addresses`].
#[inline(always)]
pub unsafe fn netns<M: Memory>(sock: Pointer) -> u32 {
    // SAFETY: the caller's.
    unsafe { M::read::<u32>(pointer::<M>(sock, offset!(sock_net)), offset!(netns_inode)) }
}

/// Whether this is TCP: MPTCP and SCTP sockets pass through the same hooks.
///
/// # Safety
/// `sock` is a full `struct sock`.
#[inline(always)]
pub unsafe fn is_tcp<M: Memory>(sock: Pointer) -> bool {
    // SAFETY: the caller's. A u16 since 5.6; a u8 followed by other bits before, which no supported kernel is.
    unsafe { M::read::<u16>(sock, offset!(protocol)) == IPPROTO_TCP }
}
