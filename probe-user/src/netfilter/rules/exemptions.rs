//! Whether any rule may exempt packets from conntrack. On most nodes none does, and then there is nothing to count: a few requests
//! tell, where reading all rules takes seconds on a large node.

use std::time::{Duration, Instant};

use super::{netlink, xtables};
use crate::host::proc_net::ProcNet;

/// The rules are not read again for so many times as long as that took: at most 1 % of a core.
const REST: u32 = 100;
/// But for no longer than this.
const LONGEST: Duration = Duration::from_secs(30);

/// What is known of rules that exempt packets, in the calling thread's network namespace.
#[derive(Debug, Default)]
pub struct Exemptions {
    /// Of nf_tables: the number of the rules that were read, and whether one of them may exempt packets.
    nft: Option<(Option<u32>, bool)>,
    /// When they may be read again.
    rested: Option<Instant>,
}

impl Exemptions {
    /// Whether something may exempt packets now; also where that can't be known.
    pub fn may_exist(&mut self) -> bool {
        // IPVS does it without a rule, unless it is told to use conntrack.
        ProcNet::own().has("ip_vs") || xtables::has_notrack().unwrap_or(true) || self.may_nft()
    }

    fn may_nft(&mut self) -> bool {
        let Ok(generation) = netlink::generation() else {
            return true;
        };
        if let Some((known, may)) = self.nft
            && (known == generation || self.rested.is_some_and(|rested| Instant::now() < rested))
        {
            return may;
        }
        let begun = Instant::now();
        // Rules that changed meanwhile have another number by the next time.
        let may = netlink::may_exempt().unwrap_or(true);
        self.nft = Some((generation, may));
        self.rested = Some(Instant::now() + begun.elapsed().saturating_mul(REST).min(LONGEST));
        may
    }
}
