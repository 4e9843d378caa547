//! Objects of the Kubernetes API, with the fields that probe reads and no others. The whole types of `k8s-openapi` are some
//! hundred structs for a pod alone: they cost the build minutes, the binary megabytes, and the agent memory for each pod.
//!
//! Names, optional fields and JSON names are those of `k8s-openapi`. Kubernetes leaves out what is empty, so each field may be
//! absent.

use std::{borrow::Cow, net::IpAddr};

use jiff::Timestamp;
use kube::{
    api::ObjectMeta,
    core::{ClusterResourceScope, NamespaceResourceScope},
};
use serde::{Deserialize, de::IgnoredAny};

/// An object: metadata, a `spec` and a `status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(
    default,
    bound = "S: Default + Deserialize<'de>, T: Default + Deserialize<'de>"
)]
pub struct Object<S, T> {
    pub metadata: ObjectMeta,
    pub spec: Option<S>,
    pub status: Option<T>,
}

/// A list, as the kubelet's `/pods` has it.
#[derive(Debug, Deserialize)]
pub struct List<K> {
    /// `null` where there are none.
    pub items: Option<Vec<K>>,
}

/// `core/v1`.
pub type Pod = Object<PodSpec, PodStatus>;
/// `core/v1`.
pub type NodeObject = Object<NodeSpec, NodeStatus>;
/// `core/v1`.
pub type Service = Object<ServiceSpec, ServiceStatus>;

/// An object of a long list, of whose metadata only the name is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(
    default,
    bound = "S: Default + Deserialize<'de>, T: Default + Deserialize<'de>"
)]
pub struct ListedObject<S, T> {
    pub metadata: Name,
    pub spec: Option<S>,
    pub status: Option<T>,
}

/// What an object is called.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Name {
    pub namespace: Option<String>,
    pub name: Option<String>,
}

pub type ListedNode = ListedObject<IgnoredAny, NodeStatus>;
pub type ListedService = ListedObject<ServiceSpec, ServiceStatus>;

/// A node and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub addresses: Vec<IpAddr>,
}

impl ListedNode {
    /// Its name and addresses; `None` for one without a name.
    pub fn host(self) -> Option<Host> {
        let addresses = self
            .status
            .iter()
            .flat_map(|status| status.addresses.iter().flatten())
            .filter_map(|address| address.address.parse().ok());
        Some(Host {
            addresses: addresses.collect(),
            name: self.metadata.name?,
        })
    }
}

/// `batch/v1`, of which the metadata are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Job {
    pub metadata: ObjectMeta,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    pub node_name: Option<String>,
    pub host_network: Option<bool>,
    pub dns_policy: Option<String>,
    pub containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Container {
    pub ports: Option<Vec<ContainerPort>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    pub name: Option<String>,
    pub container_port: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
    pub phase: Option<String>,
    pub reason: Option<String>,
    pub conditions: Option<Vec<Condition>>,
    pub container_statuses: Option<Vec<ContainerStatus>>,
    pub init_container_statuses: Option<Vec<ContainerStatus>>,
    pub ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    pub name: String,
    #[serde(rename = "containerID")]
    pub container_id: Option<String>,
    pub state: Option<ContainerState>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    pub waiting: Option<Reason>,
    pub running: Option<Running>,
    pub terminated: Option<Reason>,
}

/// A container that runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Running {
    pub started_at: Option<Timestamp>,
}

