//! Services, as the node's own rules have them.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

crate::names! {
    /// What kube-proxy makes its rules of.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Mode {
        Iptables = "iptables",
        Ipvs = "ipvs",
        Nftables = "nftables",
        /// None: only the Kubernetes API reports it.
        Api = "api",
    }
}

/// One port of a Service at one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `namespace/name:port`; `None` if the rules don't contain it.
    pub name: Option<String>,
    /// Unspecified for a node port: it is at every address of the node.
    pub address: SocketAddr,
    /// The address is a cluster IP, as far as the rules tell.
    pub is_cluster_ip: bool,
    /// IP protocol number.
    pub protocol: u8,
    pub endpoints: Vec<SocketAddr>,
    /// It has no endpoints, as the rules say: they refuse what goes to it. Where no endpoint could be read, it is not.
    pub refused: bool,
    pub mode: Mode,
}

impl Service {
    /// Whether it is a port of every address of the node.
    pub const fn is_node_port(&self) -> bool {
        match self.address.ip() {
            IpAddr::V4(v4) => v4.is_unspecified(),
            IpAddr::V6(v6) => v6.is_unspecified(),
        }
    }

    /// Its port at all addresses of its family, as node ports have it.
    const fn any(&self) -> SocketAddr {
        let any = match self.address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        SocketAddr::new(any, self.address.port())
    }

    /// `namespace/name:port`, or the address where there is no name.
    pub fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.address.to_string())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) if self.is_node_port() => {
                write!(f, "Service {name} (NodePort {})", self.address.port())
            }
            Some(name) => write!(f, "Service {name} ({})", self.address),
            None => write!(f, "the Service at {}", self.address),
        }
    }
}

/// The Services that one rule set is for: kube-proxy's of one mode and one tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRules {
    /// `iptables-legacy`, `iptables-nft`, `nft`, `IPVS`.
    pub name: String,
    pub services: Vec<Service>,
}

/// All Services that the node has rules for, by their addresses and by their endpoints.
#[derive(Clone, Debug, Default)]
pub struct Services {
    all: Vec<Service>,
    node_ports: Vec<Service>,
    by_address: HashMap<(u8, SocketAddr), usize>,
    by_endpoint: HashMap<(u8, SocketAddr), usize>,
    /// Of IPVS, whose translation shows in no conntrack entry: all that have a destination.
    by_destination: HashMap<(u8, SocketAddr), Vec<usize>>,
}

impl Services {
    /// Those of the node's rules, named by `listed` where the rules don't, and those of it that no rule is for.
    pub fn with(mut all: Vec<Service>, listed: Vec<Service>) -> Self {
        let mut named: HashMap<(u8, SocketAddr), Service> = listed
            .into_iter()
            .map(|service| ((service.protocol, service.address), service))
            .collect();
        let mut node_ports = HashSet::new();
        for service in &mut all {
            let listed = named.remove(&(service.protocol, service.address));
            service.name = service.name.take().or_else(|| listed?.name);
            // IPVS has a virtual server for a node port at each address of the node.
            if service.name.is_none() && service.mode == Mode::Ipvs {
                let of_node = (service.protocol, service.any());
                service.name = named.get(&of_node).and_then(|listed| listed.name.clone());
                if service.name.is_some() {
                    node_ports.insert(of_node);
                }
            }
        }
        named.retain(|of_node, _| !node_ports.contains(of_node));
        all.extend(named.into_values());
        Self::new(all)
    }

    pub fn new(all: Vec<Service>) -> Self {
        let (node_ports, all) = all.into_iter().partition(Service::is_node_port);
        let mut services = Self {
            all,
            node_ports,
            ..Self::default()
        };
        for (place, service) in services.all.iter().enumerate() {
            let protocol = service.protocol;
            services
                .by_address
                .entry((protocol, service.address))
                .or_insert(place);
            for endpoint in &service.endpoints {
                services.by_endpoint.entry((protocol, *endpoint)).or_insert(place);
                if service.mode == Mode::Ipvs {
                    let all = services.by_destination.entry((protocol, *endpoint)).or_default();
                    all.push(place);
                }
            }
        }
        services
    }

