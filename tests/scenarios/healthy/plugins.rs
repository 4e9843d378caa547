//! The networks, one test each.

use std::net::Ipv4Addr;

use probe_lab::Netns;

use crate::{
    Network, Overlay,
    host::{self, Host},
    traffic::{self, Client},
    tunnel::{Encapsulation, Tunnel},
};

const FLANNEL: &str = include_str!("rules/flannel.rules");
const FLANNEL_ONLY: Overlay = Overlay::Devices(&["flannel.1"]);

/// flannel's devices and entries on both nodes, over eth0.
fn flannel() -> [Host; 2] {
    let hosts = Host::pair();
    let [alpha, beta] = &hosts;
    for (host, peer) in [(alpha, beta), (beta, alpha)] {
        host.flannel("eth0", host.address());
        host.entries("flannel.1", peer, peer.address());
        host.route("flannel.1", peer);
        host.rules(FLANNEL);
    }
    hosts
}

fn with_bridges(hosts: [Host; 2]) -> Network {
    let pods = [&hosts[0], &hosts[1]].map(|host| host.bridged_pod("cni0"));
    Network::new(hosts, pods, "flannel")
}

/// Felix' rules, each place for what depends on the encapsulation filled in; and its sets.
fn calico_rules(host: &Host, encapsulation: &str) {
    let mut rules = include_str!("rules/calico.rules").to_owned();
    let mut parts: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in encapsulation.lines() {
        match parts.last_mut() {
            Some((_, lines)) if line.starts_with('-') => lines.push(line),
            _ => parts.push((line, Vec::new())),
        }
    }
    for place in [
        "RAW-IN",
        "RAW-OUT",
        "NAT-OUT",
        "INPUT-ENCAP",
        "OUTPUT-ENCAP",
        "DROP-ENCAP",
    ] {
        let part = parts.iter().find(|(name, _)| *name == place);
        let lines = part.map(|(_, lines)| lines.join("\n")).unwrap_or_default();
        rules = rules.replacen(place, &lines, 1);
    }
    let nodes = ["192.168.88.11", "192.168.88.12", "192.168.99.13"];
    host.set("cali40masq-ipam-pools", "hash:net", &["10.244.0.0/16"]);
    host.set("cali40all-ipam-pools", "hash:net", &["10.244.0.0/16"]);
    host.set("cali40all-vxlan-net", "hash:net", &nodes);
    host.set("cali40all-hosts-net", "hash:net", &nodes);
    host.rules(&rules);
}

const CALICO_VXLAN: &str = include_str!("rules/calico-vxlan.fill");

/// The VXLAN device of Calico; the node's own block is a blackhole but for the routes of its pods.
fn calico_device(host: &Host, local: Ipv4Addr) {
    host.vxlan(
        "vxlan.calico",
        &format!("id 4096 dev eth0 local {local} dstport 4789"),
        1450,
    );
    host.ip(&[&format!("route add blackhole {} proto 80", host.subnet())]);
}

#[test]
fn calico_vxlan() {
    let hosts = Host::pair();
    let [alpha, beta] = &hosts;
    for (host, peer) in [(alpha, beta), (beta, alpha)] {
        calico_device(host, host.address());
        host.entries("vxlan.calico", peer, peer.address());
        host.route("vxlan.calico", peer);
        calico_rules(host, CALICO_VXLAN);
    }
    let pods = [alpha, beta].map(|host| host.routed_pod("cali5"));
    Network::new(hosts, pods, "calico").is_healthy(&Overlay::Devices(&["vxlan.calico"]));
}

