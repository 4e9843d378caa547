//! The incident on the real etcd: each line it logs has its record, and each record its line.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use probe_lab::{Cluster, Etcd, Monitor, Probe, end, unique_port, wait_until};

/// Below the 100 a second that etcd's log samples at.
const EVERY: f64 = 0.03;
const TIMES: u32 = 150;

#[test]
fn every_rejected_line_has_its_record() {
    let cluster = Cluster::new().unwrap();
    let etcd = Etcd::start(&cluster.alpha.netns, cluster.alpha.address, unique_port()).unwrap();
    let (near, far) = (cluster.alpha.pod(2).unwrap(), cluster.beta.pod(2).unwrap());
    let probe = Probe::watch(&["--port", &etcd.address.port().to_string(), "--all"]).unwrap();

    std::thread::scope(|scope| {
        for pod in [&near, &far] {
            let address = etcd.address;
            scope.spawn(move || Monitor::run(&pod.netns, address, EVERY, TIMES).unwrap());
        }
        // Between them, what etcd does not reject.
        for pod in [&near, &far] {
            assert!(etcd.request(&pod.netns).unwrap().contains("etcdserver"));
        }
    });
    let eof = || -> Vec<SocketAddr> {
        let rejected = etcd
            .rejected()
            .into_iter()
            .filter(|rejected| rejected.error == "EOF");
        rejected.map(|rejected| rejected.peer).collect()
    };
    let expected = 2 * TIMES as usize;
    let lines = wait_until(
        "etcd logs every rejected connection",
        Duration::from_secs(20),
        || Some(eof()).filter(|lines| lines.len() >= expected),
    )
    .unwrap();
    probe
        .wait_for_most(expected, |record| {
            record["role"] == "server" && record["outcome"] == "half-open"
        })
        .unwrap();
    let run = probe.finish().unwrap();

    let mut balance: BTreeMap<SocketAddr, i32> = BTreeMap::new();
    for peer in &lines {
        *balance.entry(*peer).or_default() += 1;
    }
    let server = || run.records.iter().filter(|record| record["role"] == "server");
    for record in server().filter(|record| record["outcome"] == "half-open") {
        *balance.entry(end(record, "source").unwrap()).or_default() -= 1;
        assert_eq!(record["process"]["pid"], etcd.pid(), "{record:#}");
        assert_eq!(record["process"]["name"], "etcd", "{record:#}");
    }
    balance.retain(|_, lines| *lines != 0);
    // More lines than records are positive, more records than lines negative. Each end that the kernel hid is counted.
    assert!(
        balance.values().all(|lines| *lines == 1) && balance.len() as u64 <= run.hidden(),
        "{balance:?}, {:#}",
        run.summary
    );

    // What etcd served is closed, not half-open; the pod on etcd's node is seen as itself, the other as its node.
    let others = server().filter(|record| record["outcome"] != "half-open" && record["outcome"] != "open");
    assert!(
        (2_u64.saturating_sub(run.hidden())..=2).contains(&(others.count() as u64)),
        "{:#?}",
        run.records
    );
    assert!(lines.iter().any(|peer| peer.ip() == near.address));
    assert!(lines.iter().any(|peer| peer.ip() == cluster.beta.address));
    assert!(!lines.iter().any(|peer| peer.ip() == far.address));
    // The monitor itself is known at both ends: as client everywhere, as peer where no address was translated.
    for record in server().filter(|record| end(record, "source").unwrap().ip() == near.address) {
        let name = record["peer"]["process"]["name"].as_str();
        assert!(name.is_some_and(|name| name.starts_with("python3")), "{record:#}");
    }
    let clients = run
        .records
        .iter()
        .filter(|record| record["role"] == "client" && record["outcome"] == "half-open");
    let (clients, expected) = (clients.count() as u64, expected as u64);
    assert!(
        clients <= expected && clients + run.hidden() >= expected,
        "{clients}: {:#}",
        run.summary
    );
}
