//! Faults that ICMP errors report.

use super::Observation;
use crate::finding::Fix;
use crate::probe_command;
use crate::vxlan::{
    finding::Fault,
    overlay::Overlay,
    traffic::{Direction, IcmpErrorKind},
};

impl Observation<'_> {
    /// What ICMP says of VXLAN packets from here.
    pub(super) fn icmp_errors(&mut self) {
        let errors: Vec<_> = self
            .traffic
            .errors
            .iter()
            .filter(|(error, count)| {
                error.direction == Direction::In
                    && self.own.contains(&error.source)
                    && self.holds(count.last_ns)
            })
            .copied()
            .collect();
        for (error, count) in errors {
            let overlays = self.overlays;
            let at_port = |overlay: &&Overlay| overlay.vxlan.port == error.port;
            let Some(overlay) = overlays.iter().find(at_port) else {
                continue;
            };
            let (name, peer, port) = (&overlay.device.name, error.destination, error.port);
            let kind = error.kind.name();
            let evidence = vec![format!(
                "ICMP \"{kind}\" from {}: {}",
                error.reporter,
                self.seen(count.packets, count.last_ns)
            )];
            match error.kind {
                // Told already, with what is there instead.
                IcmpErrorKind::Port if self.explained(Some(peer), &[Fault::PortMismatch]) => {}
                IcmpErrorKind::Port => {
                    let what = format!(
                        "{peer} refuses VXLAN packets of {name}: nothing listens on its UDP port {port}, or a rule there \
                         rejects them."
                    );
                    let fixes = [
                        Fix::run(
                            ["ip", "-d", "link", "show", "type", "vxlan"],
                            format!("on {peer}: its VXLAN device must be up, with port {port}"),
                        ),
                        probe_command::vxlan(&format!("on {peer}: shows the rule, if one rejects")),
                    ];
                    self.find(Fault::Refused, overlay, Some(peer), what, evidence, fixes);
                }
                IcmpErrorKind::Prohibited => {
                    let what = format!(
                        "A filter at {} forbids VXLAN packets from {name} to {peer}.",
                        error.reporter
                    );
                    let fixes = [Fix::text(format!(
                        "Allow UDP port {port} between the nodes in the filter of {}.",
                        error.reporter
                    ))];
                    let finding = self.find(Fault::Refused, overlay, Some(peer), what, evidence, fixes);
                    finding.detail = "prohibited".to_owned();
                }
                IcmpErrorKind::Host if self.explained(Some(peer), &[Fault::DeadVtep]) => {}
                IcmpErrorKind::Host => {
                    let what = format!(
                        "The peer {peer} of {name} is unreachable: {} reports it by ICMP.",
                        error.reporter
                    );
                    let fixes = [Fix::text(format!(
                        "Check that the node runs, and the route to {peer}."
                    ))];
                    self.find(Fault::DeadVtep, overlay, Some(peer), what, evidence, fixes);
                }
                IcmpErrorKind::TooBig => {
                    let mtu = if count.mtu == 0 {
                        "less".to_owned()
                    } else {
                        format!("packets of {} bytes", count.mtu)
                    };
                    let what = format!(
                        "The path from {name} to {peer} carries only {mtu}: larger VXLAN packets are lost \
                         at {}.",
                        error.reporter
                    );
                    let fixes = [Fix::text(format!(
                        "Set the MTU of {name} and the pods to what the path carries less {} bytes, on every node.",
                        overlay.overhead()
                    ))];
                    let finding = self.find(Fault::Mtu, overlay, Some(peer), what, evidence, fixes);
                    finding.detail = "path".to_owned();
                }
                IcmpErrorKind::Other => {}
            }
        }
    }
}
