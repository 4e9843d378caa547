//! What was asked for, as the kernel side takes it: pods by their addresses, network namespaces and devices by numbers.

use std::{
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::Path as File,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;

use crate::{
    attribution::cri::Runtime,
    cli::{Path as Settings, PathTarget, Protocol},
    commands::periodic::enter,
    kernel::path::Options,
    rtnetlink::Routing,
};

/// How long to wait for the container runtime's answer with the address of a pod.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(50);

/// # Errors
/// A pod that the container runtime does not know, or a network namespace or device that is not there.
pub fn options(settings: &Settings, runtime: Option<&Runtime>) -> Result<Options> {
    let to = net(settings.to.as_ref(), None, runtime)?;
    let from = net(settings.from.as_ref(), to, runtime)?;
    // Of a pod that was named second the other way round.
    let to = match (to, from) {
        (Some(IpNet::V4(_)), Some(IpNet::V6(_))) | (Some(IpNet::V6(_)), Some(IpNet::V4(_))) => {
            net(settings.to.as_ref(), from, runtime)?
        }
        (to, _) => to,
    };
    let is_v6 = [from, to]
        .into_iter()
        .flatten()
        .any(|net| matches!(net, IpNet::V6(_)));
    let file = settings
        .netns
        .as_deref()
        .unwrap_or(File::new("/proc/thread-self/ns/net"));
    Ok(Options {
        from,
        to,
        port: settings.port,
        protocol: settings.protocol.map(|protocol| match (protocol, is_v6) {
            (Protocol::Tcp, _) => 6,
            (Protocol::Udp, _) => 17,
            (Protocol::Icmp, false) => 1,
            (Protocol::Icmp, true) => 58,
        }),
        netns: match (&settings.netns, &settings.device) {
            (None, None) => None,
            _ => Some(inode(file)?),
        },
        device: settings
            .device
            .as_deref()
            .map(|name| device(file, name))
            .transpose()?,
        vxlan_ports: settings.vxlan_ports,
        budget: settings.max_hops,
        ring_bytes: settings.ring_bytes,
        source: settings.source.clone(),
    })
}

fn inode(netns: &File) -> Result<u32> {
    let file = std::fs::metadata(netns)
        .with_context(|| format!("can't find the network namespace {}", netns.display()))?;
    Ok(file.ino() as u32)
}

/// The device's index, asked by a thread that enters its network namespace.
fn device(netns: &File, name: &str) -> Result<u32> {
    let ask = || {
        enter(netns)?;
        let devices = Routing::open()?.devices()?;
        let found = devices.iter().find(|device| device.name == name);
        found.map(|device| device.index).with_context(|| {
            let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
            format!(
                "{} has no device {name:?}; it has {}",
                netns.display(),
                names.join(", ")
            )
        })
    };
    thread::scope(|scope| match scope.spawn(ask).join() {
        Ok(index) => index,
        Err(_) => bail!("can't list the devices of {}", netns.display()),
    })
}

/// `other`: whose family a pod's address has to have.
fn net(end: Option<&PathTarget>, other: Option<IpNet>, runtime: Option<&Runtime>) -> Result<Option<IpNet>> {
    match end {
        None => Ok(None),
        Some(PathTarget::Net(net)) => Ok(Some(*net)),
        Some(PathTarget::Pod(name)) => {
            let Some(runtime) = runtime else {
                bail!(
                    "{name:?} is no address, and no container runtime was found to look up pods (--cri sets \
                     its socket)"
                );
            };
            // Its list comes first, the pods' addresses one by one behind it.
            let began = Instant::now();
            loop {
                let addresses = runtime.addresses();
                let pods = addresses.iter().map(|(address, named)| {
                    (*address, named.pod.namespace.as_str(), named.pod.name.as_str())
                });
                match pod(name, other, pods) {
                    Err(_) if began.elapsed() < FIRST_ANSWER => thread::sleep(AGAIN),
                    found => return found.map(Some),
                }
            }
        }
    }
}

/// The address of the pod that is meant: its whole name, or else the only one that begins so.
fn pod<'a>(
    wanted: &str,
    other: Option<IpNet>,
    pods: impl Iterator<Item = (IpAddr, &'a str, &'a str)>,
) -> Result<IpNet> {
    let (namespace, name) = wanted
        .split_once('/')
        .map_or((None, wanted), |(namespace, name)| (Some(namespace), name));
    let mut found: Vec<_> = pods
        .filter(|(_, in_namespace, pod)| {
            namespace.is_none_or(|namespace| namespace == *in_namespace) && pod.starts_with(name)
        })
        .map(|(address, namespace, pod)| (address, format!("{namespace}/{pod}"), pod == name))
        .collect();
    if found.iter().any(|(.., exact)| *exact) {
        found.retain(|(.., exact)| *exact);
    }
    let mut names: Vec<_> = found.iter().map(|(_, name, _)| name.clone()).collect();
    names.sort();
    names.dedup();
    match names.as_slice() {
        [] => bail!(
            "no pod of this node with an address of its own is named {wanted:?}; hostNetwork pods have the \
             node's"
        ),
        [_] => {}
        names => bail!(
            "{wanted:?} is ambiguous: {}; give the full name",
            names.join(", ")
        ),
    }
    let wants_v6 = matches!(other, Some(IpNet::V6(_)));
    found.sort();
    let address = found
        .iter()
        .map(|(address, ..)| *address)
        .find(|address| address.is_ipv6() == wants_v6)
        .or(found.first().map(|(address, ..)| *address));
    address.map(IpNet::from).context("it has no address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_by_their_names() {
        let pods = [
            ("10.244.1.5", "shop", "checkout-5x2kq"),
            ("fd77::5", "shop", "checkout-5x2kq"),
            ("10.244.1.6", "shop", "web-1"),
            ("10.244.1.7", "shop", "web-10"),
            ("10.244.1.8", "test", "web-1"),
        ];
        let v6 = Some("fd00::/8".parse().unwrap());
        for (wanted, other, expected) in [
            ("checkout", None, Ok("10.244.1.5/32")),
            ("checkout", v6, Ok("fd77::5/128")),
            ("shop/web-1", None, Ok("10.244.1.6/32")),
            ("shop/web", None, Err("web-10")),
            ("web-1", None, Err("test/web-1")),
            ("none", None, Err("no pod")),
        ] {
            let pods = pods
                .iter()
                .map(|(address, namespace, pod)| (address.parse().unwrap(), *namespace, *pod));
            match (pod(wanted, other, pods), expected) {
                (Ok(net), Ok(expected)) => assert_eq!(net, expected.parse().unwrap(), "{wanted}"),
                (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{error}"),
                (result, _) => panic!("{wanted}: {result:?}"),
            }
        }
    }
}
