//! Who has the UDP port that a VXLAN device needs.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use crate::{attribution::udp_holder, commands::periodic::enter, namespace, rtnetlink::Routing};

/// Where named network namespaces are, those of Docker too.
const NAMES: [&str; 2] = ["/run/netns", "/run/docker/netns"];
/// Network namespaces that are looked into.
const MOST: usize = 256;

/// The holder of a UDP port that has a socket in this thread's network namespace: a process, or a device that was made here and
/// moved to another network namespace.
pub fn holder(port: u16) -> String {
    udp_holder(port).or_else(|| moved(port)).unwrap_or_else(|| {
        "a kernel socket: a tunnel of another type, or in an unnamed network namespace".to_owned()
    })
}

fn moved(port: u16) -> Option<String> {
    let own = namespace::own_netns();
    let others: Vec<PathBuf> = NAMES
        .into_iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| namespace::inode(path) != own)
        .take(MOST)
        .collect();
    // A thread of its own goes there: this one stays.
    let search = move || others.iter().find_map(|netns| of_netns(netns, port));
    thread::spawn(search).join().ok().flatten()
}

fn of_netns(netns: &Path, port: u16) -> Option<String> {
    enter(netns).ok()?;
    let devices = Routing::open().ok()?.devices().ok()?;
    let holds = |device: &&crate::model::network::Device| {
        let vxlan = device.vxlan.as_ref();
        device.up && vxlan.is_some_and(|vxlan| vxlan.elsewhere && vxlan.port == port)
    };
    let device = devices.iter().find(holds)?;
    Some(format!(
        "the VXLAN device {} in network namespace {}",
        device.name,
        netns.display()
    ))
}
