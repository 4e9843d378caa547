//! The first messages of both sides of a connection, in TLS or another protocol, as far as they are not encrypted.
//!
//! [`TlsStreams`] keeps the first payload of connections, [`stream`] puts it in order, [`records`] reads TLS records out of it and
//! [`hello`] what is in the hellos.

mod alert;
mod hello;
mod object;
mod protocol;
mod records;
mod stream;
mod streams;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

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

    const fn other(&self) -> Option<Protocol> {
        match self {
            Self::Other(protocol) => Some(*protocol),
            Self::Nothing | Self::Hello(_) | Self::Incomplete(_) => None,
        }
    }

    const fn incomplete(&self) -> Option<Incomplete> {
        match self {
            Self::Incomplete(incomplete) => Some(*incomplete),
            Self::Nothing | Self::Hello(_) | Self::Other(_) => None,
        }
    }
}

/// A hello that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Incomplete {
    /// Bytes of it that were seen, record headers left out.
    pub seen: usize,
    /// The bytes it has, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<usize>,
    /// `cut`: no more of it was sent; `unseen`: more was sent, and probe did not see it; `malformed`.
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
