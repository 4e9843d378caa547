use super::*;

fn of(error: &str) -> &'static str {
    advice(&kind(error), false, ServerKind::Etcd)
}

/// What etcd (client/pkg/transport) and Go (net, crypto/tls, crypto/x509) can log of a server side's handshake.
const LOGGED: &[&str] = &[
    "EOF",
    "unexpected EOF",
    "read tcp 10.0.0.1:2379->10.0.0.2:5: read: connection reset by peer",
    "read tcp 10.0.0.1:2379->10.0.0.2:5: i/o timeout",
    "read tcp 10.0.0.1:2379->10.0.0.2:5: use of closed network connection",
    "read tcp 10.0.0.1:2379->10.0.0.2:5: read: connection timed out",
    "read tcp 10.0.0.1:2379->10.0.0.2:5: read: no route to host",
    "write tcp 10.0.0.1:2379->10.0.0.2:5: write: broken pipe",
    "write tcp 10.0.0.1:2379->10.0.0.2:5: write: connection reset by peer",
    "write tcp 10.0.0.1:2379->10.0.0.2:5: write: network is unreachable",
    "context deadline exceeded",
    "context canceled",
    "client sent an HTTP request to an HTTPS server",
    "acme/autocert: missing server name",
    // crypto/tls/conn.go
    "tls: first record does not look like a TLS handshake",
    "tls: unsupported SSLv2 handshake received",
    "tls: oversized record received with length 21536",
    "tls: received record with version 4745 when expecting version 303",
    "tls: too many ignored records",
    "tls: too many non-advancing records",
    "tls: too many warn alerts",
    "tls: handshake message of length 72016 bytes exceeds maximum of 65536 bytes",
    "tls: received unexpected handshake message of type *tls.clientKeyExchangeMsg when waiting for *tls.certificateMsg",
    "tls: received unexpected handshake message of type *tls.helloRequestMsg",
    "tls: internal error: attempted to read record with pending application data",
    "tls: internal error: unexpected renegotiation",
    "tls: internal error: handshake should have had a result",
    "tls: protocol is shutdown",
    // crypto/tls/handshake_server.go
    "tls: client offered an unsupported, maximum protocol version of 301",
    "tls: client offered only unsupported versions: [301]",
    "tls: client does not support uncompressed connections",
    "tls: initial handshake had non-empty renegotiation extension",
    "tls: unsupported signing key type (*ecdsa.PublicKey)",
    "tls: unsupported decryption key type (*ecdsa.PublicKey)",
    "tls: client requested unsupported application protocols ([\"foo\"])",
    "tls: no cipher suite supported by both client and server; client offered: [2f 35]",
    "tls: no cipher suite supported by both client and server",
    "tls: client using inappropriate protocol fallback",
    "tls: client certificate used with invalid signature algorithm",
    "tls: could not validate signature of connection nonces: crypto/rsa: verification error",
    "tls: invalid signature by the client certificate: ECDSA verification failure",
    "tls: invalid signature by the client certificate: crypto/rsa: verification error",
    "tls: client's Finished message is incorrect",
    "tls: failed to parse client certificate: x509: malformed certificate",
    "tls: client didn't provide a certificate",
    "tls: failed to verify client's certificate: x509: certificate signed by unknown authority",
    "tls: failed to verify client certificate: x509: certificate signed by unknown authority (possibly because of \"crypto/rsa: verification error\" while trying to verify candidate authority certificate \"etcd-ca\")",
    "tls: failed to verify certificate: x509: certificate signed by unknown authority",
    "tls: client's certificate's extended key usage doesn't permit it to be used for client authentication",
    "tls: client certificate contains an unsupported public key of type *dsa.PublicKey",
    "tls: client doesn't support extended master secret, required in FIPS mode",
    "tls: invalid ClientKeyExchange message",
    // crypto/tls/handshake_server_tls13.go
    "tls: client used the legacy version field to negotiate TLS 1.3",
    "tls: TLS 1.3 client supports illegal compression methods",
    "tls: client sent unexpected early data",
    "tls: no ECDHE curve supported by both client and server",
    "tls: no key exchanges supported by both client and server",
    "tls: CurvePreferences includes unsupported curve",
    "tls: invalid client key share",
    "tls: invalid X25519MLKEM768 client key share",
    "tls: invalid or missing PSK binders",
    "tls: invalid PSK binder",
    "tls: client sent invalid key share in second ClientHello",
    "tls: client indicated early data in second ClientHello",
    "tls: client illegally modified second ClientHello",
    "tls: client offered 0-RTT data in second ClientHello",
    "tls: handshake buffer not empty before HelloRetryRequest",
    "tls: malformed encrypted client hello extension in second ClientHello",
    "tls: client sent unexpected quic_transport_parameters extension",
    "tls: client sent an unexpected quic_transport_parameters extension",
    "tls: client did not send a quic_transport_parameters extension",
    "tls: early_data without pre_shared_key",
    "tls: client offered TLS version older than TLS 1.3",
    "tls: received new session ticket from a client",
    // crypto/tls/ech.go
    "tls: client sent invalid encrypted_client_hello extension",
    "tls: malformed encrypted_client_hello extension",
    "tls: client sent encrypted_client_hello extension with unsupported versions",
    "tls: client sent encrypted_client_hello extension and offered unsupported versions",
    "tls: client sent encrypted_client_hello extension but did not offer TLS 1.3",
    "tls: invalid inner client hello",
    "tls: invalid reconstructed inner client hello",
    "tls: malformed outer client hello",
    "tls: invalid outer extensions",
    "tls: invalid EncryptedClientHelloKeys Config: tls: malformed ECHConfig, invalid version field",
    "tls: invalid EncryptedClientHelloKeys PrivateKey: x",
    "tls: failed to sign handshake: crypto/rsa: key size too small",
    "tls: invalid client finished hash",
    "tls: internal error: TLS 1.3 reached in FIPS mode",
    "tls: internal error: failed to clone hash",
    "tls: internal error: unsupported curve",
    "tls: internal error: session ticket keys unavailable",
    "tls: failed to create cipher while encrypting ticket: crypto/aes: invalid key size 1",
    // crypto/tls/auth.go, key_agreement.go, common.go
    "tls: peer doesn't support any of the certificate's signature algorithms",
    "tls: peer doesn't support the certificate custom signature algorithms",
    "tls: peer doesn't support any common signature algorithms",
    "tls: Ed25519 public keys are not supported before TLS 1.2",
    "tls: unsupported public key: *dsa.PublicKey",
    "tls: unsupported hash function for client certificate",
    "tls: bad signature type for client's ECDSA certificate",
    "tls: bad signature type for client's RSA certificate",
    "tls: ECDSA signing requires a ECDSA public key",
    "tls: Ed25519 signing requires a Ed25519 public key",
    "tls: RSA signing requires a RSA public key",
    "tls: could not validate signature of connection nonces: tls: ECDSA signature contained zero or negative values",
    "tls: ECDSA signature contained zero or negative values",
    "tls: ECDSA verification failure",
    "tls: unknown signature algorithm",
    "tls: internal error: unsupported key (*ed25519.PrivateKey)",
    "tls: no FIPS compatible certificate chains found",
    "x509: no valid chains built: 2 candidate chains with invalid policies",
    "tls: unsupported certificate: private key is *rsa.PrivateKey, expected *ed25519.PrivateKey",
    "tls: certificate private key (*x.Key) does not implement crypto.Signer",
    "tls: certificate private key does not implement crypto.Decrypter",
    "tls: unsupported certificate curve (P-224)",
    "tls: certificate RSA key size too small for supported signature algorithms",
    "tls: unsupported certificate key (*dsa.PublicKey)",
    "tls: no supported elliptic curves offered",
    "tls: certificate cannot be used with the selected cipher suite",
    "tls: failed to sign ECDHE parameters: x",
    "tls: no certificates configured",
    "tls: private key does not match public key",
    "tls: failed to find any PEM data in certificate input",
    "open /etc/kubernetes/pki/etcd/server.crt: no such file or directory",
    "open /etc/kubernetes/pki/etcd/server.key: permission denied",
    // crypto/x509/verify.go
    "x509: certificate is not authorized to sign other certificates",
    "x509: certificate has expired or is not yet valid: current time 2026-11-23T09:10:10Z is after 2026-11-23T07:04:06Z",
    "x509: certificate has expired or is not yet valid: current time 2026-11-23T09:10:10Z is before 2026-11-24T07:04:06Z",
    "x509: certificate has expired or is not yet valid",
    "x509: a root or intermediate certificate is not authorized to sign for this name: DNS name \"a\" is not permitted by any constraint",
    "x509: a root or intermediate certificate is not authorized for an extended key usage: x",
    "x509: too many intermediates for path length constraint",
    "x509: certificate specifies an incompatible key usage",
    "x509: issuer name does not match subject from issuing certificate",
    "x509: issuer has name constraints but leaf doesn't have a SAN extension",
    "x509: issuer has name constraints but leaf contains unknown or unconstrained name: x",
    "x509: certificate relies on legacy Common Name field, use SANs instead",
    "x509: cannot validate certificate for 10.0.0.1 because it doesn't contain any IP SANs",
    "x509: certificate is not valid for any names, but wanted to match a",
    "x509: certificate is valid for 127.0.0.1, not 10.0.0.1",
    "x509: unhandled critical extension",
    "x509: cannot verify signature: insecure algorithm SHA1-RSA",
    "x509: cannot verify signature: algorithm unimplemented",
    "x509: invalid signature: parent certificate cannot sign this kind of certificate",
    "x509: signature check attempts limit reached while verifying certificate chain",
    "x509: ECDSA verification failure",
    "x509: Ed25519 verification failure",
    "x509: unsupported elliptic curve",
    "x509: negative serial number",
    "x509: invalid basic constraints",
    "x509: trailing data after ASN.1 of public-key",
    "x509: unknown error",
    "tls: client sent certificate containing RSA key larger than 8192 bits",
    // etcd
    "tls: \"10.0.0.2\" does not match any of DNSNames [\"m1\"]",
    "tls: \"10.0.0.2\" does not match any of DNSNames [\"m1\"] (lookup m1 on 10.96.0.10:53: no such host)",
    "transport: certificate serial 1f00aa0011 revoked",
    "client certificate authentication failed",
    "CommonName is not allowed: x",
    // net/http, gRPC
    "http2: bogus greeting \"GET / HTTP/1.1\"",
    "connection error: PROTOCOL_ERROR: client preface",
];

