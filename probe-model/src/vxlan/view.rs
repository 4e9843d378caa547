//! One snapshot, to be reported.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;

use crate::{Verdict, owner::Name};

use super::{
    diagnosis::{belongs, peer_of},
    finding::{Diagnosed, Fault},
    overlay::{Overlay, Peer},
    traffic::{Direction, Layer, Traffic, VxlanCount, VxlanDrop, VxlanStream},
};

#[derive(Clone, Debug)]
pub struct View {
    pub time: Timestamp,
    pub overlays: Vec<Overlay>,
    /// Names of devices by index.
    pub devices: HashMap<u32, String>,
    pub names: HashMap<IpAddr, Name>,
    pub traffic: Traffic,
    pub findings: Vec<Diagnosed>,
    /// What of the packet filter could not be read.
    pub unread: Vec<String>,
}

/// A peer of a device, expected or seen.
#[derive(Clone, Debug)]
pub struct PeerView<'a> {
    pub overlay: &'a Overlay,
    /// `None`: one that the device has no entries for.
    pub peer: Option<&'a Peer>,
    pub vtep: Option<IpAddr>,
    pub received: VxlanCount,
    pub sent: VxlanCount,
    /// Packets from or to it that were dropped on this node.
    pub dropped: u64,
    pub findings: Vec<&'a Diagnosed>,
    /// Of the device, with no peer.
    pub device_faults: Vec<Fault>,
}

impl PeerView<'_> {
    /// What there is to say in one word or two.
    pub fn state(&self) -> String {
        match self.findings.as_slice() {
            [] if !self.overlay.device.up => self.device_state().to_owned(),
            [] if self.peer.is_none() => "no entries".to_owned(),
            [] if self.peer.is_some_and(Peer::is_direct) && self.received.packets == 0 => "direct".to_owned(),
            [] if self.received.packets == 0 && self.sent.packets == 0 => "idle".to_owned(),
            // Packets without an answer are not verified to arrive.
            [] if self.received.packets == 0 => "not verified".to_owned(),
            [] => "ok".to_owned(),
            findings => {
                let mut names: Vec<_> = findings.iter().map(|finding| finding.fault.name()).collect();
                names.dedup();
                names.join(", ")
            }
        }
    }

    /// Whether packets from it arrive. What nothing is received from is not verified, unless nothing is expected of it.
    pub fn verdict(&self) -> Verdict {
        let faulty = !self.findings.is_empty() || !self.overlay.device.up;
        Verdict::of(faulty, self.received.packets > 0 || self.is_direct())
    }

    /// Of a device that is down.
    fn device_state(&self) -> &'static str {
        let of_device = |fault| self.device_faults.contains(&fault);
        if of_device(Fault::PortTaken) {
            Fault::PortTaken.name()
        } else {
            Fault::DeviceDown.name()
        }
    }

    /// Nothing is expected of it: its pods are routed without the device.
    pub fn is_direct(&self) -> bool {
        self.peer.is_some_and(Peer::is_direct)
    }

    /// The latest packet, `CLOCK_MONOTONIC` nanoseconds; 0: none.
    pub fn last_ns(&self) -> u64 {
        self.received.last_ns.max(self.sent.last_ns)
    }
}

impl View {
    /// Of all devices. Without a device there is nothing that could be verified.
    pub fn verdict(&self) -> Verdict {
        let parts = self.peers().into_iter().map(|peer| peer.verdict());
        let verified = !self.overlays.is_empty() && Verdict::of_parts(parts) == Verdict::Ok;
        Verdict::of(!self.findings.is_empty(), verified)
    }

    /// Of a device, by the findings about it and its peers, and by its `peers`.
    pub fn verdict_of(&self, overlay: &Overlay, peers: &[PeerView<'_>]) -> Verdict {
        let device = &overlay.device;
        let is_its = |finding: &Diagnosed| finding.device.as_ref() == Some(&device.name);
        let peers = peers
            .iter()
            .filter(|peer| peer.overlay.device.index == device.index);
        let parts = Verdict::of_parts(peers.map(PeerView::verdict));
        parts.max(Verdict::of(self.findings.iter().any(is_its) || !device.up, true))
    }

    /// Every peer of every device, those it should have first.
    pub fn peers(&self) -> Vec<PeerView<'_>> {
        let mut views = Vec::new();
        for overlay in &self.overlays {
            let ours = || {
                self.traffic
                    .streams
                    .iter()
                    .filter(|(stream, _)| belongs(overlay, stream))
            };
            for peer in &overlay.peers {
                views.push(self.peer(overlay, Some(peer), peer.vtep, ours()));
            }
            let mut others: Vec<IpAddr> = ours()
                .filter(|(stream, count)| peer_of(overlay, stream, count, &self.traffic).is_none())
                .map(|(stream, _)| stream.peer)
                .filter(|vtep| !vtep.is_multicast())
                .collect();
            others.sort_unstable();
            others.dedup();
            for vtep in others {
                views.push(self.peer(overlay, None, Some(vtep), ours()));
            }
        }
        views
    }

