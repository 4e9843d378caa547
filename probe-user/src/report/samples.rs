//! Records to try the output on.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::model::{
    Cadence, Cause, CommandLine, Connection, Container, Node, Outcome, Owner, Pod, PodSource, Process,
    ProcessSource, Qos, Role, Runtime, Secrets, Summary,
    cause::CauseKind,
    connection::{Payload, Unacknowledged},
    finding::Fix,
    owner::NodeSource,
    summary::{Row, Tally},
    tls::{Alert, ClientHello, FirstMessage, Incomplete, Protocol, ServerHello, Tls, Version, Why},
    translation::Untranslated,
    unlisted_time::UnlistedTime,
    workload::{Workload, WorkloadSource},
};

const ID: &str = "4f5e6d7c8b9a0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796";
const UID: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";

/// A time in which connections were counted by source only, and lost.
pub fn unlisted() -> UnlistedTime {
    UnlistedTime {
        since: time(),
        until: time() + Duration::from_secs(1),
        aggregated: 48_000,
        lost: 3,
    }
}

pub fn host(name: &str, pid: u32) -> Owner {
    Owner {
        process: Some(Process {
            pid,
            name: name.to_owned(),
            command: CommandLine::new(vec![name.to_owned(), "--verbose".to_owned()], Secrets::Hidden),
            command_cut: false,
            started: None,
            executable: Some(format!("/usr/bin/{name}")),
            uid: Some(0),
            source: ProcessSource::Kernel,
        }),
        ..Owner::default()
    }
}

pub fn container(name: &str, pid: u32) -> Owner {
    let container = Container {
        id: ID.to_owned(),
        runtime: Some(Runtime::Docker),
        name: None,
    };
    Owner {
        container: Some(container),
        ..host(name, pid)
    }
}

pub fn unnamed_pod(name: &str, pid: u32) -> Owner {
    let container = Container {
        id: ID.to_owned(),
        runtime: Some(Runtime::Containerd),
        name: None,
    };
    let pod = Pod {
        uid: UID.to_owned(),
        namespace: None,
        name: None,
        qos: Some(Qos::BestEffort),
        workload: None,
        labels: None,
        address_since: None,
        source: PodSource::Cgroup,
    };
    Owner {
        container: Some(container),
        pod: Some(pod),
        ..host(name, pid)
    }
}

pub fn pod(namespace: &str, name: &str, process: &str, pid: u32) -> Owner {
    let mut owner = unnamed_pod(process, pid);
    if let Some(pod) = &mut owner.pod {
        pod.namespace = Some(namespace.to_owned());
        pod.name = Some(name.to_owned());
        pod.source = PodSource::PodLogDir;
    }
    owner
}

pub fn time() -> Timestamp {
    "2026-11-23T09:10:14.145123Z".parse().unwrap()
}

pub fn cadence(count: u64, every: f64, spread: f64) -> Option<Cadence> {
    Some(Cadence {
        count,
        every: Some(Duration::from_secs_f64(every)).filter(|every| !every.is_zero()),
        spread: Duration::from_secs_f64(spread),
        ..Cadence::default()
    })
}

/// The one line that no other tool prints.
pub fn incident() -> Connection {
    let mut owner = pod("monitoring", "sdp-monitor-z8989", "python3.11", 4242);
    let arguments = ["python3.11", "/app/monitor.py", "--target", "etcd 1"].map(str::to_owned);
    owner.process.as_mut().unwrap().command = CommandLine::new(arguments.to_vec(), Secrets::Hidden);
    let (source, destination) = ("10.244.2.2:41234", "192.168.88.11:2379");
    Connection {
        duration: Duration::from_micros(412),
        payload: Some(Payload { sent: 0, received: 0 }),
        netns: 4_026_532_401,
        owner: Arc::new(owner),
        cadence: cadence(12, 5.0, 0.0),
        ..Connection::new(
            time(),
            Role::Client,
            Outcome::HalfOpen,
            source.parse().unwrap(),
            destination.parse().unwrap(),
        )
    }
}

/// One that failed, and why; hostile.
pub fn failed() -> Connection {
    Connection {
        outcome: Outcome::Unanswered,
        cause: Some(Box::new(cause())),
        unacknowledged: Some(Unacknowledged {
            bytes: 4000,
            segment_bytes: 1430,
            timeouts: 4,
            sacked_segments: 1,
        }),
        ..incident()
    }
}

pub fn cause() -> Cause {
    Cause {
        kind: CauseKind::Untracked,
        what: "packets left untranslated: exempted by \x1b[2Jrule 1".to_owned(),
        rule: Some("rule 1".to_owned()),
        service: Some("shop/web:https".to_owned()),
        reason: None,
        fixes: vec![
            Fix::run(["iptables", "-D", "$(reboot)"], "now"),
            Fix::text("Or\nnot"),
        ],
        certain: true,
    }
}