/// crypto/tls/alert.go
const ALERTS: &[&str] = &[
    "close notify",
    "unexpected message",
    "bad record MAC",
    "decryption failed",
    "record overflow",
    "decompression failure",
    "handshake failure",
    "bad certificate",
    "unsupported certificate",
    "revoked certificate",
    "expired certificate",
    "unknown certificate",
    "illegal parameter",
    "unknown certificate authority",
    "access denied",
    "error decoding message",
    "error decrypting message",
    "export restriction",
    "protocol version not supported",
    "insufficient security level",
    "internal error",
    "inappropriate fallback",
    "user canceled",
    "no renegotiation",
    "missing extension",
    "unsupported extension",
    "certificate unobtainable",
    "unrecognized name",
    "bad certificate status response",
    "bad certificate hash value",
    "unknown PSK identity",
    "certificate required",
    "no application protocol",
    "encrypted client hello required",
    "alert(99)",
];

#[test]
fn each_known_error_has_a_row() {
    let alerts = ALERTS
        .iter()
        .flat_map(|alert| ["remote error: tls: ", "local error: tls: "].map(|side| format!("{side}{alert}")));
    for error in LOGGED.iter().map(|error| (*error).to_owned()).chain(alerts) {
        assert!(!of(&error).starts_with("No advice"), "{error}");
    }
    // Those that only the last rows know have no name of their own.
    for alert in ALERTS.iter().filter(|alert| **alert != "alert(99)") {
        for side in ["remote error: tls: ", "local error: tls: "] {
            assert!(
                !of(&format!("{side}{alert}")).contains("with a TLS alert"),
                "{alert}"
            );
        }
    }
    for error in LOGGED.iter().filter(|error| **error != "x509: unknown error") {
        assert!(!of(error).contains("openssl verify"), "{error}");
    }
}

