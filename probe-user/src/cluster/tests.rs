//! The way of lines from several agents, by real sockets: slow ones, ones that die, ones that talk nonsense.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};

use super::{
    Agent, AgentError,
    ask::{Connect, look},
    body::LONGEST_LINE,
    doctor::ask,
    fetch::{Fetch, Fetched, fetch},
    follow::{Again, Follower, Heard, News},
    merge::{MOST, Merge},
    question::Connections,
    room::Room,
};
use crate::{
    model::{
        Connection, Verdict,
        doctor::{Answer, Check},
    },
    report::{doctor::json, json_line, samples},
};

/// Straight to sockets of this machine.
#[derive(Clone, Default)]
struct Sockets(Arc<Mutex<HashMap<String, SocketAddr>>>);

impl Connect for Sockets {
    type Stream = tokio::net::TcpStream;

    async fn connect(&self, agent: &Agent) -> Result<Self::Stream, AgentError> {
        let address = self.0.lock().unwrap().get(&agent.pod).copied();
        let address = address.ok_or(AgentError::None)?;
        tokio::net::TcpStream::connect(address)
            .await
            .map_err(|error| AgentError::Forward(error.to_string()))
    }
}

/// What an agent does with its nth question, whose path it is told.
type Answers = Box<dyn FnMut(usize, &str, &mut TcpStream) + Send>;

impl Sockets {
    /// An agent on `node`, who answers like this.
    fn agent(&self, node: &str, mut answers: Answers) -> Agent {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pod = format!("probe-{node}");
        self.0
            .lock()
            .unwrap()
            .insert(pod.clone(), listener.local_addr().unwrap());
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                    request.push(byte[0]);
                }
                let request = String::from_utf8(request).unwrap();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                answers(number, &path, &mut stream);
            }
        });
        Agent {
            node: node.to_owned(),
            pod,
            uid: "1".to_owned(),
            address: None,
            port: 9470,
            not_ready: None,
        }
    }
}

fn head(stream: &mut TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
}

