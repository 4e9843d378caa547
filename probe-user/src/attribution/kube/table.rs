//! What the kubelet or the Kubernetes API said of this node's pods, bounded; what is gone is remembered for some minutes.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::api::ObjectMeta;

use super::object::Pod as Object;
use crate::model::{
    selector::Labels,
    workload::{self, Workload, WorkloadSource},
};

/// How long a deleted pod keeps its name: its last connections are reported after it.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Pods that are kept. A node runs some hundred; those gone for longest make room.
const KEPT: usize = 4096;

/// Of a mirror pod: the uid that the kubelet, and so the control group, knows the static pod by.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
const TEMPLATE_HASH: &str = "pod-template-hash";

/// A pod as Kubernetes knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub workload: Option<Workload>,
    pub labels: Arc<Labels>,
    /// When the first of its running containers started: it has had its address since before, unless it is its node's.
    pub address_since: Option<Timestamp>,
    /// Container id → name.
    pub containers: HashMap<String, String>,
}

#[derive(Debug)]
struct Kept {
    pod: Arc<Pod>,
    gone: Option<Instant>,
}

/// By the uid that the node's control groups have: a static pod's is the hash of its configuration.
#[derive(Debug, Default)]
pub struct Table {
    pods: HashMap<String, Kept>,
}

impl Table {
    pub fn pod(&self, uid: &str) -> Option<&Arc<Pod>> {
        self.pods.get(uid).map(|kept| &kept.pod)
    }

    /// Takes a pod as it is now.
    pub fn apply(&mut self, object: Object, source: WorkloadSource, now: Instant) {
        if let Some((uid, pod)) = pod(object, source) {
            let pod = Arc::new(pod);
            self.pods.insert(uid, Kept { pod, gone: None });
            self.forget(now);
        }
    }

    /// Takes that a pod is gone.
    pub fn delete(&mut self, object: &Object, now: Instant) {
        if let Some(kept) = uid(&object.metadata).and_then(|uid| self.pods.get_mut(uid)) {
            kept.gone = Some(now);
        }
        self.forget(now);
    }

    /// Takes all that there is now; what is not in it is gone.
    pub fn list(&mut self, objects: Vec<Object>, source: WorkloadSource, now: Instant) {
        for kept in self.pods.values_mut() {
            kept.gone.get_or_insert(now);
        }
        for object in objects {
            self.apply(object, source, now);
        }
        self.forget(now);
    }

    /// The Jobs, with their namespace, that pods are said to belong to.
    pub fn jobs(&self) -> Vec<(String, String)> {
        self.pods
            .values()
            .filter_map(|kept| {
                let workload = kept.pod.workload.as_ref()?;
                (workload.kind == "Job").then(|| (kept.pod.namespace.clone(), workload.name.clone()))
            })
            .collect()
    }

    /// Takes what a Job belongs to.
    pub fn learn_job(&mut self, namespace: &str, job: &str, owner: &Workload) {
        for kept in self.pods.values_mut() {
            let of_job = |workload: &Workload| workload.kind == "Job" && workload.name == job;
            if kept.pod.namespace == namespace && kept.pod.workload.as_ref().is_some_and(of_job) {
                Arc::make_mut(&mut kept.pod).workload = Some(owner.clone());
            }
        }
    }

    fn forget(&mut self, now: Instant) {
        self.pods
            .retain(|_, kept| kept.gone.is_none_or(|gone| now.duration_since(gone) < REMEMBERED));
        while self.pods.len() > KEPT {
            let oldest = self
                .pods
                .iter()
                .min_by_key(|(_, kept)| (kept.gone.is_none(), kept.gone));
            let Some(uid) = oldest.map(|(uid, _)| uid.clone()) else {
                return;
            };
            self.pods.remove(&uid);
        }
    }
}

/// The uid that control groups have.
fn uid(metadata: &ObjectMeta) -> Option<&str> {
    let hash = metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(CONFIG_HASH));
    hash.or(metadata.uid.as_ref()).map(String::as_str)
}

