//! One dial: connect, handshake, and, where asked for, one GET.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rustls::{
    ClientConfig, ClientConnection, Error, RootCertStore, Stream,
    client::WebPkiServerVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use super::{http, recorder::Recorder, timed::Timed};
use crate::{
    host::certificate,
    model::doctor::server::{Dialled, Reply, Stop, Trust},
};

/// Authorities of one client that are taken.
const AUTHORITIES: usize = 64;

/// Whom to dial, and as whom.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub address: SocketAddr,
    /// The server name that is sent and checked; `None`: none is sent, and the address is checked.
    pub name: Option<&'a str>,
    /// Who may sign the server's certificate; `None`: it is not checked.
    pub authorities: Option<&'a [CertificateDer<'static>]>,
    pub identity: Option<&'a Identity>,
    /// What is asked after the handshake.
    pub request: Option<Request<'a>>,
    /// For all of it.
    pub timeout: Duration,
}

/// A GET.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub path: &'a str,
    /// Sent only to a server that is trusted.
    pub token: Option<&'a str>,
}

/// A client's certificate with its key.
#[derive(Clone, Debug)]
pub struct Identity(ClientConfig);

/// Why a client's certificate can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("no private key in it: {0}")]
    Key(String),
    #[error(transparent)]
    Certificate(#[from] certificate::CertificateError),
    #[error("the key is not the certificate's")]
    OtherKey,
    #[error("it can't be used: {0}")]
    Unusable(Error),
}

impl Identity {
    /// # Errors
    /// When there is no certificate or no key, or they do not belong together.
    pub fn new(certificates: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain = certificate::chain(certificates)?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| IdentityError::Key(error.to_string()))?;
        let provider = Arc::new(ring::default_provider());
        let recorder = Arc::new(Recorder::new(Arc::clone(&provider), None));
        let config = builder(provider, recorder)
            .map_err(IdentityError::Unusable)?
            .with_client_auth_cert(chain, key);
        config.map(Self).map_err(|error| match error {
            Error::InconsistentKeys(_) => IdentityError::OtherKey,
            other => IdentityError::Unusable(other),
        })
    }
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn builder(provider: Arc<CryptoProvider>, recorder: Arc<Recorder>) -> Result<Builder, Error> {
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(recorder))
}

/// Dials, and returns the step that failed.
pub fn dial(ask: &Ask<'_>) -> Dialled {
    let timed = match Timed::connect(ask.address, ask.timeout) {
        Ok(timed) => timed,
        Err(stop) => return Dialled::stopped(stop),
    };
    let provider = Arc::new(ring::default_provider());
    let checks = ask.authorities.map(|authorities| checks(&provider, authorities));
    let (checks, unchecked) = match checks.transpose() {
        Ok(checks) => (checks, None),
        Err(error) => (None, Some(Trust::Other(error))),
    };
    let recorder = Arc::new(Recorder::new(Arc::clone(&provider), checks));
    let reply = talk(ask, timed, provider, &recorder);
    let seen = recorder.seen();
    Dialled {
        leaf: seen.as_ref().and_then(|(der, _)| certificate::parse(der).ok()),
        trust: unchecked
            .or(seen.map(|(_, trust)| trust))
            .unwrap_or(Trust::Unchecked),
        reply,
    }
}

fn checks(
    provider: &Arc<CryptoProvider>,
    authorities: &[CertificateDer<'static>],
) -> Result<Arc<WebPkiServerVerifier>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.iter().take(AUTHORITIES).cloned());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| format!("the client's certificate authorities can't be used: {error}"))
}

fn talk(
    ask: &Ask<'_>,
    mut timed: Timed,
    provider: Arc<CryptoProvider>,
    recorder: &Arc<Recorder>,
) -> Result<Option<Reply>, Stop> {
    let mut config = match ask.identity {
        None => builder(provider, Arc::clone(recorder))
            .map_err(|error| Stop::NoTls(error.to_string()))?
            .with_no_client_auth(),
        Some(Identity(config)) => {
            let mut config = config.clone();
            config
                .dangerous()
                .set_certificate_verifier(Arc::clone(recorder) as _);
            config
        }
    };
    config.enable_sni = ask.name.is_some();
    // A session taken up again would show no certificate.
    config.resumption = rustls::client::Resumption::disabled();
    let name = ask
        .name
        .and_then(|name| ServerName::try_from(name.to_owned()).ok());
    let name = name.unwrap_or_else(|| ServerName::from(ask.address.ip()));
    let mut connection =
        ClientConnection::new(Arc::new(config), name).map_err(|error| Stop::NoTls(error.to_string()))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut timed).map_err(stop)?;
    }
    let Some(request) = ask.request else {
        return Ok(None);
    };
    let trusted = recorder.seen().is_some_and(|(_, trust)| trust == Trust::Trusted);
    let host = match ask.name {
        Some(name) => format!("{name}:{}", ask.address.port()),
        None => ask.address.to_string(),
    };
    let text = http::request(request.path, &host, request.token.filter(|_| trusted));
    let mut stream = Stream::new(&mut connection, &mut timed);
    stream.write_all(text.as_bytes()).map_err(stop)?;
    let mut bytes = Vec::new();
    let read = stream.take(http::MOST as u64).read_to_end(&mut bytes);
    let now = Timestamp::now();
    match (http::response(&bytes), read) {
        (Some(found), _) => Ok(Some(Reply {
            status: found.status,
            dated: found.date.map(|date| (date, now)),
            body: found.body,
        })),
        (None, Err(error)) => Err(stop(error)),
        (None, Ok(_)) if bytes.is_empty() => Err(Stop::Closed),
        (None, Ok(_)) => Err(Stop::NoHttp),
    }
}

/// What an error after the connection says of the server.
fn stop(error: io::Error) -> Stop {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Stop::Silent,
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe => Stop::Closed,
        kind => match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::AlertReceived(alert)) => Stop::Alert(format!("{alert:?}")),
            Some(error) => Stop::NoTls(error.to_string()),
            None => Stop::NoTls(kind.to_string()),
        },
    }
}
