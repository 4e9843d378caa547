//! A pod that uses a Service whose endpoint is on another node.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{Cluster, Netns, Pod, patience, process::output, wait_until};

/// The client is on alpha, the server in a pod on beta, and alpha has the Service's rules as kube-proxy makes them.
pub struct Shop {
    pub client: Pod,
    pub server: Pod,
    _listener: TcpListener,
    pub cluster: Cluster,
}

impl Shop {
    /// The Service's address.
    pub const SERVICE: &str = "10.96.7.7";
    /// The Service's name and port.
    pub const NAME: &str = "shop/web:https";

    /// `tool`: the iptables whose nat table the Service is in.
    ///
    /// # Errors
    /// When the lab can't be made.
    pub fn new(tool: &str) -> Result<Self> {
        let cluster = Cluster::new()?;
        let (client, server) = (cluster.alpha.pod(5)?, cluster.beta.pod(7)?);
        let listener = server
            .netns
            .enter(|| TcpListener::bind(("0.0.0.0", 443)))?
            .context("can't listen in the server's pod")?;
        let (service, name, endpoint) = (Self::SERVICE, Self::NAME, server.address);
        for rule in [
            "-N KUBE-SERVICES".to_owned(),
            "-N KUBE-SVC-WEB".to_owned(),
            "-N KUBE-SEP-WEB".to_owned(),
            "-A PREROUTING -m comment --comment portals -j KUBE-SERVICES".to_owned(),
            "-A OUTPUT -m comment --comment portals -j KUBE-SERVICES".to_owned(),
            format!(
                "-A KUBE-SERVICES -d {service}/32 -p tcp -m comment --comment \"{name} cluster IP\" -m tcp --dport 443 \
                 -j KUBE-SVC-WEB"
            ),
            format!("-A KUBE-SVC-WEB -m comment --comment \"{name} -> {endpoint}:443\" -j KUBE-SEP-WEB"),
            format!(
                "-A KUBE-SEP-WEB -p tcp -m comment --comment {name} -m tcp -j DNAT --to-destination {endpoint}:443"
            ),
        ] {
            shell(&cluster.alpha.netns, &format!("{tool} -w -t nat {rule}"))?;
        }
        // What is not translated leaves for somewhere, as it would at a node with a default route.
        cluster
            .alpha
            .netns
            .ip("route add 10.96.0.0/12 via 192.168.88.12")?;
        Ok(Self {
            client,
            server,
            _listener: listener,
            cluster,
        })
    }

    pub fn node(&self) -> &Netns {
        &self.cluster.alpha.netns
    }

    /// Whether the pod gets through to an address at once: for one that must not be reachable. [`Self::reaches`] is for one
    /// that must, since a busy machine may need longer.
    ///
    /// # Errors
    /// When the address is none, or the pod can't be entered.
    pub fn dials(&self, address: &str) -> Result<bool> {
        self.dial(address, Duration::from_millis(150))
    }

    /// Whether the pod gets through to the Service at once.
    ///
    /// # Errors
    /// When the pod can't be entered.
    pub fn dials_service(&self) -> Result<bool> {
        self.dials(&Self::service())
    }

    /// Waits until the pod gets through to an address.
    ///
    /// # Errors
    /// When it does not.
    pub fn reaches(&self, address: &str) -> Result<()> {
        let what = format!("the pod reaches {address}");
        wait_until(&what, Duration::from_secs(20), || {
            let through = self.dial(address, Duration::from_secs(5) * patience());
            through.ok()?.then_some(())
        })
    }

    /// Waits until the pod gets through to the Service.
    ///
    /// # Errors
    /// When it does not.
    pub fn reaches_service(&self) -> Result<()> {
        self.reaches(&Self::service())
    }

    fn service() -> String {
        format!("{}:443", Self::SERVICE)
    }

    fn dial(&self, address: &str, timeout: Duration) -> Result<bool> {
        let address: SocketAddr = address.parse()?;
        self.client
            .netns
            .enter(|| TcpStream::connect_timeout(&address, timeout).is_ok())
    }
}

/// Runs a line of shell in a network namespace.
///
/// # Errors
/// When it fails, with what it said.
pub fn shell(netns: &Netns, line: &str) -> Result<()> {
    output(netns.command("sh").args(["-c", line])).map(drop)
}
