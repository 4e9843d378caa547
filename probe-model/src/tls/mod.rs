//! What both ends of a connection say in the clear when they begin with TLS, or with something else.
//!
//! [`TlsStreams`] keeps the first payload of connections, [`stream`] puts it in order, [`records`] reads TLS records out of it and
//! [`hello`] what is in the hellos.

mod alert;
mod hello;
mod protocol;
mod records;
mod stream;
mod streams;

#[cfg(test)]
mod tests;

pub use alert::Alert;
pub use hello::{ClientHello, ServerHello, Version};
pub use protocol::Protocol;
pub use streams::{Key, Segment, TlsStreams, Totals, Way};

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub client: FirstMessage<ClientHello>,
    pub server: FirstMessage<ServerHello>,
    /// Alerts in the clear, the client's first, each side's in the order they were sent. Bounded. Once the keys are there, in
    /// TLS 1.3 behind the ServerHello, alerts are encrypted, and none is seen.
    pub alerts: Vec<Alert>,
}

/// How one side began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstMessage<H> {
    /// With nothing, or with an alert.
    Nothing,
    Hello(H),
    /// With something else than a TLS record.
    Other(Protocol),
    Incomplete(Incomplete),
}

impl<H> FirstMessage<H> {
    pub const fn hello(&self) -> Option<&H> {
        match self {
            Self::Hello(hello) => Some(hello),
            Self::Nothing | Self::Other(_) | Self::Incomplete(_) => None,
        }
    }
}

/// A hello that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incomplete {
    /// Bytes of it, record headers left out.
    pub seen: usize,
    /// How many it has, where it told that.
    pub of: Option<usize>,
    pub why: Why,
}

crate::names! {
    /// Why a hello can't be read.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Why {
        /// Its sender sent no more of it.
        Cut = "cut",
        /// More was sent, which probe did not see.
        Unseen = "unseen",
        /// It is no hello, though it is in the record of one.
        Malformed = "malformed",
    }
}