#[test]
fn each_row_is_reached() {
    for (at, row) in errors::ROWS.iter().enumerate() {
        let first = errors::ROWS
            .iter()
            .position(|other| row.part.contains(other.part));
        assert_eq!(first, Some(at), "{}: an earlier row has it", row.part);
    }
}

#[test]
fn what_the_advice_is_about() {
    for (error, word) in [
        ("EOF", "port check"),
        ("unexpected EOF", "in the middle"),
        (
            "read tcp 10.0.0.1:2379->10.0.0.2:5: read: connection reset by peer",
            "load balancer",
        ),
        ("tls: first record does not look like a TLS handshake", "https://"),
        ("tls: oversized record received with length 21536", "HTTP"),
        ("tls: client didn't provide a certificate", "--cert"),
        (
            "tls: failed to verify client certificate: x509: certificate signed by unknown authority",
            "--trusted-ca-file",
        ),
        ("remote error: tls: unknown certificate authority", "--cacert"),
        ("remote error: tls: expired certificate", "renew"),
        ("remote error: tls: bad certificate", "--cacert"),
        (
            "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2026-11-23T09:10:10Z is after 2026-11-23T07:04:06Z",
            "expired",
        ),
        ("tls: client offered only unsupported versions: [301]", "TLS 1.0"),
        (
            "x509: certificate specifies an incompatible key usage",
            "clientAuth",
        ),
        ("tls: \"10.0.0.2\" does not match any of DNSNames [\"m1\"]", "PTR"),
        ("something new", "No advice"),
    ] {
        assert!(of(error).contains(word), "{error}: {}", of(error));
    }
}

/// With a server name a ClientHello was sent: that is no bare port check.
#[test]
fn a_client_that_sent_its_hello_is_no_port_check() {
    for error in [
        "EOF",
        "read: connection reset by peer",
        "i/o timeout",
        "unexpected EOF",
    ] {
        let (without, with) = (
            advice(error, false, ServerKind::Etcd),
            advice(error, true, ServerKind::Etcd),
        );
        assert_ne!(with, without, "{error}");
        assert!(
            with.contains("handshake") && !with.contains("port check"),
            "{error}: {with}"
        );
    }
    let error = "remote error: tls: bad certificate";
    assert_eq!(
        advice(error, true, ServerKind::Etcd),
        advice(error, false, ServerKind::Etcd)
    );
}

#[test]
fn sentences_are_short_and_say_what_to_do() {
    let others = ServerKind::ALL.map(other_servers::rows);
    for row in errors::ROWS.iter().chain(others.into_iter().flatten()) {
        for text in [Some(row.advice), row.after_hello].into_iter().flatten() {
            assert!(text.ends_with('.') && text.len() < 250, "{text}");
            assert!(!text.contains("  "), "{text}");
        }
    }
}
