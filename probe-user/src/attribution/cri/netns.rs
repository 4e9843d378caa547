//! The network namespace of a sandbox, out of what its runtime knows besides (`PodSandboxStatus`, verbose).

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use serde::Deserialize;

/// containerd's `info` field and CRI-O's: the OCI specification of the sandbox, and its first process.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Info {
    pid: u32,
    runtime_spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    linux: Linux,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<Namespace>,
}

#[derive(Deserialize)]
struct Namespace {
    r#type: String,
    #[serde(default)]
    path: String,
}

/// Where the namespace is to be seen; `None` for a pod on the host's network.
pub fn path(info: &str) -> Option<PathBuf> {
    let info: Info = serde_json::from_str(info).ok()?;
    let network = info
        .runtime_spec
        .linux
        .namespaces
        .into_iter()
        .find(|namespace| namespace.r#type == "network")?;
    if !network.path.is_empty() {
        return Some(network.path.into());
    }
    (info.pid != 0).then(|| format!("/proc/{}/ns/net", info.pid).into())
}

/// Its inode.
pub fn inode(info: &str) -> Option<u32> {
    u32::try_from(fs::metadata(path(info)?).ok()?.ino()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_runtimes_write_it() {
        for (info, expected) in [
            (
                r#"{"pid":4711,"runtimeSpec":{"ociVersion":"1.0.2","linux":{"namespaces":[{"type":"ipc"},{"type":"network","path":"/var/run/netns/cni-1"}]}}}"#,
                Some("/var/run/netns/cni-1"),
            ),
            (
                r#"{"pid":4711,"runtimeSpec":{"linux":{"namespaces":[{"type":"network"}]}}}"#,
                Some("/proc/4711/ns/net"),
            ),
            // On the host's network.
            (
                r#"{"pid":4711,"runtimeSpec":{"linux":{"namespaces":[{"type":"ipc"}]}}}"#,
                None,
            ),
            (
                r#"{"runtimeSpec":{"linux":{"namespaces":[{"type":"network"}]}}}"#,
                None,
            ),
            (r#"{"runtimeSpec":{"linux":null}}"#, None),
            ("not JSON", None),
        ] {
            assert_eq!(path(info), expected.map(PathBuf::from), "{info}");
        }
    }
}
