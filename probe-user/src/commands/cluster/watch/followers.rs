//! The source of a cluster's connections: a task for each node, which follows its agent.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::sleep,
};

use crate::{
    cli::Watch,
    cluster::{
        Agent, Forward, all,
        follow::{Follower, News},
        question::Connections,
    },
    commands::cluster::Cluster,
    report::say,
};

/// How often the agents are listed: pods are replaced, nodes come and go.
const DISCOVER: Duration = Duration::from_secs(10);

/// Keeps the list of agents current.
pub async fn discover(cluster: Arc<Cluster>, list: watch::Sender<Vec<Agent>>) {
    let mut failing = false;
    while !list.is_closed() {
        sleep(DISCOVER).await;
        match cluster.agents_now().await {
            Ok(now) => {
                if std::mem::take(&mut failing) {
                    say(format_args!("probe: agents can be listed again"));
                }
                list.send_if_modified(|known| {
                    let changed = *known != now;
                    *known = now;
                    changed
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    say(format_args!(
                        "probe: agents can't be listed, new ones are not found until then: {error:#}"
                    ));
                }
            }
        }
    }
}

/// One for each node that ever had an agent.
pub struct Followers {
    ways: Arc<Forward>,
    turns: Arc<Semaphore>,
    question: Connections,
    known: watch::Receiver<Vec<Agent>>,
    news: mpsc::Sender<News>,
    began: Option<Timestamp>,
}

impl Followers {
    pub fn new(
        cluster: &Cluster,
        settings: &Watch,
        known: watch::Receiver<Vec<Agent>>,
        news: mpsc::Sender<News>,
    ) -> Self {
        Self {
            ways: Arc::clone(&cluster.ways),
            turns: all::turns(),
            question: Connections {
                ports: settings.kernel.ports.clone(),
                role: settings.role.filter(|_| settings.record.is_none()),
                outcomes: settings.kernel.outcomes.clone(),
                ..Connections::default()
            },
            known,
            news,
            began: None,
        }
    }

    /// Follows the agents of nodes that `is_new` accepts. An agent that comes later is asked for all since the beginning.
    pub fn begin(&mut self, mut is_new: impl FnMut(&Arc<str>) -> bool) {
        let since = self.began;
        for agent in self.known.borrow().iter() {
            let node: Arc<str> = agent.node.as_str().into();
            if !is_new(&node) {
                continue;
            }
            if since.is_some() {
                say(format_args!("probe: node {node} has an agent now"));
            }
            let follower = Follower {
                ways: Arc::clone(&self.ways),
                turns: Arc::clone(&self.turns),
                node,
                agents: self.known.clone(),
                question: self.question.clone(),
                since,
                news: self.news.clone(),
            };
            tokio::spawn(follower.run());
        }
        self.began.get_or_insert_with(Timestamp::now);
    }
}
