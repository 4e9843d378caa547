use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct Kernel;

impl KernelNames for Kernel {
    fn cgroup_names(&self, id: u64) -> Option<Vec<String>> {
        (id == 7).then(|| {
            [ID, "pod0123456789abcdef0123456789abcdef", "burstable", "kubepods"]
                .map(str::to_owned)
                .to_vec()
        })
    }

    fn command(&self, pid: u32, _: u64) -> Option<KernelCommand> {
        (pid == 42).then(|| KernelCommand {
            arguments: vec!["nc".to_owned(), "-z".to_owned()],
            cut: false,
        })
    }
}

fn task(pid: u32, cgroup: u64) -> Task {
    let mut name = [0; 16];
    name[..2].copy_from_slice(b"nc");
    Task {
        cgroup,
        start_boot_ns: 1,
        pid,
        uid: 1000,
        name,
    }
}

fn attribution() -> (tempfile::TempDir, Attribution) {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths {
        proc: dir.path().join("proc"),
        pod_logs: dir.path().join("pods"),
    };
    std::fs::create_dir(&paths.proc).unwrap();
    std::fs::create_dir(&paths.pod_logs).unwrap();
    (dir, Attribution::new(paths, None, None))
}

#[test]
fn a_process_already_gone_has_what_the_kernel_took() {
    let (dir, mut attribution) = attribution();
    std::fs::create_dir(dir.path().join("pods/ns_pod_0123456789abcdef0123456789abcdef")).unwrap();
    let owner = attribution.owner(&task(42, 7), 0, &Kernel);
    let process = owner.process.as_ref().unwrap();
    assert_eq!(
        (process.name.as_str(), process.pid, process.uid),
        ("nc", 42, Some(1000))
    );
    assert_eq!(process.command, ["nc", "-z"]);
    assert_eq!(owner.container.as_ref().unwrap().id, ID);
    let pod = owner.pod.as_ref().unwrap();
    assert_eq!(
        (pod.namespace.as_deref(), pod.name.as_deref()),
        (Some("ns"), Some("pod"))
    );
    assert_eq!(pod.source, PodSource::PodLogDir);
    assert!(Arc::ptr_eq(&owner, &attribution.owner(&task(42, 7), 0, &Kernel)));
    assert_eq!(attribution.misses(), Misses::default());
}

#[test]
fn what_is_not_known_is_counted_and_not_made_up() {
    let (_dir, mut attribution) = attribution();
    let mut owner = attribution.owner(&task(43, 7), 0, &Kernel);
    attribution.last_look(&mut owner, 0);
    assert!(owner.process.as_ref().unwrap().command.is_empty());
    let pod = owner.pod.as_ref().unwrap();
    assert_eq!((&pod.name, pod.source), (&None, PodSource::Cgroup));
    assert_eq!(attribution.owner(&task(0, 0), 0, &Kernel), Arc::default());
    assert!(attribution.owner(&task(0, 7), 0, &Kernel).container.is_some());
    assert_eq!(attribution.listener(1, "1.2.3.4:5".parse().unwrap()), None);
    let misses = attribution.misses();
    assert_eq!((misses.processes, misses.pods, misses.listeners), (1, 1, 1));
}

/// `cargo test --release -p probe-user cost -- --ignored --nocapture`
#[test]
#[ignore = "measures, asserts nothing"]
fn cost() {
    let (_dir, mut attribution) = attribution();
    let start = Instant::now();
    for _ in 0..1_000_000 {
        std::hint::black_box(attribution.owner(&task(42, 0), 0, &Kernel));
    }
    println!(
        "{} ns an owner already known",
        start.elapsed().as_nanos() / 1_000_000
    );
}
