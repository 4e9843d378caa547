//! The stage that adds why a connection failed: each one that did waits for the evidence. A thread of its own collects it, as
//! reading rules takes other tools' time.

mod addresses;
mod drops;
mod evidence;
mod retry;
mod rules;
mod tunnels;
mod untracked;

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use self::evidence::Collector;
use crate::{
    attribution::kube::Access,
    capture::clock::Clock,
    cli::{Bypass, Vxlan, Watch},
    commands::bypass,
    model::{
        self, Cause, Connection,
        cause::explain_alone,
        outcome::failure,
        part::{Part, State},
        settings::KernelSource,
        summary::Tally,
        vxlan,
    },
};

/// Connections that wait for an answer at once; more are reported without a cause.
const WAITING: usize = 4096;
/// How long one waits at the most. Rules of a large node take a second to read.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often evidence is polled that shows only from interval to interval.
const EVERY: Duration = Duration::from_secs(1);

/// A connection whose cause is looked for.
struct ExplainRequest {
    number: u64,
    clock: Clock,
    connection: Connection,
}

struct ExplainReply {
    number: u64,
    cause: Option<Box<Cause>>,
}

/// What evidence is collected, and how.
#[derive(Default)]
pub struct ExplainConfig {
    /// Servers' ports; none: all.
    ports: Vec<u16>,
    netns: Option<PathBuf>,
    source: KernelSource,
    /// Failed connections are to be explained.
    causes: bool,
    /// How Kubernetes is asked for Services, once a connection has failed.
    kube: Option<Access>,
    /// Who gets the evidence of every interval, also where no connection fails.
    observed: Option<Observed>,
}

/// Evidence that is reported at every interval.
pub struct Observed {
    pub every: Duration,
    pub vxlan: Option<Vxlan>,
    pub bypass: Option<Bypass>,
    /// Where names come from.
    pub known: bypass::NameSources,
    pub by: Box<dyn Observer>,
}

/// Takes the evidence of every interval.
pub trait Observer: Send {
    /// The state of a part from now on.
    fn state(&mut self, part: Part, state: State);
    fn vxlan(&mut self, view: vxlan::view::View);
    fn bypass(&mut self, view: model::bypass::View);
    /// All was polled; so many dropped and untracked packets found no room.
    fn polled(&mut self, lost: u64);
}

impl ExplainConfig {
    /// For the causes of `watch`.
    pub fn of(settings: &Watch) -> Self {
        Self {
            ports: settings.kernel.ports.clone(),
            netns: settings.netns.clone(),
            source: settings.kernel.source.clone(),
            causes: true,
            kube: Access::find(&settings.kube),
            observed: None,
        }
    }

    /// Reports the evidence of every interval.
    #[must_use]
    pub fn observed(mut self, observed: Observed) -> Self {
        self.observed = Some(observed);
        self
    }
}

/// Connections that failed, and wait for their cause.
pub struct Explainer {
    is_ready: Receiver<()>,
    /// `None` at the end.
    questions: Option<SyncSender<ExplainRequest>>,
    answers: Receiver<ExplainReply>,
    thread: Option<JoinHandle<()>>,
    waiting: VecDeque<(u64, Instant, Connection)>,
    next: u64,
    /// Failed connections whose cause was not looked for.
    missed: u64,
    lost: Arc<AtomicU64>,
    rules_skipped: Arc<AtomicU64>,
}

