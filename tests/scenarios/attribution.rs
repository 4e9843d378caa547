//! Who: processes that are gone at once, pods by control group, both ends of a local connection, many at once.

use std::{
    collections::HashSet,
    io::Read,
    net::{IpAddr, SocketAddr},
    process::Stdio,
};

use probe_lab::{
    Cgroup, Child, Family, Pair, PodLogs, Probe, accept_all, end, patience, the_record, unique_port,
};
use socket2::{Domain, Socket, Type};

/// `nc -z` lives a few milliseconds: every one of 50 is named, with its whole command line.
#[test]
fn a_process_that_exits_at_once() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    accept_all(pair.listen(Family::V4, port).unwrap());
    let probe = Probe::watch(&["--port", &port.to_string(), "--role", "client"]).unwrap();
    let server = Pair::server_ip(Family::V4).to_string();
    let mut pids = HashSet::new();
    for _ in 0..50 {
        let mut nc = pair.client.command("nc");
        let mut child = Child::spawn(nc.args(["-z", &server, &port.to_string()])).unwrap();
        pids.insert(u64::from(child.pid()));
        assert!(child.wait().unwrap().success());
    }
    probe.wait_for(50, |record| record["role"] == "client").unwrap();
    let run = probe.finish().unwrap();
    assert_eq!(run.records.len(), 50);
    let mut seen = HashSet::new();
    for record in &run.records {
        let process = &record["process"];
        seen.insert(process["pid"].as_u64().unwrap());
        assert_eq!(process["name"], "nc", "{record:#}");
        let command: Vec<&str> = process["command"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|a| a.as_str())
            .collect();
        assert_eq!(command, ["nc", "-z", &server, &port.to_string()], "{record:#}");
    }
    assert_eq!(seen, pids);
}

/// The pod is named after its process is gone and its control group removed.
#[test]
fn a_pod_that_is_gone() {
    let (pair, port, logs) = (Pair::new().unwrap(), unique_port(), PodLogs::new().unwrap());
    accept_all(pair.listen(Family::V4, port).unwrap());
    let arguments = [
        "--port",
        &port.to_string(),
        "--role",
        "client",
        "--pod-logs",
        logs.path(),
    ];
    let probe = Probe::watch(&arguments).unwrap();
    let cgroup = Cgroup::pod().unwrap();
    logs.add("monitoring", "sdp-monitor-z8989", &cgroup.pod_uid)
        .unwrap();
    let (uid, id) = (cgroup.pod_uid.clone(), cgroup.container_id.clone());
    let mut nc = pair.client.command("nc");
    nc.args(["-z", &Pair::server_ip(Family::V4).to_string(), &port.to_string()]);
    Child::spawn(cgroup.place(&mut nc)).unwrap().wait().unwrap();
    drop(cgroup);
    let records = probe.wait_for(1, |record| record["role"] == "client").unwrap();
    let record = &records[0];
    assert_eq!(record["process"]["name"], "nc", "{record:#}");
    assert_eq!(record["container"]["id"], id.as_str(), "{record:#}");
    let pod = &record["pod"];
    assert_eq!(
        (pod["namespace"].as_str(), pod["name"].as_str()),
        (Some("monitoring"), Some("sdp-monitor-z8989"))
    );
    assert_eq!(
        (pod["uid"].as_str(), pod["qos"].as_str()),
        (Some(uid.as_str()), Some("BestEffort")),
        "{record:#}"
    );
    assert_eq!(pod["source"], "pod-log-dir");
    probe.finish().unwrap();
}

/// `--pod` and `--namespace` select by name.
#[test]
fn filters_on_names() {
    let (pair, port, logs) = (Pair::new().unwrap(), unique_port(), PodLogs::new().unwrap());
    accept_all(pair.listen(Family::V4, port).unwrap());
    let port_text = port.to_string();
    let watch = |extra: &[&str]| {
        let mut arguments = vec![
            "--port",
            &port_text,
            "--role",
            "client",
            "--pod-logs",
            logs.path(),
        ];
        arguments.extend(extra);
        Probe::watch(&arguments).unwrap()
    };
    let (this, other) = (
        watch(&["--pod", "wanted", "--namespace", "shop"]),
        watch(&["--pod", "unwanted"]),
    );
    let cgroup = Cgroup::pod().unwrap();
    logs.add("shop", "wanted-1", &cgroup.pod_uid).unwrap();
    let mut nc = pair.client.command("nc");
    nc.args(["-z", &Pair::server_ip(Family::V4).to_string(), &port_text]);
    Child::spawn(cgroup.place(&mut nc)).unwrap().wait().unwrap();
    this.wait_for(1, |record| record["pod"]["name"] == "wanted-1")
        .unwrap();
    assert_eq!(other.finish().unwrap().records.len(), 0);
    this.finish().unwrap();
}

