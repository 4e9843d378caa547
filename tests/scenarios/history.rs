//! The agent's history on disk: whatever ends the agent, at most the last second is missing, and the next one starts.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

use std::{
    collections::HashSet,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use probe_lab::{Agent, Netns, accept_all, unique_port, wait_until};

/// How often the agent is killed; the variable `PROBE_KILLS` asks for more.
const KILLS: u32 = 8;
/// Between two connections.
const EVERY: Duration = Duration::from_millis(5);
/// What a killed agent may lose, and what a connection takes from its end to the thread that writes, on a busy machine.
const LOST: Duration = Duration::from_millis(1000 + 500);

/// Connects all the time, says nothing and closes.
struct Load {
    made: Arc<Mutex<Vec<(Instant, SocketAddr)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Load {
    fn start(netns: &Netns, server: SocketAddr) -> Self {
        let (made, stop) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let thread = netns.spawn({
            let (made, stop) = (Arc::clone(&made), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let stream = TcpStream::connect(server).unwrap();
                    let client = stream.local_addr().unwrap();
                    drop(stream);
                    made.lock().unwrap().push((Instant::now(), client));
                    thread::sleep(EVERY);
                }
            }
        });
        Self {
            made,
            stop,
            thread: Some(thread.unwrap()),
        }
    }

    /// The clients that connected between two moments.
    fn between(&self, from: Instant, to: Instant) -> HashSet<SocketAddr> {
        let made = self.made.lock().unwrap();
        let those = made.iter().filter(|(at, _)| *at >= from && *at < to);
        those.map(|(_, client)| *client).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// The clients' addresses that an agent answers, each once, and when its history begins.
fn clients(agent: &Agent<'_>) -> (HashSet<SocketAddr>, String) {
    let answer = agent.get(Agent::QUERY, "/v1/connections?role=client").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut lines = answer.lines().unwrap();
    let end = lines.pop().unwrap();
    assert_eq!(end["event"], "end", "{end:#}");
    let mut clients = HashSet::new();
    for line in &lines {
        let source = &line["source"];
        let address = format!("{}:{}", source["address"].as_str().unwrap(), source["port"]);
        let time = line["time"].as_str().unwrap();
        // A port may be used again, at another time.
        assert!(clients.insert((address, time.to_owned())), "twice: {line:#}");
    }
    let clients = clients.into_iter().map(|(address, _)| address.parse().unwrap());
    (
        clients.collect(),
        end["oldest"].as_str().unwrap_or_default().to_owned(),
    )
}

/// A node with a server that reads and closes.
fn node() -> (Netns, SocketAddr) {
    let netns = Netns::new("node").unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], unique_port()));
    accept_all(netns.enter(|| TcpListener::bind(server)).unwrap().unwrap());
    (netns, server)
}

fn config(port: u16, directory: &Path) -> String {
    // A small memory, so that what is found comes from the disk; room for more than this source's share.
    format!(
        "[watch]\nports = [{port}]\n[log]\nconnections = false\n[history]\nconnections = 64\ndirectory = \"{}\"\n\
         disk_size = \"8GiB\"\n",
        directory.display()
    )
}

#[test]
fn a_killed_agent_loses_at_most_the_last_second() {
    let (netns, server) = node();
    let dir = tempfile::tempdir().unwrap();
    let config = config(server.port(), &dir.path().join("history"));
    let load = Load::start(&netns, server);
    let kills = std::env::var("PROBE_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());

    let mut expected: HashSet<SocketAddr> = HashSet::new();
    let mut first = None;
    for round in 0..kills {
        let agent = Agent::start(&netns, &config, &[]).unwrap();
        let ready = Instant::now();
        let (found, oldest) = clients(&agent);
        let missing: Vec<_> = expected.difference(&found).collect();
        assert!(
            missing.is_empty(),
            "round {round}: {} of {} are missing: {missing:?}",
            missing.len(),
            expected.len()
        );
        // It reaches back to the first agent's first connection.
        if round > 0 {
            assert_eq!(&oldest, first.get_or_insert_with(|| oldest.clone()));
        }
        // At another moment of the second each time.
        thread::sleep(LOST + Duration::from_millis(500 + u64::from(round * 137 % 1000)));
        let pid = Pid::from_raw(agent.pid().cast_signed());
        let killed = Instant::now();
        kill(pid, Signal::SIGKILL).unwrap();
        expected.extend(load.between(ready, killed - LOST));
        drop(agent);
    }
    assert!(expected.len() > 50 * kills as usize, "{}", expected.len());

    // One that SIGTERM ends loses nothing.
    let agent = Agent::start(&netns, &config, &[]).unwrap();
    let ready = Instant::now();
    thread::sleep(Duration::from_secs(1));
    let last = Instant::now() - Duration::from_millis(500);
    expected.extend(load.between(ready, last));
    let (status, said) = agent.end().unwrap();
    assert!(status.success(), "{said}");
    let agent = Agent::start(&netns, &config, &[]).unwrap();
    assert!(clients(&agent).0.is_superset(&expected));
}

/// Nothing that is wrong with the directory ends an agent, or keeps it from answering from memory.
#[test]
fn a_directory_that_cant_be_written() {
    let (netns, server) = node();
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("history");
    fs::write(&directory, "a file").unwrap();
    let agent = Agent::start(&netns, &config(server.port(), &directory), &[]).unwrap();
    let _load = Load::start(&netns, server);
    let soon = Duration::from_secs(20);
    wait_until("it answers from memory", soon, || {
        (!clients(&agent).0.is_empty()).then_some(())
    })
    .unwrap();
    wait_until("the reason is reported", soon, || {
        let said = agent.said();
        said.contains("the history is in memory only: can't write")
            .then_some(())
    })
    .unwrap();
    wait_until("they are counted", soon, || {
        let unstored = agent.metric("probe_unstored_connections_total", &["why=\"write\""]);
        unstored.unwrap().filter(|unstored| *unstored > 50.0)
    })
    .unwrap();
}