impl Explainer {
    /// Starts the thread, which attaches its hooks and prints what they lack.
    ///
    /// # Errors
    /// When this process may not have another thread.
    pub fn start(config: ExplainConfig) -> io::Result<Self> {
        let every = config.observed.as_ref().map_or(EVERY, |observed| observed.every);
        let (questions, asked) = sync_channel(WAITING);
        let (answer, answers) = channel();
        let (ready, is_ready) = channel();
        let lost = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&lost);
        let rules_skipped = Arc::<AtomicU64>::default();
        let skipped = Arc::clone(&rules_skipped);
        let thread = thread::Builder::new().name("explain".to_owned()).spawn(move || {
            let mut collector = Collector::new(config);
            let _ = ready.send(());
            collector.settle();
            let mut polled = Instant::now();
            loop {
                let first: Option<ExplainRequest> =
                    match asked.recv_timeout(every.saturating_sub(polled.elapsed())) {
                        Ok(question) => Some(question),
                        Err(RecvTimeoutError::Timeout) => None,
                        Err(RecvTimeoutError::Disconnected) => return,
                    };
                if polled.elapsed() >= every {
                    polled = Instant::now();
                    collector.poll();
                    counted.store(collector.lost(), Ordering::Relaxed);
                }
                let Some(first) = first else { continue };
                let batch: Vec<ExplainRequest> = [first].into_iter().chain(asked.try_iter()).collect();
                let connections: Vec<&Connection> =
                    batch.iter().map(|question| &question.connection).collect();
                let clock = batch.last().map_or(Clock::new(0, 0), |question| question.clock);
                let causes = collector.explain(&connections, &clock);
                skipped.store(collector.rules_skipped(), Ordering::Relaxed);
                for (question, cause) in batch.iter().zip(causes) {
                    let number = question.number;
                    if answer.send(ExplainReply { number, cause }).is_err() {
                        return;
                    }
                }
            }
        })?;
        Ok(Self {
            is_ready,
            questions: Some(questions),
            answers,
            thread: Some(thread),
            waiting: VecDeque::new(),
            next: 0,
            missed: 0,
            lost,
            rules_skipped,
        })
    }

    /// Waits until its hooks are attached.
    pub fn wait(&self) {
        // An error is the end of the thread, which then answers nothing.
        let _ = self.is_ready.recv();
    }

    /// Asks for the cause of a connection and keeps it until there is an answer; gives it back when there is nothing to
    /// ask, or no room.
    pub fn ask(&mut self, connection: Connection, clock: Clock) -> Option<Connection> {
        if failure(connection.outcome).is_none() {
            return Some(connection);
        }
        let question = ExplainRequest {
            number: self.next,
            clock,
            connection: connection.clone(),
        };
        let asked = self.questions.as_ref().is_some_and(|questions| {
            self.waiting.len() < WAITING
                && match questions.try_send(question) {
                    Ok(()) => true,
                    Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
                }
        });
        if !asked {
            return Some(self.unanswered(connection));
        }
        self.waiting.push_back((self.next, Instant::now(), connection));
        self.next += 1;
        None
    }

    /// Those that were answered, or waited long enough; at the end of the run all, after a last wait.
    pub fn ready(&mut self, end: bool) -> Vec<Connection> {
        let mut ready = Vec::new();
        if end {
            while let Some((.., since, _)) = self.waiting.front() {
                match self
                    .answers
                    .recv_timeout(PATIENCE.saturating_sub(since.elapsed()))
                {
                    Ok(answer) => self.take(answer, &mut ready),
                    Err(_) => break,
                }
            }
        } else {
            while let Ok(answer) = self.answers.try_recv() {
                self.take(answer, &mut ready);
            }
        }
        while self
            .waiting
            .front()
            .is_some_and(|(_, since, _)| end || since.elapsed() > PATIENCE)
        {
            if let Some((.., connection)) = self.waiting.pop_front() {
                ready.push(self.unanswered(connection));
            }
        }
        ready
    }

    /// One whose cause was not looked for: its own record may still have it.
    fn unanswered(&mut self, mut connection: Connection) -> Connection {
        connection.cause = explain_alone(&connection).map(Box::new);
        if connection.cause.is_none() {
            self.missed += 1;
        }
        connection
    }

    /// Answers come in the order of their questions; some of those no longer wait.
    fn take(&mut self, answer: ExplainReply, ready: &mut Vec<Connection>) {
        if self
            .waiting
            .front()
            .is_some_and(|(number, ..)| *number == answer.number)
            && let Some((.., mut connection)) = self.waiting.pop_front()
        {
            connection.cause = answer.cause;
            ready.push(connection);
        }
    }

    pub fn losses(&self) -> [Tally; 3] {
        [
            Tally {
                name: "unexplained",
                what: "failed connections without a search for a cause (too many at once, or rules read too \
                       slowly)",
                count: self.missed,
            },
            Tally {
                name: "evidence",
                what: "dropped or untracked packets not kept (table full): a cause may be missing",
                count: self.lost.load(Ordering::Relaxed),
            },
            Tally {
                name: "rules",
                what: "searches for a cause with outdated rules (reading is limited to 1 % of a core): a rule may be missing",
                count: self.rules_skipped.load(Ordering::Relaxed),
            },
        ]
    }
}

impl Drop for Explainer {
    fn drop(&mut self) {
        self.questions = None;
        // Hooks that would outlive this process are taken away by the thread.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
