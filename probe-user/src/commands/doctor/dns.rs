//! The check `dns`: what it reads.

use super::Node;
use crate::model::doctor::{Answer, Check};

pub fn run(_node: &Node) -> Answer {
    Answer::not_applicable(Check::Dns, "not written yet")
}
