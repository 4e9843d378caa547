//! `probe doctor --cluster`: every node, by its agent.

use anyhow::Result;

use super::{Cluster, tell_silent};
use crate::{
    cli::{Agents, Doctor},
    cluster::{doctor::ask, question},
    commands::{print, progress::Progress},
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
    let mut progress = Progress::before_answers();
    progress.now(format_args!(
        "querying the agents of {} nodes, for some seconds …",
        agents.len()
    ));
    let answers = ask(&cluster.ways, &agents, &path).await;
    progress.clear();
    let colour = report::colour();
    let (mut verdict, mut answered) = (Verdict::Ok, true);
    let mut out = Vec::new();
    for (name, (answers, end)) in answers {
        if settings.json {
            for answer in &answers {
                out.extend_from_slice(report::doctor::json(answer, &name)?.as_bytes());
                out.push(b'\n');
            }
        } else if !answers.is_empty() {
            let mut text: String = answers.iter().map(report::doctor::text).collect();
            text.push_str(report::doctor::summary(&answers).trim_start());
            node::section(&mut out, colour, &name, &text);
        }
        verdict = verdict.max(Answer::verdict_of_all(&answers));
        if let Err(reason) = end {
            answered = false;
            tell_silent(&name, &reason);
        }
    }
    print(out)?;
    Ok(Exit::of_nodes(verdict, answered))
}
