//! Two nodes as flannel lays them, and pods.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::netns::Netns;

/// alpha 192.168.88.11 and beta 192.168.88.12; see README.md.
#[derive(Debug)]
pub struct Cluster {
    pub alpha: Node,
    pub beta: Node,
}

#[derive(Debug)]
pub struct Node {
    pub netns: Netns,
    pub address: Ipv4Addr,
    number: u8,
}

/// A pod's network namespace.
#[derive(Debug)]
pub struct Pod {
    pub netns: Netns,
    pub address: Ipv4Addr,
}

impl Cluster {
    pub fn new() -> Result<Self> {
        let cluster = Self {
            alpha: Node::new("alpha", 1)?,
            beta: Node::new("beta", 2)?,
        };
        let (alpha, beta) = (&cluster.alpha, &cluster.beta);
        alpha.netns.ip(&format!(
            "link add eth0 type veth peer name eth0 netns {}",
            beta.netns.name()
        ))?;
        for (node, peer) in [(alpha, beta), (beta, alpha)] {
            node.lay(peer)?;
        }
        for node in [alpha, beta] {
            node.netns.carries("eth0")?;
        }
        Ok(cluster)
    }
}

impl Node {
    fn new(name: &str, number: u8) -> Result<Self> {
        Ok(Self {
            netns: Netns::new(name)?,
            address: Ipv4Addr::new(192, 168, 88, 10 + number),
            number,
        })
    }

    /// What flanneld and the bridge plugin lay on a node.
    fn lay(&self, peer: &Self) -> Result<()> {
        let Self {
            netns,
            address,
            number,
        } = self;
        netns.ip_each([
            format!("addr add {address}/24 dev eth0"),
            "link set eth0 up".to_owned(),
            "link add cni0 type bridge".to_owned(),
            format!("addr add 10.244.{number}.1/24 dev cni0"),
            "link set cni0 mtu 1450 up".to_owned(),
        ])?;
        self.device(1, 8472)?;
        self.entries(peer)?;
        netns.set("net.ipv4.ip_forward", "1")?;
        for rule in [
            "-N FLANNEL-POSTRTG",
            "-A POSTROUTING -j FLANNEL-POSTRTG",
            "-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.0.0/16 -j RETURN",
            "-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully",
            "-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE --random-fully",
        ] {
            netns.run(&format!("iptables -w -t nat {rule}"))?;
        }
        Ok(())
    }

    /// Its VXLAN device, in place of the one it has.
    pub fn device(&self, vni: u32, port: u16) -> Result<()> {
        let Self {
            netns,
            address,
            number,
        } = self;
        if netns.ip("link show flannel.1").is_ok() {
            netns.ip("link del flannel.1")?;
        }
        netns.ip_each([
            format!(
                "link add flannel.1 address {} type vxlan id {vni} dev eth0 local {address} dstport {port} nolearning",
                self.mac()
            ),
            "link set flannel.1 mtu 1450 up".to_owned(),
            format!("addr add 10.244.{number}.0/32 dev flannel.1"),
        ])
    }

    /// What leads to a peer: neighbour, forwarding entry, route.
    pub fn entries(&self, peer: &Self) -> Result<()> {
        let (far, far_mac, far_address) = (peer.number, peer.mac(), peer.address);
        self.netns.ip_each([
            format!("neigh replace 10.244.{far}.0 lladdr {far_mac} dev flannel.1 nud permanent"),
            format!("route replace 10.244.{far}.0/24 via 10.244.{far}.0 dev flannel.1 onlink"),
        ])?;
        self.netns.run(&format!(
            "bridge fdb replace {far_mac} dev flannel.1 dst {far_address}"
        ))?;
        Ok(())
    }

    /// The address of its VXLAN device.
    pub fn mac(&self) -> String {
        format!("02:00:00:00:88:{:02}", self.number)
    }

    /// Of its pods' addresses.
    pub fn subnet(&self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    /// A pod on this node, 10.244.<node>.`host`.
    pub fn pod(&self, host: u8) -> Result<Pod> {
        let netns = Netns::new(&format!("pod{}-{host}", self.number))?;
        let (number, node) = (self.number, self.netns.name());
        let address = Ipv4Addr::new(10, 244, number, host);
        netns.ip(&format!(
            "link add eth0 mtu 1450 type veth peer name veth{host} netns {node}"
        ))?;
        self.netns.ip(&format!("link set veth{host} master cni0 up"))?;
        netns.ip_each([
            format!("addr add {address}/24 dev eth0"),
            "link set eth0 up".to_owned(),
            format!("route add default via 10.244.{number}.1"),
        ])?;
        self.netns.carries(&format!("veth{host}"))?;
        netns.carries("eth0")?;
        Ok(Pod { netns, address })
    }
}
