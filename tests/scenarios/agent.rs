//! `probe agent`: what it saw it remembers, tells who asks, counts and logs, whatever fails or floods it.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, Instant},
};

use probe_lab::{
    Agent, Close, Netns, Shop, Storm, accept_all, end, patience, shell, unique_port, wait_until,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
/// Held alone by a scenario that floods: every agent on this kernel sees it, and is busy.
static CALM: RwLock<()> = RwLock::new(());

/// A node with a server on loopback.
struct Node {
    netns: Netns,
    server: SocketAddr,
    _calm: Option<RwLockReadGuard<'static, ()>>,
}

impl Node {
    /// While nobody floods.
    fn new() -> Self {
        let calm = CALM.read().unwrap_or_else(PoisonError::into_inner);
        Self {
            _calm: Some(calm),
            ..Self::flooded()
        }
    }

    /// One whose scenario floods, and holds [`CALM`].
    fn flooded() -> Self {
        let netns = Netns::new("node").unwrap();
        let server = SocketAddr::from(([127, 0, 0, 1], unique_port()));
        let listener = netns.enter(|| TcpListener::bind(server)).unwrap().unwrap();
        accept_all(listener);
        Self {
            netns,
            server,
            _calm: None,
        }
    }

    /// Connects, sends nothing and closes; its address.
    fn half_opens(&self) -> SocketAddr {
        let stream = self.netns.enter(|| TcpStream::connect(self.server)).unwrap();
        stream.unwrap().local_addr().unwrap()
    }

    fn config(&self) -> String {
        format!("[watch]\nports = [{}]\n", self.server.port())
    }
}

fn connections(agent: &Agent<'_>, query: &str) -> Vec<Value> {
    let answer = agent
        .get(Agent::QUERY, &format!("/v1/connections{query}"))
        .unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut lines = answer.lines().unwrap();
    assert_eq!(lines.pop().unwrap()["event"], "end");
    lines
}

/// Waits until it remembers the client's end of a connection.
fn remembers(agent: &Agent<'_>, client: SocketAddr) -> Value {
    let query = format!("?role=client&address={client}");
    wait_until("the agent remembers it", SOON, || {
        connections(agent, &query).pop()
    })
    .unwrap()
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn it_remembers_and_answers_and_counts() {
    let node = Node::new();
    let agent = Agent::start(&node.netns, &node.config(), &[]).unwrap();
    let clients: Vec<_> = (0..3).map(|_| node.half_opens()).collect();
    for client in &clients {
        let record = remembers(&agent, *client);
        assert_eq!(record["outcome"], "half-open", "{record:#}");
        assert_eq!(
            (&record["node"], &record["role"]),
            (&"alpha".into(), &"client".into())
        );
        assert_eq!(end(&record, "destination"), Some(node.server));
        // The same is in the log.
        let logged = wait_until("it is logged", SOON, || {
            agent.logged().into_iter().find(|line| *line == record)
        });
        logged.unwrap();
    }
    let port = node.server.port();
    let all = |query: &str| connections(&agent, query).len();
    assert_eq!(all(""), 6);
    assert_eq!(all(&format!("?port={port}&outcome=half-open&role=server")), 3);
    assert_eq!(all("?port=1"), 0);
    assert_eq!(all("?since=2099-01-01T00:00:00Z"), 0);
    let labels = [
        "outcome=\"half-open\"",
        "role=\"client\"",
        &format!("port=\"{port}\""),
    ];
    assert_eq!(
        agent.metric("probe_connections_total", &labels).unwrap(),
        Some(3.0)
    );
    for (address, path, status, says) in [
        (Agent::QUERY, "/v1/node", 200, "\"watch\":{\"state\":\"runs\""),
        (
            Agent::QUERY,
            "/v1/connections?port=x",
            400,
            "port=\"x\" can't be read",
        ),
        (Agent::QUERY, "/metrics", 404, "/v1/connections"),
        (Agent::QUERY, "/v1/vxlan?output=table", 200, "no VXLAN device"),
        (Agent::METRICS, "/v1/connections", 404, "/metrics"),
        (Agent::METRICS, "/healthz", 200, "ok"),
        (Agent::METRICS, "/readyz", 200, "watch runs"),
    ] {
        let answer = agent.get(address, path).unwrap();
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.body.contains(says), "{path}: {answer:?}");
    }
    let mut refused = String::new();
    let mut stream = agent
        .ask(Agent::QUERY, "DELETE /v1/node HTTP/1.0\r\n\r\n")
        .unwrap();
    stream.read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.0 405"), "{refused}");
    let (status, said) = agent.end().unwrap();
    assert!(status.success(), "{said}");
}

/// Connections that only the kernel side counts are in the metrics, exactly.
#[test]
fn what_is_not_reported_is_counted() {
    let node = Node::new();
    // Without a history: it has every outcome of the watched ports.
    let config = format!(
        "{}outcomes = [\"refused\"]\n[history]\nconnections = 0\n",
        node.config()
    );
    let agent = Agent::start(&node.netns, &config, &[]).unwrap();
    let port = format!("port=\"{}\"", node.server.port());
    let labels = ["outcome=\"half-open\"", "role=\"client\"", &port];
    let mut expected = 0.0;
    for _ in 0..2 {
        for _ in 0..50 {
            node.half_opens();
        }
        expected += 50.0;
        wait_until("all are counted", SOON, || {
            let counted = agent.metric("probe_connections_total", &labels).ok()??;
            assert!(counted <= expected);
            // What the kernel hides, from 6.1 on where an interrupt finds the program running, is counted as lost.
            let hidden = ["unended", "unfollowed", "skipped"].map(|reason| {
                let reason = format!("reason=\"{reason}\"");
                agent.metric("probe_lost_total", &["part=\"watch\"", &reason])
            });
            let hidden: f64 = hidden.into_iter().filter_map(|lost| lost.ok()?).sum();
            (counted + hidden >= expected).then_some(())
        })
        .unwrap();
    }
    assert!(connections(&agent, "").is_empty());
    let reported = agent.logged();
    assert!(
        !reported.iter().any(|event| event["event"] == "connection"),
        "{reported:#?}"
    );
}

/// The history has every outcome of the watched ports, whatever is reported: each may be a line in a server's log.
#[test]
fn the_history_has_what_is_not_reported() {
    let node = Node::new();
    let config = format!("{}outcomes = [\"refused\"]\n", node.config());
    let agent = Agent::start(&node.netns, &config, &[]).unwrap();
    let client = node.half_opens();
    assert_eq!(remembers(&agent, client)["outcome"], "half-open");
    let reported = agent.logged();
    assert!(
        !reported.iter().any(|event| event["event"] == "connection"),
        "{reported:#?}"
    );
}

#[test]
fn who_follows_hears_of_each_and_that_all_is_well() {
    let node = Node::new();
    let agent = Agent::start(&node.netns, &node.config(), &[]).unwrap();
    let before = node.half_opens();
    remembers(&agent, before);
    let path = "/v1/connections?follow=true&role=client&since=2000-01-01T00:00:00Z";
    let stream = agent
        .ask(Agent::QUERY, &format!("GET {path} HTTP/1.0\r\n\r\n"))
        .unwrap();
    let mut lines = BufReader::new(stream)
        .lines()
        .map(|line| line.unwrap())
        .skip_while(|line| !line.is_empty());
    lines.next();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap()).unwrap() };
    assert_eq!(end(&next(), "source"), Some(before));
    let now = node.half_opens();
    assert_eq!(end(&next(), "source"), Some(now));
    let alive = next();
    assert_eq!(
        (&alive["event"], &alive["node"]),
        (&"alive".into(), &"alpha".into())
    );
}

