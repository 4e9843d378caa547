//! Packets followed through the kernel: events into journeys, journeys into exchanges, and what became of them.

mod answer;
mod black_hole;
pub mod cause;
mod conclusion;
pub mod detour;
pub mod event;
pub mod exchange;
mod hop;
pub mod journey;
pub mod reason;
mod rounds;
mod why;

#[cfg(any(test, feature = "samples"))]
pub mod samples;
#[cfg(test)]
mod tests;

pub use self::conclusion::time;
pub use self::{
    answer::{BridgeFiltering, Misaddressed, Passage},
    cause::DropCause,
    conclusion::{Conclusion, Outcome, Places},
    detour::Detour,
    event::{Event, Packet, Tracking, Tunnel, What},
    exchange::{ConntrackZone, Exchange, Exchanges, Listener, Untracked},
    hop::Change,
    journey::{AppliedRule, Hop, Journey, JourneyEnd},
    rounds::Rounds,
};
