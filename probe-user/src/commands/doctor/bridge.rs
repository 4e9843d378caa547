//! Gathers what the bridge check judges.

use std::time::{Duration, Instant, SystemTime};

use super::{CheckContext, kubelet::Kubelet};
use crate::{
    attribution::{
        cri::{self, Runtime},
        kube::as_kubelet,
    },
    host::{cni, reservations, subnet_env},
    model::{
        Finding,
        doctor::{
            Answer, Check,
            bridge::{ApiNode, BridgeFacts, judge},
        },
        finding::Kind,
        host::{CniNetwork, Reserved},
    },
    rtnetlink::{RouteError, Routing},
};

/// How long to wait for the container runtime's list.
const RUNTIME: Duration = Duration::from_secs(3);
/// CNI configurations that are read.
const FILES: usize = 64;
/// Set by flannel where it takes its subnet from podCIDR.
const BY_FLANNEL: &str = "flannel.alpha.coreos.com/kube-subnet-manager";

pub fn run(node: &CheckContext) -> Answer {
    let mut seen = match kernel() {
        Ok(seen) => seen,
        Err(error) => {
            return Answer::of(
                Check::Bridge,
                "not checked",
                vec![Finding::warning(Kind::Doctor(Check::Bridge), error.to_string())],
            );
        }
    };
    seen.networks = networks(node);
    let main = seen
        .networks
        .first()
        .and_then(|(_, network)| network.as_ref().ok());
    let file = main.and_then(|network| network.main()?.subnet_file.clone());
    let file = file.as_deref().unwrap_or(subnet_env::PATH);
    seen.subnet_env = match node.root.text(file) {
        Ok(text) => Some(Ok(subnet_env::parse(&text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(error.to_string())),
    };
    seen.reserved_in = place(main);
    let mut reserved = reserved(node, &seen.reserved_in);
    if !reserved.is_empty()
        && let Err(why) = look_for_them(node, &mut reserved)
    {
        seen.unknown.push(format!("reservations of deleted pods: {why}"));
    }
    seen.reservations = reserved;
    let kubelet = Kubelet::find(node);
    seen.has_kubelet = kubelet.is_here;
    let name = kubelet.node_name(node);
    seen.node = kubelet.ask(node, async |client| {
        let found = as_kubelet::node(&client, &name).await?;
        let spec = found.spec.unwrap_or_default();
        let cidrs = spec
            .pod_cidrs
            .unwrap_or_default()
            .into_iter()
            .chain(spec.pod_cidr);
        let annotation = found.metadata.annotations.unwrap_or_default();
        Ok(ApiNode {
            name: name.clone(),
            pod_cidrs: cidrs.filter_map(|cidr| cidr.parse().ok()).collect(),
            by_flannel: annotation.get(BY_FLANNEL).is_some_and(|value| value == "true"),
        })
    });
    judge(&seen)
}

fn kernel() -> Result<BridgeFacts, RouteError> {
    let mut routing = Routing::open()?;
    Ok(BridgeFacts {
        devices: routing.devices()?,
        addresses: routing.nets()?,
        routes: routing.routes()?,
        subnet_env: None,
        networks: Vec::new(),
        has_kubelet: false,
        node: Err("not asked".to_owned()),
        reservations: Vec::new(),
        reserved_in: String::new(),
        unknown: Vec::new(),
    })
}

/// In the order in which a runtime takes them.
fn networks(node: &CheckContext) -> Vec<(String, Result<CniNetwork, String>)> {
    let names = node.root.names(cni::DIRECTORY).unwrap_or_default();
    names
        .into_iter()
        .filter(|name| cni::is_one(name))
        .take(FILES)
        .map(|name| {
            let path = format!("{}/{name}", cni::DIRECTORY);
            let text = node.root.text(&path).map_err(|error| error.to_string());
            let network = text.and_then(|text| cni::parse(&text));
            (path, network)
        })
        .collect()
}

/// Where the addresses of a network's pods are reserved.
fn place(network: Option<&CniNetwork>) -> String {
    let main = network.and_then(CniNetwork::main);
    let directory = main.and_then(|plugin| plugin.data_dir.as_deref());
    let name = network.map_or("cbr0", |network| &network.name);
    format!("{}/{name}", directory.unwrap_or(reservations::DIRECTORY))
}

fn reserved(node: &CheckContext, place: &str) -> Vec<Reserved> {
    let now = SystemTime::now();
    let names = node.root.names(place).unwrap_or_default();
    names
        .into_iter()
        .filter_map(|name| {
            // Gone since, perhaps.
            let (text, written) = node.root.dated(format!("{place}/{name}")).ok()?;
            Some(Reserved {
                reservation: reservations::parse(&name, &text)?,
                age: now.duration_since(written).unwrap_or_default(),
                gone: None,
            })
        })
        .collect()
}

/// Asks the runtime for their sandboxes.
fn look_for_them(node: &CheckContext, reserved: &mut [Reserved]) -> Result<(), String> {
    let socket = cri::socket(&node.settings.cri).ok_or("no container runtime")?;
    let begun = Instant::now();
    let runtime = Runtime::start(&socket).map_err(|error| error.to_string())?;
    runtime.wait(RUNTIME);
    if !runtime.listed_since(begun) {
        return Err(format!(
            "the container runtime at {} does not answer",
            socket.display()
        ));
    }
    for one in reserved {
        one.gone = Some(runtime.container(&one.reservation.container).is_none());
    }
    Ok(())
}
