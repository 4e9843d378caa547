//! Two nodes, and what network plugins lay on them.

use std::net::Ipv4Addr;

use probe_lab::{Netns, Pod};

/// The pod of each node.
const POD: u8 = 5;

/// A node: 192.168.88.1N on eth0, pods in 10.244.N.0/24.
pub struct Host {
    pub netns: Netns,
    pub number: u8,
}

impl Host {
    /// Two of them, on one cable.
    pub fn pair() -> [Self; 2] {
        let hosts = [("alpha", 1), ("beta", 2)].map(|(name, number)| Self {
            netns: Netns::new(name).unwrap(),
            number,
        });
        cable(&hosts, "eth0");
        for host in &hosts {
            host.ip(&[
                &format!("addr add {}/24 dev eth0", host.address()),
                "link set eth0 up",
            ]);
            host.netns.set("net.ipv4.ip_forward", "1").unwrap();
        }
        let [alpha, beta] = &hosts;
        for (host, peer) in [(alpha, beta), (beta, alpha)] {
            host.netns.carries("eth0").unwrap();
            // What is not translated leaves for somewhere, as at any node.
            host.ip(&[&format!("route add default via {}", peer.address())]);
        }
        hosts
    }

    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 88, 10 + self.number)
    }

    /// Of its overlay device.
    pub fn overlay(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.number, 0)
    }

    pub fn subnet(&self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    pub fn mac(&self) -> String {
        format!("02:00:00:00:88:{:02}", self.number)
    }

    pub fn ip(&self, commands: &[&str]) {
        self.netns.ip_each(commands).unwrap();
    }

    /// Adds the rules of a program, in the form that `iptables-save` prints.
    pub fn rules(&self, rules: &str) {
        self.feed(
            "iptables-nft-restore -n",
            &rules.replace("SELF", &self.number.to_string()),
        );
    }

    /// Runs a command with `input` on its standard input.
    pub fn feed(&self, command: &str, input: &str) {
        let script = format!("{command} <<'END'\n{input}\nEND\n");
        probe_lab::shell(&self.netns, &script).unwrap();
    }

    /// What holds these addresses, as Felix and Antrea have it.
    pub fn set(&self, name: &str, kind: &str, members: &[&str]) {
        let mut lines = format!("create {name} {kind} family inet\n");
        for member in members {
            lines.push_str(&format!("add {name} {member}\n"));
        }
        self.feed("ipset restore", &lines);
    }

    /// A VXLAN device with the entries for a peer whose VTEP is at `peer_address`: flannel and Calico do the same.
    pub fn vxlan(&self, device: &str, options: &str, mtu: u16) {
        self.ip(&[
            &format!(
                "link add {device} address {} type vxlan {options} nolearning",
                self.mac()
            ),
            &format!("link set {device} mtu {mtu} up"),
            &format!("addr add {}/32 dev {device}", self.overlay()),
        ]);
    }

    pub fn flannel(&self, underlay: &str, local: Ipv4Addr) {
        self.vxlan(
            "flannel.1",
            &format!("id 1 dev {underlay} local {local} dstport 8472"),
            1450,
        );
    }

    /// Neighbour and FDB entry of a peer.
    pub fn entries(&self, device: &str, peer: &Self, vtep: Ipv4Addr) {
        let (overlay, mac) = (peer.overlay(), peer.mac());
        self.ip(&[&format!(
            "neigh replace {overlay} lladdr {mac} dev {device} nud permanent"
        )]);
        self.netns
            .run(&format!("bridge fdb replace {mac} dev {device} dst {vtep}"))
            .unwrap();
    }

    /// A peer's pods, through a VXLAN device.
    pub fn route(&self, device: &str, peer: &Self) {
        let (subnet, overlay) = (peer.subnet(), peer.overlay());
        self.ip(&[&format!(
            "route replace {subnet} via {overlay} dev {device} onlink"
        )]);
    }

    /// A pod on a bridge, which is added with it.
    pub fn bridged_pod(&self, bridge: &str) -> Pod {
        let (pod, address) = self.pod_netns();
        let number = self.number;
        self.ip(&[
            &format!("link add {bridge} type bridge"),
            &format!("addr add 10.244.{number}.1/24 dev {bridge}"),
            &format!("link set {bridge} mtu 1450 up"),
            &format!("link set veth5 master {bridge} up"),
        ]);
        pod.ip_each([
            format!("addr add {address}/24 dev eth0"),
            "link set eth0 up".to_owned(),
            format!("route add default via 10.244.{number}.1"),
        ])
        .unwrap();
        self.carries(pod, address, "veth5")
    }

    /// A pod with a route of its own, as Calico and Cilium have it: every device of the node has the same MAC address, and
    /// the pod's gateway is no address of the node.
    pub fn routed_pod(&self, device: &str) -> Pod {
        let (pod, address) = self.pod_netns();
        self.ip(&[
            &format!("link set veth5 name {device} address ee:ee:ee:ee:ee:ee"),
            &format!("link set {device} up"),
            &format!("route add {address}/32 dev {device} scope link"),
        ]);
        pod.ip_each([
            format!("addr add {address}/32 dev eth0"),
            "link set eth0 up".to_owned(),
            "neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent".to_owned(),
            "route add 169.254.1.1 dev eth0 scope link".to_owned(),
            "route add default via 169.254.1.1 dev eth0".to_owned(),
        ])
        .unwrap();
        self.carries(pod, address, device)
    }

    fn pod_netns(&self) -> (Netns, Ipv4Addr) {
        let pod = Netns::new(&format!("pod{}-{POD}", self.number)).unwrap();
        let node = self.netns.name();
        pod.ip(&format!(
            "link add eth0 mtu 1450 type veth peer name veth5 netns {node}"
        ))
        .unwrap();
        (pod, Ipv4Addr::new(10, 244, self.number, POD))
    }

    fn carries(&self, netns: Netns, address: Ipv4Addr, device: &str) -> Pod {
        self.netns.carries(device).unwrap();
        netns.carries("eth0").unwrap();
        Pod { netns, address }
    }
}

/// Another cable between two nodes.
pub fn cable(hosts: &[Host; 2], device: &str) {
    let [alpha, beta] = hosts;
    let peer = beta.netns.name();
    alpha.ip(&[&format!(
        "link add {device} type veth peer name {device} netns {peer}"
    )]);
}
