//! Calls to the Kubernetes API, and to the kubelet with the same credentials.

use std::{
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{
    Api, Client, Config, Resource as _,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use super::{
    object::{Host, Job, List, ListedNode, NodeObject, Pod},
    pages::{ListQuery, list},
    table,
};
use crate::{
    error::chain,
    model::{
        settings::{self, KubernetesSettings},
        workload::{Workload, WorkloadSource},
    },
};

/// How long a person waits for a connection to the API.
const CONNECT: Duration = Duration::from_secs(5);

/// Where to ask, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub credentials: Credentials,
    /// Pods are asked of the kubelet behind this, not of the API.
    pub kubelet: Option<String>,
    /// The kubelet's certificate is not checked.
    pub kubelet_insecure_tls: bool,
    /// The first lists of all nodes and Services begin at a random time within this: agents of many nodes start at once.
    pub spread: Duration,
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
    #[error("{url} is no URL of a kubelet: {reason}")]
    Kubelet { url: String, reason: String },
    #[error("{what} can't be read: {reason}")]
    Call { what: &'static str, reason: String },
}

impl KubeError {
    pub(super) fn call(what: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |error| Self::Call {
            what,
            reason: match error {
                // The API server's own sentence: all of what it sends is a page.
                kube::Error::Api(status) if !status.message.is_empty() => status.message,
                error => chain(&error),
            },
        }
    }
}

impl Access {
    /// What the settings name, or, of the service account, what this process has; `None`: nothing is asked.
    pub fn find(settings: &KubernetesSettings) -> Option<Self> {
        let credentials = match &settings.kubeconfig {
            settings::Kubeconfig::At(file) => Credentials::Kubeconfig(file.clone()),
            settings::Kubeconfig::Auto if is_in_pod() => Credentials::ServiceAccount,
            settings::Kubeconfig::Auto | settings::Kubeconfig::Off => Credentials::Nobody,
        };
        if credentials == Credentials::Nobody && settings.kubelet.is_none() {
            return None;
        }
        Some(Self {
            credentials,
            kubelet: settings.kubelet.clone(),
            kubelet_insecure_tls: settings.kubelet_insecure_tls,
            spread: Duration::ZERO,
        })
    }

    /// How long the first list of what the whole cluster has is put off.
    pub fn delay(&self) -> Duration {
        let random = RandomState::new().hash_one(());
        self.spread.mul_f64(random as f64 / u64::MAX as f64)
    }

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
        let url: http::Uri = url.parse().map_err(|error| KubeError::Kubelet {
            url: url.clone(),
            reason: chain(&error),
        })?;
        let mut config = self.config().await?.unwrap_or_else(|| Config::new(url.clone()));
        config.cluster_url = url;
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

/// Whether this process runs in a pod that has a service account.
fn is_in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        && Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()
}

/// The API as `kubectl` finds it: `file`, or else those that KUBECONFIG names, or else ~/.kube/config; in a pod without
/// these, its service account.
///
/// # Errors
/// Credentials that can't be read.
pub async fn login(file: Option<&Path>, context: Option<&str>) -> Result<Client, KubeError> {
    let read = match file {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let found = match read {
        Ok(found) => with_context(found, context).await,
        Err(error) => Err(error),
    };
    let mut config = match (found, file, context) {
        (Ok(config), ..) => config,
        (Err(KubeconfigError::FindPath | KubeconfigError::ReadConfig(..)), None, None)
            if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() =>
        {
            Config::incluster().map_err(KubeError::ServiceAccount)?
        }
        (Err(error), ..) => {
            return Err(KubeError::Kubeconfig {
                file: file.map_or_else(|| PathBuf::from("the kubeconfig"), Path::to_owned),
                reason: chain(&error),
            });
        }
    };
    config.connect_timeout = Some(CONNECT);
    connect(config)
}

async fn kubeconfig(file: &Path) -> Result<Config, KubeconfigError> {
    with_context(Kubeconfig::read_from(file)?, None).await
}

async fn with_context(kubeconfig: Kubeconfig, context: Option<&str>) -> Result<Config, KubeconfigError> {
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    Config::from_custom_kubeconfig(kubeconfig, &options).await
}

pub(super) fn connect(config: Config) -> Result<Client, KubeError> {
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
    Ok(list.items.unwrap_or_default())
}

/// The nodes and their addresses. `unattended`: by an agent, for which a slightly old list will do, see [`ListQuery`].
///
/// # Errors
/// When the API does not answer, or does not allow it.
pub async fn hosts(client: &Client, unattended: bool) -> Result<Vec<Host>, KubeError> {
    let query = ListQuery {
        path: NodeObject::url_path(&(), None),
        what: "the list of nodes",
        may_be_old: unattended,
        unattended,
        ..ListQuery::default()
    };
    Ok(list(client, &query, |node: ListedNode| node.host()).await?.items)
}

/// The pods that are asked for, of one namespace or all, each reduced.
///
/// # Errors
/// When the API does not answer, or does not allow it.
pub async fn pods<T: Send + 'static>(
    client: &Client,
    namespace: Option<&str>,
    query: ListQuery,
    reduce: fn(Pod) -> Option<T>,
) -> Result<Vec<T>, KubeError> {
    let query = ListQuery {
        path: Pod::url_path(&(), namespace),
        ..query
    };
    Ok(list(client, &query, reduce).await?.items)
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
