//! Certificates, in DER and PEM.

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _, time::ASN1Time,
    x509::X509Name,
};

use crate::model::doctor::certificate::Certificate;

/// What is kept of a name, and how many names.
const LETTERS: usize = 200;
const NAMES: usize = 12;
/// Certificates of one file that are looked at.
const CHAIN: usize = 64;

/// Why it can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CertificateError {
    #[error("it has no certificate")]
    None,
    #[error("its PEM is malformed: {0}")]
    Pem(String),
    #[error("its certificate is malformed: {0}")]
    Der(String),
}

/// The certificates of a PEM file, as they are.
///
/// # Errors
/// When there is none, or one is malformed.
pub fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(CHAIN).collect();
    let found = found.map_err(|error| CertificateError::Pem(error.to_string()))?;
    if found.is_empty() {
        return Err(CertificateError::None);
    }
    Ok(found)
}

/// What a certificate says.
///
/// # Errors
/// When it is malformed.
pub fn parse(der: &[u8]) -> Result<Certificate, CertificateError> {
    let (_, found) =
        X509Certificate::from_der(der).map_err(|error| CertificateError::Der(cut(&error.to_string())))?;
    let names = found.subject_alternative_name().ok().flatten();
    let names = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(name);
    Ok(Certificate {
        subject: text(found.subject()),
        common_name: found
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .map(cut),
        issuer: text(found.issuer()),
        names: names.take(NAMES).collect(),
        self_signed: found.subject().as_raw() == found.issuer().as_raw(),
        begins: time(found.validity().not_before),
        ends: time(found.validity().not_after),
    })
}

fn text(name: &X509Name<'_>) -> String {
    cut(&name.to_string())
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(cut(name)),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| std::net::IpAddr::from(octets).to_string());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|octets| std::net::IpAddr::from(octets).to_string()))
        .ok()
}

/// Of a date that no calendar here has, the nearest that one has.
fn time(time: ASN1Time) -> Timestamp {
    let seconds = time.timestamp();
    let nearest = if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    Timestamp::from_second(seconds).unwrap_or(nearest)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LETTERS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As ingress-nginx makes it.
    const FAKE: &str = include_str!("samples/fake.pem");
    /// CN=system:node:alpha of CN=lab, for alpha and 192.168.88.11.
    const NODE: &str = include_str!("samples/node.pem");

    fn first(pem: &str) -> Certificate {
        parse(&chain(pem.as_bytes()).unwrap()[0]).unwrap()
    }

    #[test]
    fn what_certificates_say() {
        let fake = first(FAKE);
        assert_eq!(
            fake.common_name.as_deref(),
            Some("Kubernetes Ingress Controller Fake Certificate")
        );
        assert!(fake.self_signed);
        assert_eq!(fake.names, ["ingress.local"]);
        let node = first(NODE);
        assert!(!node.self_signed);
        assert_eq!(node.subject, "O=system:nodes, CN=system:node:alpha");
        assert_eq!(node.issuer, "CN=lab");
        assert_eq!(node.names, ["alpha", "192.168.88.11", "fd00::1"]);
        assert_eq!(node.ends.duration_since(node.begins).as_hours(), 48);
    }

    #[test]
    fn nonsense() {
        for (pem, says) in [
            ("", "no certificate"),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                "no certificate",
            ),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "malformed"),
            (
                "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
                "malformed",
            ),
        ] {
            let error = chain(pem.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{pem}: {error}");
        }
        let der = chain(NODE.as_bytes()).unwrap();
        for end in 0..der[0].len() {
            assert!(parse(&der[0][..end]).is_err(), "{end}");
        }
    }
}