    /// Those with an address of their own.
    pub fn all(&self) -> &[Service] {
        &self.all
    }

    /// The Service at an address.
    pub fn at(&self, protocol: u8, address: IpAddr, port: u16) -> Option<&Service> {
        let place = self.by_address.get(&(protocol, SocketAddr::new(address, port)))?;
        self.all.get(*place)
    }

    /// The Service at an address, or behind a node port if it is one of the node's own.
    pub fn at_node(
        &self,
        protocol: u8,
        address: IpAddr,
        port: u16,
        own: &HashSet<IpAddr>,
    ) -> Option<&Service> {
        let is_it = |service: &&Service| {
            (service.protocol, service.address.port()) == (protocol, port)
                && service.address.is_ipv4() == address.is_ipv4()
        };
        let node_port = || {
            let is_own = own.contains(&address) && !address.is_loopback();
            self.node_ports.iter().find(|service| is_own && is_it(service))
        };
        self.at(protocol, address, port).or_else(node_port)
    }

    /// The first Service that has this endpoint.
    pub fn of_endpoint(&self, protocol: u8, address: IpAddr, port: u16) -> Option<&Service> {
        let place = self
            .by_endpoint
            .get(&(protocol, SocketAddr::new(address, port)))?;
        self.all.get(*place)
    }

    /// The virtual server of IPVS at an address.
    pub fn virtual_server(&self, protocol: u8, address: IpAddr, port: u16) -> Option<&Service> {
        self.at(protocol, address, port)
            .filter(|service| service.mode == Mode::Ipvs)
    }

    /// The virtual servers of IPVS that have this destination.
    pub fn virtual_servers_of(
        &self,
        protocol: u8,
        address: IpAddr,
        port: u16,
    ) -> impl Iterator<Item = &Service> {
        let places = self
            .by_destination
            .get(&(protocol, SocketAddr::new(address, port)));
        places
            .into_iter()
            .flatten()
            .filter_map(|place| self.all.get(*place))
    }

