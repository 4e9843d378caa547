//! `tls` of a connection in JSON, read back.

use serde::Deserialize;

use super::connection::{LineError, one_of};
use crate::model::{
    Role,
    tls::{Alert, ClientHello, FirstMessage, Incomplete, Protocol, ServerHello, Tls, Version, Why},
};

#[derive(Deserialize)]
pub struct Object {
    sni: Option<String>,
    #[serde(default)]
    no_sni: bool,
    version: Option<String>,
    #[serde(default)]
    alpn: Vec<String>,
    alpn_chosen: Option<String>,
    #[serde(default)]
    versions_offered: Vec<String>,
    #[serde(default)]
    not_tls: Sides<String>,
    #[serde(default)]
    incomplete: Sides<Part>,
    #[serde(default)]
    alerts: Vec<Sent>,
}

#[derive(Deserialize)]
struct Sides<T> {
    client: Option<T>,
    server: Option<T>,
}

impl<T> Default for Sides<T> {
    fn default() -> Self {
        Self {
            client: None,
            server: None,
        }
    }
}

#[derive(Deserialize)]
struct Part {
    seen: usize,
    of: Option<usize>,
    why: String,
}

#[derive(Deserialize)]
struct Sent {
    from: String,
    level: String,
    code: u8,
}

impl Object {
    /// What it was.
    ///
    /// # Errors
    /// When a name in it is of no probe that is known.
    pub fn model(self) -> Result<Tls, LineError> {
        let client = if self.sni.is_some() || self.no_sni {
            let versions = self.versions_offered.iter().map(|name| version(name));
            Some(ClientHello {
                server_name: self.sni,
                alpn: self.alpn,
                versions: versions.collect::<Result<_, _>>()?,
            })
        } else {
            None
        };
        let server = match self.version {
            Some(name) => Some(ServerHello {
                version: version(&name)?,
                alpn: self.alpn_chosen,
            }),
            None => None,
        };
        Ok(Tls {
            client: said(client, self.not_tls.client, self.incomplete.client)?,
            server: said(server, self.not_tls.server, self.incomplete.server)?,
            alerts: self.alerts.iter().map(alert).collect::<Result<_, _>>()?,
        })
    }
}

fn version(name: &str) -> Result<Version, LineError> {
    Version::named(name).ok_or(LineError::Unknown {
        what: "version of TLS",
    })
}

fn said<H>(
    hello: Option<H>,
    other: Option<String>,
    part: Option<Part>,
) -> Result<FirstMessage<H>, LineError> {
    Ok(match (hello, other, part) {
        (Some(hello), _, _) => FirstMessage::Hello(hello),
        (None, Some(name), _) => {
            FirstMessage::Other(one_of("protocol", &Protocol::ALL, Protocol::name, &name)?)
        }
        (None, None, Some(Part { seen, of, why })) => {
            let why = one_of("reason of an incomplete hello", &Why::ALL, Why::name, &why)?;
            FirstMessage::Incomplete(Incomplete { seen, of, why })
        }
        (None, None, None) => FirstMessage::Nothing,
    })
}

fn alert(sent: &Sent) -> Result<Alert, LineError> {
    Ok(Alert {
        from: one_of("sender of an alert", &Role::ALL, Role::name, &sent.from)?,
        fatal: sent.level == "fatal",
        code: sent.code,
    })
}
