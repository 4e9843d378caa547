//! Counters of the VXLAN object into the model. What has a number that means nothing is left out.

use std::collections::HashMap;

use probe_ebpf::contract::vxlan as raw;

use super::reason::named;
use crate::model::{
    connection::socket_address,
    network::Mac,
    vxlan::traffic::{
        Direction, DropCount, ErrorCount, FlowCount, IcmpError, IcmpErrorKind, InnerFlow, Layer, VxlanCount,
        VxlanDrop, VxlanStream,
    },
};

fn ip(address: [u8; 16]) -> std::net::IpAddr {
    socket_address(address, 0).ip()
}

pub fn stream(key: &raw::Key, counters: &raw::Counters) -> Option<(VxlanStream, VxlanCount)> {
    let stream = VxlanStream {
        local: ip(key.local),
        peer: ip(key.peer),
        vni: key.vni,
        port: key.port,
        underlay: key.underlay,
        direction: Direction::from_raw(key.direction)?,
    };
    let (destination_mac, source_mac) = counters.link_layer();
    let count = VxlanCount {
        packets: counters.packets,
        frames: counters.frames,
        bytes: counters.bytes,
        last_ns: counters.last_ns,
        syn: counters.syn,
        syn_ack: counters.syn_ack,
        rst: counters.rst,
        asks: counters.asks,
        answers: counters.answers,
        acks: counters.acks,
        fragments: counters.fragments,
        malformed: counters.malformed,
        malformed_header: counters.malformed_header,
        source_mac: Mac(source_mac),
        destination_mac: Mac(destination_mac),
    };
    Some((stream, count))
}

pub fn error(key: &raw::ErrorKey, count: &raw::ErrorCount) -> Option<(IcmpError, ErrorCount)> {
    let destination = ip(key.destination);
    let error = IcmpError {
        reporter: ip(key.reporter),
        source: ip(key.source),
        destination,
        port: key.port,
        kind: IcmpErrorKind::of(destination.is_ipv6(), key.kind, key.code),
        direction: Direction::from_raw(key.direction)?,
    };
    let count = ErrorCount {
        packets: count.packets,
        last_ns: count.last_ns,
        mtu: u32::try_from(count.mtu).unwrap_or(u32::MAX),
    };
    Some((error, count))
}

/// `reasons`: this kernel's names for them, if it reports reasons at all.
pub fn drop(
    key: &raw::DropKey,
    count: &raw::DropCount,
    reasons: Option<&HashMap<u32, String>>,
) -> Option<(VxlanDrop, DropCount)> {
    let dropped = VxlanDrop {
        place: Layer::from_raw(key.place)?,
        reason: named(key.reason, reasons),
        device: key.device,
        source: ip(key.source),
        destination: ip(key.destination),
        vni: key.vni,
        port: key.port,
        ethertype: key.ethertype,
    };
    let count = DropCount {
        packets: count.packets,
        last_ns: count.last_ns,
    };
    Some((dropped, count))
}

pub fn flow(key: &raw::FlowKey, flow: &raw::Flow) -> Option<(InnerFlow, FlowCount)> {
    let count = FlowCount {
        packets: flow.packets,
        bytes: flow.bytes,
        first_ns: flow.first_ns,
        last_ns: flow.last_ns,
        tcp_flags: flow.flags as u8,
    };
    let flow = InnerFlow {
        source: socket_address(key.source, key.source_port),
        destination: socket_address(key.destination, key.destination_port),
        protocol: key.protocol,
        vni: key.vni,
        direction: Direction::from_raw(key.direction)?,
    };
    Some((flow, count))
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn names_and_numbers() {
        let mut key = raw::DropKey::zeroed();
        key.reason = 3;
        let count = raw::DropCount {
            packets: 2,
            last_ns: 9,
        };
        let names = HashMap::from([(3, "NO_SOCKET".to_owned())]);
        let none = HashMap::new();
        let reason = |names| drop(&key, &count, names).unwrap().0.reason;
        assert_eq!(reason(Some(&names)).as_deref(), Some("NO_SOCKET"));
        assert_eq!(reason(Some(&none)).as_deref(), Some("reason 3"));
        assert_eq!(reason(None), None);
    }

    #[test]
    fn what_means_nothing_is_left_out() {
        let (mut key, mut drop_key) = (raw::Key::zeroed(), raw::DropKey::zeroed());
        (key.direction, drop_key.place) = (7, 7);
        assert!(stream(&key, &raw::Counters::zeroed()).is_none());
        let count = raw::DropCount {
            packets: 0,
            last_ns: 0,
        };
        assert!(drop(&drop_key, &count, None).is_none());
    }
}