fn chunk(stream: &mut TcpStream, bytes: &[u8]) {
    // Who asked may be gone.
    let _ = stream.write_all(&[format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat());
}

fn end(stream: &mut TcpStream) {
    let last =
        r#"{"event":"end","node":"x","held":2,"oldest":"2026-11-23T09:00:00Z","forgotten":0,"lost":0}"#;
    chunk(stream, format!("{last}\n").as_bytes());
    let _ = stream.write_all(b"0\r\n\r\n");
}

fn alive(stream: &mut TcpStream, milliseconds: u64) {
    let time = at(milliseconds).time;
    chunk(
        stream,
        format!("{{\"event\":\"alive\",\"node\":\"x\",\"time\":\"{time}\"}}\n").as_bytes(),
    );
}

fn at(milliseconds: u64) -> Connection {
    Connection {
        time: samples::time() + Duration::from_millis(milliseconds),
        ..samples::incident()
    }
}

fn line(milliseconds: u64) -> Vec<u8> {
    let mut line = Vec::new();
    json_line(&mut line, "whoever", &at(milliseconds)).unwrap();
    line
}

fn millisecond(connection: &Connection) -> i128 {
    connection.time.duration_since(samples::time()).as_millis()
}

async fn fetched(ways: &Sockets, agents: &[Agent]) -> (Vec<String>, Vec<Fetched>) {
    let (mut told, mut fetched) = (Vec::new(), Vec::new());
    let mut fetching = fetch(&Arc::new(ways.clone()), agents, "/v1/connections");
    while let Some(next) = fetching.next().await {
        match next {
            Fetch::Connection(node, connection) => {
                assert!(fetched.iter().all(|ended: &Fetched| *ended.node != *node));
                told.push(format!("{node}{}", millisecond(&connection)));
            }
            Fetch::Ended(ended) => fetched.push(ended),
        }
    }
    told.sort();
    fetched.sort_by(|one, other| one.node.cmp(&other.node));
    (told, fetched)
}

#[tokio::test]
async fn what_all_remember_and_who_did_not_say() {
    let ways = Sockets::default();
    let whole: Answers = Box::new(|_, _, stream| {
        head(stream);
        let lines = [line(1), line(2)].concat();
        // A line may come in pieces, and several in one.
        chunk(stream, &lines[..10]);
        chunk(stream, &lines[10..]);
        end(stream);
    });
    let dies: Answers = Box::new(|_, _, stream| {
        head(stream);
        chunk(stream, &line(1));
        chunk(stream, &line(2)[..100]);
    });
    let ends_early: Answers = Box::new(|_, _, stream| {
        head(stream);
        chunk(stream, &line(1));
        let _ = stream.write_all(b"0\r\n\r\n");
    });
    let garbage: Answers = Box::new(|_, _, stream| {
        head(stream);
        chunk(
            stream,
            b"<html>\n\n\xff\xfe\n{\"event\":\"connection\"}\n\x1b[2J\n",
        );
        chunk(stream, &line(1));
        end(stream);
    });
    let huge: Answers = Box::new(|_, _, stream| {
        head(stream);
        let piece = vec![b'x'; 1 << 16];
        for _ in 0..(3 * LONGEST_LINE) >> 16 {
            chunk(stream, &piece);
        }
        chunk(stream, b"\n");
        chunk(stream, &line(1));
        // In one piece with others.
        let longer = vec![b' '; LONGEST_LINE + 1];
        chunk(stream, &[&longer, &b"\n"[..], &line(2)].concat());
        end(stream);
    });
    let no_http: Answers = Box::new(|_, _, stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
    });
    let refuses: Answers = Box::new(|_, _, stream| {
        let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\ntoo many\n");
    });
    let mut agents: Vec<_> = [
        ("dies", dies),
        ("early", ends_early),
        ("garbage", garbage),
        ("huge", huge),
        ("nohttp", no_http),
        ("refuses", refuses),
        ("whole", whole),
    ]
    .into_iter()
    .map(|(node, answers)| ways.agent(node, answers))
    .collect();
    let mut unready = agents[0].clone();
    (unready.node, unready.not_ready) = ("unready".to_owned(), Some("CrashLoopBackOff".to_owned()));
    agents.push(unready);
    let (told, fetched) = fetched(&ways, &agents).await;
    assert_eq!(
        told,
        [
            "dies1", "early1", "garbage1", "huge1", "huge2", "whole1", "whole2"
        ]
    );
    let said: Vec<_> = fetched
        .iter()
        .map(|fetched| match &fetched.memory {
            Ok(memory) => format!("{} {} {}", fetched.node, memory.held, fetched.malformed),
            Err(error) => format!("{}: {error}", fetched.node),
        })
        .collect();
    assert_eq!(
        said[..4],
        [
            "dies: its answer is cut off",
            "early: its answer is cut off",
            "garbage 2 5",
            "huge 2 2"
        ]
    );
    assert!(said[4].starts_with("nohttp: "), "{said:?}");
    assert_eq!(
        said[5..],
        [
            "refuses: its agent answered 503: too many",
            "unready: its agent probe-dies is not ready: CrashLoopBackOff",
            "whole 2 0"
        ]
    );
}

