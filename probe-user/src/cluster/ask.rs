//! One question to one agent: plain HTTP/1.1 on whatever leads there.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, StatusCode, body::Incoming, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::AbortHandle,
    time::timeout,
};

use super::{
    Agent, AgentError,
    body::{Body, Lines},
    room::{Room, Taken},
};
use crate::{error::chain, model::Verdict};

/// How long until there is a way to the agent, and until its answer begins.
pub const CONNECT: Duration = Duration::from_secs(5);
const BEGIN: Duration = Duration::from_secs(10);
/// How long nothing may come of an answer that is to end.
const IDLE: Duration = Duration::from_secs(15);
/// The same of one that goes on: an agent shows each 5 s that it lives.
const IDLE_FOLLOWED: Duration = Duration::from_secs(16);
/// What is read at once: a connection that is followed keeps such a buffer, and is mostly idle.
const READ: usize = 32 << 10;
/// Why an agent refuses.
const MOST_REASON: usize = 4096;

/// Ways to agents.
pub trait Connect: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// A connection to the agent's port for questions.
    fn connect(&self, agent: &Agent) -> impl Future<Output = Result<Self::Stream, AgentError>> + Send;
}

/// An answer that has begun; dropped, its connection ends.
struct Begun {
    incoming: Incoming,
    verdict: Option<Verdict>,
    guard: Guard,
}

/// Ends the task that drives a connection.
#[derive(Debug)]
struct Guard(AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn begin<C: Connect>(ways: &C, agent: &Agent, path: &str) -> Result<Begun, AgentError> {
    if let Some(reason) = &agent.not_ready {
        return Err(AgentError::NotReady {
            pod: agent.pod.clone(),
            reason: reason.clone(),
        });
    }
    let stream = timeout(CONNECT, ways.connect(agent))
        .await
        .map_err(|_| AgentError::Silent(CONNECT.as_secs()))??;
    let http = |error: hyper::Error| AgentError::Http(chain(&error));
    let handshake = http1::Builder::new()
        .max_buf_size(READ)
        .handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(http)?;
    // Its error is the answer's, too.
    let task = tokio::spawn(async move { drop(connection.await) });
    let guard = Guard(task.abort_handle());
    let request = Request::get(path)
        .header(HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(|error| AgentError::Http(error.to_string()))?;
    let response = timeout(BEGIN, sender.send_request(request))
        .await
        .map_err(|_| AgentError::Silent(BEGIN.as_secs()))?
        .map_err(http)?;
    let status = response.status();
    let header = |name| response.headers().get(name)?.to_str().ok();
    let verdict = header("probe-verdict").and_then(Verdict::from_name).or_else(|| {
        // An agent of an earlier version does not say what it could not verify.
        let healthy: bool = header("probe-healthy")?.parse().ok()?;
        Some(Verdict::of(!healthy, false))
    });
    let incoming = response.into_body();
    if status != StatusCode::OK {
        let text = Body::new(incoming, BEGIN).whole(MOST_REASON).await;
        let text = text.unwrap_or_default();
        return Err(AgentError::Refused {
            status: status.as_u16(),
            // One line, as an agent has it: more would pass for words of this command.
            text: first_line(&text),
        });
    }
    Ok(Begun {
        incoming,
        verdict,
        guard,
    })
}

fn first_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// The lines of an answer.
#[derive(Debug)]
pub struct AnswerLines {
    pub lines: Lines,
    _guard: Guard,
}

/// Asks for lines; `followed`: for those to come, too.
///
/// # Errors
/// When the agent does not answer, or refuses.
pub async fn lines<C: Connect>(
    ways: &C,
    agent: &Agent,
    path: &str,
    followed: bool,
) -> Result<AnswerLines, AgentError> {
    let Begun { incoming, guard, .. } = begin(ways, agent, path).await?;
    let idle = if followed { IDLE_FOLLOWED } else { IDLE };
    Ok(AnswerLines {
        lines: Lines::new(Body::new(incoming, idle)),
        _guard: guard,
    })
}

/// A text or one object, and the verdict in it.
#[derive(Debug)]
pub struct AgentSnapshot {
    pub text: String,
    pub verdict: Verdict,
    /// Of the room of all answers.
    _taken: Taken,
}

/// Queries the latest snapshot.
///
/// # Errors
/// When the agent does not answer, refuses, or says something else.
pub async fn look<C: Connect>(
    ways: &C,
    agent: &Agent,
    path: &str,
    room: &Room,
) -> Result<AgentSnapshot, AgentError> {
    let Begun {
        incoming,
        verdict,
        guard,
    } = begin(ways, agent, path).await?;
    let mut taken = Taken::default();
    let text = Body::new(incoming, IDLE).within(room, &mut taken).await?;
    drop(guard);
    let verdict =
        verdict.ok_or_else(|| AgentError::Malformed("its answer has no probe-healthy header".to_owned()))?;
    Ok(AgentSnapshot {
        text: String::from_utf8(text)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        verdict,
        _taken: taken,
    })
}
