//! Secrets that are known by their shape, whatever their name.

use super::HIDDEN;

/// How tokens of well-known services begin, and how long they are at least.
const TOKENS: [(&str, usize); 18] = [
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("xoxb-", 16),
    ("xoxp-", 16),
    ("xapp-", 16),
    ("sk_live_", 16),
    ("rk_live_", 16),
    ("hvs.", 16),
    ("dop_v1_", 20),
    ("npm_", 20),
    ("AIza", 30),
    ("SG.", 30),
    ("eyJ", 40),
];
/// A user of a URL that is as long is a token.
const LONG: usize = 20;

/// With its secrets hidden; `None`: it has none.
pub fn hide(text: &str) -> Option<String> {
    let of_url = user_info(text);
    let text_now = of_url.as_deref().unwrap_or(text);
    of_openssl(text_now).or_else(|| token(text_now)).or(of_url)
}

/// `https://user:password@host`, each one, and `user:password@tcp(host)`.
fn user_info(text: &str) -> Option<String> {
    let mut hidden = String::new();
    let mut done = 0;
    let mut begin = match text.find("://") {
        Some(found) => found + 3,
        None if text.contains("@tcp(") || text.contains("@unix(") => 0,
        None => return None,
    };
    loop {
        let rest = text.get(begin..)?;
        let length = rest.find(['/', '?', '#', ' ', '"', '\'']).unwrap_or(rest.len());
        if let Some(at) = rest.get(..length)?.rfind('@') {
            let secret = match rest.get(..at)?.find(':') {
                Some(colon) => colon + 1..at,
                None if at >= LONG => 0..at,
                None => 0..0,
            };
            if !secret.is_empty() {
                hidden.push_str(text.get(done..begin + secret.start)?);
                hidden.push_str(HIDDEN);
                done = begin + secret.end;
            }
        }
        match rest.find("://") {
            Some(next) => begin += next + 3,
            None => break,
        }
    }
    hidden.push_str(text.get(done..)?);
    (done > 0).then_some(hidden)
}

/// `pass:password` of openssl's options.
fn of_openssl(text: &str) -> Option<String> {
    let secret = text.strip_prefix("pass:")?;
    (!secret.is_empty()).then(|| format!("pass:{HIDDEN}"))
}

fn token(text: &str) -> Option<String> {
    let is_of_token = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
    let is_token = |word: &str| {
        // `eyJ` begins a JSON object in base64: a token has two dots.
        TOKENS
            .iter()
            .any(|(start, least)| word.starts_with(start) && word.len() >= *least)
            && (!word.starts_with("eyJ") || word.matches('.').count() == 2)
    };
    let mut hidden = String::new();
    let mut is_changed = false;
    let mut rest = text;
    while !rest.is_empty() {
        let length = rest.find(|letter| !is_of_token(letter)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at_checked(length)?;
        let found = is_token(word);
        hidden.push_str(if found { HIDDEN } else { word });
        is_changed |= found;
        let other = behind.find(is_of_token).unwrap_or(behind.len());
        let (between, next) = behind.split_at_checked(other)?;
        hidden.push_str(between);
        rest = next;
    }
    is_changed.then_some(hidden)
}
