//! Control group names → container, pod, QoS class. Pure.
//!
//! Shapes: the kubelet's cgroupfs driver (`/kubepods/burstable/pod<uid>/<id>`) and systemd driver
//! (`/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with _>.slice/cri-containerd-<id>.scope`),
//! below any prefix, as in kind's nodes. Names are hostile: what does not fit exactly is no container and no pod.

use crate::model::{Container, Qos, Runtime};

/// What a control group says of who is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    pub container: Option<Container>,
    /// With dashes; for a static pod 32 hex digits without.
    pub pod_uid: Option<String>,
    pub qos: Option<Qos>,
}

/// From the names of a control group and those above it, leaf first. The nearest to the leaf counts.
pub fn placement<'a>(names: impl IntoIterator<Item = &'a str>) -> Placement {
    let names: Vec<&str> = names.into_iter().collect();
    let pod_at = names
        .iter()
        .enumerate()
        .find_map(|(at, name)| Some((at, pod(name, names.get(at + 1).copied())?)));
    // A pod's container is below the pod; without a pod (plain docker) it is wherever its name is.
    let below = pod_at
        .as_ref()
        .map_or(names.len(), |(at, _)| at + usize::from(is_joined(names[*at])));
    let container = names
        .iter()
        .take(below)
        .enumerate()
        .find_map(|(at, name)| container(name, names.get(at + 1).copied(), pod_at.is_some()));
    let (pod_uid, qos) = pod_at.map(|(_, (uid, qos))| (uid, qos)).unzip();
    Placement {
        container,
        pod_uid,
        qos,
    }
}

/// From a path, as in `/proc/PID/cgroup`.
pub fn placement_of_path(path: &str) -> Placement {
    placement(path.rsplit('/').filter(|name| !name.is_empty()))
}

/// `kubepods-….slice:cri-containerd:<id>`: pod and container in one name, containerd set to systemd paths under a
/// runc set to cgroupfs.
fn is_joined(name: &str) -> bool {
    name.contains(':')
}

fn container(name: &str, above: Option<&str>, in_pod: bool) -> Option<Container> {
    let found = |id: &str, runtime| {
        is_id(id).then(|| Container {
            id: id.to_owned(),
            runtime,
            name: None,
        })
    };
    if let Some((_, rest)) = name.split_once(':') {
        return found(rest.strip_prefix("cri-containerd:")?, Some(Runtime::Containerd));
    }
    if let Some(scope) = name.strip_suffix(".scope") {
        // `crio-conmon-<id>` is the monitor, not the container: not an id after `crio-`.
        let (id, runtime) = [
            ("cri-containerd-", Some(Runtime::Containerd)),
            ("crio-", Some(Runtime::CriO)),
            ("docker-", Some(Runtime::Docker)),
            ("libpod-", None),
        ]
        .into_iter()
        .find_map(|(prefix, runtime)| Some((scope.strip_prefix(prefix)?, runtime)))?;
        return found(id, runtime);
    }
    // CRI-O with the cgroupfs driver.
    if let Some(id) = name.strip_prefix("crio-") {
        return found(id, Some(Runtime::CriO));
    }
    // A bare id says container only where containers are kept; elsewhere it may be anything.
    match above {
        Some("docker") => found(name, Some(Runtime::Docker)),
        _ if in_pod => found(name, None),
        _ => None,
    }
}

