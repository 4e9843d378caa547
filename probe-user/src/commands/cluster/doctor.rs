//! `probe doctor --cluster`: every node, by its agent.

use std::mem;

use anyhow::Result;

use super::{Cluster, progress::NodeProgress, tell_silent};
use crate::{
    cli::{Agents, Doctor},
    cluster::{doctor::ask, question},
    commands::{print, quiet_if_closed, write},
    model::{Exit, Verdict, doctor::Answer},
    report::{self, node},
};

/// Asks the agents.
///
/// # Errors
/// When there is no agent to ask, or the output can't be written.
pub async fn run(settings: Doctor, agents: Agents) -> Result<Exit> {
    if settings.list {
        return print(report::doctor::list()).map(|()| Exit::Healthy);
    }
    let cluster = Cluster::open(agents).await?;
    let agents = cluster.agents().await?;
    cluster.tell_nodes_without(&agents).await;
    let path = question::doctor(&settings.checks);
    let mut progress = NodeProgress::new(agents.len());
    let mut asked = ask(&cluster.ways, &agents, &path);
    let colour = report::colour();
    let (mut verdict, mut answered) = (Verdict::Ok, true);
    let mut is_first = true;
    while let Some((name, (answers, end))) = progress.during(asked.next()).await {
        progress.clear();
        let mut out = Vec::new();
        if settings.json {
            for answer in &answers {
                out.extend_from_slice(report::doctor::json(answer, &name)?.as_bytes());
                out.push(b'\n');
            }
        } else if !answers.is_empty() {
            let mut text: String = answers.iter().map(report::doctor::text).collect();
            text.push_str(report::doctor::summary(&answers).trim_start());
            node::section(&mut out, colour, mem::take(&mut is_first), &name, &text);
        }
        verdict = verdict.max(Answer::verdict_of_all(&answers));
        progress.ended(end.is_ok());
        if let Err(reason) = end {
            answered = false;
            tell_silent(&name, &reason);
        }
        if let Err(error) = write(&out) {
            return quiet_if_closed(error).map(|()| Exit::of_nodes(verdict, answered));
        }
    }
    Ok(Exit::of_nodes(verdict, answered))
}