    /// Ports of Services and endpoints.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.all
            .iter()
            .chain(&self.node_ports)
            .flat_map(|service| service.endpoints.iter().chain([&service.address]))
            .map(SocketAddr::port)
    }

    /// Whether this is the cluster's DNS Service, which NodeLocal DNSCache also listens at. With IPVS it can't: each node has the
    /// address on `kube-ipvs0`.
    pub fn is_dns(&self, address: IpAddr) -> bool {
        self.all.iter().any(|service| {
            service.address.ip() == address
                && service.mode != Mode::Ipvs
                && service
                    .name
                    .as_deref()
                    .is_some_and(|name| name.starts_with("kube-system/") && name.contains("dns"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ports_are_at_the_nodes_own_addresses() {
        let node_port = |address: &str| Service {
            name: Some("shop/web:http".to_owned()),
            address: address.parse().unwrap(),
            is_cluster_ip: false,
            protocol: 6,
            endpoints: Vec::new(),
            refused: false,
            mode: Mode::Iptables,
        };
        let services = Services::new(vec![node_port("0.0.0.0:30080"), node_port("[::]:30080")]);
        assert_eq!(services.all(), []);
        let own = ["192.168.88.11", "127.0.0.1", "fd00::11"].map(|address| address.parse().unwrap());
        let own = HashSet::from(own);
        for (protocol, address, port, is_found) in [
            (6, "192.168.88.11", 30080, true),
            (6, "fd00::11", 30080, true),
            (17, "192.168.88.11", 30080, false),
            (6, "192.168.88.11", 30081, false),
            (6, "192.168.88.12", 30080, false),
            (6, "127.0.0.1", 30080, false),
        ] {
            let found = services.at_node(protocol, address.parse().unwrap(), port, &own);
            let told = found.map(ToString::to_string);
            let expected = is_found.then(|| "Service shop/web:http (NodePort 30080)".to_owned());
            assert_eq!(told, expected, "{protocol} {address} {port}");
        }
    }

    #[test]
    fn virtual_servers_by_their_destinations() {
        let service = |address: &str, endpoint: &str, mode| Service {
            name: Some("kube-system/kube-dns:dns".to_owned()),
            address: address.parse().unwrap(),
            is_cluster_ip: false,
            protocol: 6,
            endpoints: vec![endpoint.parse().unwrap()],
            refused: false,
            mode,
        };
        let services = Services::new(vec![
            service("10.96.7.7:443", "10.244.2.7:8443", Mode::Ipvs),
            service("192.168.88.11:30443", "10.244.2.7:8443", Mode::Ipvs),
            service("10.96.8.8:443", "10.244.2.7:8443", Mode::Iptables),
        ]);
        let address: IpAddr = [10, 244, 2, 7].into();
        for (protocol, port, expected) in [
            (6, 8443, &["10.96.7.7:443", "192.168.88.11:30443"][..]),
            (6, 443, &[]),
            (17, 8443, &[]),
        ] {
            let found = services.virtual_servers_of(protocol, address, port);
            let found: Vec<String> = found.map(|service| service.address.to_string()).collect();
            assert_eq!(found, expected, "{protocol} {port}");
        }
        for (address, is_virtual, is_dns) in [
            ([10, 96, 7, 7], true, false),
            ([10, 96, 8, 8], false, true),
            ([10, 244, 2, 7], false, false),
        ] {
            let virtual_server = services.virtual_server(6, address.into(), 443);
            assert_eq!(virtual_server.is_some(), is_virtual, "{address:?}");
            assert_eq!(services.is_dns(address.into()), is_dns, "{address:?}");
        }
    }

    #[test]
    fn the_api_names_and_adds() {
        let service = |name: Option<&str>, address: &str, mode| Service {
            name: name.map(str::to_owned),
            address: address.parse().unwrap(),
            is_cluster_ip: true,
            protocol: 6,
            endpoints: Vec::new(),
            refused: false,
            mode,
        };
        let services = Services::with(
            vec![
                service(None, "10.96.0.1:443", Mode::Ipvs),
                service(Some("rules/own"), "10.96.0.2:443", Mode::Iptables),
                service(None, "192.168.88.11:30443", Mode::Ipvs),
                service(None, "10.244.1.0:30443", Mode::Ipvs),
                service(None, "192.168.88.11:30444", Mode::Iptables),
            ],
            vec![
                service(Some("api/node"), "0.0.0.0:30443", Mode::Api),
                service(Some("api/other"), "0.0.0.0:30444", Mode::Api),
                service(Some("api/one"), "10.96.0.1:443", Mode::Api),
                service(Some("api/two"), "10.96.0.2:443", Mode::Api),
                service(Some("api/three"), "10.96.0.3:443", Mode::Api),
            ],
        );
        for (address, name, mode) in [
            ("10.96.0.1:443", "api/one", Mode::Ipvs),
            ("10.96.0.2:443", "rules/own", Mode::Iptables),
            ("10.96.0.3:443", "api/three", Mode::Api),
            ("192.168.88.11:30443", "api/node", Mode::Ipvs),
            ("10.244.1.0:30443", "api/node", Mode::Ipvs),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            let found = services.at(6, address.ip(), address.port()).unwrap();
            assert_eq!((found.name.as_deref(), found.mode), (Some(name), mode));
        }
        assert_eq!(services.all().len(), 6);
        let node_ports: Vec<String> = services.node_ports.iter().map(Service::title).collect();
        assert_eq!(node_ports, ["api/other"], "IPVS has the other one itself");
    }
}
