//! Connections under way, by socket.
//!
//! A hash map costs two calls into the kernel and two locks a connection, measured 700 ns for both ends: half of all
//! that probe costs. [`Slots`] is an array, which costs no call: a socket has its slot by a hash of its address, or
//! one of the three after it, and takes it with one atomic instruction. Everything that happens to one socket
//! happens under its lock, so a slot taken is nobody else's. What finds no slot goes to the hash map; kernels
//! without the instruction (before 5.12) use that alone.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap},
};

use probe_ebpf::{
    contract::connection::{Connection, Slot},
    kernel::{
        atomic::exchange,
        copy::zero,
        log::{debug, trace},
        read::{Pointer, low},
    },
};

use crate::settings::setting;

#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(8192, 0);

#[map]
static CONNECTIONS: HashMap<u64, Connection> = HashMap::with_max_entries(2048, 0);

/// 1 once [`CONNECTIONS`] has had an entry: until then nobody need look there for what is in no slot.
#[map]
static CONNECTIONS_USED: Array<u32> = Array::with_max_entries(1, 0);

/// Slots a socket may be in.
const WAYS: u32 = 4;

/// A table of connections. Entries stay in place while a program runs.
pub trait Table {
    /// The entry of a socket.
    fn get(sk: Pointer) -> Option<*mut Connection>;
    /// A new entry, all zero, for a socket that has none; `None` when the table is full.
    fn take(sk: Pointer) -> Option<*mut Connection>;
    /// Gives up the entry of a socket, which `get` returned.
    fn release(sk: Pointer, entry: *mut Connection);
}

/// The hash map alone.
pub struct Hashed;

impl Table for Hashed {
    #[inline(always)]
    fn get(sk: Pointer) -> Option<*mut Connection> {
        CONNECTIONS.get_ptr_mut(sk as u64)
    }

    #[inline(always)]
    fn take(sk: Pointer) -> Option<*mut Connection> {
        take_hashed(sk);
        CONNECTIONS.get_ptr_mut(sk as u64)
    }

    #[inline(always)]
    fn release(sk: Pointer, _: *mut Connection) {
        let _ = CONNECTIONS.remove(sk as u64);
    }
}

/// The array, and the hash map for what finds no room there.
pub struct Slots;

impl Table for Slots {
    #[inline(always)]
    fn get(sk: Pointer) -> Option<*mut Connection> {
        for way in 0..WAYS {
            let slot = SLOTS.get_ptr_mut(index(sk, way))?;
            // SAFETY: a value of the map.
            unsafe {
                if (&raw const (*slot).socket).read_volatile() == sk as u64 {
                    return Some(&raw mut (*slot).connection);
                }
            }
        }
        if CONNECTIONS_USED.get(0).is_some_and(|used| *used != 0) {
            Hashed::get(sk)
        } else {
            None
        }
    }

    #[inline(always)]
    fn take(sk: Pointer) -> Option<*mut Connection> {
        for way in 0..WAYS {
            let slot = SLOTS.get_ptr_mut(index(sk, way))?;
            // SAFETY: a value of the map, and once taken nobody else writes it.
            unsafe {
                let socket = &raw mut (*slot).socket;
                if socket.read_volatile() == 0 {
                    if exchange(socket, 0, sk as u64) {
                        let entry = &raw mut (*slot).connection;
                        zero(entry);
                        return Some(entry);
                    }
                    debug!("entry of map SLOTS taken by another CPU");
                }
            }
        }
        trace!("no free entry in map SLOTS: connection goes to map CONNECTIONS");
        Hashed::take(sk)
    }

    #[inline(always)]
    fn release(sk: Pointer, entry: *mut Connection) {
        for way in 0..WAYS {
            let Some(slot) = SLOTS.get_ptr_mut(index(sk, way)) else {
                return;
            };
            // SAFETY: a value of the map. Atomic, so that what was read of the entry was read before.
            unsafe {
                if exchange(&raw mut (*slot).socket, sk as u64, 0) {
                    return;
                }
            }
        }
        Hashed::release(sk, entry);
    }
}

/// Where a socket may be: sockets are kilobytes apart, and the multiplication spreads what the low bits lack.
#[inline(always)]
fn index(sk: Pointer, way: u32) -> u32 {
    ((low(sk) >> 6).wrapping_mul(0x9e37_79b1) >> 12).wrapping_add(way) & setting!(slots_mask)
}

#[inline(never)]
fn take_hashed(sk: Pointer) {
    if let Some(used) = CONNECTIONS_USED.get_ptr_mut(0) {
        // SAFETY: a value of the map; only ever set.
        unsafe { *used = 1 };
    }
    let mut entry = core::mem::MaybeUninit::<Connection>::uninit();
    // SAFETY: zero is a value of it; the caller finds out whether it was taken in.
    unsafe {
        zero(entry.as_mut_ptr());
        if CONNECTIONS.insert(sk as u64, &*entry.as_ptr(), 0).is_err() {
            debug!("map CONNECTIONS is full");
        }
    }
}
