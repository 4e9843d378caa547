//! What a pod belongs to: from its owner reference, or else from the labels that controllers set, and
//! name their pods after themselves.

use std::{borrow::Cow, collections::HashMap};

use serde::{Deserialize, Serialize};

/// The controller of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Workload {
    /// `Deployment`, `DaemonSet`, `StatefulSet`, `Job`, `CronJob`, or another owner of pods.
    pub kind: Cow<'static, str>,
    /// The name.
    pub name: String,
    /// Where the workload comes from: the pod's owner reference (`kube-api`, `kubelet`), or its `labels`.
    pub source: WorkloadSource,
}

crate::names! {
    /// How a workload was found.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum WorkloadSource {
        /// The pod's labels, as the container runtime keeps them.
        Labels = "labels",
        /// The pod's owner reference, from the kubelet.
        Kubelet = "kubelet",
        /// The same from the Kubernetes API.
        KubeApi = "kube-api",
    }
}

/// The Deployment behind a ReplicaSet; `None` for one that stands alone. A Deployment names its ReplicaSets after itself
/// and the hash of the template, which is also a label of their pods.
pub fn deployment<'a>(replica_set: &'a str, template_hash: Option<&str>) -> Option<&'a str> {
    let hash = template_hash.filter(|hash| !hash.is_empty())?;
    replica_set
        .strip_suffix(hash)?
        .strip_suffix('-')
        .filter(|name| !name.is_empty())
}

/// The controller of the pod `name`; `None` where its labels name none, or do not fit its name.
pub fn of_labels(name: &str, labels: &HashMap<String, String>) -> Option<Workload> {
    let label = |key: &str| {
        labels
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    };
    let workload = |kind, name: &str| {
        (!name.is_empty()).then(|| Workload {
            kind: Cow::Borrowed(kind),
            name: name.to_owned(),
            source: WorkloadSource::Labels,
        })
    };
    if let Some(job) = label("batch.kubernetes.io/job-name").or_else(|| label("job-name")) {
        return workload("Job", job);
    }
    if let Some(hash) = label("pod-template-hash") {
        // <deployment>-<hash>-<random>
        return workload("Deployment", deployment(without_suffix(name)?, Some(hash))?);
    }
    if label("statefulset.kubernetes.io/pod-name") == Some(name) {
        return workload("StatefulSet", without_suffix(name)?);
    }
    // Both: a StatefulSet has the first too.
    label("controller-revision-hash")?;
    label("pod-template-generation")?;
    workload("DaemonSet", without_suffix(name)?)
}

/// Without the last `-` and what follows it.
fn without_suffix(name: &str) -> Option<&str> {
    name.rsplit_once('-').map(|(start, _)| start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_labels_tell() {
        for (name, labels, expected) in [
            (
                "cart-7d9f6c5b8d-x2x4z",
                &[("pod-template-hash", "7d9f6c5b8d"), ("app", "cart")][..],
                Some(("Deployment", "cart")),
            ),
            (
                "sdp-monitor-z8989",
                &[
                    ("controller-revision-hash", "5c9d"),
                    ("pod-template-generation", "1"),
                ],
                Some(("DaemonSet", "sdp-monitor")),
            ),
            (
                "db-0",
                &[
                    ("statefulset.kubernetes.io/pod-name", "db-0"),
                    ("controller-revision-hash", "db-1"),
                ],
                Some(("StatefulSet", "db")),
            ),
            (
                "backup-28912-abcde",
                &[("job-name", "backup-28912")],
                Some(("Job", "backup-28912")),
            ),
            (
                "backup-28912-abcde",
                &[
                    ("batch.kubernetes.io/job-name", "backup-28912"),
                    ("job-name", "other"),
                ],
                Some(("Job", "backup-28912")),
            ),
            // A pod with copied labels is nobody's.
            ("debug", &[("pod-template-hash", "7d9f6c5b8d")], None),
            ("debug-1", &[("pod-template-hash", "7d9f6c5b8d")], None),
            ("db-0", &[("statefulset.kubernetes.io/pod-name", "db-1")], None),
            ("alone", &[("app", "alone")], None),
            ("alone", &[("job-name", "")], None),
        ] {
            let labels = labels
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()));
            let found = of_labels(name, &labels.collect());
            let found = found
                .as_ref()
                .map(|workload| (workload.kind.as_ref(), workload.name.as_str()));
            assert_eq!(found, expected, "{name}");
        }
    }
}
