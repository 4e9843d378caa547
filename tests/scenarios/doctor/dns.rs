//! A node whose resolver changes under running pods, and servers that do not answer.

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use probe_lab::{Cgroup, Child, Cluster, Files, Netns, wait_until};
use serde_json::Value;

/// A process in a pod's control group, with the pod's own /etc/resolv.conf, that waits.
fn pod(cgroup: &Cgroup, files: &Files, script: &str) -> Child {
    let own = files.path("pod.conf");
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-ec", script, "sh"]).arg(own);
    let mut child = Child::spawn(cgroup.place(&mut command)).unwrap();
    // All it does before it waits is done when it waits.
    let name = format!("/proc/{}/comm", child.inner().id());
    wait_until("the pod waits", Duration::from_secs(20), || {
        (fs::read_to_string(&name).ok()?.trim() == "sleep").then_some(())
    })
    .unwrap();
    child
}

const MOUNTED: &str = r#"mount --bind "$1" /etc/resolv.conf; exec sleep 300"#;

fn look(files: &Files, netns: &Netns) -> Value {
    files
        .doctor("dns", netns, &["--cri", "none", "--duration", "1s"])
        .unwrap()
}

/// Evidence and what else is said of one pod.
fn told_of(answer: &Value, uid: &str) -> Option<String> {
    let faults = answer["findings"].as_array().unwrap().iter();
    faults.map(Value::to_string).find(|fault| fault.contains(uid))
}

#[test]
fn the_node_moved_and_its_pods_did_not() {
    let (netns, files, cgroup) = (
        Netns::new("node").unwrap(),
        Files::new().unwrap(),
        Cgroup::pod().unwrap(),
    );
    files
        .write(
            "/var/lib/kubelet/config.yaml",
            "kind: KubeletConfiguration\nclusterDNS: [10.96.0.10]\nresolvConf: /etc/resolv.conf\n",
        )
        .unwrap();
    // As systemd-resolved has it: a link, and an absolute one.
    files
        .write("/run/resolve/resolv.conf", "nameserver 192.0.2.53\n")
        .unwrap();
    fs::create_dir_all(files.path("/etc")).unwrap();
    std::os::unix::fs::symlink("/run/resolve/resolv.conf", files.path("/etc/resolv.conf")).unwrap();
    files.write("/pod.conf", "nameserver 192.0.2.53\n").unwrap();
    let logs = files.path(&format!("/var/log/pods/shop_cart-0_{}", cgroup.pod_uid));
    fs::create_dir_all(logs).unwrap();
    let _pod = pod(&cgroup, &files, MOUNTED);
    let seen = || {
        let answer = look(&files, &netns);
        let count = answer["summary"].as_str().unwrap();
        (!count.contains("resolv.conf of 0 pods")).then_some(answer)
    };
    let answer = wait_until("the pod is there", Duration::from_secs(20), seen).unwrap();
    assert_eq!(told_of(&answer, "cart-0"), None, "{answer:#}");

    // Later than the pod's file, by the clock that the kernel gives files their times with.
    let changed = |path: &str| fs::metadata(files.path(path)).unwrap().modified().unwrap();
    wait_until("the node's file is newer", Duration::from_secs(20), || {
        files
            .write("/run/resolve/resolv.conf", "nameserver 192.0.2.54\n")
            .unwrap();
        (changed("/run/resolve/resolv.conf") > changed("/pod.conf")).then_some(())
    })
    .unwrap();
    let answer = look(&files, &netns);
    assert_eq!(answer["verdict"], "failed", "{answer:#}");
    let fault = told_of(&answer, "shop/cart-0 has 192.0.2.53").unwrap_or_else(|| panic!("{answer:#}"));
    assert!(
        fault.contains("the node has 192.0.2.54 (/etc/resolv.conf)"),
        "{fault}"
    );
    assert!(fault.contains("kubectl -n shop delete pod cart-0"), "{fault}");
}

