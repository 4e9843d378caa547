//! Inner connections, where they were asked for.

use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::PerCpuHashMap};
use probe_ebpf::{
    contract::vxlan::{Flow, FlowKey, Key, Loss},
    kernel::{log::debug, packet::Packet},
};

use super::{
    headers::{Ipv4, Ipv6, ethertype},
    inner::Inner,
    losses::lost,
};

#[map]
static FLOWS: PerCpuHashMap<FlowKey, Flow> = PerCpuHashMap::with_max_entries(1, 0);

/// Counts a packet of an inner connection. `outer`: of what it is counted as.
#[inline(always)]
pub fn flow(packet: Packet, inner: &Inner, outer: &Key, packets: u64, bytes: u64, time: u64) {
    let endpoints = if inner.ethertype == ethertype::IPV4 {
        Ipv4::at(packet, inner.network).map(|ip| ip.endpoints())
    } else {
        Ipv6::at(packet, inner.network).map(|ip| ip.endpoints())
    };
    let Some(endpoints) = endpoints else { return };
    let key = FlowKey {
        source: endpoints.source,
        destination: endpoints.destination,
        vni: outer.vni,
        source_port: inner.source_port,
        destination_port: inner.destination_port,
        protocol: inner.protocol,
        direction: outer.direction,
        zero: [0; 2],
    };
    if let Some(flow) = FLOWS.get_ptr_mut(key) {
        // SAFETY: map values stay in place while the program runs.
        unsafe {
            if (*flow).first_ns == 0 {
                // Another CPU made the entry.
                (*flow).first_ns = time;
            }
            (*flow).packets += packets;
            (*flow).bytes += bytes;
            (*flow).last_ns = time;
            (*flow).flags |= u64::from(inner.tcp_flags);
        }
        return;
    }
    let flow = Flow {
        packets,
        bytes,
        first_ns: time,
        last_ns: time,
        flags: u64::from(inner.tcp_flags),
    };
    if FLOWS.insert(&key, &flow, u64::from(BPF_NOEXIST)).is_err() {
        lost(Loss::Flow);
        let (source, destination) = (inner.source_port, inner.destination_port);
        debug!("map FLOWS does not accept an entry: connection, port {} to {}, not counted",
            source: u16, destination: u16);
    }
}
