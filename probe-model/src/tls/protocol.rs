//! Protocols found where TLS is expected.

crate::names! {
    /// The protocol of the first bytes of a side, if they are no TLS record.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Protocol {
        Http = "HTTP",
        Http2 = "HTTP/2",
        Ssh = "SSH",
        /// HAProxy's, that comes before what it is about.
        Proxy = "PROXY protocol",
        Postgres = "PostgreSQL",
        Ssl2 = "SSL 2.0",
        Unknown = "unknown",
    }
}

impl Protocol {
    /// By its first bytes.
    pub fn of(bytes: &[u8]) -> Self {
        const BEGINNINGS: [(&[u8], Protocol); 16] = [
            (b"GET ", Protocol::Http),
            (b"POST ", Protocol::Http),
            (b"PUT ", Protocol::Http),
            (b"HEAD ", Protocol::Http),
            (b"DELETE ", Protocol::Http),
            (b"OPTIONS ", Protocol::Http),
            (b"PATCH ", Protocol::Http),
            (b"CONNECT ", Protocol::Http),
            (b"TRACE ", Protocol::Http),
            (b"HTTP/", Protocol::Http),
            (b"PRI * HTTP/2", Protocol::Http2),
            (b"SSH-", Protocol::Ssh),
            (b"PROXY ", Protocol::Proxy),
            (b"\r\n\r\n\0\r\nQUIT\n", Protocol::Proxy),
            // Its request for TLS, and for encryption by GSSAPI, have the same length.
            (b"\0\0\0\x08\x04\xd2\x16", Protocol::Postgres),
            // An HTTP/2 server begins with its settings.
            (b"\0\0\x12\x04\0\0\0\0\0", Protocol::Http2),
        ];
        let found = BEGINNINGS.iter().find(|(begins, _)| bytes.starts_with(begins));
        match (found, bytes) {
            (Some((_, protocol)), _) => *protocol,
            // A ClientHello of it, which offers a later version.
            (None, [0x80..=0xff, _, 1, 0 | 3, ..]) => Self::Ssl2,
            (None, _) => Self::Unknown,
        }
    }
}