#[test]
fn a_pod_that_lays_traps() {
    let (netns, files) = (Netns::new("node").unwrap(), Files::new().unwrap());
    files
        .write("/var/lib/kubelet/config.yaml", "clusterDNS: [10.96.0.10]\n")
        .unwrap();
    files
        .write("/etc/resolv.conf", "nameserver 192.0.2.54\n")
        .unwrap();
    files.write("/pod.conf", "").unwrap();
    // In a root of its own: nothing to write to a FIFO, a link out of it, and one that never ends.
    for trap in [
        r#"mkfifo "$d/etc/resolv.conf""#,
        r#"ln -s /proc/1/root/etc/resolv.conf "$d/etc/resolv.conf""#,
        r#"ln -s ../../../../../../../../etc/resolv.conf "$d/etc/resolv.conf""#,
        r#"ln -s /dev/zero "$d/etc/resolv.conf""#,
    ] {
        let cgroup = Cgroup::pod().unwrap();
        let script = format!(
            r#"d=$(mktemp -d); mount -t tmpfs none "$d"; mkdir -p "$d/etc" "$d/bin" "$d/lib" "$d/lib64" "$d/usr" "$d/proc"
            mount --rbind /usr "$d/usr"; mount --rbind /bin "$d/bin"; mount --rbind /lib "$d/lib"
            [ ! -e /lib64 ] || mount --rbind /lib64 "$d/lib64"; mount -t proc none "$d/proc"; {trap}
            exec chroot "$d" sleep 300"#
        );
        let _pod = pod(&cgroup, &files, &script);
        let answer = look(&files, &netns);
        assert_eq!(told_of(&answer, &cgroup.pod_uid), None, "{trap}: {answer:#}");
    }
}

/// Queries as a resolver sends them, until it is dropped.
struct Asker(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Asker {
    fn of(netns: &Netns, server: &'static str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let asks = move || {
            for id in 1u16.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                let [high, low] = id.to_be_bytes();
                let query = [
                    &[high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..],
                    b"\x04cart\x00\x00\x01\x00\x01",
                ]
                .concat();
                let _ = socket.send_to(&query, server);
                std::thread::sleep(Duration::from_millis(100));
            }
        };
        Self(stop, Some(netns.spawn(asks).unwrap()))
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn a_server_that_does_not_answer() {
    let (cluster, files) = (Cluster::new().unwrap(), Files::new().unwrap());
    files
        .write("/var/lib/kubelet/config.yaml", "clusterDNS: [10.96.0.10]\n")
        .unwrap();
    files
        .write("/etc/resolv.conf", "nameserver 192.0.2.54\n")
        .unwrap();
    let (client, server) = (cluster.alpha.pod(5).unwrap(), cluster.beta.pod(7).unwrap());
    let socket = server
        .netns
        .enter(|| UdpSocket::bind("0.0.0.0:53"))
        .unwrap()
        .unwrap();
    let inode = fs::metadata(format!("/run/netns/{}", client.netns.name()))
        .unwrap()
        .ino();
    let who = format!("network namespace {inode}: ");
    let look = || {
        files
            .doctor(
                "dns",
                &cluster.alpha.netns,
                &["--cri", "none", "--duration", "4s"],
            )
            .unwrap()
    };

    let asker = Asker::of(&client.netns, "10.244.2.7:53");
    let answer = look();
    let fault = told_of(&answer, &who).unwrap_or_else(|| panic!("{answer:#}"));
    assert!(fault.contains("to 10.244.2.7:53 without an answer"), "{fault}");
    assert!(fault.contains(r#""severity":"failed""#), "{fault}");

    // Now it answers.
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let (stopped, has) = (Arc::clone(&stop), Arc::clone(&answered));
    let answering = std::thread::spawn(move || {
        let mut query = [0; 512];
        while !stopped.load(Ordering::Relaxed) {
            if let Ok((length, from)) = socket.recv_from(&mut query) {
                query[2] |= 0x80;
                let _ = socket.send_to(&query[..length], from);
                has.store(true, Ordering::Relaxed);
            }
        }
    });
    wait_until("answers have begun", Duration::from_secs(20), || {
        answered.load(Ordering::Relaxed).then_some(())
    })
    .unwrap();
    let answer = look();
    assert_eq!(told_of(&answer, &who), None, "{answer:#}");
    assert!(
        !answer["summary"].as_str().unwrap().contains("no DNS query"),
        "{answer:#}"
    );
    stop.store(true, Ordering::Relaxed);
    answering.join().unwrap();
    drop(asker);
}
