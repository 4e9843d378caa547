//! Calls to the Kubernetes API, and to the kubelet with the same credentials.

use std::path::{Path, PathBuf};

use k8s_openapi::{
    List,
    api::{
        batch::v1::Job,
        core::v1::{Node, Pod, Service},
    },
};
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use super::table;
use crate::{
    error::chain,
    model::workload::{Workload, WorkloadSource},
};

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Where to ask, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub credentials: Credentials,
    /// Pods are asked of the kubelet behind this, not of the API.
    pub kubelet: Option<http::Uri>,
    /// The kubelet's certificate is not checked.
    pub kubelet_insecure_tls: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A file as `kubectl` takes it.
    Kubeconfig(PathBuf),
    /// Those of the pod that probe runs in.
    ServiceAccount,
    /// None: a kubelet with a read-only port.
    Nobody,
}

/// Why Kubernetes can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    #[error("can't use {file}: {reason}")]
    Kubeconfig { file: PathBuf, reason: String },
    #[error("can't use this pod's service account: {}", chain(.0))]
    ServiceAccount(InClusterError),
    #[error("{what} can't be read: {reason}")]
    Call { what: &'static str, reason: String },
}

impl KubeError {
    fn call(what: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |error| Self::Call {
            what,
            reason: chain(&error),
        }
    }
}

impl Access {
    /// What is asked, for people.
    pub fn description(&self) -> String {
        match (&self.kubelet, &self.credentials) {
            (Some(url), _) => format!("the kubelet at {url}"),
            (None, Credentials::Kubeconfig(file)) => format!("the Kubernetes API of {}", file.display()),
            (None, Credentials::ServiceAccount | Credentials::Nobody) => "the Kubernetes API".to_owned(),
        }
    }

    /// The API, where there are credentials for it.
    ///
    /// # Errors
    /// Credentials that can't be read.
    pub async fn api(&self) -> Result<Option<Client>, KubeError> {
        let config = self.config().await?;
        config.map(connect).transpose()
    }

    /// The kubelet, where it is to be asked.
    ///
    /// # Errors
    /// Credentials that can't be read.
    pub async fn kubelet(&self) -> Result<Option<Client>, KubeError> {
        let Some(url) = &self.kubelet else { return Ok(None) };
        let mut config = self.config().await?.unwrap_or_else(|| Config::new(url.clone()));
        config.cluster_url = url.clone();
        config.accept_invalid_certs = self.kubelet_insecure_tls;
        config.tls_server_name = None;
        connect(config).map(Some)
    }

    async fn config(&self) -> Result<Option<Config>, KubeError> {
        match &self.credentials {
            Credentials::Nobody => Ok(None),
            Credentials::ServiceAccount => Config::incluster().map(Some).map_err(KubeError::ServiceAccount),
            Credentials::Kubeconfig(file) => {
                kubeconfig(file)
                    .await
                    .map(Some)
                    .map_err(|error| KubeError::Kubeconfig {
                        file: file.clone(),
                        reason: chain(&error),
                    })
            }
        }
    }
}

async fn kubeconfig(file: &Path) -> Result<Config, KubeconfigError> {
    let kubeconfig = Kubeconfig::read_from(file)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
}

fn connect(config: Config) -> Result<Client, KubeError> {
    Client::try_from(config).map_err(KubeError::call("the cluster"))
}

/// The pods of the kubelet.
///
/// # Errors
/// When it does not answer, or does not allow it (`nodes/proxy`, from Kubernetes 1.33 on `nodes/pods`).
pub async fn kubelet_pods(kubelet: &Client) -> Result<Vec<Pod>, KubeError> {
    let what = "the kubelet's /pods";
    let request = http::Request::get("/pods")
        .body(Vec::new())
        .map_err(|error| KubeError::Call {
            what,
            reason: error.to_string(),
        })?;
    let list: List<Pod> = kubelet.request(request).await.map_err(KubeError::call(what))?;
    Ok(list.items)
}

/// All nodes.
///
/// # Errors
/// When the API does not answer, or does not allow it.
pub async fn nodes(client: &Client) -> Result<Vec<Node>, KubeError> {
    all(client, "the list of nodes").await
}

/// All Services.
///
/// # Errors
/// When the API does not answer, or does not allow it.
pub async fn services(client: &Client) -> Result<Vec<Service>, KubeError> {
    all(client, "the list of Services").await
}

/// Page by page.
async fn all<K>(client: &Client, what: &'static str) -> Result<Vec<K>, KubeError>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    let mut all = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list(&page).await.map_err(KubeError::call(what))?;
        all.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// What a Job belongs to.
///
/// # Errors
/// When the API does not answer, or does not allow it.
pub async fn owner_of_job(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<Workload>, KubeError> {
    let api = Api::<Job>::namespaced(client.clone(), namespace);
    let job = api
        .get_metadata_opt(name)
        .await
        .map_err(KubeError::call("a Job"))?;
    Ok(job.and_then(|job| table::workload(&job.metadata, WorkloadSource::KubeApi)))
}
