//! The programs' attachment to underlay devices, as these come and go.

use std::{
    collections::HashMap,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use anyhow::{Context, Result};
use probe_ebpf::contract::vxlan::program;

use crate::{
    kernel::vxlan::{Attached, MADE_QUEUE, VxlanProbe},
    report::say,
    rtnetlink::{Routing, filters::Parent},
};

/// Of a filter's handle, what is this process's own.
const OWN: u32 = !MADE_QUEUE;

/// What is attached where.
pub struct Underlays {
    attached: HashMap<u32, (String, Attached)>,
    refused: HashMap<u32, String>,
    handle: u32,
    /// While it is open, filters with this handle are a living process's: others find it by name in this network
    /// namespace, and it is gone with the process however that ends.
    _alive: UnixDatagram,
}

impl Underlays {
    pub fn new() -> Result<Self> {
        let (handle, alive) = own()?;
        Ok(Self {
            attached: HashMap::new(),
            refused: HashMap::new(),
            handle,
            _alive: alive,
        })
    }

    /// Attaches to what is new, and forgets what is gone.
    pub fn follow(
        &mut self,
        probe: &mut VxlanProbe,
        routing: &mut Routing,
        underlays: &HashMap<u32, String>,
    ) -> Result<()> {
        self.attached.retain(|index, _| underlays.contains_key(index));
        for (index, name) in underlays {
            if self.attached.contains_key(index) {
                continue;
            }
            sweep(routing, *index);
            match probe.attach(name, self.handle) {
                Ok(attached) => {
                    self.attached.insert(*index, (name.clone(), attached));
                }
                Err(error) if self.refused.insert(*index, name.clone()).is_none() => {
                    say(format_args!(
                        "probe: vxlan runs without the packets of {name}: {error}"
                    ));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Whether what is attached would stay if this process were killed.
    pub fn outlive_a_kill(&self) -> bool {
        self.attached
            .values()
            .any(|(_, attached)| matches!(attached, Attached::Clsact { .. }))
    }

    /// Removes the queues that were created, unless another program uses them. The programs are gone already.
    pub fn clear(&mut self, routing: &mut Routing) {
        for (index, (_, attached)) in self.attached.drain() {
            if attached == (Attached::Clsact { made: true }) {
                remove_if_empty(routing, index);
            }
        }
    }
}

/// A free handle, and the socket that reserves it. A process may have several, as the doctor does.
fn own() -> Result<(u32, UnixDatagram)> {
    /// The maximum of process ids; 0 is none.
    const PROCESSES: u32 = 1 << 22;
    const LOOKS: u32 = 64;
    let mut refused = None;
    for look in 0..LOOKS {
        let handle = (std::process::id() % PROCESSES + look * PROCESSES) & OWN;
        match UnixDatagram::bind_addr(&mark(handle)?) {
            Ok(alive) => return Ok((handle, alive)),
            Err(error) => refused = Some(error),
        }
    }
    let error = refused.unwrap_or_else(|| std::io::Error::other("no handle is free"));
    Err(error).context("can't create the socket that marks a running probe")
}

fn mark(handle: u32) -> Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("probe-vxlan-{handle}")).context("can't name a socket")
}

/// Whether the process that chose this handle still runs.
fn lives(handle: u32) -> bool {
    mark(handle & OWN).is_ok_and(|mark| UnixDatagram::bind_addr(&mark).is_err())
}

/// Takes away what a probe that was killed left behind on a device.
fn sweep(routing: &mut Routing, device: u32) {
    let mut made_queue = false;
    for parent in Parent::ALL {
        for filter in routing.filters(device, parent).unwrap_or_default() {
            let ours = [program::IN, program::OUT].contains(&filter.name.as_str());
            if ours && !lives(filter.handle) && routing.remove_filter(&filter).is_ok() {
                made_queue |= filter.handle & MADE_QUEUE != 0;
                say(format_args!(
                    "probe: removed the filter {} that a killed probe vxlan left behind",
                    filter.name
                ));
            }
        }
    }
    if made_queue {
        remove_if_empty(routing, device);
    }
}

fn remove_if_empty(routing: &mut Routing, device: u32) {
    let filters =
        |routing: &mut Routing, parent| routing.filters(device, parent).map(|filters| filters.len());
    let empty = Parent::ALL
        .into_iter()
        .all(|parent| matches!(filters(routing, parent), Ok(0)));
    if empty {
        // The device may be gone, and the queue with it.
        let _ = routing.remove_clsact(device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_look_has_a_handle_of_its_own() {
        let (first, alive) = own().unwrap();
        let (second, _alive) = own().unwrap();
        assert_ne!(first, second);
        assert!(first & MADE_QUEUE == 0 && second & MADE_QUEUE == 0);
        assert!(lives(first) && lives(second));
        drop(alive);
        assert!(!lives(first));
    }
}
