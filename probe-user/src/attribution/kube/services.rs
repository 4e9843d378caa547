//! The cluster's Services, by a thread that lists them again and again: names where the node's rules have none, and all
//! where something else than kube-proxy serves them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::time::sleep;

use super::{
    client::{self, Access, KubeError},
    object::Service as Object,
};
use crate::{
    attribution::health::{Doing, Health, News},
    model::bypass::service::{Mode, Service},
};

/// How often they are listed.
const EVERY: Duration = Duration::from_secs(30);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What the API said last.
#[derive(Clone, Debug)]
pub struct ServiceList {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    access: Access,
    services: Mutex<Vec<Service>>,
    /// Goes up with each change.
    revision: AtomicU64,
    doing: Doing,
}

impl Shared {
    fn services(&self) -> MutexGuard<'_, Vec<Service>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, listed: Vec<Service>) {
        let mut services = self.services();
        if *services != listed {
            *services = listed;
            self.revision.fetch_add(1, Ordering::Release);
        }
    }
}

impl ServiceList {
    /// Begins to ask.
    ///
    /// # Errors
    /// When this process may not have another thread.
    pub fn start(access: Access) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            access,
            services: Mutex::default(),
            revision: AtomicU64::new(0),
            doing: Doing::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name("services".to_owned())
            .spawn(move || runtime.block_on(keep(&theirs)))?;
        Ok(Self { shared })
    }

    /// Those of the last answer, without their endpoints.
    pub fn services(&self) -> Vec<Service> {
        self.shared.services().clone()
    }

    /// Another number where they are others than before.
    pub fn revision(&self) -> u64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    /// Waits until they are known, or that they will not be.
    pub fn wait(&self, patience: Duration) {
        self.shared.doing.wait(patience);
    }

    /// How it is doing, if that changed since it was last asked.
    pub fn news(&self) -> Option<News> {
        Some(News {
            health: self.shared.doing.news()?,
            who: self.shared.access.description(),
            lost: "Services are known only from the node's rules",
        })
    }
}

async fn keep(shared: &Shared) {
    loop {
        match list(shared).await {
            Ok(listed) => {
                shared.set(listed);
                shared.doing.is(Health::Well(None));
                sleep(EVERY).await;
            }
            Err(error) => {
                shared.doing.is(Health::Failing(error.to_string()));
                sleep(RETRY).await;
            }
        }
    }
}

async fn list(shared: &Shared) -> Result<Vec<Service>, KubeError> {
    let Some(api) = shared.access.api().await? else {
        return Ok(Vec::new());
    };
    let objects = client::services(&api).await?;
    Ok(objects.iter().flat_map(of).collect())
}

/// Each port at each address, and each node port at those of the node.
fn of(object: &Object) -> Vec<Service> {
    let (Some(namespace), Some(name), Some(spec)) =
        (&object.metadata.namespace, &object.metadata.name, &object.spec)
    else {
        return Vec::new();
    };
    let balancer = object
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref());
    let ingress = balancer
        .flat_map(|balancer| balancer.ingress.iter().flatten())
        .filter_map(|ingress| ingress.ip.as_deref());
    let of_cluster = || spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten());
    let mut addresses: Vec<_> = of_cluster()
        .chain(spec.external_ips.iter().flatten())
        .map(String::as_str)
        .chain(ingress)
        // A Service without one says `None`.
        .filter_map(|address| address.parse().ok())
        .collect();
    let of_cluster: Vec<IpAddr> = of_cluster().filter_map(|address| address.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let mut all = Vec::new();
    for port in spec.ports.iter().flatten() {
        let protocol = match port.protocol.as_deref() {
            None | Some("TCP") => 6,
            Some("UDP") => 17,
            Some("SCTP") => 132,
            Some(_) => continue,
        };
        let Ok(number) = u16::try_from(port.port) else {
            continue;
        };
        let named = port.name.iter().filter(|name| !name.is_empty());
        let suffix: String = named.map(|name| format!(":{name}")).collect();
        all.extend(addresses.iter().map(|address| Service {
            name: Some(format!("{namespace}/{name}{suffix}")),
            address: SocketAddr::new(*address, number),
            is_cluster_ip: of_cluster.contains(address),
            protocol,
            endpoints: Vec::new(),
            refused: false,
            mode: Mode::Api,
        }));
        let node_port = port.node_port.and_then(|port| u16::try_from(port).ok());
        let Some(node_port) = node_port.filter(|port| *port != 0) else {
            continue;
        };
        let families: [(bool, IpAddr); 2] = [
            (true, Ipv4Addr::UNSPECIFIED.into()),
            (false, Ipv6Addr::UNSPECIFIED.into()),
        ];
        let families = families
            .into_iter()
            .filter(|(v4, _)| of_cluster.iter().any(|address| address.is_ipv4() == *v4));
        all.extend(families.map(|(_, any)| Service {
            name: Some(format!("{namespace}/{name}{suffix}")),
            address: SocketAddr::new(any, node_port),
            is_cluster_ip: false,
            protocol,
            endpoints: Vec::new(),
            refused: false,
            mode: Mode::Api,
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_at_each_address() {
        let object = |text: &str| serde_json::from_str::<Object>(text).unwrap();
        let told = |text: &str| {
            let services = of(&object(text));
            let one = |service: &Service| {
                let name = service.name.clone().unwrap_or_default();
                format!("{name} {} {}", service.address, service.protocol)
            };
            services.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(
            told(
                r#"{"metadata": {"namespace": "shop", "name": "web"}, "spec": {
                    "clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7", "fd00::7"], "externalIPs": ["203.0.113.7"],
                    "ports": [{"name": "https", "port": 443, "nodePort": 30443}, {"port": 53, "protocol": "UDP", "nodePort": 0}, {"port": 70000}, {"port": 1, "protocol": "X"}]},
                    "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}, {"hostname": "x"}]}}}"#
            ),
            [
                "shop/web:https 10.96.7.7:443 6",
                "shop/web:https 203.0.113.7:443 6",
                "shop/web:https 203.0.113.9:443 6",
                "shop/web:https [fd00::7]:443 6",
                "shop/web:https 0.0.0.0:30443 6",
                "shop/web:https [::]:30443 6",
                "shop/web 10.96.7.7:53 17",
                "shop/web 203.0.113.7:53 17",
                "shop/web 203.0.113.9:53 17",
                "shop/web [fd00::7]:53 17",
            ]
        );
        let headless = r#"{"metadata": {"namespace": "a", "name": "b"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}"#;
        assert!(told(headless).is_empty() && told("{}").is_empty());
    }
}
