//! This node's kubelet: how it was started, what it is set to, and the API with its credentials.

use std::{future::Future, time::Duration};

use kube::Client;
use tokio::time::timeout;

use super::CheckContext;
use crate::{
    attribution::{
        kube::{KubeError, as_kubelet::as_kubelet},
        procfs::Proc,
    },
    host::{self, files::Root},
    model::host::{KubeletArguments, KubeletConfig},
    namespace::{inode, own_netns},
};

/// How long the API may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where processes are.
const PROC: &str = "/proc";

/// What is known of it.
pub struct Kubelet {
    pub arguments: KubeletArguments,
    /// Its file's, with what the command line says instead; the error in words.
    pub config: Result<KubeletConfig, String>,
    /// Its configuration or credentials are on this machine.
    pub is_here: bool,
}

impl Kubelet {
    /// The one in this network namespace.
    pub fn find(node: &CheckContext) -> Self {
        let running = running();
        let runs = running.is_some();
        let arguments = running.map(|running| running.arguments).unwrap_or_default();
        let path = arguments.config.as_deref().unwrap_or(host::kubelet::CONFIG);
        let text = node.root.text(path);
        let has_config = text.is_ok();
        let config = text
            .map_err(|error| format!("{path}: {error}"))
            .and_then(|text| host::kubelet::config(&text).map_err(|error| format!("{path}: {error}")));
        let config = match config {
            // Options alone may be all there is.
            Err(_) if runs && arguments.config.is_none() => Ok(KubeletConfig::default()),
            config => config,
        };
        let config = config.map(|mut config| {
            if !arguments.cluster_dns.is_empty() {
                config.cluster_dns.clone_from(&arguments.cluster_dns);
            }
            if arguments.resolv_conf.is_some() {
                config.resolv_conf.clone_from(&arguments.resolv_conf);
            }
            if arguments.cluster_domain.is_some() {
                config.cluster_domain.clone_from(&arguments.cluster_domain);
            }
            config
        });
        let has_credentials = node.root.real(credentials(&node.root, &arguments)).is_ok();
        Self {
            is_here: runs || has_config || has_credentials,
            arguments,
            config,
        }
    }

    /// The node's name in the API.
    pub fn node_name(&self, node: &CheckContext) -> String {
        let named = self.arguments.node.clone();
        named.unwrap_or_else(|| host::node_name(node.settings.node.as_deref()).to_lowercase())
    }

    /// Asks the API with the kubelet's credentials.
    ///
    /// # Errors
    /// In words: no credentials, or no answer in time.
    pub fn ask<T, F>(&self, node: &CheckContext, question: impl FnOnce(Client) -> F) -> Result<T, String>
    where
        F: Future<Output = Result<T, KubeError>>,
    {
        let path = credentials(&node.root, &self.arguments);
        let text = node.root.text(path).map_err(|error| format!("{path}: {error}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let asked = async {
                let client = as_kubelet(&text, |path| node.root.real(path)).await?;
                question(client).await
            };
            match timeout(PATIENCE, asked).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!(
                    "the API server did not answer within {} s",
                    PATIENCE.as_secs()
                )),
            }
        })
    }
}

/// The file of its credentials: the configured one, or else the first known one that exists.
fn credentials<'a>(root: &Root, arguments: &'a KubeletArguments) -> &'a str {
    let known = host::kubelet::KUBECONFIGS;
    arguments.kubeconfig.as_deref().unwrap_or_else(|| {
        let there = known.into_iter().find(|path| root.real(path).is_ok());
        there.unwrap_or(known[0])
    })
}

/// A kubelet that runs, or what it is built into.
pub struct Running {
    pub pid: u32,
    pub arguments: KubeletArguments,
}

/// The one in this network namespace; there may be another node's on this kernel.
pub fn running() -> Option<Running> {
    let proc = Proc::new(PROC.into());
    proc.pids().into_iter().find_map(|pid| {
        let (name, _) = proc.identity(pid)?;
        if !host::kubelet::PROCESSES.contains(&name.as_str()) || !is_here(&proc, pid) {
            return None;
        }
        let (line, _) = proc.command(pid);
        let arguments = host::kubelet::arguments(&name, &line);
        Some(Running { pid, arguments })
    })
}

/// Whether a process is in this one's network namespace: on a machine with several nodes, of this one.
pub fn is_here(proc: &Proc, pid: u32) -> bool {
    inode(proc.path(pid, "ns/net")).is_some_and(|inode| Some(inode) == own_netns())
}
