//! A kubeconfig file: which server, whom to trust, as whom.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kube::config::Kubeconfig;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::chain;

/// What a client is to do with a kubeconfig's current context.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    pub server: String,
    /// The name in the server's certificate, where it is another than the server's.
    pub server_name: Option<String>,
    /// The server's certificate is not checked.
    pub insecure: bool,
    pub authority: Material,
    pub certificate: Material,
    pub key: Material,
    pub token: Option<String>,
    pub token_file: Option<String>,
    pub proxy: Option<String>,
    /// A program gives the credentials.
    pub program: bool,
}

/// Where a certificate or a key is.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Material {
    #[default]
    None,
    File(String),
    Data(Vec<u8>),
}

/// Why it can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("not a kubeconfig: {0}")]
    Malformed(String),
    #[error("its current-context refers to a missing {0}")]
    Missing(&'static str),
    #[error("{0} is not in base64")]
    Base64(&'static str),
}

/// The current context of a kubeconfig, or, as kubelet does, the only one.
///
/// # Errors
/// When it is no kubeconfig, or names what it does not have.
pub fn parse(text: &str) -> Result<Login, LoginError> {
    let found = Kubeconfig::from_yaml(text).map_err(|error| LoginError::Malformed(first(&chain(&error))))?;
    let name = found.current_context.unwrap_or_default();
    let named = found.contexts.iter().find(|context| context.name == name);
    let only = found
        .contexts
        .first()
        .filter(|_| found.contexts.len() == 1 && name.is_empty());
    let context = named.or(only).and_then(|context| context.context.as_ref());
    let context = context.ok_or(LoginError::Missing("context"))?;
    let cluster = found
        .clusters
        .iter()
        .find(|cluster| cluster.name == context.cluster);
    let cluster = cluster
        .and_then(|cluster| cluster.cluster.as_ref())
        .ok_or(LoginError::Missing("cluster"))?;
    let server = cluster.server.clone().filter(|server| !server.is_empty());
    let user = found
        .auth_infos
        .iter()
        .find(|user| Some(&user.name) == context.user.as_ref())
        .and_then(|user| user.auth_info.clone())
        .unwrap_or_default();
    let secret =
        |secret: &Option<SecretString>| secret.as_ref().map(|secret| secret.expose_secret().to_owned());
    Ok(Login {
        server: server.ok_or(LoginError::Missing("server"))?,
        server_name: cluster.tls_server_name.clone(),
        insecure: cluster.insecure_skip_tls_verify.unwrap_or_default(),
        authority: material(
            "certificate-authority-data",
            cluster.certificate_authority_data.as_deref(),
            cluster.certificate_authority.as_deref(),
        )?,
        certificate: material(
            "client-certificate-data",
            user.client_certificate_data.as_deref(),
            user.client_certificate.as_deref(),
        )?,
        key: material(
            "client-key-data",
            secret(&user.client_key_data).as_deref(),
            user.client_key.as_deref(),
        )?,
        token: secret(&user.token),
        token_file: user.token_file.clone(),
        proxy: cluster.proxy_url.clone(),
        program: user.exec.is_some() || user.auth_provider.is_some(),
    })
}

/// Data counts before a file, as it does for kubectl.
fn material(what: &'static str, data: Option<&str>, file: Option<&str>) -> Result<Material, LoginError> {
    let data = data.filter(|data| !data.is_empty());
    let file = file.filter(|file| !file.is_empty());
    Ok(match (data, file) {
        (Some(data), _) => Material::Data(
            BASE64_STANDARD
                .decode(data.trim())
                .map_err(|_| LoginError::Base64(what))?,
        ),
        (None, Some(file)) => Material::File(file.to_owned()),
        (None, None) => Material::None,
    })
}

/// The first line: a parser shows the text around what it does not like, which here may be a key.
fn first(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBELET: &str = "\
apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster: {server: 'https://192.168.88.11:6443', certificate-authority-data: Q0E=, certificate-authority: /ca.crt}
contexts:
- name: default
  context: {cluster: lab, user: me}
current-context: default
users:
- name: me
  user: {client-certificate: kubelet.pem, client-key: kubelet.pem}
";

    #[test]
    fn what_kubelet_has() {
        let login = parse(KUBELET).ok().unwrap();
        assert_eq!(login.server, "https://192.168.88.11:6443");
        assert!(login.authority == Material::Data(b"CA".to_vec()));
        assert!(login.certificate == Material::File("kubelet.pem".to_owned()));
        assert!(!login.insecure && !login.program && login.token.is_none());
        let token = KUBELET.replace("client-certificate: kubelet.pem", "token: abcdef.0123");
        assert_eq!(parse(&token).ok().unwrap().token.as_deref(), Some("abcdef.0123"));
        let only = KUBELET.replace("current-context: default", "");
        assert!(parse(&only).is_ok());
    }

    #[test]
    fn nonsense() {
        for (text, says) in [
            (String::new(), "missing context"),
            ("a: [".to_owned(), "not a kubeconfig"),
            (
                KUBELET.replace("current-context: default", "current-context: other"),
                "missing context",
            ),
            (
                KUBELET.replace("cluster: lab,", "cluster: other,"),
                "missing cluster",
            ),
            (KUBELET.replace("server:", "host:"), "missing server"),
            (
                KUBELET.replace("Q0E=", "Q="),
                "certificate-authority-data is not in base64",
            ),
        ] {
            let error = parse(&text)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
