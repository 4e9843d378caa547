//! The search for the largest packet that reaches a peer, by pings of many sizes through the overlay.

use super::{
    finding::{Diagnosed, Fault},
    overlay::Overlay,
};
use crate::finding::Fix;

use std::net::IpAddr;

/// Bytes of a ping that every path carries, from its IP header on.
pub const SMALL: u32 = 84;
/// Pings of full size that must stay unanswered, each beside a small one that is answered, before the size is the cause.
const CONFIRMED: u32 = 3;
/// Pings of any other size: one may be lost for another reason.
const TRIES: u32 = 2;

/// What is known of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtuSearch {
    /// The device's MTU.
    full: u32,
    /// The largest size that was answered.
    answered: u32,
    /// The smallest that was not.
    lost: u32,
    /// Unanswered pings of the size that is tried now.
    unanswered: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Whether the full size is lost.
    Confirming,
    /// Between what is answered and what is lost.
    Bisecting,
    Ended,
}

impl PathMtuSearch {
    /// Of a peer behind a device with this MTU, bytes.
    pub const fn new(full: u32) -> Self {
        Self {
            full,
            answered: 0,
            lost: full,
            unanswered: 0,
            state: if full > SMALL {
                State::Confirming
            } else {
                State::Ended
            },
        }
    }

    /// The sizes to send next, from the IP header on; empty: the search has ended.
    pub fn sizes(&self) -> Vec<u32> {
        match self.state {
            State::Confirming => vec![SMALL, self.full],
            State::Bisecting => vec![self.middle()],
            State::Ended => Vec::new(),
        }
    }

    const fn middle(&self) -> u32 {
        self.answered + (self.lost - self.answered) / 2
    }

    /// Which of [`sizes`](Self::sizes) were answered in time.
    pub fn record(&mut self, is_answered: impl Fn(u32) -> bool) {
        match self.state {
            State::Confirming => {
                // A peer that does not answer small ones says nothing of sizes.
                if !is_answered(SMALL) || is_answered(self.full) {
                    self.state = State::Ended;
                    return;
                }
                self.answered = SMALL;
                self.unanswered += 1;
                if self.unanswered == CONFIRMED {
                    self.unanswered = 0;
                    self.state = State::Bisecting;
                }
            }
            State::Bisecting => {
                let middle = self.middle();
                if is_answered(middle) {
                    self.answered = middle;
                    self.unanswered = 0;
                } else {
                    self.unanswered += 1;
                    if self.unanswered == TRIES {
                        self.lost = middle;
                        self.unanswered = 0;
                    }
                }
            }
            State::Ended => return,
        }
        if self.state == State::Bisecting && self.lost - self.answered <= 1 {
            self.state = State::Ended;
        }
    }

    /// Ends it without a result: a ping could not be sent, so that no answer proves nothing.
    pub const fn give_up(&mut self) {
        self.answered = 0;
        self.state = State::Ended;
    }

    /// The largest size that reaches the peer, where that is less than the device's MTU.
    pub fn path_mtu(&self) -> Option<u32> {
        (self.state == State::Ended && self.answered > 0).then_some(self.answered)
    }

    /// The fault that it shows.
    pub fn fault(&self, overlay: &Overlay, vtep: Option<IpAddr>) -> Option<Diagnosed> {
        let passes = self.path_mtu()?;
        let name = &overlay.device.name;
        let peer = super::peer_name(vtep);
        let what = format!(
            "Packets larger than {passes} bytes to {peer} are lost on the path: {name} has MTU {} (path MTU black hole).",
            self.full
        );
        let mut fault = Diagnosed::new(Fault::Mtu, name, vtep, what);
        fault.detail = "black hole".to_owned();
        fault.evidence = vec![
            format!(
                "{CONFIRMED} of {CONFIRMED} pings of {} bytes unanswered, {CONFIRMED} of {CONFIRMED} of {SMALL} bytes answered",
                self.full
            ),
            format!(
                "the largest ping that was answered: {passes} bytes, {} with VXLAN's headers on the underlay",
                passes + overlay.overhead()
            ),
        ];
        fault.fixes = vec![
            Fix::run(
                ["ip", "link", "set", name, "mtu", &passes.to_string()],
                "on every node, until the path carries more",
            ),
            Fix::text(
                "Then give the pods the same MTU, and find what carries less between the nodes: a switch, a tunnel or a cloud \
                 network with a smaller MTU.",
            ),
        ];
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pings through a path that carries so much, each attempt being lost if `loses` says so.
    fn search(full: u32, carries: u32, loses: impl Fn(u32) -> bool) -> (PathMtuSearch, u32) {
        let mut search = PathMtuSearch::new(full);
        let mut rounds = 0;
        while !search.sizes().is_empty() {
            search.record(|size| size <= carries && !loses(rounds));
            rounds += 1;
            assert!(rounds < 64, "{search:?}");
        }
        (search, rounds)
    }

    #[test]
    fn the_size_is_found_to_the_byte() {
        for carries in [SMALL, 85, 576, 1279, 1350, 1372, 1448, 1449] {
            let (search, rounds) = search(1450, carries, |_| false);
            assert_eq!(search.path_mtu(), Some(carries));
            assert!(rounds <= 3 + 2 * 11, "{rounds}");
        }
        assert_eq!(search(8950, 1350, |_| false).0.path_mtu(), Some(1350));
    }

    #[test]
    fn no_fault() {
        for (name, full, carries) in [
            ("all arrive", 1450, 1450),
            ("more than it has", 1450, 9000),
            ("nothing arrives: that is another fault", 1450, 0),
            ("a device that takes small packets only", SMALL, 0),
        ] {
            assert_eq!(search(full, carries, |_| false).0.path_mtu(), None, "{name}");
        }
        // Lost for another reason, once or twice.
        for lost in [&[0][..], &[1], &[0, 1], &[2]] {
            let (search, _) = search(1450, 1450, |round| lost.contains(&round));
            assert_eq!(search.path_mtu(), None, "{lost:?}");
        }
    }

    #[test]
    fn without_proof() {
        let mut search = PathMtuSearch::new(1450);
        for _ in 0..4 {
            search.record(|size| size == SMALL);
        }
        search.give_up();
        assert_eq!((search.sizes(), search.path_mtu()), (vec![], None));
    }

    /// One ping that is lost while sizes are tried changes nothing.
    #[test]
    fn a_ping_is_tried_again() {
        for lost in 3..12 {
            let (search, _) = search(1450, 1372, |round| round == lost);
            assert_eq!(search.path_mtu(), Some(1372), "{lost}");
        }
    }
}
