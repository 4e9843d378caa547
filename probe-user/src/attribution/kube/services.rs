//! The cluster's Services, by a thread that lists them once and then watches them: names where the node's rules have none, and all
//! where something else than kube-proxy serves them. With thousands of nodes the API could not list them for each again and again.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use kube::{
    Api, Resource as _,
    api::{WatchEvent, WatchParams},
};
use tokio::time::{sleep, timeout};

use super::{
    client::{Access, KubeError},
    object::{ListedService, Name, Service as Object},
    pages::{ListQuery, list},
};
use crate::{
    attribution::health::{Doing, Health, News},
    model::bypass::service::{Mode, Service},
};

/// How often they are listed where they must not be watched.
const EVERY: Duration = Duration::from_secs(300);
/// How long after a failure it is tried again: twice as long after each, up to the longest.
const RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Changes are taken over once there are none for so long.
const SETTLED: Duration = Duration::from_secs(1);
/// But after so long at the latest.
const UNSETTLED: Duration = Duration::from_secs(5);
/// The API ends a watch after 290 s, and sends bookmarks each minute before: one that sends nothing for so long is broken.
const SILENT: Duration = Duration::from_secs(400);

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

    /// Takes over what is known by now.
    fn take(&self, known: &ServicesByName) {
        let known: Vec<_> = known.values().flatten().cloned().collect();
        let mut services = self.services();
        if *services != known {
            *services = known;
            self.revision.fetch_add(1, Ordering::Release);
        }
        drop(services);
        self.doing.is(Health::Well(None));
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
    sleep(shared.access.delay()).await;
    let mut failures = 0;
    loop {
        let rest = match follow(shared).await {
            Ok(ended) => {
                failures = 0;
                match ended {
                    // They were listed all the same.
                    Ended::NotAllowed => EVERY,
                    // No API is asked, or they have to be listed again.
                    Ended::Over => RETRY,
                }
            }
            Err(error) => {
                shared.doing.is(Health::Failing(error.to_string()));
                failures += 1;
                after(failures)
            }
        };
        sleep(rest).await;
    }
}

/// When they are listed again after so many failures: what is refused to thousands of agents is not asked for every 5 s.
fn after(failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    RETRY.saturating_mul(doubled).min(LONGEST_RETRY)
}

/// Why nothing more comes.
enum Ended {
    Over,
    /// They may be listed at the most.
    NotAllowed,
}

/// Services by namespace and name.
type ServicesByName = BTreeMap<(String, String), Vec<Service>>;

/// Lists them, and watches them until that fails.
async fn follow(shared: &Shared) -> Result<Ended, KubeError> {
    let Some(client) = shared.access.api().await? else {
        shared.doing.is(Health::Well(None));
        return Ok(Ended::Over);
    };
    let query = ListQuery {
        path: Object::url_path(&(), None),
        what: "the list of Services",
        may_be_old: true,
        unattended: true,
        ..ListQuery::default()
    };
    let reduce = |object: ListedService| Some((key(&object.metadata), of(object)));
    let listed = list(&client, &query, reduce).await?;
    let mut watched = Watched {
        known: listed.items.into_iter().collect(),
        version: listed.version,
    };
    shared.take(&watched.known);
    let api = Api::<Object>::all(client);
    loop {
        let begun = Instant::now();
        match watched.follow(&api, shared).await {
            Watch::Over => {}
            Watch::NotAllowed => return Ok(Ended::NotAllowed),
            Watch::TooOld => return Ok(Ended::Over),
        }
        // It ends now and then, and is begun again where it was; at once only if it had held.
        sleep(RETRY.saturating_sub(begun.elapsed())).await;
    }
}

/// How a watch ended.
enum Watch {
    Over,
    NotAllowed,
    /// The API has forgotten what changed since.
    TooOld,
}

impl Watch {
    fn of(code: u16) -> Self {
        match code {
            403 => Self::NotAllowed,
            410 => Self::TooOld,
            _ => Self::Over,
        }
    }
}

/// What is known of them, and the version up to which.
struct Watched {
    known: ServicesByName,
    version: String,
}

impl Watched {
    /// Takes changes until the watch ends.
    async fn follow(&mut self, api: &Api<Object>, shared: &Shared) -> Watch {
        let events = match api.watch(&WatchParams::default(), &self.version).await {
            Ok(events) => events,
            Err(kube::Error::Api(status)) => return Watch::of(status.code),
            Err(_) => return Watch::Over,
        };
        let mut events = pin!(events);
        let mut changed: Option<Instant> = None;
        let ended = loop {
            let settled = match changed {
                Some(first) => SETTLED.min(UNSETTLED.saturating_sub(first.elapsed())),
                None => SILENT,
            };
            let Ok(event) = timeout(settled, events.next()).await else {
                if changed.take().is_none() {
                    break Watch::Over;
                }
                shared.take(&self.known);
                continue;
            };
            match event {
                Some(Ok(WatchEvent::Bookmark(bookmark))) => self.version = bookmark.metadata.resource_version,
                Some(Ok(WatchEvent::Error(status))) => break Watch::of(status.code),
                Some(Ok(event)) => {
                    self.apply(event);
                    changed.get_or_insert_with(Instant::now);
                }
                // A line that is cut off, too: what it said is said again from the version on.
                Some(Err(_)) | None => break Watch::Over,
            }
        };
        if changed.is_some() {
            shared.take(&self.known);
        }
        ended
    }

