//! How many of a cluster's nodes have answered.

use std::{fmt, time::Duration};

use tokio::{
    pin, select,
    time::{MissedTickBehavior, interval},
};

use crate::commands::progress::Progress;

/// How often it is looked whether there is something to show.
const TICK: Duration = Duration::from_secs(1);

/// Nodes that are queried.
#[derive(Clone, Copy, Debug, Default)]
struct Queried {
    all: usize,
    done: usize,
    silent: usize,
    connections: Option<u64>,
}

impl fmt::Display for Queried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} nodes queried", self.done, self.all)?;
        if self.silent > 0 {
            write!(f, ", {} without an answer", self.silent)?;
        }
        if let Some(connections) = self.connections {
            write!(f, ", {connections} connections read")?;
        }
        Ok(())
    }
}

/// Shows them while they are waited for.
pub struct NodeProgress {
    progress: Progress,
    queried: Queried,
}

impl NodeProgress {
    /// Of so many nodes.
    pub fn new(all: usize) -> Self {
        let queried = Queried {
            all,
            ..Queried::default()
        };
        let mut progress = Progress::of_many();
        progress.now(format_args!("{queried}"));
        Self { progress, queried }
    }

    /// Waits for `next`, and shows how far it is meanwhile.
    pub async fn during<F: Future>(&mut self, next: F) -> F::Output {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pin!(next);
        loop {
            self.progress.keep(format_args!("{}", self.queried));
            select! {
                biased;
                output = &mut next => return output,
                _ = tick.tick() => {}
            }
        }
    }

    /// One node has answered, or not.
    pub fn ended(&mut self, answered: bool) {
        self.queried.done += 1;
        self.queried.silent += usize::from(!answered);
    }

    /// So many connections are there by now.
    pub fn connections(&mut self, connections: u64) {
        self.queried.connections = Some(connections);
    }

    /// Makes room for an answer, or a message.
    pub fn clear(&mut self) {
        self.progress.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is() {
        for (queried, expected) in [
            (
                Queried {
                    all: 313,
                    done: 48,
                    silent: 2,
                    connections: None,
                },
                "48 of 313 nodes queried, 2 without an answer",
            ),
            (
                Queried {
                    all: 3,
                    done: 1,
                    silent: 0,
                    connections: Some(12),
                },
                "1 of 3 nodes queried, 12 connections read",
            ),
        ] {
            assert_eq!(queried.to_string(), expected);
        }
    }

    #[tokio::test]
    async fn it_waits_for_what_it_is_given() {
        let mut progress = NodeProgress::new(2);
        let next = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            7
        };
        assert_eq!(progress.during(next).await, 7);
    }
}
