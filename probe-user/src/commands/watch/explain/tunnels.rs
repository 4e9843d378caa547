//! Evidence: faults of VXLAN devices.

use anyhow::Result;

use crate::{
    cli::Vxlan,
    commands::{periodic::Looks, rule_book::RuleBook, vxlan},
    model::{
        cause::FaultyTunnel,
        vxlan::{Diagnosed, view::View},
    },
};

/// What is polled, and the faults found last.
#[derive(Default)]
pub struct Tunnels {
    poller: Option<vxlan::Poller>,
    faulty: Vec<FaultyTunnel>,
}

impl Tunnels {
    /// Begins to poll; what this kernel lacks, in sentences.
    ///
    /// # Errors
    /// A kernel that can't do it, or tables that can't be read.
    pub fn begin(&mut self, settings: &Vxlan, book: RuleBook) -> Result<Vec<String>> {
        let poller = vxlan::Poller::new(settings, book)?;
        let lacks = poller.degraded();
        self.poller = Some(poller);
        Ok(lacks)
    }

    pub fn is_off(&self) -> bool {
        self.poller.is_none()
    }

    /// The view of this interval. What fails is no longer polled.
    ///
    /// # Errors
    /// When the kernel can't be read.
    pub fn poll(&mut self) -> Result<Option<View>> {
        let Some(poller) = &mut self.poller else {
            return Ok(None);
        };
        let view = poller.look(true).inspect_err(|_| {
            self.poller = None;
            self.faulty.clear();
        })?;
        let tunnel = |finding: &Diagnosed| FaultyTunnel {
            fault: finding.fault,
            networks: view.networks(finding),
            what: finding.what.trim_end_matches('.').to_owned(),
            fixes: finding.fixes.clone(),
            certain: finding.certain,
        };
        self.faulty = view.findings.iter().map(tunnel).collect();
        Ok(Some(view))
    }

    pub fn faulty(&self) -> &[FaultyTunnel] {
        &self.faulty
    }
}
