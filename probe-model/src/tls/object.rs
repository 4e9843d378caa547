//! `tls` of a connection in JSON: one flat object, written and read.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{Alert, ClientHello, FirstMessage, Incomplete, Protocol, ServerHello, Tls, Version};
use crate::{Role, names::Named};

/// The first messages of a connection.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "Tls"))]
struct TlsObject<'a> {
    /// The server name in the ClientHello.
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<Cow<'a, str>>,
    /// True if the ClientHello has none.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    no_sni: bool,
    /// The version that the ServerHello chose: `TLS 1.3`, `TLS 1.2`, …; absent if none was seen. A number such as `0x7f17` if
    /// it has no name.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    /// The protocols that the client offers.
    #[serde(skip_serializing_if = "<[String]>::is_empty", default)]
    alpn: Cow<'a, [String]>,
    /// The server's choice, before TLS 1.3: from 1.3 on it is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    alpn_chosen: Option<Cow<'a, str>>,
    /// The versions that the client offers, before TLS 1.3 the highest.
    #[serde(skip_serializing_if = "<[Version]>::is_empty", default)]
    versions_offered: Cow<'a, [Version]>,
    /// The side that began with another protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_tls: Option<Sides<Protocol>>,
    /// The side whose hello could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete: Option<Sides<Incomplete>>,
    /// Unencrypted alerts, at most two a side.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    alerts: Vec<SentAlert<'a>>,
}

/// The same of both sides.
#[derive(Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "{T}Sides")
)]
struct Sides<T> {
    /// The client.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<T>,
    /// The server.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<T>,
}

impl<T> Sides<T> {
    fn some(client: Option<T>, server: Option<T>) -> Option<Self> {
        (client.is_some() || server.is_some()).then_some(Self { client, server })
    }

    fn of(sides: Option<Self>) -> (Option<T>, Option<T>) {
        sides.map_or((None, None), |sides| (sides.client, sides.server))
    }
}

/// An alert.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "Alert"))]
struct SentAlert<'a> {
    /// Its sender.
    from: Named<Role>,
    /// `fatal` or `warning`.
    level: Cow<'a, str>,
    /// The name of the alert in RFC 8446.
    #[serde(default)]
    description: Cow<'a, str>,
    /// Its number.
    code: u8,
}

impl<'a> From<&'a Tls> for TlsObject<'a> {
    fn from(tls: &'a Tls) -> Self {
        let Tls {
            client,
            server,
            alerts,
        } = tls;
        let (offered, chosen) = (client.hello(), server.hello());
        let alerts = alerts.iter().map(|alert| SentAlert {
            from: Named(alert.from),
            level: alert.level().into(),
            description: alert.description().into(),
            code: alert.code,
        });
        Self {
            sni: offered.and_then(|hello| hello.server_name.as_deref().map(Cow::Borrowed)),
            no_sni: offered.is_some_and(|hello| hello.server_name.is_none()),
            version: chosen.map(|hello| hello.version),
            alpn: offered
                .map(|hello| hello.alpn.as_slice())
                .unwrap_or_default()
                .into(),
            alpn_chosen: chosen.and_then(|hello| hello.alpn.as_deref().map(Cow::Borrowed)),
            versions_offered: offered
                .map(|hello| hello.versions.as_slice())
                .unwrap_or_default()
                .into(),
            not_tls: Sides::some(client.other(), server.other()),
            incomplete: Sides::some(client.incomplete(), server.incomplete()),
            alerts: alerts.collect(),
        }
    }
}

impl From<TlsObject<'_>> for Tls {
    fn from(object: TlsObject<'_>) -> Self {
        let TlsObject {
            sni,
            no_sni,
            version,
            alpn,
            alpn_chosen,
            versions_offered,
            not_tls,
            incomplete,
            alerts,
        } = object;
        let offered = (sni.is_some() || no_sni).then(|| ClientHello {
            server_name: sni.map(Cow::into_owned),
            alpn: alpn.into_owned(),
            versions: versions_offered.into_owned(),
        });
        let chosen = version.map(|version| ServerHello {
            version,
            alpn: alpn_chosen.map(Cow::into_owned),
        });
        let (other, part) = (Sides::of(not_tls), Sides::of(incomplete));
        let alerts = alerts.into_iter().map(|alert| Alert {
            from: alert.from.0,
            fatal: alert.level == "fatal",
            code: alert.code,
        });
        Self {
            client: first(offered, other.0, part.0),
            server: first(chosen, other.1, part.1),
            alerts: alerts.collect(),
        }
    }
}

fn first<H>(hello: Option<H>, other: Option<Protocol>, part: Option<Incomplete>) -> FirstMessage<H> {
    match (hello, other, part) {
        (Some(hello), _, _) => FirstMessage::Hello(hello),
        (None, Some(protocol), _) => FirstMessage::Other(protocol),
        (None, None, Some(part)) => FirstMessage::Incomplete(part),
        (None, None, None) => FirstMessage::Nothing,
    }
}

impl Serialize for Tls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TlsObject::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Tls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TlsObject::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Tls {
    fn schema_name() -> Cow<'static, str> {
        TlsObject::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        TlsObject::json_schema(generator)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::named(&name).ok_or_else(|| D::Error::custom(format!("unknown version of TLS {name:?}")))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Version {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}