/// Pods of nodes in the same subnet are routed without VXLAN, though they have entries. Behind beta is a node of another subnet.
#[test]
fn calico_cross_subnet() {
    let hosts = Host::pair();
    let gamma = Host {
        netns: Netns::new("gamma").unwrap(),
        number: 3,
    };
    let far = Ipv4Addr::new(192, 168, 99, 13);
    let [alpha, beta] = &hosts;
    let node = gamma.netns.name();
    beta.ip(&[
        &format!("link add eth1 type veth peer name eth0 netns {node}"),
        "addr add 192.168.99.1/24 dev eth1",
        "link set eth1 up",
    ]);
    gamma.ip(&[
        &format!("addr add {far}/24 dev eth0"),
        "link set eth0 up",
        "route add default via 192.168.99.1",
    ]);
    gamma.netns.set("net.ipv4.ip_forward", "1").unwrap();
    gamma.netns.carries("eth0").unwrap();
    for (host, local) in [(alpha, alpha.address()), (beta, beta.address()), (&gamma, far)] {
        calico_device(host, local);
        calico_rules(host, CALICO_VXLAN);
    }
    for (host, peer) in [(alpha, beta), (beta, alpha)] {
        host.entries("vxlan.calico", peer, peer.address());
        host.entries("vxlan.calico", &gamma, far);
        host.route("vxlan.calico", &gamma);
        gamma.entries("vxlan.calico", host, host.address());
        gamma.route("vxlan.calico", host);
        let (subnet, gateway) = (peer.subnet(), peer.address());
        host.ip(&[&format!(
            "route add {subnet} via {gateway} dev eth0 proto 80 onlink"
        )]);
    }
    let pods = [alpha, beta].map(|host| host.routed_pod("cali5"));
    let third = gamma.routed_pod("cali5");
    traffic::serve(&third.netns, "0.0.0.0:8080");
    let clients = pods
        .each_ref()
        .map(|pod| Client::connects(&pod.netns, "10.244.3.5:8080"));
    let mut network = Network::new(hosts, pods, "calico");
    network.clients.extend(clients);
    network._others.push(gamma.netns);
    network._pods.push(third);
    network.is_healthy(&Overlay::Devices(&["vxlan.calico"]));
}

#[test]
fn calico_ipip() {
    let hosts = Host::pair();
    let [alpha, beta] = &hosts;
    let tunnels = [(alpha, beta), (beta, alpha)].map(|(host, peer)| {
        let tunnel = Tunnel::new(
            &host.netns,
            "tunl0",
            host.address(),
            peer.address(),
            Encapsulation::Ipip,
        );
        host.ip(&[
            "link set tunl0 mtu 1450 up",
            &format!("addr add {}/32 dev tunl0", host.overlay()),
            &format!("route add blackhole {} proto bird", host.subnet()),
            &format!(
                "route add {} via {} dev tunl0 proto bird onlink",
                peer.subnet(),
                peer.address()
            ),
        ]);
        calico_rules(host, include_str!("rules/calico-ipip.fill"));
        tunnel
    });
    let pods = [alpha, beta].map(|host| host.routed_pod("cali5"));
    let mut network = Network::new(hosts, pods, "calico");
    network._tunnels.extend(tunnels);
    network.is_healthy(&Overlay::None);
}

/// The device has no VNI, address or underlay of its own: the routes have them, and Cilium's programs.
#[test]
fn cilium() {
    let hosts = Host::pair();
    let [alpha, beta] = &hosts;
    for (host, peer) in [(alpha, beta), (beta, alpha)] {
        let (subnet, overlay, mac) = (peer.subnet(), peer.overlay(), peer.mac());
        host.ip(&[
            &format!(
                "link add cilium_vxlan address {} type vxlan external dstport 8472",
                host.mac()
            ),
            "link set cilium_vxlan mtu 1450 up",
            "link add cilium_host type veth peer name cilium_net",
            "link set cilium_net up",
            "link set cilium_host up",
            &format!("addr add {}/32 dev cilium_host", host.overlay()),
            &format!(
                "route add {subnet} encap ip id 7 dst {} via {overlay} dev cilium_vxlan onlink",
                peer.address()
            ),
            &format!("neigh replace {overlay} lladdr {mac} dev cilium_vxlan nud permanent"),
        ]);
        host.rules(include_str!("rules/cilium.rules"));
    }
    let pods = [alpha, beta].map(|host| host.routed_pod("lxc5"));
    Network::new(hosts, pods, "cilium").is_healthy(&Overlay::Devices(&["cilium_vxlan"]));
}

