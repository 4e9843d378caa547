//! Pod names from the kubelet's log directories, `/var/log/pods/<namespace>_<name>_<uid>`: every pod of the node has
//! one, without any right in the cluster.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Pods kept. A node runs 110 by default, and at most some hundreds.
const MAX_PODS: usize = 4096;
/// How long a pod stays known after its directory is gone.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How often the directory is read at the most.
const RESCAN: Duration = Duration::from_secs(1);

/// The pods of a node by uid.
pub struct PodLogs {
    dir: PathBuf,
    pods: HashMap<String, Named>,
    scanned: Option<Instant>,
    /// Directories that did not fit in [`MAX_PODS`].
    overflow: u64,
}

struct Named {
    namespace: String,
    name: String,
    seen: Instant,
}

impl PodLogs {
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            pods: HashMap::new(),
            scanned: None,
            overflow: 0,
        }
    }

    /// Namespace and name; reads the directory again, at most once a second, if the uid is unknown.
    pub fn find(&mut self, uid: &str) -> Option<(&str, &str)> {
        if !self.pods.contains_key(uid) && self.scanned.is_none_or(|at| at.elapsed() >= RESCAN) {
            self.scan(Instant::now());
        }
        self.pods
            .get(uid)
            .map(|pod| (pod.namespace.as_str(), pod.name.as_str()))
    }

    /// Directories that did not fit.
    pub fn overflow(&self) -> u64 {
        self.overflow
    }

    fn scan(&mut self, now: Instant) {
        self.scanned = Some(now);
        // Not there: no kubelet here, or another path. Then no pod is named, which the caller counts.
        for name in directories(&self.dir) {
            let Some((namespace, pod, uid)) = parse(&name) else {
                continue;
            };
            if self.pods.len() >= MAX_PODS && !self.pods.contains_key(uid) {
                self.overflow += 1;
                continue;
            }
            let named = Named {
                namespace: namespace.to_owned(),
                name: pod.to_owned(),
                seen: now,
            };
            self.pods.insert(uid.to_owned(), named);
        }
        self.pods
            .retain(|_, pod| now.duration_since(pod.seen) < REMEMBERED);
    }
}

fn directories(dir: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
}

/// `<namespace>_<name>_<uid>`: none of the three has an underscore.
fn parse(directory: &str) -> Option<(&str, &str, &str)> {
    let mut parts = directory.split('_');
    let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let dns = |text: &str, longest| {
        (1..=longest).contains(&text.len())
            && text
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
    };
    let uid_fits =
        (1..=36).contains(&uid.len()) && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (parts.next().is_none() && dns(namespace, 63) && dns(name, 253) && uid_fits)
        .then_some((namespace, name, uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_names() {
        let uid = "8dbc5577-d0e2-4706-8787-57d52c03ddf2";
        for (directory, expected) in [
            (
                format!("monitoring_sdp-monitor-z8989_{uid}"),
                Some(("monitoring", "sdp-monitor-z8989", uid)),
            ),
            (
                "kube-system_etcd-node.example_9d55ef9f8b1d8cb8a9c5e5e2a6f7d0c1".to_owned(),
                Some((
                    "kube-system",
                    "etcd-node.example",
                    "9d55ef9f8b1d8cb8a9c5e5e2a6f7d0c1",
                )),
            ),
            (format!("a_b_c_{uid}"), None),
            (format!("a_{uid}"), None),
            (format!("_b_{uid}"), None),
            (format!("A_b_{uid}"), None),
            (format!("a_b\u{1b}[31m_{uid}"), None),
            (format!("{}_b_{uid}", "a".repeat(64)), None),
            ("a_b_xyz".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(&directory), expected, "{directory}");
        }
    }

    #[test]
    fn found_on_a_later_look_and_remembered_when_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut pods = PodLogs::new(dir.path().to_owned());
        assert_eq!(pods.find("0a"), None);
        let pod = dir.path().join("ns_pod_0a");
        fs::create_dir(&pod).unwrap();
        assert_eq!(pods.find("0a"), None, "not more than once a second");
        pods.scan(Instant::now());
        assert_eq!(pods.find("0a"), Some(("ns", "pod")));
        fs::remove_dir(&pod).unwrap();
        pods.scan(Instant::now());
        assert_eq!(pods.find("0a"), Some(("ns", "pod")));
        pods.scan(Instant::now() + REMEMBERED);
        assert_eq!(pods.find("0a"), None);
    }

    #[test]
    fn a_missing_directory_names_nobody() {
        assert_eq!(PodLogs::new(PathBuf::from("/nowhere")).find("0a"), None);
    }
}