/// The accepting process is named, and the client's owner in the server's record, although they are not the same.
#[test]
fn both_ends_by_different_processes() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    let probe = Probe::watch(&["--port", &port.to_string()]).unwrap();
    let script = "import socket,sys\ns=socket.socket(); s.setsockopt(1,2,1); s.bind(('',int(sys.argv[1]))); s.listen()\n\
                  print('up',flush=True)\nwhile True:\n  c,_=s.accept(); c.recv(1); c.close()";
    let mut python = pair.server.command("python3");
    let mut server = Child::spawn(
        python
            .args(["-c", script, &port.to_string()])
            .stdout(Stdio::piped()),
    )
    .unwrap();
    server
        .inner()
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 3])
        .unwrap();
    let mut nc = pair.client.command("nc");
    let mut client =
        Child::spawn(nc.args(["-z", &Pair::server_ip(Family::V4).to_string(), &port.to_string()])).unwrap();
    let pid = client.pid();
    client.wait().unwrap();
    let records = probe.wait_for(1, |record| record["role"] == "server").unwrap();
    let record = &records[0];
    assert_eq!(record["process"]["pid"], server.pid(), "{record:#}");
    assert!(
        record["process"]["name"].as_str().unwrap().starts_with("python3"),
        "{record:#}"
    );
    assert_eq!(record["peer"]["process"]["pid"], pid, "{record:#}");
    assert_eq!(record["peer"]["process"]["name"], "nc", "{record:#}");
    probe.finish().unwrap();
}

/// 200 addresses at once: each is its own source, none is lost, none doubled.
#[test]
fn two_hundred_sources_at_once() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    accept_all(pair.listen(Family::V4, port).unwrap());
    let probe = Probe::watch(&["--port", &port.to_string()]).unwrap();
    let sources: Vec<IpAddr> = (1..=200).map(|n| IpAddr::from([10, 77, 2, n])).collect();
    let addresses = sources
        .iter()
        .map(|source| format!("addr add {source}/16 dev eth0"));
    pair.client.ip_each(addresses).unwrap();
    let server = SocketAddr::new(Pair::server_ip(Family::V4), port);
    let sockets = pair.client.enter(|| {
        let dial = |source: &IpAddr| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::new(*source, 0).into()).unwrap();
            socket.connect(&server.into()).unwrap();
            socket
        };
        sources.iter().map(dial).collect::<Vec<_>>()
    });
    drop(sockets.unwrap());
    for role in ["client", "server"] {
        probe.wait_for_most(200, |record| record["role"] == role).unwrap();
    }
    let run = probe.finish().unwrap();
    let sources: HashSet<IpAddr> = sources.into_iter().collect();
    let mut missing = 0;
    for role in ["client", "server"] {
        let records: Vec<_> = run
            .records
            .iter()
            .filter(|record| record["role"] == role)
            .collect();
        let seen: HashSet<IpAddr> = records
            .iter()
            .map(|record| end(record, "source").unwrap().ip())
            .collect();
        assert_eq!(records.len(), seen.len(), "{role}: one each");
        assert!(seen.is_subset(&sources), "{role}");
        assert!(records.iter().all(|record| record["outcome"] == "half-open"));
        missing += sources.len() - seen.len();
    }
    // What the kernel hides is counted.
    assert!(missing as u64 <= run.hidden(), "{missing}: {:#}", run.summary);
}

/// Servers that close first, one shortly after the other: their clients, who stay, are named at both.
#[test]
fn clients_that_stay_are_named() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    let listener = pair.listen(Family::V4, port).unwrap();
    let probe = Probe::watch(&["--port", &port.to_string(), "--role", "server", "--all"]).unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(pair.connect(Family::V4, port).unwrap());
        drop(listener.accept().unwrap());
        probe.wait_for(clients.len(), |_| true).unwrap();
    }
    let run = probe.finish().unwrap();
    for (_, source) in &clients {
        let record = the_record(&run, "server", *source);
        assert_eq!(record["peer"]["process"]["pid"], std::process::id(), "{record:#}");
    }
}

/// A beat of a quarter of a second is told after the third.
#[test]
fn cadence() {
    let (pair, port) = (Pair::new().unwrap(), unique_port());
    let listener = pair.listen(Family::V4, port).unwrap();
    let server = SocketAddr::new(Pair::server_ip(Family::V4), port);
    accept_all(listener);
    let probe = Probe::watch(&["--port", &port.to_string(), "--role", "client"]).unwrap();
    // Longer on a slow machine, whose beat is as uneven as it is slow.
    let every_ms = 250 * u64::from(patience());
    probe_lab::Monitor::run(&pair.client, server, every_ms as f64 / 1000.0, 6).unwrap();
    probe
        .wait_for(6, |record| record["outcome"] == "half-open")
        .unwrap();
    let run = probe.finish().unwrap();
    let counts: Vec<u64> = run
        .records
        .iter()
        .map(|record| record["count"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [1, 2, 3, 4, 5, 6]);
    assert!(
        run.records[..2]
            .iter()
            .all(|record| record.get("every_ms").is_none()),
        "{:#?}",
        run.records
    );
    let every = run.records[5]["every_ms"].as_u64().unwrap();
    assert!(
        (every_ms * 9 / 10..=every_ms * 6 / 5).contains(&every),
        "{every} ms"
    );
    let source = &run.summary["sources"][0];
    assert_eq!(source["count"], 6, "{:#}", run.summary);
}
