//! The API as the kubelet has it: its credentials allow what is of its own node.

use std::{io, path::PathBuf};

use kube::{
    Api, Client,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::{
    client::{KubeError, connect, pods},
    object::{NodeObject, Pod},
    pages::ListQuery,
};
use crate::error::chain;

/// The API by a kubelet's kubeconfig; `real` maps a file of the node to its path for this process.
///
/// # Errors
/// Credentials that can't be read, or that come from a program: none is run.
pub async fn as_kubelet(text: &str, real: impl Fn(&str) -> io::Result<PathBuf>) -> Result<Client, KubeError> {
    let unusable = |reason: String| KubeError::Kubeconfig {
        file: "the kubelet's kubeconfig".into(),
        reason,
    };
    let mut file = Kubeconfig::from_yaml(text).map_err(|error| unusable(chain(&error)))?;
    let find = |path: &mut Option<String>| -> Result<(), KubeError> {
        if let Some(path) = path {
            let found = real(path).map_err(|error| unusable(format!("{path}: {error}")))?;
            *path = found.to_string_lossy().into_owned();
        }
        Ok(())
    };
    for named in &mut file.clusters {
        if let Some(cluster) = &mut named.cluster {
            find(&mut cluster.certificate_authority)?;
        }
    }
    for named in &mut file.auth_infos {
        let Some(user) = &mut named.auth_info else {
            continue;
        };
        if user.exec.is_some() || user.auth_provider.is_some() {
            return Err(unusable(
                "its credentials come from a program, which probe does not run".to_owned(),
            ));
        }
        find(&mut user.client_certificate)?;
        find(&mut user.client_key)?;
        find(&mut user.token_file)?;
    }
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    connect(config.map_err(|error| unusable(chain(&error)))?)
}

/// A node.
///
/// # Errors
/// When the API does not answer, or does not allow it.
pub async fn node(client: &Client, name: &str) -> Result<NodeObject, KubeError> {
    let api = Api::<NodeObject>::all(client.clone());
    api.get(name).await.map_err(KubeError::call("the node"))
}

/// The pods of a node.
///
/// # Errors
/// When the API does not answer, or does not allow it.
pub async fn pods_of(client: &Client, node: &str) -> Result<Vec<Pod>, KubeError> {
    let of_node = ListQuery {
        what: "the node's pods",
        fields: Some(format!("spec.nodeName={node}")),
        ..ListQuery::default()
    };
    pods(client, None, of_node, Some).await
}
