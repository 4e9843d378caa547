//! Who sends nothing to etcd is named, from the kernel and from etcd's own log.

use std::{fs, io::Write as _, sync::atomic::Ordering, time::Duration};

use jiff::{SignedDuration, Timestamp};
use probe_lab::{Family, Monitor, Pair, accept_all, wait_until};

use crate::{all, doctor, fault};

const PORT: u16 = 2379;

#[test]
fn etcd() {
    let pair = Pair::new().unwrap();
    let closed = accept_all(pair.listen(Family::V4, PORT).unwrap());
    // The machine's other scenarios may dial such a port, too: what is said of this one counts.
    let server = format!("{}:{PORT}", Pair::server_ip(Family::V4));
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("var/log/pods/kube-system_etcd-alpha_1/etcd");
    fs::create_dir_all(&directory).unwrap();
    let at_root = ["--root", root.path().to_str().unwrap()];

    // A client that sends something.
    let (mut client, _) = pair.connect(Family::V4, PORT).unwrap();
    client.write_all(b"x").unwrap();
    drop(client);
    let answer = doctor(&pair.server, "etcd", &at_root);
    assert!(
        !answer.to_string().contains(&server) || !answer.to_string().contains("half-open"),
        "{answer:#}"
    );
    assert_ne!(answer["verdict"], "not-applicable", "{answer:#}");

    // The incident's.
    let monitor = Monitor::start(&pair.client, server.parse().unwrap(), 0.5, None).unwrap();
    let before = closed.load(Ordering::Relaxed);
    wait_until("the monitor dials", Duration::from_secs(20), || {
        (closed.load(Ordering::Relaxed) > before).then_some(())
    })
    .unwrap();
    let answer = doctor(&pair.server, "etcd", &at_root);
    let found = fault(&answer, &format!("python3 (pid {})", monitor.pid()));
    let evidence = all(&found["evidence"]);
    assert!(
        evidence.contains(&server) && evidence.contains("every 0.5 s"),
        "{answer:#}"
    );
    assert!(all(&found["fixes"]).contains("GET /health"), "{answer:#}");
    drop(monitor);
    drop(closed);

    // Its log knows of one that comes more seldom than a doctor waits.
    let mut log = fs::File::create(directory.join("0.log")).unwrap();
    for minute in (1..6).rev() {
        let time = Timestamp::now()
            .checked_sub(SignedDuration::from_mins(minute))
            .unwrap();
        writeln!(
            log,
            "{time} stderr F {{\"level\":\"warn\",\"ts\":\"{time}\",\"msg\":\"rejected connection\",\"remote-addr\":\
             \"192.168.88.12:6213{minute}\",\"server-name\":\"\",\"error\":\"EOF\"}}"
        )
        .unwrap();
    }
    let answer = doctor(&pair.server, "etcd", &at_root);
    assert_eq!(answer["verdict"], "failed", "{answer:#}");
    assert!(
        answer
            .to_string()
            .contains("5 times rejected from 192.168.88.12 (EOF), every 60.0 s"),
        "{answer:#}"
    );
}
