//! Whose socket sends a packet.
//!
//! In a softirq the process on the CPU is any; the socket keeps the control group of the one that made it.

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use probe_ebpf::{
    contract::{connection::CgroupPath, offsets::ABSENT},
    kernel::{
        cgroup,
        globals::offset,
        log::debug,
        read::{Memory, Pointer, Probed, pointer},
    },
};

#[map]
static CGROUPS: LruHashMap<u64, CgroupPath> = LruHashMap::with_max_entries(1024, 0);

#[map]
static CGROUP_SCRATCH: PerCpuArray<CgroupPath> = PerCpuArray::with_max_entries(1, 0);

/// `enum tcp_state`, user interface of the kernel but for the last.
const TIME_WAIT: u8 = 6;
const NEW_SYN_RECV: u8 = 12;
const SOCK_RAW: u16 = 3;

/// Before 5.15: set where the word is no pointer, but numbers of the controllers net_cls and net_prio.
const NO_POINTER: u64 = 1;
/// Before 5.15: all that the lowest bits may say.
const FLAGS: u64 = 3;

/// The id of the sender's control group of version 2; 0 where that is not known. Its names are kept.
///
/// The kernel's own sockets, which answer with RST and ICMP for nobody, are raw ones: of those none is known.
#[inline(never)]
pub fn sender(skb: u64) -> u64 {
    if offset!(sock_cgroup) == ABSENT || offset!(node_id) == ABSENT {
        return 0;
    }
    // SAFETY: the hook's packet; every offset is of the struct the pointer before it leads to, and what can't be read is
    // zero.
    unsafe {
        let mut sock = pointer::<Probed>(skb as Pointer, offset!(skb_socket));
        match Probed::read::<u8>(sock, offset!(sock_state)) {
            // No full sockets. Of the handshake's, the listener is known.
            TIME_WAIT => return 0,
            NEW_SYN_RECV => sock = pointer::<Probed>(sock, offset!(sock_listener)),
            _ => {}
        }
        if Probed::read::<u16>(sock, offset!(sock_type)) == SOCK_RAW {
            return 0;
        }
        let word = Probed::read::<u64>(sock, offset!(sock_cgroup));
        if word & NO_POINTER != 0 {
            return 0;
        }
        let (node, id) = cgroup::node((word & !FLAGS) as Pointer);
        if id != 0
            && CGROUPS.get_ptr(id).is_none()
            && let Some(path) = CGROUP_SCRATCH.get_ptr_mut(0)
        {
            cgroup::names(node, path);
            // An LRU map takes every new entry, at the cost of the oldest.
            if CGROUPS.insert(id, &*path, 0).is_err() {
                debug!("map CGROUPS does not accept control group {}", id: u64);
            }
        }
        id
    }
}
