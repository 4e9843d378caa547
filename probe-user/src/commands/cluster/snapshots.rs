//! `probe vxlan --cluster` and `probe bypass --cluster`: the latest snapshot of every agent.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use tokio::{
    select,
    time::{MissedTickBehavior, interval},
};

use super::{Cluster, local, tell_silent};
use crate::{
    cli::ClusterLooks as Settings,
    cluster::{Agent, AgentError, ask::AgentSnapshot, question, snapshots::snapshots},
    commands::{print, quiet_if_closed, until::Until},
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
        return round(what, settings.json, &cluster, &agents).await;
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
        if !settings.json {
            let time = local(Timestamp::now());
            let written = writeln!(io::stdout(), "{time}").context("can't write");
            if let Err(error) = written {
                return quiet_if_closed(error).map(|()| exit);
            }
        }
        exit = select! {
            () = until.stopped() => return Ok(exit),
            round = round(what, settings.json, &cluster, &agents) => round?,
        };
        // A list that fails once is no reason to end.
        if let Ok(now) = cluster.agents().await {
            agents = now;
        }
    }
}

/// More often costs, and shows nothing more.
const LEAST: Duration = Duration::from_secs(1);

async fn round(what: &'static str, json: bool, cluster: &Cluster, agents: &[Agent]) -> Result<Exit> {
    let path = question::look(what, json);
    let (mut verdict, mut answered) = (Verdict::Ok, true);
    let mut out = Vec::new();
    let colour = report::colour();
    for (name, answer) in snapshots(&cluster.ways, agents, &path).await {
        let shown = answer.and_then(|look| {
            shown(&mut out, what, json, colour, &name, &look)?;
            Ok(look.verdict)
        });
        match shown {
            Ok(of_node) => verdict = verdict.max(of_node),
            Err(reason) => {
                answered = false;
                tell_silent(&name, &reason);
            }
        }
    }
    print(out)?;
    Ok(Exit::of_nodes(verdict, answered))
}

fn shown(
    out: &mut Vec<u8>,
    what: &'static str,
    json: bool,
    colour: bool,
    name: &str,
    look: &AgentSnapshot,
) -> Result<(), AgentError> {
    if json {
        node::object(out, what, name, &look.text).map_err(AgentError::Malformed)
    } else {
        node::section(out, colour, name, &look.text);
        Ok(())
    }
}
