//! A real containerd of the lab's own on a node, and pods made through its container runtime interface as a kubelet does.

mod client;
mod directory;
mod image;
mod messages;

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};

use self::{
    client::Cri,
    directory::Directory,
    messages::{
        ContainerConfig, ContainerMetadata, ContainerSecurityContext, CreateContainer, Id, ImageSpec,
        LinuxContainerConfig, LinuxPodSandboxConfig, Mount, NamespaceOption, Nothing, PodSandboxConfig,
        PodSandboxMetadata, RunPodSandbox, SandboxSecurityContext,
    },
};
use crate::{
    cgroup::Group,
    cluster::Node,
    netns::Netns,
    process::{Child, run},
    wait::wait_until,
};

const OWN_NAMESPACE: i32 = 1;
const NODES_NAMESPACE: i32 = 2;

/// A running containerd; dropping it takes away its pods too.
pub struct Containerd<'a> {
    netns: &'a Netns,
    child: Mutex<Option<Child>>,
    cri: Cri,
    /// Of all its processes and pods. Goes before the directory that they use.
    group: Group,
    directory: Directory,
}

/// What a pod is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodSpec<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub labels: &'a [(&'a str, &'a str)],
    pub host_network: bool,
}

/// A pod; dropping it stops and removes it.
pub struct CriPod<'a> {
    containerd: &'a Containerd<'a>,
    config: PodSandboxConfig,
    id: String,
    pub uid: String,
}

impl<'a> Containerd<'a> {
    /// Starts it on a node, whose bridge its pods are plugged into.
    pub fn start(node: &'a Node) -> Result<Self> {
        let (directory, group) = (Directory::new()?, Group::new()?);
        let path = directory.path();
        let cni = path.join("cni");
        fs::create_dir(&cni)?;
        fs::write(
            cni.join("10-lab.conflist"),
            format!(
                r#"{{"cniVersion":"0.4.0","name":"lab","plugins":[{{"type":"bridge","bridge":"cni0","mtu":1450,"isGateway":true,
                "isDefaultGateway":true,"ipMasq":false,"ipam":{{"type":"host-local","dataDir":"{}/addresses",
                "ranges":[[{{"subnet":"{}"}}]]}}}}]}}"#,
                path.display(),
                node.subnet()
            ),
        )?;
        fs::write(path.join("config.toml"), config(path))?;
        let images = path.join("images.tar");
        image::write(&images)?;
        let containerd = Self {
            netns: &node.netns,
            child: Mutex::default(),
            cri: Cri::new(&path.join("containerd.sock"))?,
            group,
            directory,
        };
        containerd.begin()?;
        run(&format!(
            "ctr -a {} -n k8s.io images import {}",
            containerd.socket().display(),
            images.display()
        ))?;
        Ok(containerd)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("containerd.sock")
    }

    /// Starts it again after [`kill`](Self::kill); its pods have run on.
    pub fn begin(&self) -> Result<()> {
        let log = self.directory.path().join("log");
        let mut command = self.netns.command("containerd");
        command
            .arg("-c")
            .arg(self.directory.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let child = Child::spawn(self.group.place(&mut command))?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        let serves = || {
            let answer = self.cri.call::<_, Nothing>("Version", Nothing {});
            answer.ok().map(drop)
        };
        wait_until("containerd serves", Duration::from_secs(60), serves)
            .with_context(|| format!("its log: {}", fs::read_to_string(&log).unwrap_or_default()))
    }

    /// Kills it, as a crash does.
    pub fn kill(&self) {
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Makes a pod without containers.
    pub fn pod(&'a self, spec: PodSpec<'_>) -> Result<CriPod<'a>> {
        let uid = self.group.pod_uid();
        let network = if spec.host_network { NODES_NAMESPACE } else { 0 };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: spec.name.to_owned(),
                uid: uid.clone(),
                namespace: spec.namespace.to_owned(),
            }),
            // A pod on the node's network has the node's.
            hostname: if spec.host_network { "" } else { spec.name }.to_owned(),
            labels: spec
                .labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<HashMap<_, _>>(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}/kubepods/besteffort/pod{uid}", self.group.name()),
                security_context: Some(SandboxSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        network,
                        pid: OWN_NAMESPACE,
                    }),
                }),
            }),
        };
        let request = RunPodSandbox {
            config: Some(config.clone()),
        };
        let Id { id } = self.cri.call("RunPodSandbox", request)?;
        Ok(CriPod {
            containerd: self,
            config,
            id,
            uid,
        })
    }
}

impl CriPod<'_> {
    /// Runs a command of this machine's in a container of that name; its id.
    pub fn run(&self, name: &str, command: &[&str]) -> Result<String> {
        let network = self
            .config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.clone());
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
            }),
            image: Some(ImageSpec {
                image: image::HOST.to_owned(),
            }),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            mounts: vec![Mount {
                container_path: "/usr".to_owned(),
                host_path: "/usr".to_owned(),
                readonly: true,
            }],
            linux: Some(LinuxContainerConfig {
                security_context: Some(ContainerSecurityContext {
                    namespace_options: network.and_then(|context| context.namespace_options),
                }),
            }),
        };
        let cri = &self.containerd.cri;
        let request = CreateContainer {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let container: Id = cri.call("CreateContainer", request)?;
        cri.call::<_, Nothing>("StartContainer", container.clone())?;
        Ok(container.id)
    }
}

impl Drop for CriPod<'_> {
    fn drop(&mut self) {
        let sandbox = Id { id: self.id.clone() };
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            let _ = self.containerd.cri.call::<_, Nothing>(method, sandbox.clone());
        }
    }
}

/// All paths its own. The two switches are for machines where not all is allowed.
fn config(path: &Path) -> String {
    let path = path.display();
    format!(
        r#"version = 2
root = "{path}/root"
state = "{path}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{path}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{path}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{path}/cni"
"#,
        image::PAUSE
    )
}
