//! What the doctors of all nodes say.

use std::sync::Arc;

use super::{
    Agent, AgentError,
    all::{Asked, each},
    ask::{Connect, lines},
    body::BodyLine,
};
use crate::{
    model::doctor::{Answer, Check},
    recording::doctor::read,
};

/// More than this no doctor says.
const MOST: u64 = 4 << 20;

/// What the doctor of one node said, and whether it said all of it.
pub type Said = (Vec<Answer>, Result<(), AgentError>);

/// Asks all `agents`; what each said, as it comes.
pub fn ask<'a, C: Connect>(ways: &Arc<C>, agents: &'a [Agent], path: &str) -> Asked<'a, Said> {
    let (ways, path): (_, Arc<str>) = (Arc::clone(ways), path.into());
    each(agents, move |agent| {
        let (ways, path) = (Arc::clone(&ways), Arc::clone(&path));
        async move {
            let mut answers = Vec::new();
            let end = one(&*ways, &agent, &path, &mut answers).await;
            (answers, end)
        }
    })
}

async fn one<C: Connect>(
    ways: &C,
    agent: &Agent,
    path: &str,
    answers: &mut Vec<Answer>,
) -> Result<(), AgentError> {
    let mut said = lines(ways, agent, path, false).await?;
    while let Some(next) = said.lines.next().await? {
        if said.lines.bytes > MOST {
            return Err(AgentError::TooLong(MOST));
        }
        let BodyLine::Whole(text) = next else {
            return Err(AgentError::Malformed("a line is too long".to_owned()));
        };
        match read(&text).map_err(AgentError::Malformed)? {
            Some(answer) if answers.len() < Check::ALL.len() => answers.push(answer),
            Some(_) => {
                return Err(AgentError::Malformed(
                    "it sent more answers than there are checks".to_owned(),
                ));
            }
            // The end.
            None => return Ok(()),
        }
    }
    Err(AgentError::CutOff)
}
