//! As much of HTTP as one GET takes.

use jiff::Timestamp;

/// Bytes of an answer that are read.
pub const MOST: usize = 64 << 10;
/// Characters of the body that are kept.
const KEPT: usize = 4096;

/// The head of an answer and the beginning of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub date: Option<Timestamp>,
    pub body: String,
}

/// The request for a path. Of version 1.0: the answer ends with the connection, and is in one piece.
pub fn request(path: &str, host: &str, token: Option<&str>) -> String {
    let token = token
        .filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()))
        .map(|token| format!("Authorization: Bearer {token}\r\n"))
        .unwrap_or_default();
    format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: probe\r\nAccept: */*\r\n{token}\r\n")
}

/// What a server sent, to its end or as far as it was read; `None`: it is no HTTP.
pub fn response(bytes: &[u8]) -> Option<Response> {
    let text = String::from_utf8_lossy(bytes.get(..MOST).unwrap_or(bytes));
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let (version, rest) = lines.next()?.split_once(' ')?;
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    let status: u16 = rest.split(' ').next()?.parse().ok()?;
    let date = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.trim().eq_ignore_ascii_case("date");
        is_it.then(|| value.trim().to_owned())
    });
    Some(Response {
        status,
        date: date.and_then(|date| Some(jiff::fmt::rfc2822::parse(&date).ok()?.timestamp())),
        body: body.chars().take(KEPT).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let found = response(
            b"HTTP/1.0 401 Unauthorized\r\nContent-Type: x\r\ndate: Fri, 27 Nov 2026 01:47:42 GMT\r\n\r\n{}\r\n\r\n",
        );
        let found = found.unwrap();
        assert_eq!((found.status, found.body.as_str()), (401, "{}\r\n\r\n"));
        assert_eq!(found.date, Some("2026-11-27T01:47:42Z".parse().unwrap()));
        for (bytes, status) in [
            (&b"HTTP/1.1 200\r\n\r\n"[..], Some(200)),
            (b"HTTP/1.1 200 OK\r\nDate: yesterday\r\n", Some(200)),
            (b"HTTP/1.1 9999999 OK\r\n", None),
            (b"SSH-2.0-OpenSSH_9.2\r\n", None),
            (b"HTTP/2 200 OK\r\n\r\n", None),
            (b"\xff\xfe", None),
            (b"", None),
        ] {
            assert_eq!(response(bytes).map(|found| found.status), status, "{bytes:?}");
        }
        let long = [b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), vec![b'x'; MOST * 2]].concat();
        assert_eq!(response(&long).unwrap().body.len(), KEPT);
    }

    #[test]
    fn a_token_adds_no_header() {
        assert!(
            request("/healthz", "a:1", Some("ab.cd")).contains("\r\nAuthorization: Bearer ab.cd\r\n\r\n")
        );
        assert!(!request("/healthz", "a:1", Some("ab\r\nX: y")).contains("Authorization"));
    }
}
