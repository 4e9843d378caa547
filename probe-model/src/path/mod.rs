//! Packets followed through the kernel: events into journeys, journeys into exchanges, and what became of them.

mod conclusion;
pub mod event;
pub mod exchange;
mod hop;
pub mod journey;
pub mod reason;

#[cfg(any(test, feature = "samples"))]
pub mod samples;
#[cfg(test)]
mod tests;

pub use self::conclusion::time;
pub use self::{
    conclusion::{Conclusion, Outcome, Places},
    event::{Event, Packet, Tracking, Tunnel, What},
    exchange::{Exchange, Exchanges, Listener, Untracked},
    hop::Change,
    journey::{AppliedRule, Hop, Journey, JourneyEnd},
};