/// Why a container waits or has ended.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Reason {
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    pub addresses: Option<Vec<NodeAddress>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    pub address: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    pub external_ips: Option<Vec<String>>,
    pub ports: Option<Vec<ServicePort>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    pub name: Option<String>,
    pub port: i32,
    pub protocol: Option<String>,
    pub node_port: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceStatus {
    pub load_balancer: Option<LoadBalancer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LoadBalancer {
    pub ingress: Option<Vec<Ingress>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ingress {
    pub ip: Option<String>,
}

/// What the API calls an object, and where it keeps it.
macro_rules! resource {
    ($object:ty, $scope:ty, $group:literal, $kind:literal, $plural:literal) => {
        impl kube::Resource for $object {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                "v1".into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(Pod, NamespaceResourceScope, "", "Pod", "pods");
resource!(NodeObject, ClusterResourceScope, "", "Node", "nodes");
resource!(Service, NamespaceResourceScope, "", "Service", "services");
resource!(Job, NamespaceResourceScope, "batch", "Job", "jobs");

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        Resource as _,
        api::{batch::v1 as batch, core::v1 as core},
    };
    use kube::Resource;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_those_of_the_api() {
        fn ours<K: Resource<DynamicType = ()>>() -> [String; 4] {
            [
                K::api_version(&()),
                K::kind(&()),
                K::plural(&()),
                K::url_path(&(), Some("x")).into(),
            ]
            .map(Cow::into_owned)
        }
        assert_eq!(ours::<Pod>(), ours::<core::Pod>());
        assert_eq!(ours::<NodeObject>()[..3], ours::<core::Node>()[..3]);
        assert_eq!(ours::<Service>(), ours::<core::Service>());
        assert_eq!(ours::<Job>(), ours::<batch::Job>());
        assert_eq!(Pod::kind(&()), core::Pod::KIND);
    }

    /// What the whole types write is what these read.
    #[test]
    fn fields_are_those_of_the_api() {
        let state: core::ContainerState = serde_json::from_value(json!({
            "waiting": {"reason": "CrashLoopBackOff"},
            "running": {"startedAt": "2026-11-23T08:00:00Z"},
        }))
        .unwrap();
        let container = |name: &str| core::ContainerStatus {
            name: name.to_owned(),
            container_id: Some(format!("containerd://{name}")),
            state: Some(state.clone()),
            ..Default::default()
        };
        let whole = core::Pod {
            metadata: ObjectMeta {
                name: Some("a".to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(core::PodSpec {
                node_name: Some("alpha".to_owned()),
                host_network: Some(true),
                dns_policy: Some("Default".to_owned()),
                containers: vec![core::Container {
                    ports: Some(vec![core::ContainerPort {
                        name: Some("query".to_owned()),
                        container_port: 9470,
                        ..Default::default()
                    }]),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            status: Some(core::PodStatus {
                host_ip: Some("192.0.2.1".to_owned()),
                phase: Some("Running".to_owned()),
                reason: Some("Evicted".to_owned()),
                conditions: Some(vec![core::PodCondition {
                    type_: "Ready".to_owned(),
                    status: "False".to_owned(),
                    reason: Some("ContainersNotReady".to_owned()),
                    ..Default::default()
                }]),
                container_statuses: Some(vec![container("app")]),
                init_container_statuses: Some(vec![container("init")]),
                ephemeral_container_statuses: Some(vec![container("debug")]),
                ..Default::default()
            }),
        };
        let pod: Pod = serde_json::from_value(serde_json::to_value(whole).unwrap()).unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("a"));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("alpha"));
        assert_eq!(
            (spec.host_network, spec.dns_policy.as_deref()),
            (Some(true), Some("Default"))
        );
        let port = &spec.containers[0].ports.as_ref().unwrap()[0];
        assert_eq!((port.name.as_deref(), port.container_port), (Some("query"), 9470));
        let status = pod.status.unwrap();
        assert_eq!(
            [&status.host_ip, &status.phase, &status.reason].map(Option::as_deref),
            [Some("192.0.2.1"), Some("Running"), Some("Evicted")]
        );
        let condition = &status.conditions.unwrap()[0];
        assert_eq!(
            (&*condition.type_, &*condition.status, condition.reason.as_deref()),
            ("Ready", "False", Some("ContainersNotReady"))
        );
        for (statuses, name) in [
            (status.container_statuses, "app"),
            (status.init_container_statuses, "init"),
            (status.ephemeral_container_statuses, "debug"),
        ] {
            let container = &statuses.unwrap()[0];
            assert_eq!(
                (&*container.name, container.container_id.as_deref()),
                (name, Some(&*format!("containerd://{name}")))
            );
            let state = container.state.as_ref().unwrap();
            let started = state.running.as_ref().unwrap().started_at;
            assert_eq!(started, Some("2026-11-23T08:00:00Z".parse().unwrap()));
            let waiting = state.waiting.as_ref().unwrap();
            assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
        }

        let whole = core::Service {
            spec: Some(core::ServiceSpec {
                cluster_ip: Some("10.96.0.1".to_owned()),
                cluster_ips: Some(vec!["10.96.0.1".to_owned()]),
                external_ips: Some(vec!["203.0.113.7".to_owned()]),
                ports: Some(vec![core::ServicePort {
                    name: Some("https".to_owned()),
                    port: 443,
                    protocol: Some("TCP".to_owned()),
                    ..Default::default()
                }]),
                ..Default::default()
            }),
            status: Some(core::ServiceStatus {
                load_balancer: Some(core::LoadBalancerStatus {
                    ingress: Some(vec![core::LoadBalancerIngress {
                        ip: Some("203.0.113.9".to_owned()),
                        ..Default::default()
                    }]),
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let service: Service = serde_json::from_value(serde_json::to_value(whole).unwrap()).unwrap();
        let spec = service.spec.unwrap();
        assert_eq!(spec.cluster_ip.as_deref(), Some("10.96.0.1"));
        assert_eq!(spec.cluster_ips.unwrap(), ["10.96.0.1"]);
        assert_eq!(spec.external_ips.unwrap(), ["203.0.113.7"]);
        let port = &spec.ports.unwrap()[0];
        assert_eq!(
            (port.name.as_deref(), port.port, port.protocol.as_deref()),
            (Some("https"), 443, Some("TCP"))
        );
        let ingress = service.status.unwrap().load_balancer.unwrap().ingress.unwrap();
        assert_eq!(ingress[0].ip.as_deref(), Some("203.0.113.9"));

        let whole = core::Node {
            spec: Some(core::NodeSpec {
                pod_cidr: Some("10.244.1.0/24".to_owned()),
                pod_cidrs: Some(vec!["10.244.1.0/24".to_owned()]),
                ..Default::default()
            }),
            status: Some(core::NodeStatus {
                addresses: Some(vec![core::NodeAddress {
                    address: "192.0.2.1".to_owned(),
                    type_: "InternalIP".to_owned(),
                }]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let node: NodeObject = serde_json::from_value(serde_json::to_value(whole).unwrap()).unwrap();
        assert_eq!(node.status.unwrap().addresses.unwrap()[0].address, "192.0.2.1");
        let spec = node.spec.unwrap();
        assert_eq!(spec.pod_cidr.as_deref(), Some("10.244.1.0/24"));
        assert_eq!(spec.pod_cidrs.unwrap(), ["10.244.1.0/24"]);
    }

    #[test]
    fn a_list_may_be_null() {
        for (text, expected) in [
            (r#"{"items": null}"#, 0),
            (r"{}", 0),
            (r#"{"items": [{}, {"metadata": {"name": "a"}}]}"#, 2),
        ] {
            let list: List<Pod> = serde_json::from_str(text).unwrap();
            assert_eq!(list.items.unwrap_or_default().len(), expected, "{text}");
        }
    }
}