    fn apply(&mut self, event: WatchEvent<Object>) {
        let (object, is_gone) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
            WatchEvent::Deleted(object) => (object, true),
            WatchEvent::Bookmark(_) | WatchEvent::Error(_) => return,
        };
        let metadata = object.metadata;
        if let Some(version) = metadata.resource_version {
            self.version = version;
        }
        let object = ListedService {
            metadata: Name {
                namespace: metadata.namespace,
                name: metadata.name,
            },
            spec: object.spec,
            status: object.status,
        };
        let key = key(&object.metadata);
        if is_gone {
            self.known.remove(&key);
        } else {
            self.known.insert(key, of(object));
        }
    }
}

fn key(metadata: &Name) -> (String, String) {
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

/// Each port at each address, and each node port at those of the node.
fn of(object: ListedService) -> Vec<Service> {
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
    use std::{
        fs,
        io::{BufRead as _, BufReader, Write as _},
        net::{TcpListener, TcpStream},
    };

    use serde_json::json;

    use super::{super::client::Credentials, *};

    #[test]
    fn each_port_at_each_address() {
        let object = |text: &str| serde_json::from_str::<ListedService>(text).unwrap();
        let told = |text: &str| {
            let services = of(object(text));
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

    /// An API that lists one Service, and sends these lines to who watches, or refuses that.
    fn api(events: Option<&'static str>) -> (tempfile::NamedTempFile, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", listener.local_addr().unwrap())}}],
            "users": [{"name": "c", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]});
        fs::write(file.path(), config.to_string()).unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let requests = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let requests = Arc::clone(&requests);
                thread::spawn(move || answer(stream.unwrap(), events, &requests));
            }
        });
        (file, asked)
    }

    /// One request a connection.
    fn answer(mut stream: TcpStream, events: Option<&str>, requests: &Mutex<Vec<String>>) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let request = lines.next().unwrap().unwrap();
        while !lines.next().unwrap().unwrap().is_empty() {}
        requests.lock().unwrap().push(request.clone());
        let (status, body) = match (request.contains("watch=true"), events) {
            (false, _) => ("200 OK", format!(r#"{{"kind": "ServiceList", "apiVersion": "v1", "metadata": {{"resourceVersion": "5"}}, "items": [{}]}}"#, service("web", "10.96.7.7"))),
            (true, Some(events)) => ("200 OK", events.to_owned()),
            (true, None) => ("403 Forbidden", r#"{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403}"#.to_owned()),
        };
        // Until it is closed, as a watch is.
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{body}"
        )
        .unwrap();
        if request.contains("watch=true") && events.is_some() {
            thread::sleep(Duration::from_secs(30));
        }
    }

    fn service(name: &str, address: &str) -> String {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": "6"},
            "spec": {"clusterIP": address, "ports": [{"port": 443}]}})
        .to_string()
    }

    fn list_of(file: &tempfile::NamedTempFile) -> ServiceList {
        let list = ServiceList::start(Access {
            credentials: Credentials::Kubeconfig(file.path().to_owned()),
            kubelet: None,
            kubelet_insecure_tls: false,
            spread: Duration::ZERO,
        })
        .unwrap();
        list.wait(Duration::from_secs(20));
        list
    }

    fn names(list: &ServiceList) -> Vec<String> {
        list.services()
            .into_iter()
            .filter_map(|service| service.name)
            .collect()
    }

    #[test]
    fn what_fails_is_tried_less_and_less_often() {
        let seconds = [1, 2, 3, 4, 5, 40, u32::MAX].map(|failures| after(failures).as_secs());
        assert_eq!(seconds, [5, 10, 20, 40, 60, 60, 60]);
    }

    #[test]
    fn they_are_listed_once_and_then_watched() {
        let events = format!(
            "{{\"type\": \"ADDED\", \"object\": {}}}\n{{\"type\": \"DELETED\", \"object\": {}}}\n",
            service("api", "10.96.7.8"),
            service("web", "10.96.7.7")
        );
        let (file, asked) = api(Some(events.leak()));
        let list = list_of(&file);
        let begun = Instant::now();
        while names(&list) != ["shop/api"] {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", names(&list));
            thread::sleep(Duration::from_millis(20));
        }
        let asked = asked.lock().unwrap();
        let lists = asked
            .iter()
            .filter(|request| !request.contains("watch=true"))
            .count();
        assert_eq!((lists, asked.len()), (1, 2), "{asked:?}");
    }

    #[test]
    fn who_may_not_watch_lists() {
        let (file, _) = api(None);
        let list = list_of(&file);
        assert_eq!(names(&list), ["shop/web"]);
        let health = list.shared.doing.news();
        assert!(matches!(health, Some(Health::Well(_)) | None), "{health:?}");
    }
}