#[tokio::test]
async fn doctors_say_all_or_that_they_did_not() {
    let ways = Sockets::default();
    let said = |check| json(&Answer::not_applicable(check, "why"), "whoever").unwrap() + "\n";
    let agents = [
        ways.agent(
            "well",
            Box::new(move |_, path, stream| {
                assert_eq!(path, "/v1/doctor?check=bridge,dns");
                head(stream);
                chunk(stream, said(Check::Bridge).as_bytes());
                chunk(stream, said(Check::Dns).as_bytes());
                end(stream);
            }),
        ),
        ways.agent(
            "dies",
            Box::new(move |_, _, stream| {
                head(stream);
                chunk(stream, said(Check::Bridge).as_bytes());
            }),
        ),
        ways.agent(
            "talks",
            Box::new(move |_, _, stream| {
                head(stream);
                for _ in 0..=Check::ALL.len() {
                    chunk(stream, said(Check::Bridge).as_bytes());
                }
                end(stream);
            }),
        ),
        ways.agent(
            "busy",
            Box::new(|_, _, stream| {
                let _ = stream.write_all(b"HTTP/1.1 503 x\r\nContent-Length: 5\r\n\r\nbusy\n");
            }),
        ),
    ];
    let path = super::question::doctor(&[Check::Bridge, Check::Dns]);
    let ways = Arc::new(ways);
    let mut asked = ask(&ways, &agents, &path);
    let mut said = Vec::new();
    while let Some(answer) = asked.next().await {
        said.push(answer);
    }
    said.sort_by(|(one, _), (other, _)| one.cmp(other));
    let told: Vec<_> = said
        .iter()
        .map(|(node, (answers, end))| {
            let end = end.as_ref().map_err(ToString::to_string);
            (
                node.as_str(),
                answers.len(),
                end.is_ok(),
                end.err().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(told[3], ("well", 2, true, String::new()));
    assert!(!told[0].2 && told[0].3.contains("busy"), "{told:?}");
    assert_eq!((told[1].0, told[1].1, told[1].2), ("dies", 1, false));
    assert_eq!(
        (told[2].0, told[2].1, told[2].2),
        ("talks", Check::ALL.len(), false)
    );
}

#[tokio::test]
async fn looks_are_bounded_and_say_how_it_is() {
    let ways = Sockets::default();
    let says = |head: &'static str, body: Vec<u8>| -> Answers {
        Box::new(move |_, _, stream| {
            let length = body.len();
            let _ = stream
                .write_all(format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {length}\r\n\r\n").as_bytes());
            let _ = stream.write_all(&body);
        })
    };
    let well = ways.agent(
        "well",
        says("Probe-Verdict: ok\r\nProbe-Healthy: true\r\n", b"fine\n".to_vec()),
    );
    let former = ways.agent("former", says("Probe-Healthy: true\r\n", b"fine\n".to_vec()));
    let ill = ways.agent("ill", says("probe-healthy: false\r\n", b"ill\n".to_vec()));
    let silent = ways.agent("silent", says("", b"{}".to_vec()));
    let endless = ways.agent("endless", says("probe-healthy: true\r\n", vec![b'x'; 17 << 20]));
    let asked = |agent: Agent| {
        let ways = ways.clone();
        async move {
            let snapshot = look(&ways, &agent, "/v1/vxlan?output=table", &Room::default()).await?;
            Ok((snapshot.text, snapshot.verdict))
        }
    };
    let said = |text: &str, verdict| (text.to_owned(), verdict);
    assert_eq!(asked(well).await.unwrap(), said("fine\n", Verdict::Ok));
    assert_eq!(asked(former).await.unwrap(), said("fine\n", Verdict::Unknown));
    assert_eq!(asked(ill).await.unwrap(), said("ill\n", Verdict::Faulty));
    assert!(matches!(asked(silent).await, Err(AgentError::Malformed(_))));
    assert!(matches!(asked(endless).await, Err(AgentError::TooLong(_))));
}

/// Follows agents; what it hears goes through [`Merge`], as `probe watch --cluster` does it.
struct Listener {
    news: mpsc::Receiver<News>,
    agents: watch::Sender<Vec<Agent>>,
    merge: Merge<Connection>,
    /// All but connections, in words.
    said: Vec<String>,
    told: Vec<String>,
}

impl Listener {
    fn new(ways: &Sockets, agents: &[Agent]) -> Self {
        let (sender, news) = mpsc::channel(64);
        let (list, known) = watch::channel(agents.to_vec());
        let mut merge = Merge::new(MOST);
        for agent in agents {
            let follower = Follower {
                ways: Arc::new(ways.clone()),
                turns: Arc::new(Semaphore::new(1)),
                node: agent.node.as_str().into(),
                agents: known.clone(),
                question: Connections {
                    ports: vec![2379],
                    ..Connections::default()
                },
                since: None,
                news: sender.clone(),
            };
            merge.begins(&follower.node);
            tokio::spawn(follower.run());
        }
        Self {
            news,
            agents: list,
            merge,
            said: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Until so much was told and said.
    async fn until(&mut self, told: usize, said: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while (self.told.len() < told || self.said.len() < said) && Instant::now() < deadline {
            let news = tokio::time::timeout(Duration::from_millis(50), self.news.recv()).await;
            if let Ok(Some(news)) = news {
                self.heard(news);
            }
            while let Some((node, connection)) = self.merge.pop(Instant::now()) {
                self.told.push(format!("{node}{}", millisecond(&connection)));
            }
        }
    }

    fn heard(&mut self, News { node, heard }: News) {
        match heard {
            Heard::Connection(connection, bytes) => {
                self.merge
                    .push(&node, connection.time, bytes, *connection, Instant::now());
            }
            Heard::Alive(time) => self.merge.alive(&node, time),
            Heard::Answers { again } => {
                self.merge.begins(&node);
                if let Some(again) = again {
                    self.said.push(format!("{node} again {again:?}"));
                }
            }
            Heard::Silent { reason, .. } => {
                self.merge.ends(&node);
                self.said.push(format!("{node}: {reason}"));
            }
            Heard::Gap(lost) => self.said.push(format!("{node} lost {lost}")),
            Heard::Malformed(_) => self.said.push(format!("{node} malformed")),
        }
    }
}

#[tokio::test]
async fn streams_become_one() {
    let ways = Sockets::default();
    let pause = || thread::sleep(Duration::from_millis(100));
    let quick: Answers = Box::new(move |_, _, stream| {
        head(stream);
        for time in [1, 3, 5] {
            chunk(stream, &line(time));
        }
        alive(stream, 100);
        thread::sleep(Duration::from_secs(60));
    });
    // Each comes after a later one of the other.
    let slow: Answers = Box::new(move |_, _, stream| {
        head(stream);
        for time in [2, 4, 6] {
            pause();
            chunk(stream, &line(time));
        }
        chunk(
            stream,
            b"{\"event\":\"gap\",\"node\":\"slow\",\"lost\":17}\nnonsense\n",
        );
        thread::sleep(Duration::from_secs(60));
    });
    let agents = [ways.agent("quick", quick), ways.agent("slow", slow)];
    let mut listener = Listener::new(&ways, &agents);
    listener.until(6, 2).await;
    assert_eq!(
        listener.told,
        ["quick1", "slow2", "quick3", "slow4", "quick5", "slow6"]
    );
    assert_eq!(listener.said, ["slow lost 17", "slow malformed"]);
}

/// An agent dies in the middle of a line. Asked again, it is asked since shortly before, and nothing comes twice.
#[tokio::test]
async fn a_way_that_breaks_is_made_anew() {
    let ways = Sockets::default();
    let paths = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&paths);
    let answers: Answers = Box::new(move |number, path, stream| {
        seen.lock().unwrap().push(path.to_owned());
        head(stream);
        if number == 0 {
            chunk(stream, &line(0));
            chunk(stream, &line(7000));
            chunk(stream, &line(8000)[..50]);
            return;
        }
        for time in [3000, 7000, 8000, 9000] {
            chunk(stream, &line(time));
        }
        thread::sleep(Duration::from_secs(60));
    });
    let agent = ways.agent("beta", answers);
    let mut listener = Listener::new(&ways, &[agent]);
    listener.until(5, 2).await;
    assert_eq!(
        listener.told,
        ["beta0", "beta7000", "beta3000", "beta8000", "beta9000"]
    );
    assert_eq!(listener.said, ["beta: its answer is cut off", "beta again Same"]);
    let paths = paths.lock().unwrap().clone();
    let since = at(2000).time;
    assert_eq!(
        paths,
        [
            "/v1/connections?port=2379&follow=true".to_owned(),
            format!("/v1/connections?since={since}&port=2379&follow=true")
        ]
    );
}

/// A DaemonSet's pod is replaced: the next agent is found as soon as it is there.
#[tokio::test]
async fn another_agent_takes_over() {
    let ways = Sockets::default();
    let dies: Answers = Box::new(|number, _, stream| {
        if number == 0 {
            head(stream);
            chunk(stream, &line(0));
        }
    });
    let old = ways.agent("beta", dies);
    let mut listener = Listener::new(&ways, &[old]);
    listener.until(1, 1).await;
    assert_eq!(listener.said, ["beta: its answer is cut off"]);
    let lives: Answers = Box::new(|_, path, stream| {
        assert!(path.contains("since="), "{path}");
        head(stream);
        chunk(stream, &line(1));
        thread::sleep(Duration::from_secs(60));
    });
    let mut new = ways.agent("beta", lives);
    new.uid = "2".to_owned();
    listener.agents.send(Vec::new()).unwrap();
    listener.agents.send(vec![new]).unwrap();
    listener.until(2, 2).await;
    assert_eq!(listener.told, ["beta0", "beta1"]);
    assert_eq!(listener.said[1..], [format!("beta again {:?}", Again::Another)]);
    assert!(Timestamp::now() > at(0).time);
}
