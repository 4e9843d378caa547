//! What a kubeconfig names: certificates, keys, tokens.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use rustls::pki_types::CertificateDer;

use crate::{
    host::{
        certificate,
        files::Root,
        kubeconfig::{self, Login, Material},
    },
    model::doctor::node::KubeletClient,
    tls::Identity,
};

/// A configuration with all that it names.
pub struct Used {
    pub login: Login,
    /// Who may sign the server's certificate; `None`: it is not checked.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
    pub client: KubeletClient,
    pub identity: Option<Identity>,
    pub token: Option<String>,
}

/// Reads it; `None`: not found.
///
/// # Errors
/// Why it is of no use to kubelet, in words.
pub fn read(root: &Root, path: &str) -> Result<Option<Used>, String> {
    let text = match root.text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(says(&error)),
    };
    let login = kubeconfig::parse(&text).map_err(|error| error.to_string())?;
    let bytes = |file: &str| root.text(beside(path, file)).map(String::into_bytes);
    let authorities = match &login.authority {
        _ if login.insecure => None,
        Material::None => None,
        Material::Data(data) => Some(certificate::chain(data).map_err(|error| format!("its CA: {error}"))?),
        Material::File(file) => {
            let data = bytes(file).map_err(|error| format!("its CA {file}: {}", says(&error)))?;
            Some(certificate::chain(&data).map_err(|error| format!("its CA {file}: {error}"))?)
        }
    };
    let content = |material: &Material| match material {
        Material::None => None,
        Material::Data(data) => Some(Ok(data.clone())),
        Material::File(file) => Some(bytes(file)),
    };
    let token = login.token.clone().or_else(|| {
        let text = root.text(beside(path, login.token_file.as_deref()?)).ok()?;
        Some(text.trim().to_owned())
    });
    let (client, identity) = match content(&login.certificate) {
        None if login.program => (KubeletClient::Other("credentials from a program"), None),
        None if token.is_some() => (KubeletClient::Other("a token"), None),
        None => (KubeletClient::Other("no credentials"), None),
        Some(certificate) => {
            let place = match &login.certificate {
                Material::File(file) => file.clone(),
                Material::Data(_) | Material::None => format!("client-certificate-data of {path}"),
            };
            match shown(certificate, content(&login.key)) {
                Ok((certificate, identity)) => (
                    KubeletClient::Certificate {
                        place,
                        certificate: Box::new(certificate),
                    },
                    Some(identity),
                ),
                Err(why) => (KubeletClient::Bad { place, why }, None),
            }
        }
    };
    Ok(Some(Used {
        login,
        authorities,
        client,
        identity,
        token,
    }))
}

fn shown(
    certificates: io::Result<Vec<u8>>,
    key: Option<io::Result<Vec<u8>>>,
) -> Result<(crate::model::doctor::certificate::Certificate, Identity), String> {
    let certificates = certificates.map_err(|error| says(&error))?;
    let chain = certificate::chain(&certificates).map_err(|error| error.to_string())?;
    let leaf = chain.first().ok_or("it has no certificate")?;
    let leaf = certificate::parse(leaf).map_err(|error| error.to_string())?;
    let key = key.ok_or("the configuration has no key for it")?;
    let key = key.map_err(|error| format!("its key: {}", says(&error)))?;
    let identity = Identity::new(&certificates, &key).map_err(|error| error.to_string())?;
    Ok((leaf, identity))
}

/// A file that a kubeconfig names is beside it, unless its path is whole.
fn beside(kubeconfig: &str, file: &str) -> std::path::PathBuf {
    Path::new(kubeconfig)
        .parent()
        .unwrap_or(Path::new("/"))
        .join(file)
}

fn says(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "not found".to_owned(),
        ErrorKind::PermissionDenied => "not allowed to read it".to_owned(),
        ErrorKind::Other => error.to_string(),
        kind => kind.to_string(),
    }
}
