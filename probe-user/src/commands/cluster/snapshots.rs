//! `probe vxlan --cluster` and `probe bypass --cluster`: the latest snapshot of every agent.

use std::{mem, ops::ControlFlow, time::Duration};

use anyhow::Result;
use jiff::Timestamp;
use tokio::{
    select,
    time::{MissedTickBehavior, interval},
};

use super::{Cluster, local, progress::NodeProgress, tell_silent};
use crate::{
    cli::ClusterLooks as Settings,
    cluster::{Agent, AgentError, question, snapshots::snapshots},
    commands::{quiet_if_closed, until::Until, write},
    model::{Exit, Verdict},
    report::{self, node},
};

/// Shows what the agents saw last, once or again and again; how the last round ended.
///
/// # Errors
/// When there is no agent to ask, or the output can't be written.
pub async fn run(what: &'static str, settings: Settings) -> Result<Exit> {
    let until = Until::signals()?;
    let cluster = Cluster::open(settings.agents).await?;
    let mut agents = cluster.agents().await?;
    cluster.tell_nodes_without(&agents).await;
    let Some((every, duration)) = settings.again else {
        return round(what, settings.json, &cluster, &agents)
            .await
            .map(|(exit, _)| exit);
    };
    let mut until = until.or_after(duration);
    let mut tick = interval(every.max(LEAST));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut exit = Exit::Healthy;
    loop {
        select! {
            () = until.over() => return Ok(exit),
            _ = tick.tick() => {}
        }
        let shown = async {
            if !settings.json {
                let time = write(format!("{}\n", local(Timestamp::now())));
                if let Err(error) = time {
                    return quiet_if_closed(error).map(|()| (exit, ControlFlow::Break(())));
                }
            }
            round(what, settings.json, &cluster, &agents).await
        };
        let (shown, flow) = select! {
            () = until.stopped() => return Ok(exit),
            shown = shown => shown?,
        };
        if flow.is_break() {
            return Ok(shown);
        }
        exit = shown;
        // A list that fails once is no reason to end.
        if let Ok(now) = cluster.agents().await {
            agents = now;
        }
    }
}

/// More often costs, and shows nothing more.
const LEAST: Duration = Duration::from_secs(1);

/// Asks all once, and prints each answer when it comes; breaks where nobody reads them any more.
async fn round(
    what: &'static str,
    json: bool,
    cluster: &Cluster,
    agents: &[Agent],
) -> Result<(Exit, ControlFlow<()>)> {
    let path = question::look(what, json);
    let (mut verdict, mut answered) = (Verdict::Ok, true);
    let colour = report::colour();
    let mut is_first = true;
    let mut progress = NodeProgress::new(agents.len());
    let mut asked = snapshots(&cluster.ways, agents, &path);
    while let Some((name, answer)) = progress.during(asked.next()).await {
        progress.clear();
        let mut out = Vec::new();
        let shown = answer.and_then(|look| {
            if json {
                node::object(&mut out, what, &name, &look.text).map_err(AgentError::Malformed)?;
            } else {
                node::section(&mut out, colour, mem::take(&mut is_first), &name, &look.text);
            }
            Ok(look.verdict)
        });
        progress.ended(shown.is_ok());
        match shown {
            Ok(of_node) => verdict = verdict.max(of_node),
            Err(reason) => {
                answered = false;
                tell_silent(&name, &reason);
            }
        }
        if let Err(error) = write(&out) {
            let exit = Exit::of_nodes(verdict, answered);
            return quiet_if_closed(error).map(|()| (exit, ControlFlow::Break(())));
        }
    }
    Ok((Exit::of_nodes(verdict, answered), ControlFlow::Continue(())))
}