#[test]
fn a_finding_is_told_when_it_begins_and_when_it_ends() {
    let _calm = CALM.read().unwrap_or_else(PoisonError::into_inner);
    let shop = Shop::new("iptables-legacy").unwrap();
    let agent = Agent::start(shop.node(), "[looks]\ninterval = \"500ms\"\n", &[]).unwrap();
    shop.reaches_service().unwrap();
    let rule = "PREROUTING -p tcp --dport 443 -j NOTRACK";
    shell(shop.node(), &format!("iptables-legacy -w -t raw -A {rule}")).unwrap();
    let logged = |state: &'static str| {
        agent
            .logged()
            .into_iter()
            .find(|line| line["event"] == "finding" && line["state"] == state)
    };
    let begins = wait_until("the finding is logged", SOON, || {
        let _ = shop.dials_service();
        logged("begins")
    })
    .unwrap_or_else(|error| panic!("{error}: {:#?}, {}", agent.logged(), agent.said()));
    assert_eq!(
        (&begins["feature"], &begins["kind"]),
        (&"bypass".into(), &"untracked-request".into())
    );
    let kind = ["feature=\"bypass\"", "kind=\"untracked-request\""];
    assert_eq!(agent.metric("probe_findings", &kind).unwrap(), Some(1.0));
    // A busy machine may have read no rules when it began.
    let told = wait_until("the rule is named", SOON, || {
        let _ = shop.dials_service();
        let answer = agent.get(Agent::QUERY, "/v1/bypass?output=table").ok()?;
        let named = answer.body.contains("--dport 443") && answer.body.contains(Shop::NAME);
        named.then_some(answer)
    });
    let answer = told.unwrap_or_else(|error| panic!("{error}: {begins:#}"));
    assert!(answer.head.contains("probe-healthy: false"), "{answer:?}");
    let untracked = agent
        .metric("probe_untracked_packets_total", &["--dport 443"])
        .unwrap();
    assert!(untracked.unwrap() > 0.0);
    // What failed says why.
    let failed = || connections(&agent, "?port=443&outcome=unanswered");
    wait_until("a failed connection has its cause", SOON, || {
        let _ = shop.dials_service();
        let explained = |record: &Value| record["cause"]["kind"] == "untracked";
        failed().iter().any(explained).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {:#?}", failed()));
    let _ = shop.dials_service();
    shell(shop.node(), &format!("iptables-legacy -w -t raw -D {rule}")).unwrap();
    wait_until("its end is logged", Duration::from_secs(40), || logged("ends")).unwrap();
    // What was seen last is the rule's, too, though it is gone.
    let findings = agent
        .logged()
        .into_iter()
        .filter(|line| line["event"] == "finding");
    for finding in findings {
        assert!(finding["rules"][0].is_string(), "{finding:#}");
    }
    assert_eq!(agent.metric("probe_findings", &kind).unwrap(), Some(0.0));
}

#[test]
fn a_part_that_fails_stops_no_other() {
    let node = Node::new();
    for (without, failed, runs) in [
        (
            "net_dev_start_xmit",
            "bypass failed",
            ["watch runs", "drops runs"],
        ),
        (
            "inet_sock_set_state",
            "watch failed",
            ["bypass runs", "vxlan runs"],
        ),
        ("kfree_skb", "drops failed", ["watch runs", "bypass runs"]),
    ] {
        let agent = Agent::start(&node.netns, &node.config(), &["--without", without]).unwrap();
        let ready = wait_until("the other parts run", SOON, || {
            let ready = agent.get(Agent::METRICS, "/readyz").unwrap();
            (!ready.body.contains("starts")).then_some(ready)
        })
        .unwrap();
        assert_eq!(ready.status, 200, "{ready:?}");
        for words in runs.into_iter().chain([failed]) {
            assert!(ready.body.contains(words), "without {without}: {ready:?}");
        }
        let part = format!("part=\"{}\"", failed.split(' ').next().unwrap());
        assert_eq!(agent.metric("probe_part_up", &[&part]).unwrap(), Some(0.0));
        assert!(agent.said().contains(without), "{}", agent.said());
        agent.end().unwrap();
    }
}

#[test]
fn a_new_configuration_keeps_what_is_remembered() {
    let node = Node::new();
    let agent = Agent::start(&node.netns, &node.config(), &[]).unwrap();
    let first = node.half_opens();
    remembers(&agent, first);
    agent.configure("[watch]\nport = [1]\n").unwrap();
    assert!(
        agent.said().contains("the configuration is unchanged"),
        "{}",
        agent.said()
    );
    assert!(agent.said().contains("unknown field `port`"), "{}", agent.said());
    remembers(&agent, node.half_opens());
    agent
        .configure("[watch]\nports = [1]\n[vxlan]\nenabled = false\n")
        .unwrap();
    assert!(agent.said().contains("was reloaded"), "{}", agent.said());
    wait_until("it is ready again", SOON, || {
        let ready = agent.get(Agent::METRICS, "/readyz").ok()?;
        (ready.status == 200 && ready.body.contains("vxlan off")).then_some(())
    })
    .unwrap();
    node.half_opens();
    remembers(&agent, first);
    assert_eq!(connections(&agent, "?role=client").len(), 2);
    agent.configure(&node.config()).unwrap();
    wait_until("it is ready again", SOON, || {
        (agent.get(Agent::METRICS, "/readyz").ok()?.status == 200).then_some(())
    })
    .unwrap();
    remembers(&agent, node.half_opens());
}

/// One that connects as often as it can takes neither the memory of the agent nor what it remembers of others.
#[test]
fn a_flood_leaves_others_what_they_have() {
    let _storm = CALM.write().unwrap_or_else(PoisonError::into_inner);
    let node = Node::flooded();
    let agent = Agent::start(&node.netns, "", &[]).unwrap();
    let first = node.half_opens();
    remembers(&agent, first);
    let storm = Storm::new(unique_port(), 2).unwrap();
    storm.run(40_000 / u64::from(patience()), Close::Fin).unwrap();
    remembers(&agent, first);
    let last = node.half_opens();
    remembers(&agent, last);
    wait_until("the flood is over", SOON, || {
        let forgotten = agent.metric("probe_forgotten_connections_total", &["why=\"source\""]);
        (forgotten.ok()?? > 0.0).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", agent.get(Agent::METRICS, "/metrics")));
    let logged = agent.logged().len();
    assert!(logged < 3000, "{logged} lines are logged");
    assert!(
        agent
            .metric("probe_unlogged_connections_total", &[])
            .unwrap()
            .unwrap()
            > 0.0
    );
    let resident = resident(agent.pid());
    assert!(resident < 60 << 10, "{resident} KiB");
}

#[test]
fn who_is_slow_or_speaks_garbage_keeps_nobody_out() {
    let node = Node::new();
    let agent = Agent::start(&node.netns, &node.config(), &[]).unwrap();
    let mut slow = Vec::new();
    for address in [Agent::QUERY, Agent::METRICS] {
        for request in ["", "GET /met", "\0\u{1}garbage\r\n\r\n", "GET / HTTP/1.0\r\nx: "] {
            slow.push(agent.ask(address, request).unwrap());
        }
    }
    let huge = format!("GET /{} HTTP/1.0\r\n\r\n", "a".repeat(1 << 20));
    let _ = agent.ask(Agent::QUERY, &huge);
    // Too many of one address are refused, others are not.
    for _ in 0..20 {
        slow.extend(agent.ask(Agent::METRICS, "GET /healthz"));
    }
    let refused = agent.get(Agent::METRICS, "/healthz");
    assert!(refused.is_err(), "{refused:?}");
    let other = agent
        .get_from([127, 0, 0, 2], Agent::METRICS, "/healthz")
        .unwrap();
    assert_eq!(other.status, 200, "{other:?}");
    let start = Instant::now();
    // They are not kept for long.
    wait_until("the places are free again", SOON, || {
        agent.get(Agent::METRICS, "/healthz").ok()
    })
    .unwrap();
    assert!(start.elapsed() < Duration::from_secs(15) * patience());
    remembers(&agent, node.half_opens());
}
