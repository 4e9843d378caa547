//! The state of each node's agent, and the messages about it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use jiff::Timestamp;

use crate::{
    cluster::{AgentError, follow::Again},
    commands::cluster::local,
    model::summary::Tally,
    recording::connection::LineError,
    report::say,
};

/// How often, at the most, it is reported that a node left something out.
const GAPS_EVERY: Duration = Duration::from_secs(10);

/// Nodes that ever had an agent.
#[derive(Default)]
pub struct Nodes {
    states: BTreeMap<Arc<str>, NodeState>,
    gaps: u64,
}

#[derive(Default)]
struct NodeState {
    /// It answered at least once.
    answered: bool,
    /// Why it does not answer.
    silent: Option<AgentError>,
    malformed: u64,
    /// Connections left out that are not reported yet, and when they were last.
    left_out: u64,
    gap_reported: Option<Instant>,
}

impl Nodes {
    /// Whether the node is new.
    pub fn add(&mut self, node: Arc<str>) -> bool {
        let is_new = !self.states.contains_key(&node);
        if is_new {
            self.states.insert(node, NodeState::default());
        }
        is_new
    }

    pub fn has(&self, node: &Arc<str>) -> bool {
        self.states.contains_key(node)
    }

    pub fn gap(&mut self, node: &Arc<str>, lost: u64) {
        self.gaps = self.gaps.saturating_add(lost);
        let Some(state) = self.states.get_mut(node) else {
            return;
        };
        state.left_out = state.left_out.saturating_add(lost);
        if state
            .gap_reported
            .is_none_or(|reported| reported.elapsed() >= GAPS_EVERY)
        {
            state.gap_reported = Some(Instant::now());
            let lost = std::mem::take(&mut state.left_out);
            say(format_args!(
                "probe: node {node}: {lost} connections lost: they were faster than the transfer"
            ));
        }
    }

    pub fn malformed(&mut self, node: &Arc<str>, reason: Option<&LineError>) {
        let Some(state) = self.states.get_mut(node) else {
            return;
        };
        state.malformed += 1;
        if state.malformed == 1 {
            let reason = reason.map_or_else(|| "too long".to_owned(), ToString::to_string);
            say(format_args!(
                "probe: node {node}: unreadable lines from its agent are skipped and counted: {reason}"
            ));
        }
    }

    pub fn answers(&mut self, node: &Arc<str>, again: Option<Again>) {
        let Some(state) = self.states.get_mut(node) else {
            return;
        };
        state.answered = true;
        state.silent = None;
        match again {
            None => {}
            Some(Again::Same) => say(format_args!("probe: node {node} answers again")),
            Some(Again::Another) => say(format_args!(
                "probe: node {node} answers again, by another agent: unsent connections of the previous one \
                 are lost"
            )),
        }
    }

    /// `since`: when the last message came.
    pub fn silent(&mut self, node: &Arc<str>, since: Option<Timestamp>, reason: AgentError) {
        let Some(state) = self.states.get_mut(node) else {
            return;
        };
        let since = since.map(|since| format!(" since {}", local(since)));
        say(format_args!(
            "probe: node {node}: no answer{} ({reason}); trying again",
            since.unwrap_or_default()
        ));
        state.silent = Some(reason);
    }

    /// Reports the nodes that did not answer at the end.
    ///
    /// # Errors
    /// When none ever did.
    pub fn finish(&self) -> Result<()> {
        for (node, state) in &self.states {
            match &state.silent {
                Some(reason) if state.answered => say(format_args!(
                    "probe: node {node} did not answer at the end, its latest connections are missing: {reason}"
                )),
                Some(reason) => say(format_args!("probe: node {node} did not answer: {reason}")),
                None if !state.answered => say(format_args!("probe: node {node} did not answer yet")),
                None => {}
            }
        }
        if !self.states.values().any(|state| state.answered) {
            bail!("no agent answered");
        }
        Ok(())
    }

    pub fn losses(&self) -> [Tally; 2] {
        [
            Tally {
                name: "gaps",
                what: "connections lost by agents: they were faster than the transfer",
                count: self.gaps,
            },
            Tally {
                name: "malformed",
                what: "lines of agents that could not be read",
                count: self.states.values().map(|state| state.malformed).sum(),
            },
        ]
    }
}
