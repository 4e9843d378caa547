//! Which names are those of secrets.

use super::HIDDEN;

/// What a value of that name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    Secret,
    /// `user:password`
    UserAndPassword,
    Other,
}

/// Parts of names, as they are between `-`, `_` and `.` or begin with a capital.
const SECRET: [&str; 27] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pass",
    "pwd",
    "pw",
    "secret",
    "secrets",
    "token",
    "tokens",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "credential",
    "credentials",
    "cookie",
    "psk",
    "pin",
    "otp",
    "bearer",
    "sas",
    "signature",
    "sig",
    "jwt",
    "dsn",
];
/// The same where they are the last part.
const SECRET_LAST: [&str; 3] = ["auth", "authorization", "literal"];
/// The same before `key`.
const KEYS: [&str; 9] = [
    "api",
    "access",
    "secret",
    "private",
    "encryption",
    "signing",
    "account",
    "license",
    "shared",
];
/// Ends of a part: `keypass`, `PGPASSWORD`.
const ENDS: [&str; 6] = ["password", "passwd", "passphrase", "pass", "secret", "token"];
/// Words with such an end that are none.
const NO_SECRETS: [&str; 5] = ["bypass", "compass", "encompass", "surpass", "trespass"];
/// Last parts of a name that is about a secret and has none.
const ABOUT: [&str; 33] = [
    "file",
    "files",
    "path",
    "dir",
    "directory",
    "ttl",
    "url",
    "uri",
    "name",
    "names",
    "namespace",
    "length",
    "type",
    "mode",
    "expiry",
    "expiration",
    "expires",
    "duration",
    "timeout",
    "hash",
    "header",
    "stdin",
    "fd",
    "env",
    "var",
    "policy",
    "id",
    "format",
    "field",
    "store",
    "provider",
    "enabled",
    "period",
];
/// Names of `user:password`.
const PAIRS: [&str; 3] = ["creds", "basic-auth", "proxy-user"];
/// What the shell calls directories.
const DIRECTORIES: [&str; 2] = ["pwd", "oldpwd"];
/// Headers whose value is one.
const HEADERS: [&str; 9] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "apikey",
    "private-token",
    "x-auth-token",
    "x-vault-token",
    "cookie",
];

impl NameKind {
    /// Of an option without its dashes, a variable, a property, or a parameter.
    pub fn of(name: &str) -> Self {
        let name = name.trim_start_matches('-');
        let parts = parts(name);
        let lower = parts.join("-");
        if DIRECTORIES.contains(&lower.as_str()) {
            return Self::Other;
        }
        let Some(last) = parts.last() else {
            return Self::Other;
        };
        if ABOUT.contains(&last.as_str())
            || ["no", "enable", "disable"].contains(&parts.first().map_or("", String::as_str))
        {
            return Self::Other;
        }
        if PAIRS.contains(&lower.as_str()) || last == "creds" {
            return Self::UserAndPassword;
        }
        let is_secret = parts.iter().any(|part| is_secret(part))
            || SECRET_LAST.contains(&last.as_str())
            || parts.windows(2).any(|pair| match pair {
                [kind, key] => key == "key" && KEYS.contains(&kind.as_str()),
                _ => false,
            });
        if is_secret { Self::Secret } else { Self::Other }
    }
}

fn is_secret(part: &str) -> bool {
    SECRET.contains(&part) || !NO_SECRETS.contains(&part) && ENDS.iter().any(|end| part.ends_with(end))
}

/// `keyStorePassword`, `KEY_STORE_PASSWORD` and `key-store.password` have the same.
fn parts(name: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut was_lower = false;
    for letter in name.chars() {
        let is_separator = matches!(letter, '-' | '_' | '.' | '/' | '[' | ']');
        if (is_separator || letter.is_uppercase() && was_lower) && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
        }
        if !is_separator {
            part.extend(letter.to_lowercase());
        }
        was_lower = letter.is_lowercase() || letter.is_ascii_digit();
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// A value that is no secret whatever its name: a switch, or a variable that has the secret. A password may begin like one.
pub fn is_harmless(value: &str) -> bool {
    let variable = value.strip_prefix('$').map(|name| {
        let inner = |open, close| name.strip_prefix(open)?.strip_suffix(close);
        inner('(', ')').or_else(|| inner('{', '}')).unwrap_or(name)
    });
    let is_of_variable =
        |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    matches!(
        value.to_ascii_lowercase().as_str(),
        "" | "true" | "false" | "yes" | "no" | "on" | "off" | "none" | "null" | "nil" | "0" | "1"
    ) || variable.is_some_and(|name| !name.is_empty() && name.chars().all(is_of_variable))
}

/// `Authorization: Bearer secret`, quoted or not, with all behind the colon hidden; `None`: it is no such header.
pub fn hide_header(text: &str) -> Option<String> {
    let begin = text.len() - text.trim_start_matches(['"', '\'']).len();
    let colon = text.find(':')?;
    let name = text.get(begin..colon)?;
    if !HEADERS.iter().any(|header| header.eq_ignore_ascii_case(name)) {
        return None;
    }
    let end = text.trim_end_matches(['"', '\'']).len().max(colon + 1);
    Some(format!("{} {HIDDEN}{}", text.get(..=colon)?, text.get(end..)?))
}

/// Whether it is a scheme of `Authorization` by itself.
pub fn is_scheme(word: &str) -> bool {
    word.eq_ignore_ascii_case("bearer")
}
