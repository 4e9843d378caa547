//! Errors of etcd and of Go's net, crypto/tls and crypto/x509, as a server can log them (Go 1.9 to 1.26).

use super::{Known, after_hello, known};

const PLAIN_TEXT: &str = "The client sends plain text, such as HTTP, to a TLS port: use https:// in its URL, and a client certificate.";
const CLIENT_CA: &str = "The client's certificate is not signed by a CA that the server trusts (etcd: --trusted-ca-file): issue it \
                         from that CA, or add its CA to the file.";
const SERVER_CA: &str =
    "The client does not trust the CA of the server's certificate: give it that CA (etcdctl: --cacert).";
const SERVER_CERTIFICATE: &str = "The client refused the server's certificate: give it the server's CA (etcdctl: --cacert), and \
                                  check that the name or address that it dials is a SAN of that certificate.";
const PROTOCOL: &str = "The client violates the TLS protocol: update its TLS library, or find the proxy or \
                        scanner that changes or replays the handshake.";
const SIGNATURE: &str = "The client's private key does not belong to its certificate, or its TLS library is faulty: install the \
                         matching key and certificate.";
const DAMAGED: &str = "Data was changed in transit: check middleboxes, network cards and the MTU between \
                       client and server.";
const CIPHERS: &str = "Client and server share no cipher suite: compare the client's list with the server's (etcd: --cipher-suites).";
const CURVES: &str = "Client and server share no key exchange (elliptic curve): update the client's TLS library, or allow X25519 and \
                      P-256 in it.";
const VERSIONS: &str = "Client and server share no TLS version: [301] is TLS 1.0, [302] 1.1, [303] 1.2, [304] 1.3. Update the \
                        client, or allow its version (etcd: --tls-min-version).";
const SERVER_KEY: &str = "The server's own certificate can't be used: check that its key file belongs to its certificate file and \
                          that its key is RSA of 2048 bits or more, ECDSA or Ed25519.";
const INTERNAL: &str =
    "A fault inside the server's TLS library: update the server, and report the error to its maintainers.";
const CHAIN: &str = "The chain of the client's certificate breaks a rule of its CA: reissue the certificate, or the intermediate CA.";
const RENAMED: &str = "The certificate's names differ from the client's address or name: reissue it with this address or name as a \
                       SAN, or without SANs that do not match (etcd checks the SANs of peers).";
const UNPARSED: &str = "The client's certificate is malformed: reissue it with a current tool (openssl x509 -in FILE -text shows it).";
const REVOKED: &str =
    "The certificate is revoked: issue a new one, or correct the revocation list (etcd: --client-crl-file).";
const FILES: &str = "The server can't read its own certificate or key: check the files named in the error and their permissions.";

