//! What is in a ClientHello and a ServerHello.

use std::fmt;

use tls_parser::{
    TlsExtension, parse_tls_client_hello_extension, parse_tls_handshake_client_hello,
    parse_tls_handshake_server_hello, parse_tls_server_hello_extension,
};

/// Bytes of a server name that are kept: DNS has no longer ones.
const LONGEST_NAME: usize = 255;
/// Protocols of ALPN, and versions, that are kept.
const MOST: usize = 16;

/// A version by its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16);

impl Version {
    const NAMED: [(Self, &'static str); 5] = [
        (Self(0x0300), "SSL 3.0"),
        (Self(0x0301), "TLS 1.0"),
        (Self(0x0302), "TLS 1.1"),
        (Self(0x0303), "TLS 1.2"),
        (Self(0x0304), "TLS 1.3"),
    ];

    /// The one that is shown so.
    pub fn named(name: &str) -> Option<Self> {
        let named = Self::NAMED.iter().find(|(_, of)| *of == name);
        named.map(|(version, _)| *version).or_else(|| {
            let digits = name.strip_prefix("0x").filter(|digits| digits.len() == 4)?;
            u16::from_str_radix(digits, 16).ok().map(Self)
        })
    }

    /// A draft's, or what stands for no version (GREASE), has none.
    fn is_named(self) -> bool {
        Self::NAMED.iter().any(|(version, _)| *version == self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(version, _)| version == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "0x{:04x}", self.0),
        }
    }
}

/// What a client offers. Texts are as received, invalid UTF-8 replaced: escape them for a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name that it asks for (SNI).
    pub server_name: Option<String>,
    /// Application protocols (ALPN), the best first.
    pub alpn: Vec<String>,
    /// As it lists them; before TLS 1.3 the highest.
    pub versions: Vec<Version>,
}

/// What a server chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHello {
    pub version: Version,
    /// The application protocol, where that is not encrypted: before TLS 1.3.
    pub alpn: Option<String>,
}

impl ClientHello {
    /// Of the handshake message's contents; `None`: it is none.
    pub fn read(message: &[u8]) -> Option<Self> {
        let (_, contents) = parse_tls_handshake_client_hello(message).ok()?;
        let mut hello = Self {
            versions: vec![Version(contents.version.0)],
            ..Self::default()
        };
        for extension in extensions(contents.ext.unwrap_or_default()) {
            match parse_tls_client_hello_extension(extension) {
                Ok((_, TlsExtension::SNI(names))) => {
                    let name = names.iter().find(|(kind, name)| kind.0 == 0 && !name.is_empty());
                    hello.server_name = name.map(|(_, name)| text(name));
                }
                Ok((_, TlsExtension::ALPN(protocols))) => {
                    hello.alpn = protocols.into_iter().take(MOST).map(text).collect();
                }
                Ok((_, TlsExtension::SupportedVersions(versions))) => {
                    let versions = versions.into_iter().map(|version| Version(version.0));
                    hello.versions = versions.filter(|version| version.is_named()).take(MOST).collect();
                }
                Ok(_) | Err(_) => {}
            }
        }
        Some(hello)
    }

    /// The best version that it offers.
    pub fn best(&self) -> Option<Version> {
        self.versions.iter().copied().max()
    }
}

impl ServerHello {
    /// Of the handshake message's contents; `None`: it is none. One that asks for another ClientHello counts: it chose.
    pub fn read(message: &[u8]) -> Option<Self> {
        let (_, contents) = parse_tls_handshake_server_hello(message).ok()?;
        let mut hello = Self {
            version: Version(contents.version.0),
            alpn: None,
        };
        for extension in extensions(contents.ext.unwrap_or_default()) {
            match parse_tls_server_hello_extension(extension) {
                Ok((_, TlsExtension::SupportedVersions(versions))) => {
                    if let [version] = versions.as_slice() {
                        hello.version = Version(version.0);
                    }
                }
                Ok((_, TlsExtension::ALPN(protocols))) => {
                    hello.alpn = protocols.into_iter().next().map(text);
                }
                Ok(_) | Err(_) => {}
            }
        }
        Some(hello)
    }
}

/// Each by itself: one that the parser does not know must not hide those behind it.
fn extensions(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let &[_, _, high, low, ..] = bytes else {
            return None;
        };
        let length = 4 + usize::from(u16::from_be_bytes([high, low]));
        let (extension, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        Some(extension)
    })
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.get(..LONGEST_NAME).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}
