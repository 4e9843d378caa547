//! What the node's own files say of its pods' network. Nobody vouches for it: each may be old, or another's.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

/// flannel's `subnet.env`: what flannel leased for this node, and the CNI plugin gives to pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetEnv {
    /// All pods of the cluster (FLANNEL_NETWORK).
    pub networks: Vec<IpNet>,
    /// This node's pods, each with the address that the bridge is to have (FLANNEL_SUBNET).
    pub subnets: Vec<IpNet>,
    /// FLANNEL_MTU.
    pub mtu: Option<u32>,
    /// FLANNEL_IPMASQ.
    pub masquerade: Option<bool>,
}

/// A CNI configuration (`*.conflist`, or a `*.conf` with its only plugin).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniNetwork {
    pub name: String,
    pub plugins: Vec<CniPlugin>,
}

/// One plugin of a CNI configuration; of flannel's, what it hands to the bridge plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniPlugin {
    /// `bridge`, `flannel`, `portmap` …
    pub kind: String,
    /// The bridge that pods are put into; `None`: it makes none.
    pub bridge: Option<String>,
    /// The plugin changes an address of the bridge that is not the one it wants.
    pub force_address: bool,
    pub mtu: Option<u32>,
    /// Where addresses come from: `host-local`.
    pub ipam: Option<String>,
    /// What host-local may give, where the file says it.
    pub ranges: Vec<IpNet>,
    /// Where host-local keeps its reservations.
    pub data_dir: Option<String>,
    /// Where flannel's plugin reads its subnet from.
    pub subnet_file: Option<String>,
}

impl CniNetwork {
    /// The plugin that makes the pods' devices: the first one.
    pub fn main(&self) -> Option<&CniPlugin> {
        self.plugins.first()
    }
}

/// An address that host-local has given away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub address: IpAddr,
    /// The sandbox that has it.
    pub container: String,
    /// Its device in the pod.
    pub device: Option<String>,
}

/// The same with what else is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    pub reservation: Reservation,
    /// Since it was made.
    pub age: Duration,
    /// The runtime has no such sandbox; `None`: it could not be asked.
    pub gone: Option<bool>,
}

/// What of a `resolv.conf` matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolv {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
}

/// What of the kubelet's configuration matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeletConfig {
    /// What pods with dnsPolicy ClusterFirst are given.
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: Option<String>,
    /// What pods with dnsPolicy Default are given a copy of; empty: nothing.
    pub resolv_conf: Option<String>,
}

/// What of the kubelet's command line matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeletArguments {
    pub config: Option<String>,
    pub kubeconfig: Option<String>,
    /// The kubeconfig of the first connection.
    pub bootstrap: Option<String>,
    /// Where it keeps certificates.
    pub cert_dir: Option<String>,
    /// The node's name in the API.
    pub node: Option<String>,
    /// These go before those of the file.
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: Option<String>,
    pub resolv_conf: Option<String>,
}
