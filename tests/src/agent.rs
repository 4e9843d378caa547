//! `probe agent` on a node, and who asks it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::{netns::Netns, probe::Probe, process::Child, wait::wait_until};

/// For what happens at once; generous, since machines are busy.
const SOON: Duration = Duration::from_secs(20);

/// A running agent.
pub struct Agent<'a> {
    netns: &'a Netns,
    child: Child,
    folder: tempfile::TempDir,
    log: Arc<Mutex<Vec<Value>>>,
    said: Arc<Mutex<String>>,
}

/// What it answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The objects of its lines.
    ///
    /// # Errors
    /// When one is no JSON.
    pub fn lines(&self) -> Result<Vec<Value>> {
        let lines = self.body.lines().map(serde_json::from_str);
        lines
            .collect::<Result<_, _>>()
            .with_context(|| format!("no lines of JSON: {self:?}"))
    }
}

impl<'a> Agent<'a> {
    /// Where questions are answered, inside.
    pub const QUERY: &'static str = "127.0.0.1:9470";
    /// Where metrics are.
    pub const METRICS: &'static str = "127.0.0.1:9471";

    /// Starts one in a network namespace, with a configuration besides that, and waits until its parts run or can't.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(netns: &'a Netns, config: &str, arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("agent.toml");
        fs::write(&file, whole(config))?;
        let mut command = netns.command(&Probe::binary()?.to_string_lossy());
        command
            .arg("agent")
            .arg("--config")
            .arg(&file)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = Child::spawn(&mut command)?;
        let stdout = child.inner().stdout.take().context("no stdout")?;
        let stderr = child.inner().stderr.take().context("no stderr")?;
        let (log, said) = (
            Arc::<Mutex<Vec<Value>>>::default(),
            Arc::<Mutex<String>>::default(),
        );
        thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                    locked(&log).push(value);
                }
            }
        });
        thread::spawn({
            let said = Arc::clone(&said);
            move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    locked(&said).push_str(&(line + "\n"));
                }
            }
        });
        let agent = Self {
            netns,
            child,
            folder,
            log,
            said,
        };
        wait_until("the agent's parts run", SOON, || {
            let ready = agent.get(Self::METRICS, "/readyz").ok()?;
            (ready.status == 200 || ready.body.contains("failed")).then_some(())
        })
        .with_context(|| format!("it said {:?}", agent.said()))?;
        Ok(agent)
    }

    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("agent.toml")
    }

    /// Changes its configuration, and waits until it has said something of that.
    ///
    /// # Errors
    /// When it says nothing.
    pub fn configure(&self, config: &str) -> Result<()> {
        let before = self.said().len();
        fs::write(self.file(), whole(config))?;
        wait_until("the agent says that its configuration changed", SOON, || {
            self.said()
                .get(before..)
                .is_some_and(|said| said.contains("configuration"))
                .then_some(())
        })
    }

    /// What it said on stderr.
    pub fn said(&self) -> String {
        locked(&self.said).clone()
    }

    /// What it logged so far.
    pub fn logged(&self) -> Vec<Value> {
        locked(&self.log).clone()
    }

    /// Asks, and reads until it closes.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn get(&self, address: &str, path: &str) -> Result<Answer> {
        self.get_from([127, 0, 0, 1], address, path)
    }

    /// [`Self::get`] as another client.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get_from(&self, client: [u8; 4], address: &str, path: &str) -> Result<Answer> {
        let socket = self
            .netns
            .enter(|| Socket::new(Domain::IPV4, Type::STREAM, None))??;
        socket.bind(&SocketAddr::from((client, 0)).into())?;
        socket.connect(&address.parse::<SocketAddr>()?.into())?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok(Answer {
            status: status.context("no status")?,
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }

    /// Sends a request, whatever it may be.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn ask(&self, address: &str, request: &str) -> Result<TcpStream> {
        let address: SocketAddr = address.parse()?;
        let mut stream = self.netns.enter(|| TcpStream::connect(address))??;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(request.as_bytes())?;
        Ok(stream)
    }

    /// The value of a metric with all of these in its labels; `None`: there is none.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<Option<f64>> {
        let text = self.get(Self::METRICS, "/metrics")?.body;
        let is = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        };
        let Some(line) = text.lines().find(is) else {
            return Ok(None);
        };
        let after = line.rsplit_once("} ").filter(|_| !line.contains(" # "));
        let value = match after {
            Some((_, value)) => Some(value),
            // With an example after it, or without labels.
            None => line
                .split_once("} ")
                .map_or_else(|| line.split(' ').nth(1), |(_, rest)| rest.split(' ').next()),
        };
        Ok(Some(value.context("no value")?.parse()?))
    }

    /// Ends it as the kubelet does.
    ///
    /// # Errors
    /// When it does not end soon.
    pub fn end(mut self) -> Result<(ExitStatus, String)> {
        self.child.signal(Signal::SIGTERM)?;
        let ended = wait_until("the agent ends", SOON, || {
            self.child.inner().try_wait().ok().flatten()
        });
        match ended {
            Ok(status) => Ok((status, self.said())),
            Err(error) => bail!("{error}; it said {:?}", self.said()),
        }
    }
}

/// A configuration of its own sections, with what makes it one of the lab's.
fn whole(config: &str) -> String {
    let own = "[node]\nname = \"alpha\"\nnamespaces = \"own\"\n\
               [names]\ncri = \"none\"\nkubernetes = \"none\"\n\
               [metrics]\nlisten = \"127.0.0.1:9471\"\n";
    format!("{own}{config}")
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
