//! Policy routing: a rule that sent a packet another way than table main would have.

use super::conclusion::Places;
use crate::routing::PolicyRoute;

/// Where it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detour {
    /// The network namespace.
    pub netns: u32,
    pub policy: PolicyRoute,
}

impl Detour {
    pub(super) fn words(&self, places: Places<'_>) -> String {
        format!("in {} {}", places(self.netns), self.policy.words())
    }
}
