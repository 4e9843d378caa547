//! Questions and their answers.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::{self, Duration},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, timeout_at},
};

use super::{doctor::DoctorLock, query, shared::Shared, stored};
use crate::{
    cli::Agent,
    model::{
        doctor::Check,
        history::{Alive, Gap, HistoryEnd},
        part::{AgentStatus, Part, State},
    },
    recording::history::{Filter, Kept},
    report::{
        events::Lines,
        lines,
        snapshot::{Output, Reporter, Snapshot},
    },
    serve::{Answers, Body, body, text},
};

/// How often a follower hears that nothing came.
const ALIVE: Duration = Duration::from_secs(5);
/// Maximum age of metrics that are sent again, so that frequent scrapes take little of the node's CPU.
const FRESH: Duration = Duration::from_millis(250);
/// Bytes of lines that are sent at once.
pub(super) const CHUNK: usize = 64 << 10;
const LINES: &str = "application/x-ndjson";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers on the port for questions.
pub struct Questions {
    shared: Arc<Shared>,
    settings: Agent,
    surgery: DoctorLock,
}

impl Questions {
    pub fn new(shared: Arc<Shared>, settings: Agent) -> Self {
        Self {
            shared,
            settings,
            surgery: DoctorLock::default(),
        }
    }
}

/// Answers on the port for Prometheus and the kubelet.
pub struct Scrapes {
    shared: Arc<Shared>,
    /// Writes down what the process takes.
    process: fn(&Shared),
    latest: Mutex<Option<(time::Instant, Bytes)>>,
}

impl Scrapes {
    pub fn new(shared: Arc<Shared>, process: fn(&Shared)) -> Self {
        Self {
            shared,
            process,
            latest: Mutex::default(),
        }
    }

    fn metrics(&self) -> Bytes {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((written, metrics)) = &*latest
            && written.elapsed() < FRESH
        {
            return metrics.clone();
        }
        (self.process)(&self.shared);
        let metrics = Bytes::from(self.shared.metrics.encode());
        *latest = Some((time::Instant::now(), metrics.clone()));
        metrics
    }
}

impl Answers for Questions {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default();
        match request.uri().path() {
            "/v1/connections" => match query::connections(query) {
                Ok(asked) if asked.follow => follow(&self.shared, asked.filter),
                Ok(asked) => connections(&self.shared, asked.filter),
                Err(error) => wrong(&error),
            },
            "/v1/vxlan" => self.look(Part::Vxlan, query, self.shared.vxlan().as_deref()),
            "/v1/bypass" => self.look(Part::Bypass, query, self.shared.bypass().as_deref()),
            "/v1/doctor" => match query::checks(query) {
                Ok(checks) => self.doctor(checks),
                Err(error) => wrong(&error),
            },
            "/v1/node" => body(StatusCode::OK, "application/json", node(&self.shared)),
            _ => text(
                StatusCode::NOT_FOUND,
                "not found; paths: /v1/connections, /v1/vxlan, /v1/bypass, /v1/doctor, /v1/node\n",
            ),
        }
    }

    fn answered(&self, status: StatusCode) {
        self.shared.metrics.question("query", status.as_u16());
    }

    fn refused(&self) {
        self.shared.metrics.refused("query");
    }
}

impl Answers for Scrapes {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            "/metrics" => body(StatusCode::OK, OPEN_METRICS, self.metrics()),
            "/healthz" => health(&self.shared.hangs()),
            "/readyz" => ready(&self.shared),
            _ => text(
                StatusCode::NOT_FOUND,
                "not found; paths: /metrics, /healthz, /readyz\n",
            ),
        }
    }

    fn answered(&self, status: StatusCode) {
        self.shared.metrics.question("metrics", status.as_u16());
    }

    fn refused(&self) {
        self.shared.metrics.refused("metrics");
    }
}

fn wrong(error: &str) -> Response<Body> {
    text(StatusCode::BAD_REQUEST, format!("{error}\n"))
}