fn pod(object: Object, source: WorkloadSource) -> Option<(String, Pod)> {
    let uid = uid(&object.metadata)?.to_owned();
    let workload = workload(&object.metadata, source);
    let labels = object.metadata.labels.unwrap_or_default().into_iter().collect();
    let status = object.status.unwrap_or_default();
    let is_of_node = object.spec.is_none_or(|spec| spec.host_network == Some(true));
    // A sandbox that is made anew, with another address, starts all containers anew.
    let running = status.container_statuses.iter().flatten();
    let address_since = running
        .filter_map(|status| status.state.as_ref()?.running.as_ref()?.started_at)
        .min()
        .filter(|_| !is_of_node);
    let containers = [
        status.container_statuses,
        status.init_container_statuses,
        status.ephemeral_container_statuses,
    ];
    let containers = containers.into_iter().flatten().flatten().filter_map(|status| {
        // containerd://<64 hex digits>
        let id = status.container_id?;
        let (_, id) = id.split_once("://")?;
        Some((id.to_owned(), status.name))
    });
    let pod = Pod {
        namespace: object.metadata.namespace?,
        name: object.metadata.name?,
        workload,
        labels: Arc::new(labels),
        address_since,
        containers: containers.collect(),
    };
    Some((uid, pod))
}

/// What owns an object: its controller, and the Deployment behind a ReplicaSet of one. A static pod's mirror is owned by
/// its node, which is nobody's workload.
pub fn workload(metadata: &ObjectMeta, source: WorkloadSource) -> Option<Workload> {
    let owners = metadata.owner_references.as_ref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    let (kind, name): (Cow<'static, str>, _) = match owner.kind.as_str() {
        "Node" => return None,
        "ReplicaSet" => {
            let hash = metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(TEMPLATE_HASH));
            match workload::deployment(&owner.name, hash.map(String::as_str)) {
                Some(deployment) => (Cow::Borrowed("Deployment"), deployment),
                None => (Cow::Borrowed("ReplicaSet"), owner.name.as_str()),
            }
        }
        other => (Cow::Owned(other.to_owned()), owner.name.as_str()),
    };
    Some(Workload {
        kind,
        name: name.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SOURCE: WorkloadSource = WorkloadSource::KubeApi;

    fn object(uid: &str, name: &str, owner: Option<(&str, &str)>, hash: Option<&str>) -> Object {
        let owners = owner.map(|(kind, name)| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true}]));
        let labels = hash.map(|hash| json!({"pod-template-hash": hash}));
        let id = format!("containerd://id-of-{uid}");
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "uid": uid, "ownerReferences": owners, "labels": labels},
            "status": {"containerStatuses": [{"name": "app", "containerID": id, "image": "", "imageID": "", "ready": true, "restartCount": 0}]},
        }))
        .unwrap()
    }

    #[test]
    fn since_when_a_pod_has_its_address() {
        let started = |time: &str| json!({"name": "app", "state": {"running": {"startedAt": time}}});
        let waiting = json!({"name": "proxy", "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        let (early, late) = (started("2026-11-23T08:00:00Z"), started("2026-11-23T09:00:00Z"));
        for (what, host_network, statuses, since) in [
            (
                "the first of two",
                false,
                vec![late.clone(), early.clone()],
                Some("2026-11-23T08:00:00Z"),
            ),
            (
                "one that runs",
                false,
                vec![waiting.clone(), late],
                Some("2026-11-23T09:00:00Z"),
            ),
            ("none runs", false, vec![waiting], None),
            ("its node's address", true, vec![early], None),
        ] {
            let object: Object = serde_json::from_value(json!({
                "metadata": {"name": "x", "namespace": "shop", "uid": "u"},
                "spec": {"hostNetwork": host_network},
                "status": {"containerStatuses": statuses},
            }))
            .unwrap();
            let (_, pod) = pod(object, SOURCE).unwrap();
            let since = since.map(|since| since.parse().unwrap());
            assert_eq!(pod.address_since, since, "{what}");
        }
    }

    #[test]
    fn workloads() {
        for (owner, hash, expected) in [
            (
                Some(("ReplicaSet", "cart-7d9f6c5b8d")),
                Some("7d9f6c5b8d"),
                Some("Deployment cart"),
            ),
            (
                Some(("ReplicaSet", "alone-5")),
                Some("7d9f6c5b8d"),
                Some("ReplicaSet alone-5"),
            ),
            (Some(("ReplicaSet", "alone")), None, Some("ReplicaSet alone")),
            (
                Some(("DaemonSet", "sdp-monitor")),
                None,
                Some("DaemonSet sdp-monitor"),
            ),
            (Some(("Job", "backup-28912")), None, Some("Job backup-28912")),
            (
                Some(("Rollout", "cart")),
                Some("7d9f6c5b8d"),
                Some("Rollout cart"),
            ),
            (Some(("Node", "alpha")), None, None),
            (None, Some("7d9f6c5b8d"), None),
        ] {
            let object = object("u", "x", owner, hash);
            let found = workload(&object.metadata, SOURCE)
                .map(|workload| format!("{} {}", workload.kind, workload.name));
            assert_eq!(found.as_deref(), expected, "{owner:?}");
        }
    }

    #[test]
    fn labels_are_those_of_now() {
        let mut table = Table::default();
        let now = Instant::now();
        table.apply(object("1", "a", None, None), SOURCE, now);
        assert!(table.pod("1").unwrap().labels.is_empty());
        table.apply(object("1", "a", None, Some("7d9f6c5b8d")), SOURCE, now);
        assert_eq!(table.pod("1").unwrap().labels[TEMPLATE_HASH], "7d9f6c5b8d");
    }

    #[test]
    fn a_static_pod_is_known_by_its_hash() {
        let mut table = Table::default();
        let mut mirror = object("f0a1", "etcd-alpha", Some(("Node", "alpha")), None);
        let hash = "0123456789abcdef0123456789abcdef";
        mirror.metadata.annotations = Some([(CONFIG_HASH.to_owned(), hash.to_owned())].into());
        table.apply(mirror, SOURCE, Instant::now());
        assert_eq!(table.pod(hash).unwrap().name, "etcd-alpha");
        assert_eq!(table.pod("f0a1"), None);
    }

    #[test]
    fn a_job_of_a_cron_job() {
        let mut table = Table::default();
        let now = Instant::now();
        table.apply(object("1", "a", Some(("Job", "backup-1")), None), SOURCE, now);
        table.apply(object("2", "b", Some(("Job", "other")), None), SOURCE, now);
        let mut jobs = table.jobs();
        jobs.sort();
        assert_eq!(
            jobs,
            [
                ("shop".into(), "backup-1".into()),
                ("shop".into(), "other".into())
            ]
        );
        let owner = Workload {
            kind: "CronJob".into(),
            name: "backup".to_owned(),
            source: SOURCE,
        };
        table.learn_job("shop", "backup-1", &owner);
        table.learn_job("elsewhere", "other", &owner);
        assert_eq!(table.pod("1").unwrap().workload, Some(owner));
        assert_eq!(table.pod("2").unwrap().workload.as_ref().unwrap().kind, "Job");
    }

    #[test]
    fn what_is_gone_is_remembered_for_a_while() {
        let (mut table, start) = (Table::default(), Instant::now());
        let second = Duration::from_secs(1);
        table.list(
            vec![object("1", "a", None, None), object("2", "b", None, None)],
            SOURCE,
            start,
        );
        assert_eq!(table.pod("1").unwrap().containers["id-of-1"], "app");
        table.list(vec![object("2", "b", None, None)], SOURCE, start + second);
        assert!(table.pod("1").is_some());
        table.delete(&object("2", "b", None, None), start + second);
        table.list(Vec::new(), SOURCE, start + REMEMBERED + second);
        assert!(table.pod("1").is_none() && table.pod("2").is_none());
    }

    #[test]
    fn those_gone_for_longest_make_room() {
        let (mut table, start) = (Table::default(), Instant::now());
        let objects = |range: std::ops::Range<usize>| {
            range
                .map(|number| object(&number.to_string(), "x", None, None))
                .collect()
        };
        table.list(objects(0..KEPT), SOURCE, start);
        table.list(objects(1..KEPT + 1), SOURCE, start + Duration::from_secs(1));
        assert_eq!(table.pods.len(), KEPT);
        assert!(table.pod("0").is_none() && table.pod("1").is_some());
    }
}
