//! What a server did when it was dialled: how far it came, what it showed, what it answered.

use jiff::Timestamp;

use super::certificate::Certificate;

/// The step at which a dial failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// RST in answer to SYN.
    Refused,
    /// No answer to SYN in time.
    Unanswered,
    /// No route, or another error of the network.
    Unreachable(String),
    /// It took the connection and said nothing in time.
    Silent,
    /// It ended the connection.
    Closed,
    /// What it said is no TLS.
    NoTls(String),
    /// It refused the handshake, or the client's certificate: a TLS alert.
    Alert(String),
    /// What it said after the handshake is no HTTP.
    NoHttp,
}

impl Stop {
    /// In words that follow the address.
    pub fn says(&self) -> String {
        match self {
            Self::Refused => "refuses connections: nothing listens there".to_owned(),
            Self::Unanswered => "does not answer: no reply to SYN".to_owned(),
            Self::Unreachable(why) => format!("can't be reached: {why}"),
            Self::Silent => "accepts connections and sends nothing".to_owned(),
            Self::Closed => "accepts connections and closes them".to_owned(),
            Self::NoTls(why) => format!("does not use TLS: {why}"),
            Self::Alert(alert) => format!("refuses the TLS handshake: {alert}"),
            Self::NoHttp => "does not use HTTP after the handshake".to_owned(),
        }
    }
}

/// Whether a server's certificate is one that its client is to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    Trusted,
    /// Nobody was asked to.
    Unchecked,
    /// No authority that the client knows has signed it.
    UnknownIssuer,
    Expired,
    NotYet,
    /// It is for other names than the one that was dialled.
    WrongName,
    Other(String),
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// The server's clock, in whole seconds, and this node's when it came.
    pub dated: Option<(Timestamp, Timestamp)>,
    /// The beginning.
    pub body: String,
}

/// What became of one dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialled {
    /// What it showed, also where it came no further.
    pub leaf: Option<Certificate>,
    pub trust: Trust,
    /// What it answered; `Ok(None)`: nothing was asked after the handshake.
    pub reply: Result<Option<Reply>, Stop>,
}

impl Dialled {
    /// A dial that ended before a certificate was seen.
    pub fn stopped(stop: Stop) -> Self {
        Self {
            leaf: None,
            trust: Trust::Unchecked,
            reply: Err(stop),
        }
    }
}