/// Geneve, exempted from conntrack by Antrea's own rules.
#[test]
fn antrea_geneve() {
    let hosts = Host::pair();
    let [alpha, beta] = &hosts;
    let geneve = Encapsulation::Udp {
        port: 6081,
        header: [0, 0, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        length: 8,
    };
    let pods = [alpha, beta].map(|host| host.bridged_pod("antrea-gw0"));
    let tunnels = [(alpha, beta), (beta, alpha)].map(|(host, peer)| {
        let tunnel = Tunnel::new(
            &host.netns,
            "genev_sys_6081",
            host.address(),
            peer.address(),
            geneve,
        );
        host.ip(&[
            "link set genev_sys_6081 mtu 1450 up",
            &format!(
                "route add {} dev genev_sys_6081 src 10.244.{}.1",
                peer.subnet(),
                host.number
            ),
        ]);
        tunnel
    });
    for host in [alpha, beta] {
        host.set("ANTREA-POD-IP", "hash:net", &["10.244.0.0/16"]);
        host.rules(include_str!("rules/antrea.rules"));
    }
    let mut network = Network::new(hosts, pods, "antrea");
    network._tunnels.extend(tunnels);
    network.is_healthy(&Overlay::None);
}

/// flannel's backend for WireGuard: its packets are tracked, as any.
#[test]
fn flannel_wireguard() {
    let hosts = Host::pair();
    let [alpha, beta] = &hosts;
    let wireguard = Encapsulation::Udp {
        port: 51820,
        header: [4, 0, 0, 0, 9, 9, 9, 9, 1, 0, 0, 0, 0, 0, 0, 0],
        length: 16,
    };
    let tunnels = [(alpha, beta), (beta, alpha)].map(|(host, peer)| {
        let tunnel = Tunnel::new(
            &host.netns,
            "flannel-wg",
            host.address(),
            peer.address(),
            wireguard,
        );
        host.ip(&[
            "link set flannel-wg mtu 1420 up",
            &format!("addr add {}/32 dev flannel-wg", host.overlay()),
            "route add 10.244.0.0/16 dev flannel-wg scope link",
        ]);
        host.rules(FLANNEL);
        tunnel
    });
    let mut network = with_bridges(hosts);
    network._tunnels.extend(tunnels);
    network.is_healthy(&Overlay::None);
}

/// kubespray's address, 169.254.25.10, on a device of its own. Both nodes have it; pods and the node itself query it.
#[test]
fn kubespray_nodelocal_dns() {
    let hosts = flannel();
    for host in &hosts {
        host.ip(&[
            // A dummy in the field; not every kernel has that type.
            "link add nodelocaldns type bridge",
            "link set nodelocaldns up",
            "addr add 169.254.25.10/32 dev nodelocaldns",
        ]);
        host.rules(include_str!("rules/nodelocal.rules"));
        traffic::serve_dns(&host.netns, "169.254.25.10:53");
        traffic::serve(&host.netns, "169.254.25.10:9254");
    }
    let mut network = with_bridges(hosts);
    let mut clients = Vec::new();
    for (host, pod) in network.hosts.iter().zip(&network._pods) {
        for netns in [&host.netns, &pod.netns] {
            clients.push(Client::queries(netns, "169.254.25.10:53"));
            clients.push(Client::connects(netns, "169.254.25.10:53"));
        }
        clients.push(Client::connects(&host.netns, "169.254.25.10:9254"));
    }
    network.clients.extend(clients);
    network.is_healthy(&FLANNEL_ONLY);
}

/// Swarm's device is in a network namespace of its own, its socket on the node's port 4789.
#[test]
fn swarm_beside_flannel() {
    let hosts = flannel();
    let [alpha, beta] = &hosts;
    let mut others = Vec::new();
    let mut clients = Vec::new();
    for host in [alpha, beta] {
        let overlay = Netns::new(&format!("overlay{}", host.number)).unwrap();
        let container = Netns::new(&format!("container{}", host.number)).unwrap();
        let number = host.number;
        host.ip(&[
            "link add vx-001001-a1b2c type vxlan id 4097 dstport 4789 proxy l2miss l3miss",
            &format!("link set vx-001001-a1b2c netns {}", overlay.name()),
            "link add docker0 type bridge",
            "addr add 172.17.0.1/16 dev docker0",
            "link set docker0 up",
            "link add docker_gwbridge type bridge",
            "addr add 172.18.0.1/16 dev docker_gwbridge",
            "link set docker_gwbridge up",
        ]);
        container
            .ip(&format!("link add eth0 mtu 1450 address 02:42:0a:00:01:{number:02x} type veth peer name veth0 netns {}", overlay.name()))
            .unwrap();
        overlay
            .ip_each([
                "link set vx-001001-a1b2c name vxlan0",
                "link add br0 type bridge",
                "addr add 10.0.1.1/24 dev br0",
                "link set br0 mtu 1450 up",
                "link set vxlan0 mtu 1450 master br0 up",
                "link set veth0 master br0 up",
            ])
            .unwrap();
        container
            .ip_each([
                &format!("addr add 10.0.1.{number}0/24 dev eth0"),
                "link set eth0 up",
            ])
            .unwrap();
        host.rules(include_str!("rules/docker.rules"));
        host.netns.run("iptables-nft -P FORWARD DROP").unwrap();
        traffic::serve(&container, "0.0.0.0:80");
        others.push((overlay, container));
    }
    for (number, peer) in [(0, beta), (1, alpha)] {
        let overlay = &others[number].0;
        let mac = format!("02:42:0a:00:01:{:02x}", peer.number);
        overlay
            .ip(&format!(
                "neigh add 10.0.1.{}0 lladdr {mac} dev vxlan0 nud permanent",
                peer.number
            ))
            .unwrap();
        overlay
            .run(&format!(
                "bridge fdb add {mac} dev vxlan0 dst {} self permanent",
                peer.address()
            ))
            .unwrap();
    }
    for (number, peer) in [(0, "10.0.1.20:80"), (1, "10.0.1.10:80")] {
        others[number].1.carries("eth0").unwrap();
        clients.push(Client::connects(&others[number].1, peer));
    }
    let mut network = with_bridges(hosts);
    network.clients.extend(clients);
    for (overlay, container) in others {
        network._others.extend([overlay, container]);
    }
    network.is_healthy(&FLANNEL_ONLY);
}

/// flannel's and one that someone made, in a bridge, which learns.
#[test]
fn two_vxlan_devices() {
    let hosts = flannel();
    let [alpha, beta] = &hosts;
    for (host, peer) in [(alpha, beta), (beta, alpha)] {
        let number = host.number;
        host.ip(&[
            "link add br100 type bridge",
            &format!(
                "link add vxlan100 type vxlan id 100 local {} dstport 4789",
                host.address()
            ),
            "link set vxlan100 mtu 1450 master br100 up",
            "link set br100 up",
            &format!("addr add 172.31.0.{number}/24 dev br100"),
        ]);
        host.netns
            .run(&format!(
                "bridge fdb append 00:00:00:00:00:00 dev vxlan100 dst {}",
                peer.address()
            ))
            .unwrap();
    }
    let clients = [(alpha, "172.31.0.2:10250"), (beta, "172.31.0.1:10250")]
        .map(|(host, address)| (host.netns.name().to_owned(), address));
    let mut network = with_bridges(hosts);
    for (host, (_, address)) in network.hosts.iter().zip(&clients) {
        network.clients.push(Client::connects(&host.netns, address));
    }
    network.is_healthy(&Overlay::Devices(&["flannel.1", "vxlan100"]));
}

/// The overlay uses the second, the default route the first.
#[test]
fn two_nics() {
    let hosts = Host::pair();
    host::cable(&hosts, "eth1");
    let [alpha, beta] = &hosts;
    let second = |host: &Host| Ipv4Addr::new(172, 29, 9, 10 + host.number);
    for host in [alpha, beta] {
        host.ip(&[
            &format!("addr add {}/24 dev eth1", second(host)),
            "link set eth1 mtu 9000 up",
        ]);
    }
    for (host, peer) in [(alpha, beta), (beta, alpha)] {
        host.netns.carries("eth1").unwrap();
        host.flannel("eth1", second(host));
        host.entries("flannel.1", peer, second(peer));
        host.route("flannel.1", peer);
        host.rules(FLANNEL);
    }
    with_bridges(hosts).is_healthy(&FLANNEL_ONLY);
}

/// Zone public on eth0 with the ports of the cluster, zone trusted for pods and the devices of the overlay.
#[test]
fn firewalld_host() {
    let hosts = flannel();
    for host in &hosts {
        host.feed("nft -f -", include_str!("rules/firewalld.nft"));
    }
    with_bridges(hosts).is_healthy(&FLANNEL_ONLY);
}

/// Policy deny for what comes in and what is routed; `ufw allow` for the cluster's ports and the devices of the overlay.
#[test]
fn ufw_host() {
    let hosts = flannel();
    for host in &hosts {
        host.rules(include_str!("rules/ufw.rules"));
    }
    with_bridges(hosts).is_healthy(&FLANNEL_ONLY);
}