/// The first whose part is in the error counts: a part comes before what it contains.
pub const ROWS: &[Known] = &[
    // The connection itself.
    after_hello(
        "unexpected EOF",
        "The client closed in the middle of a TLS record: check for a client timeout, or a server short of \
         CPU.",
        "The client closed in the middle of the TLS handshake: check for a client timeout, or a server \
         short of CPU.",
    ),
    after_hello(
        "EOF",
        "The client connected and hung up without sending a byte: a port check. Let it query /health over HTTP (etcd: \
         --listen-metrics-urls), send a TLS handshake with a client certificate, or remove the check.",
        "The client sent its ClientHello and hung up during the handshake: it refused the server's certificate, or timed out. \
         Read its own log, give it the server's CA (etcdctl: --cacert), and check that the server name is a SAN.",
    ),
    after_hello(
        "connection reset by peer",
        "The client connected and reset: a port check that does not close properly, mostly of a load balancer. Let it query \
         /health over HTTP (etcd: --listen-metrics-urls).",
        "The client sent its ClientHello and reset during the handshake: it crashed, timed out or refused the server's \
         certificate. Read its own log.",
    ),
    after_hello(
        "i/o timeout",
        "The client connected and stayed silent until the server hung up: a check that never closes, or packets lost on the \
         way. Compare the MTU of both sides, and let checks close their connections.",
        "The client sent its ClientHello, and the handshake stalled: packets lost on the way (compare the MTU of both sides), or \
         a client that stopped.",
    ),
    known(
        "context deadline exceeded",
        "The handshake took too long: check for lost packets, or for a client or server short of CPU.",
    ),
    known(
        "context canceled",
        "The server stopped during the handshake: no fault of the client if it happens at a restart.",
    ),
    known(
        "broken pipe",
        "The client closed before the server's answer: check for a short client timeout.",
    ),
    known(
        "use of closed network connection",
        "The server closed the connection itself, mostly at a restart: no fault of the client.",
    ),
    known(
        "connection timed out",
        "The client's node stopped answering: check for a node that went down, or a firewall that drops \
         packets.",
    ),
    known(
        "no route to host",
        "The server has no path back to the client: check routes and firewalls between server and client.",
    ),
    known(
        "network is unreachable",
        "The server has no route back to the client: check the routes of the server's node.",
    ),
    known(
        "connection refused",
        "The server could not reach an address that it needs, named in the error: check that it listens.",
    ),
    // Not TLS at all.
    known("client sent an HTTP request to an HTTPS server", PLAIN_TEXT),
    known("first record does not look like a TLS handshake", PLAIN_TEXT),
    known("oversized record received", PLAIN_TEXT),
    known(
        "unsupported SSLv2 handshake",
        "The client uses SSL 2, which no current server accepts: update the client, or find the scanner \
         that tries it.",
    ),
    known("received record with version", PLAIN_TEXT),
    // Encrypted ClientHello. Before the versions: its errors speak of them too.
    known("encrypted_client_hello", PROTOCOL),
    known("inner client hello", PROTOCOL),
    known("outer client hello", PROTOCOL),
    known("outer extensions", PROTOCOL),
    known(
        "EncryptedClientHelloKeys",
        "The server's keys for the encrypted ClientHello can't be used: generate its ECH configuration and key anew.",
    ),
    // Versions, cipher suites, curves, protocols.
    known("TLS version older than", VERSIONS),
    known("unsupported versions", VERSIONS),
    known("unsupported, maximum protocol version", VERSIONS),
    known("protocol version not supported", VERSIONS),
    known("used the legacy version field", PROTOCOL),
    known(
        "inappropriate protocol fallback",
        "The client retries with an older TLS version although a newer one works: update it, and check why \
         its first attempt failed.",
    ),
    known(
        "inappropriate fallback",
        "The client detected a downgrade: check for a middlebox that changes TLS versions.",
    ),
    known("no cipher suite supported", CIPHERS),
    known("no mutual cipher suite", CIPHERS),
    known("insufficient security", CIPHERS),
    known(
        "handshake failure",
        "The client found no common TLS version, cipher suite or certificate type: compare its settings with the \
         server's (etcd: --cipher-suites, --tls-min-version).",
    ),
    known("no ECDHE curve supported", CURVES),
    known("no key exchanges supported", CURVES),
    known("no supported elliptic curves", CURVES),
    known("CurvePreferences includes unsupported curve", SERVER_KEY),
    known(
        "peer doesn't support any of the certificate's signature algorithms",
        "The client can't verify the kind of key of the server's \
         certificate: update the client, or issue the server's certificate with an ECDSA P-256 or RSA key.",
    ),
    known(
        "peer doesn't support the certificate custom signature algorithms",
        "The client can't verify the signature algorithm of \
         the server's certificate: update the client, or reissue the server's certificate.",
    ),
    known(
        "peer doesn't support any common signature algorithms",
        "Client and server share no signature algorithm: update the older TLS library, or issue the certificates with \
         ECDSA P-256 or RSA keys.",
    ),
    known(
        "Ed25519 public keys are not supported before",
        "The client negotiates TLS 1.0 or 1.1, which can't use an Ed25519 key: update the client, or issue the certificate \
         with an ECDSA P-256 or RSA key.",
    ),
    known(
        "unsupported application protocols",
        "Client and server share no ALPN protocol: the client must offer h2 or http/1.1.",
    ),
    known(
        "no application protocol",
        "The client found no common ALPN protocol: it must offer h2 or http/1.1.",
    ),
    known("uncompressed connections", PROTOCOL),
    known("illegal compression", PROTOCOL),
    known(
        "in FIPS mode",
        "FIPS mode forbids what the client offers: give it TLS 1.2 or later with AES-GCM and an approved certificate.",
    ),
    known(
        "no FIPS compatible certificate chains",
        "FIPS mode forbids a key or signature in the client's chain: reissue it with RSA of 2048 bits or more, or ECDSA P-256.",
    ),
    known(
        "extended master secret",
        "The client lacks the extension that FIPS mode requires: update its TLS library.",
    ),
    // The client's certificate, as the server sees it.
    known(
        "didn't provide a certificate",
        "Give the client a certificate signed by the CA that the server trusts (etcdctl: --cert and \
         --key; etcd requires it with --client-cert-auth).",
    ),
    known("unknown authority", CLIENT_CA),
    known(
        "current time",
        "A certificate has expired, or is not valid yet: renew it if the dates in the error are past, else set the \
         clocks (timedatectl).",
    ),
    known(
        "has expired",
        "A certificate has expired, or is not valid yet: check its dates (openssl x509 -noout -dates), renew it, or \
         set the clocks.",
    ),
    known(
        "not yet valid",
        "A certificate is not valid yet: set the clocks of client, server and CA (timedatectl).",
    ),
    known(
        "extended key usage doesn't permit it to be used for client authentication",
        "The certificate lacks the extended key usage \
         clientAuth: reissue it with clientAuth.",
    ),
    known(
        "incompatible key usage",
        "The certificate lacks the extended key usage clientAuth: reissue it with clientAuth, and with \
         serverAuth too if a member uses it for both.",
    ),
    known(
        "not authorized for an extended key usage",
        "A CA in the chain forbids clientAuth: issue the certificate from a CA \
         without that extended key usage limit.",
    ),
    known(
        "not authorized to sign other certificates",
        "The certificate that signed the client's is no CA certificate: reissue it with \
         CA:TRUE and keyCertSign, or sign with a CA.",
    ),
    known(
        "parent certificate cannot sign",
        "The certificate that signed the client's may not sign: reissue that CA with keyCertSign.",
    ),
    known("not authorized to sign for this name", CHAIN),
    known(
        "too many intermediates",
        "The chain has more intermediate CAs than a CA in it allows (pathlen): sign with a CA nearer the root.",
    ),
    known(
        "issuer name does not match subject",
        "The chain's certificates are in a wrong order or of another CA: rebuild the chain file, \
         the client's certificate first.",
    ),
    known(
        "doesn't have a SAN extension",
        "The CA limits names, and the client's certificate has no SAN: reissue it with SANs.",
    ),
    known("unknown or unconstrained name", CHAIN),
    known(
        "unhandled critical extension",
        "The client's certificate has a critical extension that Go does not know: reissue it without.",
    ),
    known(
        "no valid chains",
        "No chain of the client's certificate follows the rules of its CAs (key usage, policies): reissue the certificate, or the \
         intermediate CA.",
    ),
    known(
        "signature check attempts limit",
        "The trusted CA file has many CAs of one name: remove the old ones.",
    ),
    known(
        "legacy Common Name",
        "The certificate has no SAN: reissue it with its name or address as a SAN.",
    ),
    known(
        "doesn't contain any IP SANs",
        "The certificate has no IP SAN: reissue it with the address in the error as a SAN.",
    ),
    known("not valid for any names", RENAMED),
    known("certificate is valid for", RENAMED),
    known(
        "does not match any of DNSNames",
        "The client's address does not resolve to a DNS name of its certificate: add its reverse \
         (PTR) record, or reissue the certificate with its address as an IP SAN.",
    ),
    known("cannot validate certificate for", RENAMED),
    known(
        "client certificate authentication failed",
        "The certificate's name is not allowed: compare it with the server's list (etcd: \
         --client-cert-allowed-hostname, --peer-cert-allowed-cn).",
    ),
    known(
        "CommonName",
        "The certificate's common name is not allowed: compare it with the server's list (etcd: --peer-cert-allowed-cn).",
    ),
    known("revoked", REVOKED),
    known(
        "insecure algorithm",
        "A certificate in the chain is signed with MD5 or SHA-1: reissue it with SHA-256.",
    ),
    known(
        "algorithm unimplemented",
        "A certificate in the chain has a signature that Go can't verify: reissue it with RSA or ECDSA and \
         SHA-256.",
    ),
    known(
        "RSA key larger than",
        "The client's RSA key is larger than Go accepts: issue it with 4096 bits or less.",
    ),
    known("failed to parse client certificate", UNPARSED),
    known("failed to parse certificate", UNPARSED),
    known("x509: malformed", UNPARSED),
    known("x509: invalid", UNPARSED),
    known("x509: negative serial number", UNPARSED),
    known("x509: trailing data", UNPARSED),
    known(
        "x509: unsupported elliptic curve",
        "The client's key is on a curve that Go does not know: issue it with P-256.",
    ),
    known(
        "unsupported public key",
        "The client's key is of a kind that the server can't use: issue it with RSA, ECDSA or Ed25519.",
    ),
    known("verification failure", SIGNATURE),
    known("verification error", SIGNATURE),
    known("invalid signature algorithm", SIGNATURE),
    known("unknown signature algorithm", SIGNATURE),
    known("bad signature type", SIGNATURE),
    known("signature contained zero", SIGNATURE),
    known("signing requires", SIGNATURE),
    known("unsupported hash function", SIGNATURE),
    known("invalid signature by the client", SIGNATURE),
    known("could not validate signature", SIGNATURE),
    known(
        "x509: ",
        "The server could not verify the client's certificate: check it against the trusted CA (openssl verify -CAfile \
         CA CERTIFICATE).",
    ),
    known("unsupported certificate curve", SERVER_KEY),
    known("unsupported certificate key", SERVER_KEY),
    known("unsupported certificate: private key", SERVER_KEY),
    // Alerts: what the client says of the server's certificate.
    known("unknown certificate authority", SERVER_CA),
    known(
        "bad certificate status response",
        "The client refused the stapled OCSP response: renew the server's OCSP staple.",
    ),
    known("bad certificate hash value", SERVER_CERTIFICATE),
    known("bad certificate", SERVER_CERTIFICATE),
    known(
        "unsupported certificate",
        "The client can't use the server's certificate: check its key type and its extended key usage \
         (serverAuth).",
    ),
    known(
        "expired certificate",
        "The client rejects the server's certificate as expired: renew it, or set the client's clock.",
    ),
    known("certificate unobtainable", PROTOCOL),
    known(
        "unknown certificate",
        "The client refused the server's certificate for a reason of its own: read its log, and check the CA and \
         the SANs that it expects.",
    ),
    known(
        "certificate required",
        "Give the client a certificate signed by the CA that the server trusts (etcdctl: --cert and --key).",
    ),
    known(
        "access denied",
        "The client accepted the server's certificate, but its policy forbids the connection: check its list of allowed \
         servers.",
    ),
    known(
        "unrecognized name",
        "The client asked for a name that the server does not have: check the name that it dials.",
    ),
    known(
        "user canceled",
        "The client cancelled the handshake: check for a user or a timeout that stopped it.",
    ),
    known(
        "close notify",
        "The client closed TLS before the handshake ended: check for a client that is stopped while it \
         connects.",
    ),
    known("unknown PSK identity", PROTOCOL),
    known("encrypted client hello required", PROTOCOL),
    known("export restriction", CIPHERS),
    known(
        "no renegotiation",
        "The client asked for renegotiation, which Go servers refuse: turn renegotiation off in the client.",
    ),
    known("renegotiation", PROTOCOL),
    known("missing extension", PROTOCOL),
    known("unsupported extension", PROTOCOL),
    known("illegal parameter", PROTOCOL),
    known("error decoding message", PROTOCOL),
    known("error decrypting message", DAMAGED),
    known("decryption failed", DAMAGED),
    known("decompression failure", PROTOCOL),
    known("bad record MAC", DAMAGED),
    known("record overflow", DAMAGED),
    // The handshake.
    known("unexpected message", PROTOCOL),
    known("unexpected handshake message", PROTOCOL),
    known("unexpected ServerKeyExchange", PROTOCOL),
    known(
        "exceeds maximum of",
        "The client's handshake is larger than the server accepts: send fewer intermediate certificates, or find \
         the scanner.",
    ),
    known("too many ignored records", PROTOCOL),
    known("too many non-advancing records", PROTOCOL),
    known("too many warn", PROTOCOL),
    known("Finished message is incorrect", DAMAGED),
    known("invalid client finished hash", DAMAGED),
    known("ClientKeyExchange", PROTOCOL),
    known("key share", PROTOCOL),
    known("PSK binder", PROTOCOL),
    known("early data", PROTOCOL),
    known("0-RTT", PROTOCOL),
    known("second ClientHello", PROTOCOL),
    known("HelloRetryRequest", PROTOCOL),
    known("ClientHello", PROTOCOL),
    known("quic_transport_parameters", PROTOCOL),
    known("early_data", PROTOCOL),
    known("session ticket from a client", PROTOCOL),
    known("ALPN", PROTOCOL),
    known(
        "protocol is shutdown",
        "The connection was closed during the handshake: check for a client that is stopped while it \
         connects.",
    ),
    // The server's own certificate.
    known("no certificates configured", SERVER_KEY),
    known("unsupported signing key type", SERVER_KEY),
    known("unsupported decryption key type", SERVER_KEY),
    known("does not implement crypto", SERVER_KEY),
    known(
        "certificate cannot be used with the selected cipher suite",
        SERVER_KEY,
    ),
    known("RSA key size too small", SERVER_KEY),
    known("private key", SERVER_KEY),
    known("failed to sign", SERVER_KEY),
    known("failed to find any PEM data", FILES),
    known("failed to find", FILES),
    known("no such file or directory", FILES),
    known("permission denied", FILES),
    known(
        "missing server name",
        "The client sent no server name, and the server chooses its certificate by it: dial a name, not an address.",
    ),
    known("internal error", INTERNAL),
    known("failed to create cipher", INTERNAL),
    known(
        "no such host",
        "The server could not resolve a name: check its DNS.",
    ),
    // HTTP/2 and gRPC after the handshake.
    known(
        "bogus greeting",
        "The client sends HTTP/1 to an HTTP/2 port: use a gRPC client, or the HTTP port.",
    ),
    known(
        "client preface",
        "The client sends HTTP/1 to an HTTP/2 port: use a gRPC client, or the HTTP port.",
    ),
    // Alerts without a name of their own, and what later versions add.
    known(
        "remote error: ",
        "The client ended the handshake with a TLS alert: read its own log for the reason.",
    ),
    known(
        "local error: ",
        "The server ended the handshake with a TLS alert: update the client's TLS library, or find the scanner.",
    ),
];