/// The server's end of the same, on the same node.
pub fn both_ends() -> Connection {
    let client = incident();
    Connection {
        role: Role::Server,
        netns: 4_026_531_840,
        owner: Arc::new(host("etcd", 812)),
        peer: Some(client.owner.clone()),
        ..client
    }
}

/// Fifteen records of every kind.
pub fn all() -> Vec<Connection> {
    let base = incident();
    let etcd = Arc::new(host("etcd", 812));
    let etcd_pod = Arc::new(pod("kube-system", "etcd-cp-1.example.internal", "etcd", 1203));
    let record = |outcome, owner: Owner, source: &str, destination: &str, cadence| Connection {
        outcome,
        owner: Arc::new(owner),
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        cadence,
        ..base.clone()
    };
    let (local, other, v6) = (
        "10.244.2.2:41240",
        "192.168.88.12:62134",
        "[fd00:10:244:2::1f3a]:51822",
    );
    let (first, second, v6_etcd) = (
        "192.168.88.11:2379",
        "192.168.88.12:2379",
        "[fd00:192:168:88::11]:2379",
    );
    let deployment = pod("shop", "checkout-api-7c9d8b6f5-x2x4z", "node", 31337);
    let payload = |sent, received| Some(Payload { sent, received });
    let mut all = vec![
        base.clone(),
        both_ends(),
        Connection {
            role: Role::Server,
            owner: etcd.clone(),
            ..record(
                Outcome::HalfOpen,
                host("", 0),
                other,
                first,
                cadence(31, 60.0, 0.1),
            )
        },
        Connection {
            role: Role::Server,
            owner: etcd_pod,
            ..record(
                Outcome::HalfOpenReset,
                host("", 0),
                other,
                second,
                cadence(2, 0.0, 0.0),
            )
        },
        record(
            Outcome::Refused,
            host("curl", 99_871),
            "192.168.88.12:50022",
            second,
            None,
        ),
        Connection {
            payload: payload(184, 92_311),
            duration: Duration::from_millis(3),
            ..record(
                Outcome::Closed,
                deployment.clone(),
                local,
                first,
                cadence(1440, 0.25, 0.012),
            )
        },
        Connection {
            payload: payload(517, 0),
            duration: Duration::from_secs(10),
            ..record(Outcome::NoReply, deployment, local, second, cadence(3, 10.0, 0.3))
        },
        Connection {
            duration: Duration::from_secs(127),
            ..record(
                Outcome::Unanswered,
                container("nc", 4410),
                "172.17.0.2:50412",
                "10.0.0.9:2379",
                cadence(5, 900.0, 6.0),
            )
        },
        record(
            Outcome::Unreachable,
            host("etcdctl", 771),
            "0.0.0.0:0",
            "10.99.0.1:2379",
            None,
        ),
        Connection {
            role: Role::Server,
            duration: Duration::from_secs(63),
            owner: etcd.clone(),
            ..record(
                Outcome::SynOnly,
                host("", 0),
                "203.0.113.217:51022",
                first,
                cadence(4, 0.0, 0.0),
            )
        },
        record(
            Outcome::HalfOpen,
            unnamed_pod("probe.sh", 5120),
            v6,
            v6_etcd,
            cadence(12, 2.0, 0.0),
        ),
        record(
            Outcome::HalfOpen,
            host("evil\x1b[2J\n\u{202e}x", 666),
            local,
            first,
            cadence(2, 0.0, 0.0),
        ),
        Connection {
            payload: payload(1_200_000, 40),
            duration: Duration::from_secs(5),
            ..record(
                Outcome::ResetByServer,
                pod("kube-system", "kube-apiserver-cp-1", "kube-apiserver", 1501),
                "127.0.0.1:33010",
                "127.0.0.1:2379",
                None,
            )
        },
        Connection {
            payload: None,
            duration: Duration::from_secs(86_400),
            ..record(
                Outcome::Open,
                pod("kube-system", "kube-apiserver-cp-1", "kube-apiserver", 1501),
                "127.0.0.1:33012",
                "127.0.0.1:2379",
                None,
            )
        },
        record(Outcome::TimedOut, Owner::default(), local, second, None),
    ];
    for (index, record) in all.iter_mut().enumerate() {
        record.time = time() + Duration::from_millis(index as u64 * 331);
    }
    all
}

