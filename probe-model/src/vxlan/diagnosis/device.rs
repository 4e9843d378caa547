//! Devices that are down, and who has their UDP port.

use super::{Observation, manager, tables::entry_commands};
use crate::finding::Fix;
use crate::vxlan::{
    finding::Fault,
    overlay::{Overlay, PeerEntry},
};

/// Peers whose entries are printed as commands.
const PRINTED: usize = 8;

impl Observation<'_> {
    /// A device that is not up.
    pub(super) fn device(&mut self, overlay: &Overlay) {
        let (name, port) = (&overlay.device.name, overlay.vxlan.port);
        if overlay.device.up {
            return;
        }
        let up = |why: &str| Fix::run(["ip", "link", "set", name, "up"], why);
        let socket = || {
            let mut holders = self.traffic.holders.iter();
            let (_, holder) = holders.find(|(held, _)| *held == port && !overlay.is_port_shared)?;
            Some(holder.clone())
        };
        if let Some(other) = &overlay.conflict {
            let what = format!(
                "{name} is down: the VXLAN device {other}, with other options, holds UDP port {port}, and the kernel lets only one \
                 of them come up."
            );
            let evidence = vec![
                format!("{name} is not up"),
                format!("{other} is up on UDP port {port}"),
            ];
            let fixes = [
                Fix::text(format!(
                    "Remove the network plugin that made {other} from this node, with that device, or set another UDP port for one of \
                     the two."
                )),
                up("once the port is free"),
            ];
            let fixes = fixes.into_iter().chain(self.entries_again(overlay));
            self.find(Fault::PortTaken, overlay, None, what, evidence, fixes);
        } else if let Some(holder) = socket() {
            let what = format!("{name} is down: its UDP port {port} is in use by {holder}.");
            let evidence = vec![format!("{name} is not up"), format!("UDP port {port}: {holder}")];
            let fixes = [
                Fix::text(format!("Stop {holder}, or move it to another port.")),
                up("once the port is free"),
            ];
            let fixes = fixes.into_iter().chain(self.entries_again(overlay));
            self.find(Fault::PortTaken, overlay, None, what, evidence, fixes);
        } else {
            let what = format!("{name} is down: it carries no packets.");
            let why = format!("and find out why {}, which manages it, did not", manager(name));
            let fixes = [up(&why)].into_iter().chain(self.entries_again(overlay));
            let evidence = vec![format!("{name} is not up")];
            self.find(Fault::DeviceDown, overlay, None, what, evidence, fixes);
        }
    }

    /// What the kernel forgot when the device went down: routes and neighbour entries.
    fn entries_again(&self, overlay: &Overlay) -> Vec<Fix> {
        let name = &overlay.device.name;
        let known = self
            .known
            .get(&overlay.device.index)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let lost = [PeerEntry::Neighbour, PeerEntry::Route];
        let mut fixes: Vec<_> = known
            .iter()
            .take(PRINTED)
            .flat_map(|peer| entry_commands(name, peer, &lost))
            .collect();
        let which = match known.len() {
            0 => "Its routes and neighbour entries were removed when it went down.".to_owned(),
            known if known > PRINTED => format!(
                "The routes and neighbour entries of {} more peers were removed, too.",
                known - PRINTED
            ),
            _ => return fixes,
        };
        fixes.push(Fix::text(format!(
            "{which} Restart {}: it sets them again.",
            manager(name)
        )));
        fixes
    }
}