/// A pod's uid and class from the pod's own name and that of the group above it.
fn pod(name: &str, above: Option<&str>) -> Option<(String, Qos)> {
    let name = name.split(':').next()?;
    if let Some(slice) = name.strip_suffix(".slice") {
        // systemd: `[prefix-]kubepods[-<qos>]-pod<uid with _>`
        let (head, uid) = slice.rsplit_once("-pod")?;
        let uid = uid.replace('_', "-");
        let qos = match head.rsplit_once("kubepods")? {
            (prefix, qos) if prefix.is_empty() || prefix.ends_with('-') => match qos {
                "" => Qos::Guaranteed,
                "-burstable" => Qos::Burstable,
                "-besteffort" => Qos::BestEffort,
                _ => return None,
            },
            _ => return None,
        };
        return is_uid(&uid).then_some((uid, qos));
    }
    // cgroupfs: `kubepods[/<qos>]/pod<uid>`
    let uid = name.strip_prefix("pod")?;
    let qos = match above? {
        "kubepods" => Qos::Guaranteed,
        "burstable" => Qos::Burstable,
        "besteffort" => Qos::BestEffort,
        _ => return None,
    };
    is_uid(uid).then(|| (uid.to_owned(), qos))
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// 8-4-4-4-12 hex digits, or a static pod's 32.
fn is_uid(text: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.len() {
        32 => hex(text),
        36 => text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && text.split('-').all(hex),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "8dbc5577-d0e2-4706-8787-57d52c03ddf2";
    const UID_: &str = "8dbc5577_d0e2_4706_8787_57d52c03ddf2";
    const STATIC: &str = "9d55ef9f8b1d8cb8a9c5e5e2a6f7d0c1";

    #[test]
    fn shapes() {
        use Qos::{BestEffort, Burstable, Guaranteed};
        use Runtime::{Containerd, CriO, Docker};
        let rows = [
            // cgroupfs driver: containerd leaves a bare id, every class, static pod
            (
                "/kubepods/burstable/pod{UID}/{ID}",
                Some(UID),
                Some(Burstable),
                Some(None),
            ),
            (
                "/kubepods/besteffort/pod{UID}/{ID}",
                Some(UID),
                Some(BestEffort),
                Some(None),
            ),
            ("/kubepods/pod{UID}/{ID}", Some(UID), Some(Guaranteed), Some(None)),
            (
                "/kubepods/burstable/pod{STATIC}/{ID}",
                Some(STATIC),
                Some(Burstable),
                Some(None),
            ),
            (
                "/kubepods/burstable/pod{UID}/crio-{ID}",
                Some(UID),
                Some(Burstable),
                Some(Some(CriO)),
            ),
            // systemd driver
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope",
                Some(UID),
                Some(BestEffort),
                Some(Some(Containerd)),
            ),
            (
                "/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope",
                Some(UID),
                Some(Guaranteed),
                Some(Some(Containerd)),
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/docker-{ID}.scope",
                Some(STATIC),
                Some(Burstable),
                Some(Some(Docker)),
            ),
            // CRI-O: the container may be a level below its scope; conmon is not the container
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/crio-{ID}.scope/container",
                Some(UID),
                Some(Burstable),
                Some(Some(CriO)),
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/crio-conmon-{ID}.scope",
                Some(UID),
                Some(Burstable),
                None,
            ),
            // systemd inside of a container
            (
                "/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope/init.scope",
                Some(UID),
                Some(Guaranteed),
                Some(Some(Containerd)),
            ),
            // containerd with systemd paths under a cgroupfs runc: one name for both
            (
                "/system.slice/containerd.service/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{ID}",
                Some(UID),
                Some(BestEffort),
                Some(Some(Containerd)),
            ),
            // kind: the node's own container is a prefix; kubelet's root is nested
            (
                "/docker/{ID2}/kubelet/kubepods/besteffort/pod{UID}/{ID}",
                Some(UID),
                Some(BestEffort),
                Some(None),
            ),
            (
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
                 kubelet-kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope",
                Some(UID),
                Some(Burstable),
                Some(Some(Containerd)),
            ),
            // no Kubernetes
            ("/system.slice/docker-{ID}.scope", None, None, Some(Some(Docker))),
            ("/docker/{ID}", None, None, Some(Some(Docker))),
            ("/machine.slice/libpod-{ID}.scope", None, None, Some(None)),
            ("/system.slice/docker.service", None, None, None),
            ("/user.slice/user-0.slice/session-1.scope", None, None, None),
            ("/", None, None, None),
            // look-alikes
            ("/user.slice/pod{UID}/{ID}", None, None, None),
            ("/{ID}", None, None, None),
            ("/kubepods/burstable/pod../{ID}", None, None, None),
            (
                "/kubepods/burstable/podzdbc5577-d0e2-4706-8787-57d52c03ddf2/{ID}",
                None,
                None,
                None,
            ),
            (
                "/notkubepods.slice/xkubepods-pod{UID_}.slice/cri-containerd-{ID}.scope",
                None,
                None,
                Some(Some(Containerd)),
            ),
            ("/kubepods/pod{UID}/{ID}0", Some(UID), Some(Guaranteed), None),
            (
                "/kubepods/pod{UID}/cri-containerd-.scope",
                Some(UID),
                Some(Guaranteed),
                None,
            ),
            ("/kubepods/pod{UID}/\u{202e}", Some(UID), Some(Guaranteed), None),
        ];
        let id2 = ID.replace('0', "1");
        for (path, uid, qos, container) in rows {
            let path = path
                .replace("{UID}", UID)
                .replace("{UID_}", UID_)
                .replace("{STATIC}", STATIC)
                .replace("{ID2}", &id2)
                .replace("{ID}", ID);
            let expected = Placement {
                container: container.map(|runtime| Container {
                    id: ID.to_owned(),
                    runtime,
                    name: None,
                }),
                pod_uid: uid.map(str::to_owned),
                qos,
            };
            assert_eq!(placement_of_path(&path), expected, "{path}");
        }
    }

    /// Pieces of real names in any order never stop it.
    #[test]
    fn hostile() {
        let pieces = [
            "pod",
            "-pod",
            ".slice",
            ":",
            "kubepods",
            "/",
            "cri-containerd-",
            UID,
            ID,
            "é",
            "\0",
            "..",
        ];
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            let mut path = String::new();
            for _ in 0..8 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                path.push_str(pieces[(seed >> 33) as usize % pieces.len()]);
            }
            placement_of_path(&path);
        }
    }
}
