//! Names of containers and pods: from the container runtime, or else from the kubelet's log directories, or else from
//! Kubernetes, which also has the workload of a pod.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use super::{
    cri::{Named, Runtime},
    health::News,
    kube::Cluster,
    pod_logs::PodLogs,
};
use crate::model::{
    Container, Owner, Pod, PodSource,
    workload::{self, WorkloadSource},
};

/// All that can name a pod on this node.
pub struct Names {
    pods: PodLogs,
    runtime: Option<Runtime>,
    cluster: Option<Cluster>,
}

impl Names {
    pub fn new(pod_logs: PathBuf, runtime: Option<Runtime>, cluster: Option<Cluster>) -> Self {
        Self {
            pods: PodLogs::new(pod_logs),
            runtime,
            cluster,
        }
    }

    /// Names container and pod of a side in the network namespace `netns`, as far as they are known; whether
    /// the pod stays without a name.
    pub fn name(&mut self, owner: &mut Arc<Owner>, netns: u32) -> bool {
        let named = self
            .runtime
            .as_ref()
            .and_then(|runtime| find(runtime, owner, netns));
        match named {
            Some(named) => take(Arc::make_mut(owner), &named),
            None => {
                if self.hopes(owner)
                    && let Some(runtime) = &self.runtime
                {
                    runtime.ask();
                }
                self.by_log_directory(owner);
            }
        }
        self.by_cluster(owner);
        owner.pod.as_ref().is_some_and(|pod| pod.name.is_none())
    }

    fn by_log_directory(&mut self, owner: &mut Arc<Owner>) {
        let Some(pod) = &owner.pod else { return };
        let Some((namespace, name)) = self.pods.find(&pod.uid) else {
            return;
        };
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        if let Some(pod) = &mut Arc::make_mut(owner).pod {
            pod.namespace = Some(namespace);
            pod.name = Some(name);
            pod.source = PodSource::PodLogDir;
        }
    }

    /// What Kubernetes knows: missing names, and the workload, which its owner reference has more exactly than
    /// labels.
    fn by_cluster(&self, owner: &mut Arc<Owner>) {
        if !self.may_learn(owner) {
            return;
        }
        let (Some(cluster), Some(pod)) = (&self.cluster, &owner.pod) else {
            return;
        };
        let Some(known) = cluster.pod(&pod.uid) else {
            return;
        };
        let owner = Arc::make_mut(owner);
        if let Some(container) = &mut owner.container
            && container.name.is_none()
        {
            container.name = known.containers.get(&container.id).cloned();
        }
        if let Some(pod) = &mut owner.pod {
            if pod.name.is_none() {
                pod.namespace = Some(known.namespace.clone());
                pod.name = Some(known.name.clone());
                pod.source = cluster.source();
            }
            pod.address_since = pod.address_since.or(known.address_since);
            // The runtime has those that the pod began with.
            pod.labels = Some(Arc::clone(&known.labels));
            if known.workload.is_some() {
                pod.workload.clone_from(&known.workload);
            }
        }
    }

    /// Whether Kubernetes may still add to it.
    pub fn may_learn(&self, owner: &Owner) -> bool {
        let by_labels = |pod: &Pod| {
            let source = pod.workload.as_ref().map(|workload| workload.source);
            matches!(source, None | Some(WorkloadSource::Labels))
        };
        self.cluster.is_some()
            && owner
                .pod
                .as_ref()
                .is_some_and(|pod| pod.name.is_none() || by_labels(pod))
    }

    /// The node that has this address.
    pub fn node(&self, address: IpAddr) -> Option<Arc<Owner>> {
        self.cluster.as_ref()?.node(address)
    }

    /// Whether the runtime may still tell since when a pod has its address.
    pub fn lacks_address(&self, owner: &Owner) -> bool {
        let of_runtime = |pod: &Pod| pod.source == PodSource::Cri && pod.address_since.is_none();
        self.runtime.is_some() && owner.pod.as_ref().is_some_and(of_runtime)
    }

    /// Whether the runtime may still add to it.
    pub fn hopes(&self, owner: &Owner) -> bool {
        let unnamed = |container: &Container| container.name.is_none();
        let by_runtime = owner.pod.as_ref().is_some_and(|pod| pod.source == PodSource::Cri);
        self.runtime.is_some() && !by_runtime && owner.container.as_ref().is_some_and(unnamed)
    }

    pub fn runtime(&self) -> Option<&Runtime> {
        self.runtime.as_ref()
    }

    /// How one of those who are asked is doing, where that changed.
    pub fn news(&self) -> Option<News> {
        let of_runtime = self.runtime.as_ref().and_then(Runtime::news);
        of_runtime.or_else(|| self.cluster.as_ref()?.news())
    }

    /// Pods whose name was not kept for lack of room.
    pub fn overflow(&self) -> u64 {
        self.pods.overflow()
    }
}

/// By the container; a process that is in none, by the network namespace it is in.
fn find(runtime: &Runtime, owner: &Owner, netns: u32) -> Option<Named> {
    match (&owner.container, &owner.pod) {
        (Some(container), _) => runtime.container(&container.id),
        (None, None) => runtime.netns(netns),
        (None, Some(_)) => None,
    }
}

fn take(owner: &mut Owner, named: &Named) {
    if let Some(container) = &mut owner.container {
        container.name.clone_from(&named.container);
    }
    let known = owner.pod.take();
    owner.pod = Some(Pod {
        // A static pod's is what its control group says.
        uid: known
            .as_ref()
            .map_or_else(|| named.pod.uid.clone(), |pod| pod.uid.clone()),
        qos: known.and_then(|pod| pod.qos),
        namespace: Some(named.pod.namespace.clone()),
        name: Some(named.pod.name.clone()),
        workload: workload::of_labels(&named.pod.name, &named.pod.labels),
        labels: Some(Arc::clone(&named.pod.labels)),
        address_since: named.pod.address_since,
        source: PodSource::Cri,
    });
}

#[cfg(test)]
mod tests {
    use super::{super::cri, *};
    use crate::model::selector::Labels;

    #[test]
    fn the_runtime_has_labels() {
        let labels: Labels = [("app".to_owned(), "web".to_owned())].into();
        let pod = cri::Pod {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
            uid: "1".to_owned(),
            labels: Arc::new(labels.clone()),
            address_since: None,
        };
        let named = Named {
            container: None,
            pod: Arc::new(pod),
        };
        let mut owner = Owner::default();
        take(&mut owner, &named);
        let pod = owner.pod.unwrap();
        assert_eq!(pod.name.as_deref(), Some("web-0"));
        assert_eq!(pod.labels.as_deref(), Some(&labels));
    }
}
