//! The check `ingress`: what it reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    CheckContext,
    node::find_kubelet,
    watching::{self, WatchScope},
};
use crate::{
    model::{
        Owner, Role,
        bypass::service::Service,
        doctor::{
            Answer, Check,
            ingress::{Clients, Served, judge},
            server::Stop,
        },
    },
    netfilter::services::https_node_ports,
    rtnetlink::Routing,
    tls::{self, Ask},
};

/// Where clients come for HTTPS.
const HTTPS: u16 = 443;
/// One dial.
const DIAL: Duration = Duration::from_secs(1);
/// Dials at the most, and at once.
const DIALS: usize = 64;
const AT_ONCE: usize = 16;
/// Devices whose addresses are no node's, as a tunnel's: kube-proxy's and NodeLocal DNSCache's own.
const NOT_THESE: [&str; 2] = ["kube-ipvs0", "nodelocaldns"];

pub fn run(node: &CheckContext) -> Answer {
    if find_kubelet(&node.root).is_none() {
        return Answer::not_applicable(Check::Ingress, "not a Kubernetes node");
    }
    let addresses = match addresses() {
        Ok(addresses) => addresses,
        Err(why) => {
            return Answer::not_applicable(
                Check::Ingress,
                format!("this node's addresses are not known: {why}"),
            );
        }
    };
    let mut unknown = Vec::new();
    let targets = targets(&addresses, &node.rules().services, &mut unknown);
    let (clients, mut served) = thread::scope(|scope| {
        // What is dialled below is none of the clients.
        let dialled = scope.spawn(|| dial(&targets));
        let clients = clients(node);
        (clients, dialled.join().unwrap_or_default())
    });
    // Nothing is there: no fault of an ingress that there is not.
    served.retain(|one| {
        !matches!(
            one.dialled.reply,
            Err(Stop::Refused | Stop::Unreachable(_)) if one.dialled.leaf.is_none()
        )
    });
    if served.is_empty() {
        return Answer::not_applicable(
            Check::Ingress,
            format!("no server on port {HTTPS} of this node's addresses"),
        )
        .without(unknown);
    }
    let clients = clients.unwrap_or_else(|why| {
        unknown.push(format!("clients without a server name: {why}"));
        Clients::Unseen
    });
    let (summary, faults) = judge(&served, &clients, Timestamp::now());
    Answer::of(Check::Ingress, summary, faults).without(unknown)
}

/// Who came without a server name while the doctor looked, as the kernel saw their first packets.
fn clients(node: &CheckContext) -> Result<Clients, String> {
    let question = WatchScope {
        role: Some(Role::Server),
        all: true,
        tls: true,
        ..WatchScope::of(node, &[HTTPS])
    };
    let seen = watching::watch(node, &question, || {}).map_err(|error| format!("{error:#}"))?;
    let mut nameless: BTreeMap<String, u64> = BTreeMap::new();
    let mut any = false;
    for connection in &seen.connections {
        let hello = connection.tls.as_ref().and_then(|tls| tls.client.hello());
        let own = |owner: &Owner| {
            owner
                .process
                .as_ref()
                .is_some_and(|process| process.pid == std::process::id())
        };
        if connection.actor().is_some_and(own) {
            continue;
        }
        let Some(hello) = hello else { continue };
        any = true;
        if hello.server_name.is_none() {
            let who = connection
                .actor()
                .map_or_else(|| connection.source.ip().to_string(), Owner::describe);
            *nameless.entry(who).or_default() += 1;
        }
    }
    if !any {
        let lacks = seen.lacks.iter().find(|lack| lack.contains("TLS"));
        return Err(lacks
            .cloned()
            .unwrap_or_else(|| format!("none connected in {:.0} s", node.settings.duration.as_secs_f64())));
    }
    Ok(Clients::Came(nameless.into_iter().collect()))
}

/// Those that others reach this node at.
fn addresses() -> Result<Vec<IpAddr>, String> {
    let mut routing = Routing::open().map_err(|error| error.to_string())?;
    let devices = routing.devices().map_err(|error| error.to_string())?;
    let left_out: Vec<u32> = devices
        .iter()
        .filter(|device| device.vxlan.is_some() || NOT_THESE.contains(&device.name.as_str()))
        .map(|device| device.index)
        .collect();
    let all = routing.addresses().map_err(|error| error.to_string())?;
    let is_asked = |(device, address): &(u32, IpAddr)| {
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        !left_out.contains(device) && !address.is_loopback() && !link_local && !address.is_unspecified()
    };
    let found: BTreeSet<IpAddr> = all
        .into_iter()
        .filter(is_asked)
        .map(|(_, address)| address)
        .collect();
    Ok(found.into_iter().collect())
}

/// What is dialled, and why.
fn targets(
    addresses: &[IpAddr],
    services: &[Service],
    unknown: &mut Vec<String>,
) -> BTreeMap<SocketAddr, String> {
    let mut targets: BTreeMap<SocketAddr, String> = addresses
        .iter()
        .map(|address| (SocketAddr::new(*address, HTTPS), "port 443".to_owned()))
        .collect();
    // Not of listeners alone: a rule may lead a port on where nothing listens.
    for (name, port) in https_node_ports(services) {
        targets.extend(
            addresses
                .iter()
                .map(|address| (SocketAddr::new(*address, port), format!("node port of {name}"))),
        );
    }
    if targets.len() > DIALS {
        unknown.push(format!(
            "{} more addresses not checked: the limit is {DIALS} addresses",
            targets.len() - DIALS
        ));
    }
    targets.into_iter().take(DIALS).collect()
}

/// A few at a time, each with its time.
fn dial(targets: &BTreeMap<SocketAddr, String>) -> Vec<Served> {
    let targets: Vec<_> = targets.iter().collect();
    let mut served = Vec::new();
    for some in targets.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let dials: Vec<_> = some
                .iter()
                .map(|(address, why)| {
                    scope.spawn(|| Served {
                        address: **address,
                        why: (*why).clone(),
                        dialled: tls::dial(&Ask {
                            address: **address,
                            name: None,
                            authorities: None,
                            identity: None,
                            request: None,
                            timeout: DIAL,
                        }),
                    })
                })
                .collect();
            served.extend(dials.into_iter().filter_map(|dial| dial.join().ok()));
        });
    }
    served
}
