//! Names of containers and pods: from the container runtime, or else from the kubelet's log directories.

use std::{path::PathBuf, sync::Arc};

use super::{
    cri::{Health, Named, Runtime},
    pod_logs::PodLogs,
};
use crate::model::{Container, Owner, Pod, PodSource, workload};

/// All that can name a pod on this node.
pub struct Names {
    pods: PodLogs,
    runtime: Option<Runtime>,
}

impl Names {
    pub fn new(pod_logs: PathBuf, runtime: Option<Runtime>) -> Self {
        Self {
            pods: PodLogs::new(pod_logs),
            runtime,
        }
    }

    /// Names container and pod of an end in the network namespace `netns`, as far as they are known by now; whether
    /// the pod stays without a name.
    pub fn name(&mut self, owner: &mut Arc<Owner>, netns: u32) -> bool {
        if let Some(runtime) = &self.runtime
            && let Some(named) = find(runtime, owner, netns)
        {
            take(Arc::make_mut(owner), &named);
            return false;
        }
        if self.hopes(owner)
            && let Some(runtime) = &self.runtime
        {
            runtime.ask();
        }
        let Some(pod) = &owner.pod else { return false };
        let Some((namespace, name)) = self.pods.find(&pod.uid) else {
            return pod.name.is_none();
        };
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        if let Some(pod) = &mut Arc::make_mut(owner).pod {
            pod.namespace = Some(namespace);
            pod.name = Some(name);
            pod.source = PodSource::PodLogDir;
        }
        false
    }

    /// Whether the runtime may still tell more of it.
    pub fn hopes(&self, owner: &Owner) -> bool {
        let unnamed = |container: &Container| container.name.is_none();
        let by_runtime = owner.pod.as_ref().is_some_and(|pod| pod.source == PodSource::Cri);
        self.runtime.is_some() && !by_runtime && owner.container.as_ref().is_some_and(unnamed)
    }

    pub fn runtime(&self) -> Option<&Runtime> {
        self.runtime.as_ref()
    }

    /// How the runtime is doing, where that changed.
    pub fn news(&mut self) -> Option<(Health, PathBuf)> {
        let runtime = self.runtime.as_mut()?;
        let health = runtime.news()?;
        Some((health, runtime.socket().to_owned()))
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
        source: PodSource::Cri,
    });
}
