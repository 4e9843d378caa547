//! An error without what differs from line to line.

/// What stands for a part that differs.
const PART: &str = "…";

/// The error without what differs from line to line, so that lines about one fault are one group:
/// `read tcp 10.0.0.1:2379->10.0.0.2:1: read: EOF` is `read: EOF`, and times, addresses, serial numbers and durations are `…`.
pub fn kind(error: &str) -> String {
    let tcp = error
        .strip_prefix("read tcp ")
        .or_else(|| error.strip_prefix("write tcp "));
    let without_addresses = tcp.and_then(|rest| {
        let (_, rest) = rest.split_once("->")?;
        Some(rest.split_once(": ")?.1)
    });
    let error = without_addresses.unwrap_or(error);
    let mut out = String::with_capacity(error.len());
    let mut rest = error;
    // Versions of TLS that a client offered: the same for all its lines, and what the advice is about.
    let mut in_versions = false;
    while !rest.is_empty() {
        let end = rest.find(is_separator).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let separator = after.chars().next();
        rest = &after[separator.map_or(0, char::len_utf8)..];
        if !in_versions && differs(word) {
            // Not twice for a date and its time.
            if out.trim_end().ends_with(PART) {
                out.truncate(out.trim_end().len());
            } else {
                out.push_str(PART);
            }
            // The mark at the end of a clause.
            let kept = word.trim_end_matches([':', '.', ',']);
            out.push_str(&word[kept.len()..]);
        } else {
            out.push_str(word);
        }
        in_versions = (in_versions || word == "versions:") && separator != Some(']');
        out.extend(separator);
    }
    out
}

fn is_separator(character: char) -> bool {
    character.is_whitespace()
        || matches!(
            character,
            '"' | '\'' | '(' | ')' | '[' | ']' | '<' | '>' | ',' | ';' | '='
        )
}

/// Whether a word is a time, a duration, an address, or a number that only counts.
fn differs(word: &str) -> bool {
    let word = word.trim_end_matches([':', '.', ',']);
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    if digits == 0 {
        return false;
    }
    let is_hexadecimal = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_decimal = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // Numbers of one and two digits are of messages and alerts.
    (is_decimal(word) && word.len() >= 3)
        || (is_hexadecimal(word) && word.len() >= 8)
        || word.strip_prefix("0x").is_some_and(|rest| rest.len() >= 4 && is_hexadecimal(rest))
        || is_time(word)
        || is_duration(word)
        || super::address::loose(word).is_some()
        || super::address::host(word).is_some()
        || word.contains("->")
        // 1a:2b:3c:4d, and what has the parts of a UUID.
        || (word.len() >= 8 && word.contains([':', '-']) && word.split([':', '-']).all(is_hexadecimal))
}

/// `2026-11-23T09:10:10Z`, `09:10:10.123`
fn is_time(word: &str) -> bool {
    let bytes = word.as_bytes();
    let is_date = bytes.len() >= 10
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && bytes[7] == b'-';
    let is_clock = bytes.len() >= 8
        && bytes[2] == b':'
        && bytes[5] == b':'
        && word
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b'+' | b'-' | b'Z'));
    is_date || is_clock
}

/// `1.5s`, `250ms`, `1h2m3s` as Go writes them.
fn is_duration(word: &str) -> bool {
    let Some(unit) = word.find(|character: char| character.is_alphabetic()) else {
        return false;
    };
    unit > 0
        && word.bytes().all(|byte| {
            byte.is_ascii_digit() || matches!(byte, b'.' | b'h' | b'm' | b's' | b'u' | b'n' | 0xc2 | 0xb5)
        })
        && word.ends_with(['s', 'm', 'h'])
        && word.as_bytes()[0].is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn kinds_have_no_variable_parts() {
        for (error, expected) in [
            ("EOF", "EOF"),
            (
                "read tcp 192.168.88.11:2379->192.168.88.12:62134: read: connection reset by peer",
                "read: connection reset by peer",
            ),
            ("read tcp [fd00::1]:2379->[fd00::2]:1: i/o timeout", "i/o timeout"),
            ("read tcp", "read tcp"),
            ("write tcp a->b", "write tcp a->b"),
            (
                "x509: certificate has expired or is not yet valid: current time 2026-11-23T09:10:10Z is after 2026-11-23T07:04:06Z",
                "x509: certificate has expired or is not yet valid: current time … is after …",
            ),
            (
                "tls: oversized record received with length 21536",
                "tls: oversized record received with length …",
            ),
            (
                "tls: client offered only unsupported versions: [301]",
                "tls: client offered only unsupported versions: [301]",
            ),
            (
                "tls: client offered only unsupported versions: [302 301]",
                "tls: client offered only unsupported versions: [302 301]",
            ),
            (
                "transport: certificate serial 3a5f00112233 revoked",
                "transport: certificate serial … revoked",
            ),
            ("serial 1a:2b:3c:4d revoked", "serial … revoked"),
            (
                "tls: \"192.0.2.12\" does not match any of DNSNames [\"b\"] (lookup b on 192.0.2.1:53: no such host)",
                "tls: \"…\" does not match any of DNSNames [\"b\"] (lookup b on …: no such host)",
            ),
            (
                "x509: certificate is valid for 10.0.0.1, 10.0.0.2, not 10.0.0.3",
                "x509: certificate is valid for …, …, not …",
            ),
            ("timed out after 1m30.5s", "timed out after …"),
            ("handshake took 250ms", "handshake took …"),
            (
                "x509: unsupported TLS 1.3 alert(80)",
                "x509: unsupported TLS 1.3 alert(80)",
            ),
            (
                "connection from ::ffff:10.0.0.1:40000 at 09:10:10.123",
                "connection from … at …",
            ),
            ("id 123e4567-e89b-12d3-a456-426614174000", "id …"),
            ("not after 2026-11-23 09:10:10 +0000 UTC", "not after … +0000 UTC"),
            ("decade: dead beef cafe", "decade: dead beef cafe"),
        ] {
            assert_eq!(kind(error), expected, "{error}");
        }
    }
}
