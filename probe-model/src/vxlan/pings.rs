//! What pings to peers that were not heard from prove.

use std::{collections::HashMap, net::IpAddr};

use super::{diagnosis::UNANSWERED, finding::Fault, view::View};

/// The pings to one peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerPings {
    /// Sent through the overlay.
    pub sent: u64,
    /// Whether it answered one that was sent to its VTEP address, outside the overlay.
    pub answers_outside: bool,
}

/// The peers that would have the finding `no-answer`.
pub fn unanswered(view: &View) -> impl Iterator<Item = IpAddr> {
    let silent = view
        .findings
        .iter()
        .filter(|found| found.fault == Fault::NoAnswer);
    silent.filter_map(|found| found.peer)
}

/// Pings that get no answer are a fault of the overlay if the peer answers them outside it; else it may be down, or drop pings.
/// Takes out the findings `no-answer` that rest on such pings alone, and returns what is unknown instead.
pub fn weigh(view: &mut View, pings: &HashMap<IpAddr, PeerPings>) -> Vec<String> {
    let mut asked: HashMap<IpAddr, u64> = HashMap::new();
    for peer in view.peers() {
        if let Some(vtep) = peer.vtep {
            *asked.entry(vtep).or_default() += peer.sent.asks;
        }
    }
    let mut unknown = Vec::new();
    view.findings.retain_mut(|found| {
        let Some((peer, pings)) = found.peer.and_then(|peer| Some((peer, pings.get(&peer)?))) else {
            return true;
        };
        if found.fault != Fault::NoAnswer || pings.sent == 0 {
            return true;
        }
        if pings.answers_outside {
            found.finding.evidence.push(format!(
                "{peer} answers pings outside the overlay: it is up, and the network between the nodes carries packets"
            ));
            return true;
        }
        let others = asked.get(&peer).copied().unwrap_or_default();
        if others.saturating_sub(pings.sent) >= UNANSWERED {
            found.finding.evidence.push(format!(
                "{peer} does not answer pings outside the overlay either: it may be down, or drop pings"
            ));
            return true;
        }
        unknown.push(format!(
            "peer {peer} answers pings neither through the overlay nor outside it: it may be down, or drop pings"
        ));
        false
    });
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vxlan::finding::Diagnosed;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 88, 12));

    #[test]
    fn what_pings_prove() {
        let pinged = |answers_outside| PeerPings {
            sent: 5,
            answers_outside,
        };
        for (name, fault, asked, pings, kept, evidence, unknown) in [
            (
                "pings only",
                Fault::NoAnswer,
                5,
                Some(pinged(true)),
                true,
                "answers pings outside",
                0,
            ),
            (
                "pings only, not answered outside",
                Fault::NoAnswer,
                5,
                Some(pinged(false)),
                false,
                "",
                1,
            ),
            (
                "two SYNs beside them",
                Fault::NoAnswer,
                7,
                Some(pinged(false)),
                false,
                "",
                1,
            ),
            (
                "three SYNs beside them",
                Fault::NoAnswer,
                8,
                Some(pinged(false)),
                true,
                "does not answer pings",
                0,
            ),
            ("not pinged", Fault::NoAnswer, 5, None, true, "", 0),
            (
                "no ping left",
                Fault::NoAnswer,
                5,
                Some(PeerPings::default()),
                true,
                "",
                0,
            ),
            ("another finding", Fault::Mtu, 5, Some(pinged(false)), true, "", 0),
        ] {
            let mut view = super::super::tests_of_view::silent(asked);
            view.findings = vec![Diagnosed::new(
                fault,
                "flannel.1",
                Some(PEER),
                "no answer".to_owned(),
            )];
            let pings: HashMap<_, _> = pings.map(|pings| (PEER, pings)).into_iter().collect();
            let said = weigh(&mut view, &pings);
            assert_eq!((view.findings.len() == 1, said.len()), (kept, unknown), "{name}");
            let has: Vec<_> = view
                .findings
                .iter()
                .flat_map(|found| &found.finding.evidence)
                .collect();
            assert_eq!(has.len(), usize::from(!evidence.is_empty()), "{name}");
            assert!(has.iter().all(|text| text.contains(evidence)), "{name}: {has:?}");
        }
    }
}
