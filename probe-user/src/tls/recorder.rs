//! Takes any certificate, and keeps what it is and what a client that checks would have said.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::model::doctor::server::Trust;

#[derive(Debug)]
pub struct Recorder {
    provider: Arc<CryptoProvider>,
    /// Whom the client would trust; `None`: it does not check.
    checks: Option<Arc<WebPkiServerVerifier>>,
    seen: Mutex<Option<(CertificateDer<'static>, Trust)>>,
}

impl Recorder {
    pub fn new(provider: Arc<CryptoProvider>, checks: Option<Arc<WebPkiServerVerifier>>) -> Self {
        Self {
            provider,
            checks,
            seen: Mutex::new(None),
        }
    }

    /// The certificate, as soon as there was one.
    pub fn seen(&self) -> Option<(CertificateDer<'static>, Trust)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn trust(&self, result: Result<ServerCertVerified, Error>) -> Trust {
        match result {
            Ok(_) => Trust::Trusted,
            Err(Error::InvalidCertificate(error)) => match error {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Trust::Expired,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Trust::NotYet,
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Trust::UnknownIssuer,
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Trust::WrongName
                }
                other => Trust::Other(other.to_string()),
            },
            Err(other) => Trust::Other(other.to_string()),
        }
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let trust = match &self.checks {
            None => Trust::Unchecked,
            Some(checks) => {
                let result =
                    checks.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
                self.trust(result)
            }
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((end_entity.clone().into_owned(), trust));
        Ok(ServerCertVerified::assertion())
    }

    // That the server has the certificate's key is checked: otherwise anybody could show anything.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
