//! Connections under way, by socket.
//!
//! A hash map costs two calls into the kernel and two locks a connection, measured 700 ns for both ends: half of all
//! that probe costs. [`Slots`] are arrays, which cost no call: a socket's bucket follows from its address, and there it has one of
//! four slots, which it takes with one atomic instruction. Everything that happens to one socket happens under its
//! lock, so a slot taken is nobody else's. Whose slots they are stands in an array of its own, so that looking a socket up
//! touches one cache line. What finds no slot goes to the hash map; kernels without the instruction (before 5.12) use that
//! alone.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap},
};

use probe_ebpf::{
    contract::connection::{Bucket, Connection, Slot, WAYS},
    kernel::{
        atomic::exchange,
        copy::zero,
        log::{debug, trace},
        read::{Pointer, low},
    },
};

use crate::settings::setting;

#[map]
static BUCKETS: Array<Bucket> = Array::with_max_entries(2048, 0);

#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(8192, 0);

#[map]
static CONNECTIONS: HashMap<u64, Connection> = HashMap::with_max_entries(2048, 0);

/// 1 once [`CONNECTIONS`] has had an entry: until then nobody need look there for what is in no slot.
#[map]
static CONNECTIONS_USED: Array<u32> = Array::with_max_entries(1, 0);

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

/// The arrays, and the hash map for what finds no room there.
pub struct Slots;

impl Table for Slots {
    #[inline(always)]
    fn get(sk: Pointer) -> Option<*mut Connection> {
        let number = bucket(sk);
        let bucket = BUCKETS.get_ptr_mut(number)?;
        for way in 0..WAYS {
            // SAFETY: a value of the map, here and below.
            unsafe {
                if socket(bucket, way).read_volatile() == sk as u64 {
                    return Some(&raw mut (*SLOTS.get_ptr_mut(slot(number, way))?).connection);
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
        let number = bucket(sk);
        let bucket = BUCKETS.get_ptr_mut(number)?;
        for way in 0..WAYS {
            // SAFETY: once taken, nobody else writes the slot.
            unsafe {
                let socket = socket(bucket, way);
                if socket.read_volatile() == 0 {
                    let slot = SLOTS.get_ptr_mut(slot(number, way))?;
                    if exchange(socket, 0, sk as u64) {
                        zero(slot);
                        (*slot).socket = sk as u64;
                        return Some(&raw mut (*slot).connection);
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
        let number = bucket(sk);
        let Some(bucket) = BUCKETS.get_ptr_mut(number) else {
            return;
        };
        for way in 0..WAYS {
            // SAFETY: until it is given up, the slot is this socket's. Atomic, so that what was read of the entry was read before.
            unsafe {
                let socket = socket(bucket, way);
                if socket.read_volatile() == sk as u64 {
                    if let Some(slot) = SLOTS.get_ptr_mut(slot(number, way)) {
                        (&raw mut (*slot).socket).write_volatile(0);
                    }
                    exchange(socket, sk as u64, 0);
                    return;
                }
            }
        }
        Hashed::release(sk, entry);
    }
}

/// Where a socket may be: sockets are kilobytes apart, and the multiplication spreads what the low bits lack.
#[inline(always)]
fn bucket(sk: Pointer) -> u32 {
    (low(sk) >> 6).wrapping_mul(0x9e37_79b1) >> 12 & setting!(buckets_mask)
}

#[inline(always)]
fn slot(bucket: u32, way: usize) -> u32 {
    bucket * WAYS as u32 + way as u32
}

/// # Safety
/// `bucket` is a value of the map, and `way` below [`WAYS`].
#[inline(always)]
unsafe fn socket(bucket: *mut Bucket, way: usize) -> *mut u64 {
    // SAFETY: the caller's.
    unsafe { (&raw mut (*bucket).sockets).cast::<u64>().add(way) }
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
