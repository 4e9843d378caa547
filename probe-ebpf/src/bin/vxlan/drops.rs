//! Packets that were dropped: VXLAN, or without it at a VXLAN device.
//!
//! Every packet of the machine that is dropped comes by, those in sockets' queues too, where `skb->dev` is something
//! else: part of a tree's node with TCP, a scratch word with UDP. So nothing is read but with the helper that survives
//! a wrong pointer. A typed load would rely on the kernel's table of loads that may fault, which kernels before 6.4
//! don't find in programs that call functions of their own ("bpf: ensure main program has an extable"): 5.10 panicked.

use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::HashMap};
use probe_ebpf::{
    contract::vxlan::{DropCount, DropKey, Layer, Loss},
    kernel::{
        atomic::add_one,
        globals::offset,
        log::{debug, trace},
        read::{Memory, Pointer, Probed, bytes, header, mapped, pointer},
    },
};

use super::{
    headers::{Endpoints, IPV6, Ipv4, Ipv6, ethertype, ports, protocol},
    losses::lost,
    settings::{carries, now, setting},
};

/// Indices of the VXLAN devices.
#[map]
static DEVICES: HashMap<u32, u32> = HashMap::with_max_entries(64, 0);

#[map]
static DROPS: HashMap<DropKey, DropCount> = HashMap::with_max_entries(2048, 0);

/// Counts a packet that was dropped, if it is VXLAN, or was at a VXLAN device.
///
/// # Safety
/// `skb` is the hook's `struct sk_buff`.
#[inline(always)]
pub unsafe fn dropped(skb: Pointer, reason: u32) {
    // SAFETY: the hook's packet, and memory read with the helper that survives a wrong pointer.
    unsafe {
        let device = pointer::<Probed>(skb, offset!(skb_device));
        let net = pointer::<Probed>(device, offset!(device_net));
        if Probed::read::<u32>(net, offset!(netns_inode)) != setting!(netns) {
            return;
        }
        let head = pointer::<Probed>(skb, offset!(skb_head));
        let network = Probed::read::<u16>(skb, offset!(skb_network_header));
        let ethertype = u16::from_be(Probed::read::<u16>(skb, offset!(skb_protocol)));
        let index = Probed::read::<u32>(device, offset!(device_index));

        let mut key = DropKey {
            source: [0; 16],
            destination: [0; 16],
            reason,
            device: index,
            vni: 0,
            port: 0,
            ethertype,
            place: Layer::Inner as u8,
            zero: [0; 3],
        };
        let transport;
        let protocol;
        match ethertype {
            ethertype::IPV4 => {
                let ip = Ipv4(header(head, network));
                Endpoints {
                    source: key.source,
                    destination: key.destination,
                } = ip.endpoints();
                transport = network.wrapping_add(ip.length() as u16);
                protocol = ip.protocol();
            }
            ethertype::IPV6 => {
                let ip = Ipv6(header(head, network));
                Endpoints {
                    source: key.source,
                    destination: key.destination,
                } = ip.endpoints();
                transport = network.wrapping_add(IPV6 as u16);
                protocol = ip.next_header();
            }
            ethertype::ARP => {
                // The address asked for ends a packet of 28 bytes.
                key.destination = bytes(mapped(header(head, network.wrapping_add(24))));
                transport = network;
                protocol = 0;
            }
            _ => return,
        }
        if protocol == protocol::UDP {
            let [both, _, _, vni]: [u32; 4] = header(head, transport);
            let (_, port) = ports(both);
            if carries(port) {
                key.port = port;
                key.vni = vni.swap_bytes() >> 8;
                key.place = Layer::Outer as u8;
                return count_drop(&mut key);
            }
        }
        if DEVICES.get(index).is_some() {
            key.source = [0; 16];
            count_drop(&mut key);
        }
    }
}

/// Adds one to a drop's counter, or, when the table is full, to the one without its endpoints.
#[inline(always)]
fn count_drop(key: &mut DropKey) {
    if add_drop(key) {
        return;
    }
    key.source = [0; 16];
    key.destination = [0; 16];
    let counted = add_drop(key);
    let reason = key.reason;
    if counted {
        debug!("map DROPS is full: drop of reason {} counted without its addresses", reason: u32);
    } else {
        debug!("map DROPS is full: drop of reason {} not counted", reason: u32);
    }
    lost(if counted {
        Loss::DropDestination
    } else {
        Loss::Drop
    });
}

#[inline(never)]
fn add_drop(key: &DropKey) -> bool {
    let time = now();
    if let Some(count) = DROPS.get_ptr_mut(key) {
        // SAFETY: map values stay in place while the program runs.
        unsafe {
            add_one(&raw mut (*count).packets);
            (*count).last_ns = time;
        }
        return true;
    }
    let count = DropCount {
        packets: 1,
        last_ns: time,
    };
    if DROPS.insert(key, &count, u64::from(BPF_NOEXIST)).is_ok() {
        return true;
    }
    // Another CPU made the entry meanwhile, or the table is full.
    match DROPS.get_ptr_mut(key) {
        Some(count) => {
            // SAFETY: as above.
            unsafe { add_one(&raw mut (*count).packets) };
            trace!("entry of map DROPS made by another CPU at the same time");
            true
        }
        None => false,
    }
}
