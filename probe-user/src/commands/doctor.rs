//! `probe doctor`: the checks, each in a thread of its own, reported in order.

mod bridge;
mod bypass;
mod dns;
mod etcd;
mod ingress;
mod journal;
mod kubelet;
mod node;
mod path_mtu;
mod peer_pings;
mod ping;
mod settings;
mod vxlan;
mod watching;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::{
    print,
    progress::Progress,
    quiet_if_closed,
    rule_book::{RuleBook, RuleSnapshot},
};
use crate::{
    cli::Doctor as Settings,
    host::{self, files::Root},
    model::{
        Connection, Listed, Verdict, bypass as bypass_view,
        doctor::{Answer, Check, CheckVerdict, journal::tell as tell_of},
        vxlan::view as vxlan_view,
    },
    report,
};

/// How long a check may take beyond the time that is watched.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often the progress line is updated.
const TICK: Duration = Duration::from_millis(250);

/// Lines of the log, by check.
type Lines = BTreeMap<Check, Vec<String>>;

/// The input of every check.
pub struct CheckContext {
    root: Root,
    settings: Settings,
    memory: Option<Arc<dyn Remembers>>,
    book: RuleBook,
}

impl CheckContext {
    /// `memory`: the history of an agent.
    pub fn new(settings: Settings, memory: Option<Arc<dyn Remembers>>) -> Self {
        Self {
            root: Root::new(settings.root.clone()),
            settings,
            memory,
            book: RuleBook::default(),
        }
    }

    /// The packet filter's rules and the Services among them, read once for all checks: other tools take their time. Called
    /// in the node's network namespace, as all of a check is.
    fn rules(&self) -> Arc<RuleSnapshot> {
        self.book.since(0)
    }
}

/// The history of this node's agent.
pub trait Remembers: Send + Sync {
    /// Its latest snapshot of the VXLAN devices; `None`: none yet.
    fn vxlan(&self) -> Option<Arc<vxlan_view::View>>;

    /// Its latest snapshot of untracked packets.
    fn bypass(&self) -> Option<Arc<bypass_view::View>>;

    /// Since when.
    fn since(&self) -> Timestamp;

    /// Connections to a server's port that ended since then.
    fn connections(&self, port: u16, since: Timestamp) -> Vec<Connection>;
}

/// Does all the checks that are asked for; their verdict.
///
/// # Errors
/// An output that can't be written, or a network namespace that is not there.
pub fn run(settings: Settings) -> Result<Verdict> {
    if settings.list {
        return print(report::doctor::list()).map(|()| Verdict::Ok);
    }
    let mut out = io::stdout().lock();
    let mut answers = Vec::new();
    let json = settings.json;
    let name = host::node_name(settings.node.as_deref());
    let checks = settings.checks.clone();
    let written = examine(CheckContext::new(settings, None), &checks, |answer| {
        let text = if json {
            report::doctor::json(&answer, &name).map_err(io::Error::from)? + "\n"
        } else {
            report::doctor::text(&answer)
        };
        answers.push(answer);
        out.write_all(text.as_bytes())?;
        out.flush()
    });
    let written = written.and_then(|()| match json {
        true => Ok(()),
        false => out
            .write_all(report::doctor::summary(&answers).as_bytes())
            .and_then(|()| out.flush()),
    });
    written.context("can't write").or_else(quiet_if_closed)?;
    Ok(Answer::verdict_of_all(&answers))
}

/// Does the checks at the same time, and hands their answers over in their order. One that times out says so: nothing of the node is
/// known by it.
pub(super) fn examine(
    node: CheckContext,
    checks: &[Check],
    mut tell: impl FnMut(Answer) -> io::Result<()>,
) -> io::Result<()> {
    let until = Instant::now() + node.settings.duration + PATIENCE;
    let node = Arc::new(node);
    let (sender, answers) = mpsc::channel();
    for check in checks {
        let (check, node, sender) = (*check, Arc::clone(&node), sender.clone());
        // What hangs is left behind: this process ends soon.
        thread::Builder::new()
            .name(check.name().to_owned())
            .spawn(move || drop(sender.send(ask(check, &node))))?;
    }
    drop(sender);
    let log = read_log(&node)?;
    let mut progress = Progress::before_answers();
    let mut come: BTreeMap<Check, Answer> = BTreeMap::new();
    let mut told = None;
    for check in checks {
        let mut answer = loop {
            if let Some(answer) = come.remove(check) {
                break answer;
            }
            let left = until.saturating_duration_since(Instant::now());
            match answers.recv_timeout(left.min(TICK)) {
                Ok(answer) => drop(come.insert(answer.check, answer)),
                Err(mpsc::RecvTimeoutError::Timeout) if !left.is_zero() => {
                    progress.show(format_args!("{}: {} …", check.name(), check.description()));
                }
                Err(error) => {
                    let why = match error {
                        mpsc::RecvTimeoutError::Timeout => {
                            format!("timed out {} s after the time to observe", PATIENCE.as_secs())
                        }
                        mpsc::RecvTimeoutError::Disconnected => "stopped unexpectedly".to_owned(),
                    };
                    break Answer::not_done(*check, why);
                }
            }
        };
        progress.clear();
        let told = told.get_or_insert_with(|| {
            let waited = log.recv_timeout(until.saturating_duration_since(Instant::now()));
            waited.unwrap_or_else(|_| Err("timed out".to_owned()))
        });
        match told {
            Ok(lines) => answer.log = lines.remove(check).unwrap_or_default(),
            // Once is enough, on the check that it concerns.
            Err(why) if *check == Check::Node && answer.verdict != CheckVerdict::NotApplicable => {
                answer.unknown.push(format!("kubelet's log: {why}"));
            }
            Err(_) => {}
        }
        tell(answer)?;
    }
    Ok(())
}

/// What the node's log says of each check, as soon as it is read.
fn read_log(node: &Arc<CheckContext>) -> io::Result<mpsc::Receiver<Result<Lines, String>>> {
    let (sender, lines) = mpsc::channel();
    let node = Arc::clone(node);
    let read = move || journal::read(&node.root).map(|entries| tell_of(&entries));
    thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || drop(sender.send(read())))?;
    Ok(lines)
}

fn ask(check: Check, node: &CheckContext) -> Answer {
    match check {
        Check::Bridge => bridge::run(node),
        Check::Etcd => etcd::run(node),
        Check::Vxlan => vxlan::run(node),
        Check::Bypass => bypass::run(node),
        Check::Ingress => ingress::run(node),
        Check::Node => node::run(node),
        Check::Dns => dns::run(node),
        Check::Settings => settings::run(node),
    }
}