/// Every field that JSON has, at least once: a test holds it to that.
pub fn every_field() -> Vec<Connection> {
    let address = |text: &str| Some(text.parse().unwrap());
    let mut translated = incident();
    translated.seen_as = address("192.168.88.12:62134");
    translated.dialled = address("[fd00::1]:2379");
    let mut least = incident();
    (least.owner, least.payload, least.cadence, least.netns) = (Arc::default(), None, None, 0);
    least.source = "0.0.0.0:0".parse().unwrap();
    let mut no_port = incident();
    no_port.source.set_port(0);
    let mut owner = pod("shop", "web-0", "nginx", 7);
    let pod = owner.pod.as_mut().unwrap();
    pod.workload = Some(Workload {
        kind: "StatefulSet".into(),
        name: "web".to_owned(),
        source: WorkloadSource::Labels,
    });
    pod.address_since = "2026-11-23T08:00:00.5Z".parse().ok();
    owner.container.as_mut().unwrap().name = Some("nginx".to_owned());
    owner.process.as_mut().unwrap().command_cut = true;
    owner.process.as_mut().unwrap().started = "2026-11-23T08:00:01.123Z".parse().ok();
    let mut of_node = incident();
    of_node.peer = Some(Arc::new(Owner {
        node: Some(Node {
            name: "alpha".to_owned(),
            source: NodeSource::KubeApi,
        }),
        ..Owner::default()
    }));
    let mut twice = incident();
    twice.cadence = Some(Cadence {
        per_interval: Some(2),
        also: Some(Duration::from_secs(7)),
        ..cadence(12, 5.0, 0.0).unwrap()
    });
    let mut every = vec![translated, least, no_port, of_node, twice, failed()];
    every.push(Connection {
        owner: Arc::new(owner),
        ..incident()
    });
    let untranslated = Untranslated::ALL.map(|reason| Connection {
        untranslated: Some(reason),
        ..incident()
    });
    every.extend(untranslated);
    every.extend(tls().into_iter().map(|tls| Connection {
        tls: Some(Box::new(tls)),
        ..incident()
    }));
    every.extend(all());
    every
}

pub fn summary() -> Summary {
    let mut rows: Vec<_> = all()
        .iter()
        .map(|record| {
            Row::new(
                record,
                record.cadence.unwrap_or(Cadence {
                    count: 1,
                    ..Cadence::default()
                }),
            )
        })
        .collect();
    let once = Cadence {
        count: 1,
        ..Cadence::default()
    };
    let more: Vec<_> = (1..=10)
        .map(|last| Row {
            cadence: once,
            client: [10, 244, 3, last].into(),
            ..rows[2].clone()
        })
        .collect();
    rows.extend(more);
    Summary {
        started: time(),
        ended: time() + Duration::from_secs(20),
        watched: "server port 2379".to_owned(),
        counted: 1540,
        reported: 1528,
        aggregated: 0,
        rows,
        causes: Vec::new(),
        losses: vec![
            Tally {
                name: "records",
                what: "records lost, the ring was full (--ring-size; counts stay exact)",
                count: 12,
            },
            Tally {
                name: "connections",
                what: "connections not followed, the table was full (--max-connections)",
                count: 0,
            },
        ],
        misses: vec![Tally {
            name: "pods",
            what: "connections of a pod whose name is not in /var/log/pods",
            count: 3,
        }],
    }
}

/// Every shape of what a connection begins with.
pub fn tls() -> Vec<Tls> {
    let client = ClientHello {
        server_name: Some("shop.example".to_owned()),
        alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
        versions: vec![Version(0x0304), Version(0x0303), Version(0x7f17)],
    };
    let nameless = ClientHello {
        server_name: None,
        alpn: Vec::new(),
        versions: vec![Version(0x0303)],
    };
    let server = ServerHello {
        version: Version(0x0304),
        alpn: None,
    };
    let older = ServerHello {
        version: Version(0x0303),
        alpn: Some("h2\x1b[2J".to_owned()),
    };
    let alert = |from, fatal, code| Alert { from, fatal, code };
    let part = |seen, of, why| Incomplete { seen, of, why };
    let of = |client, server, alerts| Tls {
        client,
        server,
        alerts,
    };
    vec![
        of(
            FirstMessage::Hello(client.clone()),
            FirstMessage::Hello(server),
            Vec::new(),
        ),
        of(
            FirstMessage::Hello(client.clone()),
            FirstMessage::Hello(older.clone()),
            vec![alert(Role::Client, true, 48)],
        ),
        of(
            FirstMessage::Hello(nameless),
            FirstMessage::Hello(ServerHello { alpn: None, ..older }),
            Vec::new(),
        ),
        of(
            FirstMessage::Hello(client.clone()),
            FirstMessage::Nothing,
            Vec::new(),
        ),
        of(
            FirstMessage::Hello(client),
            FirstMessage::Nothing,
            vec![alert(Role::Server, true, 70), alert(Role::Server, false, 200)],
        ),
        of(
            FirstMessage::Other(Protocol::Http),
            FirstMessage::Other(Protocol::Unknown),
            Vec::new(),
        ),
        of(
            FirstMessage::Incomplete(part(100, Some(517), Why::Cut)),
            FirstMessage::Nothing,
            Vec::new(),
        ),
        of(
            FirstMessage::Incomplete(part(2, None, Why::Cut)),
            FirstMessage::Incomplete(part(0, None, Why::Unseen)),
            Vec::new(),
        ),
        of(
            FirstMessage::Incomplete(part(1400, Some(1800), Why::Unseen)),
            FirstMessage::Incomplete(part(60, Some(60), Why::Malformed)),
            Vec::new(),
        ),
    ]
}