fn health(hangs: &[String]) -> Response<Body> {
    if hangs.is_empty() {
        text(StatusCode::OK, "ok\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, hangs.join("\n") + "\n")
    }
}

/// Ready once every part runs or can't, and one runs.
fn ready(shared: &Shared) -> Response<Body> {
    let parts = shared.parts();
    let starts = parts.is_empty() || parts.values().any(|state| *state == State::Starts);
    let runs = parts.values().any(|state| matches!(state, State::Runs { .. }));
    let mut lines = String::new();
    for (part, state) in &parts {
        let reason = match state {
            State::Failed(reason) => format!(": {reason}"),
            State::Runs { lacks } if !lacks.is_empty() => format!(" without {}", lacks.join("; ")),
            State::Off | State::Starts | State::Runs { .. } => String::new(),
        };
        lines.push_str(&format!(
            "{} {}{}\n",
            part.name(),
            state.name(),
            reason.replace('\n', " ")
        ));
    }
    let status = if runs && !starts {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    text(status, lines)
}

fn node(shared: &Shared) -> Vec<u8> {
    let parts = shared.parts();
    let node = AgentStatus {
        node: &shared.node,
        version: env!("CARGO_PKG_VERSION"),
        kernel: &shared.kernel,
        parts: parts
            .iter()
            .map(|(part, state)| (part.name(), state.into()))
            .collect(),
    };
    // Text always can be written.
    let mut json = lines::to_vec(&node).unwrap_or_default();
    json.push(b'\n');
    json
}

impl Questions {
    fn doctor(&self, checks: Vec<Check>) -> Response<Body> {
        match self.surgery.begin(&self.shared, self.settings.clone(), checks) {
            Ok(Some(lines)) => streamed(lines),
            Ok(None) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "another request is running the checks: retry in some seconds\n",
            ),
            Err(error) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("can't start a thread: {error}\n"),
            ),
        }
    }

    fn look<L: Snapshot>(&self, part: Part, query: &str, view: Option<&L>) -> Response<Body> {
        let json = match query::output(query) {
            Ok(json) => json,
            Err(error) => return wrong(&error),
        };
        let Some(view) = view else {
            let parts = self.shared.parts();
            let reason = match parts.get(&part) {
                Some(State::Failed(reason)) => format!("does not run: {reason}"),
                Some(State::Off) => "is disabled".to_owned(),
                Some(State::Starts | State::Runs { .. }) | None => "has no snapshot yet".to_owned(),
            };
            let reason = reason.replace('\n', " ");
            return text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{} {reason}\n", part.name()),
            );
        };
        let (output, kind) = if json {
            (Output::Json, "application/json")
        } else {
            (Output::Text, "text/plain; charset=utf-8")
        };
        let mut out = Vec::new();
        let mut reporter = Reporter::new(output, None, self.shared.node.clone(), &mut out);
        let written = if json {
            reporter.view(view)
        } else {
            reporter.last(view)
        };
        if let Err(error) = written {
            return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
        }
        let mut response = body(StatusCode::OK, kind, out);
        let verdict = view.verdict();
        let healthy = if verdict.is_faulty() { "false" } else { "true" };
        let headers = response.headers_mut();
        headers.insert("probe-healthy", HeaderValue::from_static(healthy));
        headers.insert("probe-verdict", HeaderValue::from_static(verdict.name()));
        response
    }
}

fn lines(shared: &Shared) -> Lines {
    Lines::new(shared.node.clone())
}

fn connections(shared: &Arc<Shared>, filter: Filter) -> Response<Body> {
    let (found, reach) = shared.find(&filter);
    let end = HistoryEnd {
        held: reach.held as u64,
        oldest: reach.oldest,
        forgotten: reach.forgotten,
        lost: reach.lost,
        unlisted: reach.unlisted,
        scope: shared.scope(&filter.ports),
    };
    if let Some(store) = shared.store() {
        return streamed(stored::answer(store, filter, found, end, lines(shared)));
    }
    let end = lines(shared).event("end", end);
    streamed(stream::iter(chunks(found).chain([Bytes::from(end)])))
}

/// Lines, some at a time: they are copied only when they are sent.
pub(super) fn chunks(found: Vec<Arc<Kept>>) -> impl Iterator<Item = Bytes> + Send {
    let mut found = found.into_iter().peekable();
    std::iter::from_fn(move || {
        found.peek()?;
        let mut chunk = Vec::with_capacity(CHUNK);
        while let Some(kept) =
            found.next_if(|kept| chunk.is_empty() || chunk.len() + kept.line.len() <= CHUNK)
        {
            chunk.extend_from_slice(&kept.line);
        }
        Some(Bytes::from(chunk))
    })
}

fn follow(shared: &Arc<Shared>, filter: Filter) -> Response<Body> {
    let (before, news) = shared.follow(&filter);
    let follower = Follower {
        lines: lines(shared),
        filter,
        news,
        alive: Instant::now(),
    };
    let rest = stream::unfold(follower, |mut follower| async {
        let next = follower.next().await?;
        Some((next, follower))
    });
    streamed(stream::iter(chunks(before)).chain(rest))
}

struct Follower {
    lines: Lines,
    filter: Filter,
    news: Receiver<Arc<Kept>>,
    /// When it last heard anything.
    alive: Instant,
}

impl Follower {
    /// What comes next; `None` when the agent ends.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let line = match timeout_at(self.alive + ALIVE, self.news.recv()).await {
                Ok(Ok(kept)) if self.filter.wants(&kept.ends) => kept.line.clone(),
                // What it does not want does not keep it from hearing that all is well.
                Ok(Ok(_)) if self.alive.elapsed() < ALIVE => continue,
                Ok(Ok(_)) => self.lines.event("alive", Alive {}).into(),
                Ok(Err(RecvError::Lagged(lost))) => self.lines.event("gap", Gap { lost }).into(),
                Ok(Err(RecvError::Closed)) => return None,
                Err(_) => self.lines.event("alive", Alive {}).into(),
            };
            self.alive = Instant::now();
            return Some(line);
        }
    }
}

fn streamed(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let frames = chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static(LINES));
    response
}