    /// What lies behind the peer of a finding; of a finding about the device, behind all.
    pub fn networks(&self, finding: &Diagnosed) -> Vec<IpNet> {
        let of = |peer: &&Peer| match (finding.peer, peer.gateway) {
            (Some(vtep), _) if peer.vtep == Some(vtep) => true,
            // Its forwarding entry is missing.
            (_, Some(gateway)) if finding.detail == gateway.to_string() => true,
            (Some(_), _) => false,
            (None, _) => finding.detail.is_empty(),
        };
        let overlays = self.overlays.iter();
        overlays
            .filter(|overlay| Some(&overlay.device.name) == finding.device.as_ref())
            .flat_map(|overlay| overlay.peers.iter().filter(of))
            .flat_map(|peer| {
                let gateway = peer.gateway.map(IpNet::from);
                peer.routes.iter().copied().chain(gateway)
            })
            .collect()
    }

    fn peer<'a>(
        &'a self,
        overlay: &'a Overlay,
        peer: Option<&'a Peer>,
        vtep: Option<IpAddr>,
        streams: impl Iterator<Item = &'a (VxlanStream, VxlanCount)>,
    ) -> PeerView<'a> {
        let (mut received, mut sent) = (VxlanCount::default(), VxlanCount::default());
        let is_its = |stream: &VxlanStream, count: &VxlanCount| match peer {
            Some(peer) if Some(stream.peer) != vtep => {
                peer_of(overlay, stream, count, &self.traffic) == Some(peer)
            }
            _ => Some(stream.peer) == vtep,
        };
        for (stream, count) in streams.filter(|(stream, count)| is_its(stream, count)) {
            let sum = match stream.direction {
                Direction::In => &mut received,
                Direction::Out => &mut sent,
            };
            // The same peer through two underlays.
            sum.packets += count.packets;
            sum.frames += count.frames;
            sum.bytes += count.bytes;
            sum.last_ns = sum.last_ns.max(count.last_ns);
            sum.syn += count.syn;
            sum.syn_ack += count.syn_ack;
            sum.rst += count.rst;
            sum.asks += count.asks;
            sum.fragments += count.fragments;
            sum.malformed += count.malformed;
        }
        let drops = self
            .traffic
            .drops
            .iter()
            .filter(|(dropped, _)| self.of_peer(overlay, peer, vtep, dropped));
        let of_peer = |finding: &&Diagnosed| {
            Some(&overlay.device.name) == finding.device.as_ref()
                && match vtep {
                    Some(_) => finding.peer == vtep,
                    // Its forwarding entry is missing.
                    None => {
                        let gateway = peer.and_then(|peer| peer.gateway);
                        gateway.is_some_and(|gateway| finding.detail == gateway.to_string())
                    }
                }
        };
        PeerView {
            overlay,
            peer,
            vtep,
            received,
            sent,
            dropped: drops.map(|(_, count)| count.packets).sum(),
            findings: self.findings.iter().filter(of_peer).collect(),
            device_faults: self
                .findings
                .iter()
                .filter(|finding| {
                    finding.peer.is_none() && Some(&overlay.device.name) == finding.device.as_ref()
                })
                .map(|finding| finding.fault)
                .collect(),
        }
    }

    fn of_peer(
        &self,
        overlay: &Overlay,
        peer: Option<&Peer>,
        vtep: Option<IpAddr>,
        dropped: &VxlanDrop,
    ) -> bool {
        match dropped.place {
            Layer::Outer => {
                dropped.port == overlay.vxlan.port
                    && (vtep == Some(dropped.source) || vtep == Some(dropped.destination))
            }
            // IPv6's neighbours are asked for on devices that lead to none: noise.
            Layer::Inner => {
                dropped.device == overlay.device.index
                    && dropped.ethertype != 0x86dd
                    && peer.is_some()
                    && overlay.towards(dropped.destination) == peer
            }
        }
    }
}
