//! What others run on the underlay devices: tc filters and XDP programs.

use probe_ebpf::contract::vxlan::program;

use crate::{
    kernel::filters,
    model::{
        network::Device,
        vxlan::filters::{DeviceFilter, FilterHook, FilterKind},
    },
    rtnetlink::{
        Routing,
        filters::{Filter, Parent},
    },
};

/// Filters of one device that are listed.
const MOST: usize = 64;

/// All of a device but probe's own.
pub fn of_device(routing: &mut Routing, device: &Device) -> Vec<DeviceFilter> {
    let mut found: Vec<(FilterHook, FilterKind)> = Vec::new();
    if let Some(id) = device.xdp {
        let name = filters::name_of(id);
        found.push((FilterHook::Xdp, FilterKind::Bpf { id: Some(id), name }));
    }
    let ingress = routing.filters(device.index, Parent::Ingress);
    let mut egress = routing.filters(device.index, Parent::Egress);
    // A queue for ingress alone answers with the same filters for both.
    if let (Ok(one), Ok(other)) = (&ingress, &mut egress)
        && one.len() == other.len()
        && one
            .iter()
            .zip(other.iter())
            .all(|(one, other)| is_same(one, other))
    {
        other.clear();
    }
    for (hook, listed) in [(FilterHook::Ingress, ingress), (FilterHook::Egress, egress)] {
        match filters::tcx(&device.name, hook == FilterHook::Ingress) {
            Ok(programs) => found.extend(
                programs
                    .into_iter()
                    .filter(|(_, name)| !is_own(name))
                    .map(|(id, name)| (hook, FilterKind::Bpf { id: Some(id), name })),
            ),
            Err(why) => found.push((hook, FilterKind::Unread(why))),
        }
        match listed {
            Ok(listed) => found.extend(
                listed
                    .into_iter()
                    .filter(|filter| !is_own(&filter.name))
                    .map(|filter| (hook, kind(filter))),
            ),
            Err(error) => found.push((hook, FilterKind::Unread(error.to_string()))),
        }
    }
    found.truncate(MOST);
    found
        .into_iter()
        .map(|(hook, kind)| DeviceFilter {
            device: device.index,
            device_name: device.name.clone(),
            hook,
            kind,
        })
        .collect()
}

fn is_own(name: &str) -> bool {
    [program::IN, program::OUT].contains(&name)
}

fn is_same(one: &Filter, other: &Filter) -> bool {
    (&one.kind, one.id, one.priority, one.handle) == (&other.kind, other.id, other.priority, other.handle)
}

fn kind(filter: Filter) -> FilterKind {
    if filter.kind == "bpf" {
        FilterKind::Bpf {
            id: filter.id,
            name: filter.name,
        }
    } else {
        FilterKind::Classifier {
            kind: filter.kind,
            priority: filter.priority,
            handle: filter.handle,
        }
    }
}
