use std::num::NonZeroUsize;

use super::*;
use crate::Role;

/// Sequence number of the first byte: it goes round within the hello.
const FIRST: u32 = u32::MAX - 30;
const START_NS: u64 = 1000;

fn key() -> Key {
    Key {
        local: "10.0.0.1:41234".parse().unwrap(),
        peer: "10.0.0.2:443".parse().unwrap(),
        netns: 7,
    }
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 3, 1];
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(body.len() as u16).to_be_bytes(), body].concat()
}

fn prefixed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_be_bytes()[..], body].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &prefixed(&[&[0][..], &prefixed(name)].concat()))
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = protocols
        .iter()
        .flat_map(|name| [&[name.len() as u8][..], name].concat())
        .collect();
    extension(16, &prefixed(&list))
}

/// TLS 1.3, 1.2 and one of those that stand for none.
fn versions() -> Vec<u8> {
    extension(43, &[6, 0x7a, 0x7a, 3, 4, 3, 3])
}

fn client_hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(prefixed(&extensions.concat()));
    message(1, &body)
}

fn server_hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([8; 32]);
    body.extend([0, 0x13, 1, 0]);
    body.extend(prefixed(&extensions.concat()));
    message(2, &body)
}

fn whole_client() -> Vec<u8> {
    record(
        22,
        &client_hello(&[
            server_name(b"shop.example"),
            alpn(&[b"h2", b"http/1.1"]),
            versions(),
        ]),
    )
}

fn whole_server() -> Vec<u8> {
    record(22, &server_hello(&[extension(43, &[3, 4])]))
}

fn offered() -> ClientHello {
    ClientHello {
        server_name: Some("shop.example".to_owned()),
        alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
        versions: vec![Version(0x0304), Version(0x0303)],
    }
}

fn chosen(version: u16, alpn: Option<&str>) -> ServerHello {
    ServerHello {
        version: Version(version),
        alpn: alpn.map(str::to_owned),
    }
}

fn segment(way: Way, at: usize, bytes: &[u8]) -> Segment<'_> {
    Segment {
        time_ns: START_NS + 1,
        socket: 1,
        way,
        sequence: FIRST.wrapping_add(at as u32),
        first: FIRST,
        length: bytes.len() as u32,
        captured: bytes,
    }
}

fn push(talks: &mut TlsStreams, way: Way, at: usize, bytes: &[u8]) {
    talks.push(key(), &segment(way, at, bytes));
}

fn all() -> Totals {
    Totals::default()
}

/// What the client's end makes of these bytes, whole segments each.
fn said(client: &[&[u8]], server: &[&[u8]]) -> Option<Tls> {
    let mut talks = TlsStreams::default();
    for (way, segments) in [(Way::Sent, client), (Way::Received, server)] {
        let mut at = 0;
        for bytes in segments {
            push(&mut talks, way, at, bytes);
            at += bytes.len();
        }
    }
    talks.take(&key(), START_NS, Role::Client, all())
}

fn alert(from: Role, code: u8) -> Alert {
    let fatal = true;
    Alert { from, fatal, code }
}

#[test]
fn both_hellos() {
    let tls = said(&[&whole_client()], &[&whole_server()]).unwrap();
    assert_eq!(tls.client, FirstMessage::Hello(offered()));
    assert_eq!(tls.server, FirstMessage::Hello(chosen(0x0304, None)));
    assert_eq!(tls.alerts, []);
    // Before TLS 1.3 the choice of ALPN is in the clear, and the version at the front.
    let server = record(22, &server_hello(&[alpn(&[b"h2"])]));
    let tls = said(&[&whole_client()], &[&server]).unwrap();
    assert_eq!(tls.server, FirstMessage::Hello(chosen(0x0303, Some("h2"))));
}

#[test]
fn at_the_servers_end_the_ways_are_the_other_way_round() {
    let mut talks = TlsStreams::default();
    push(&mut talks, Way::Received, 0, &whole_client());
    push(&mut talks, Way::Sent, 0, &whole_server());
    let tls = talks.take(&key(), START_NS, Role::Server, all()).unwrap();
    assert_eq!(tls.client, FirstMessage::Hello(offered()));
    assert_eq!(tls.server, FirstMessage::Hello(chosen(0x0304, None)));
}

#[test]
fn hellos_with_little_or_odd_in_them() {
    let hello = |extensions: &[Vec<u8>]| match said(&[&record(22, &client_hello(extensions))], &[])
        .unwrap()
        .client
    {
        FirstMessage::Hello(hello) => hello,
        other => panic!("{other:?}"),
    };
    let nameless = hello(&[versions()]);
    assert_eq!((nameless.server_name, nameless.alpn), (None, Vec::new()));
    // Before TLS 1.3 there is no list of versions.
    assert_eq!(hello(&[]).versions, [Version(0x0303)]);
    assert_eq!(hello(&[server_name(b"")]).server_name, None);
    assert_eq!(
        hello(&[server_name(b"a\x1b[2J\xff")]).server_name.as_deref(),
        Some("a\x1b[2J\u{fffd}")
    );
    let long = hello(&[server_name(&[b'a'; 5000])]).server_name.unwrap();
    assert_eq!(long.len(), 255);
    let many = vec![b"x".as_slice(); 1000];
    assert_eq!(hello(&[alpn(&many)]).alpn.len(), 16);
    // One that can't be read does not hide those behind it.
    let odd = [
        extension(10, &[0xff]),
        extension(0x0a0a, b"?"),
        server_name(b"shop.example"),
    ];
    assert_eq!(hello(&odd).server_name.as_deref(), Some("shop.example"));
}

/// In segments of every length, over records of every length, from the last to the first, and twice.
#[test]
fn cut_up_in_every_way() {
    let whole = whole_client();
    let expected = said(&[&whole], &[]).unwrap();
    for length in 1..=whole.len() {
        let segments: Vec<&[u8]> = whole.chunks(length).collect();
        assert_eq!(said(&segments, &[]), Some(expected.clone()), "{length}");
        if segments.len() > 60 {
            continue;
        }
        let mut talks = TlsStreams::default();
        for _ in 0..2 {
            for (index, bytes) in segments.iter().enumerate().rev() {
                push(&mut talks, Way::Sent, index * length, bytes);
            }
        }
        let read = talks.take(&key(), START_NS, Role::Client, all());
        assert_eq!(read, Some(expected.clone()), "backwards by {length}");
        assert_eq!(talks.bytes(), 0);
    }
    for length in 1..whole.len() {
        let message = client_hello(&[
            server_name(b"shop.example"),
            alpn(&[b"h2", b"http/1.1"]),
            versions(),
        ]);
        let records: Vec<u8> = message.chunks(length).flat_map(|part| record(22, part)).collect();
        assert_eq!(
            said(&[&records], &[]),
            Some(expected.clone()),
            "records of {length}"
        );
    }
}

#[test]
fn truncated_at_every_length() {
    let whole = whole_client();
    for end in 1..whole.len() {
        let mut talks = TlsStreams::default();
        push(&mut talks, Way::Sent, 0, &whole[..end]);
        let totals = |client| Totals {
            client: Some(client),
            server: Some(0),
        };
        let tls = talks
            .take(&key(), START_NS, Role::Client, totals(end as u64))
            .unwrap();
        let seen = end.saturating_sub(5);
        let of = (seen >= 4).then_some(whole.len() - 5);
        let incomplete = |why| FirstMessage::Incomplete(Incomplete { seen, of, why });
        assert_eq!(tls.client, incomplete(Why::Cut), "{end}");
        assert_eq!(tls.server, FirstMessage::Nothing);
        // More was sent.
        push(&mut talks, Way::Sent, 0, &whole[..end]);
        let tls = talks.take(&key(), START_NS, Role::Client, totals(end as u64 + 1));
        assert_eq!(tls.unwrap().client, incomplete(Why::Unseen), "{end}");
    }
}

#[test]
fn what_was_not_seen_is_not_made_up() {
    let whole = whole_client();
    let unseen = |seen, of| {
        FirstMessage::Incomplete(Incomplete {
            seen,
            of,
            why: Why::Unseen,
        })
    };
    let mut talks = TlsStreams::default();
    // The first segment is missing: what is there is neither TLS nor something else.
    push(&mut talks, Way::Sent, 60, &whole[60..]);
    let tls = talks.take(&key(), START_NS, Role::Client, all()).unwrap();
    assert_eq!(tls.client, unseen(0, None));
    // One in between.
    push(&mut talks, Way::Sent, 0, &whole[..40]);
    push(&mut talks, Way::Sent, 60, &whole[60..]);
    let tls = talks.take(&key(), START_NS, Role::Client, all()).unwrap();
    assert_eq!(tls.client, unseen(35, Some(whole.len() - 5)));
    // All of it.
    let totals = Totals {
        client: Some(517),
        server: Some(0),
    };
    let tls = talks.take(&key(), START_NS, Role::Client, totals).unwrap();
    assert_eq!((tls.client, tls.server), (unseen(0, None), FirstMessage::Nothing));
    let nothing = Totals {
        client: Some(0),
        server: Some(0),
    };
    assert_eq!(talks.take(&key(), START_NS, Role::Client, nothing), None);
}

#[test]
fn something_else_than_tls() {
    for (bytes, expected) in [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice(), Protocol::Http),
        (b"HTTP/1.0 400 Bad Request\r\n", Protocol::Http),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Protocol::Http2),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Protocol::Ssh),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", Protocol::Proxy),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", Protocol::Postgres),
        (b"\x80\x2e\x01\x03\x01\0\x15", Protocol::Ssl2),
        (b"\0", Protocol::Unknown),
        (b"G", Protocol::Unknown),
        // Almost a record.
        (b"\x16\x04\x01\0\x05hello", Protocol::Unknown),
        (b"\x16\x03\x09\0\x05hello", Protocol::Unknown),
        (b"\x16\x03\x01\0\0hello", Protocol::Unknown),
        (b"\x16\x03\x01\xff\xffhello", Protocol::Unknown),
        (b"\x17\x03\x03\0\x05hello", Protocol::Unknown),
    ] {
        let tls = said(&[bytes], &[bytes]).unwrap();
        assert_eq!(tls.client, FirstMessage::Other(expected), "{bytes:?}");
        assert_eq!(tls.server, FirstMessage::Other(expected), "{bytes:?}");
    }
}

#[test]
fn a_record_that_holds_no_hello_is_malformed() {
    let malformed = |body: &[u8]| match said(&[&record(22, body)], &[]).unwrap().client {
        FirstMessage::Incomplete(Incomplete { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(malformed(&message(1, b"short")), Why::Malformed);
    assert_eq!(malformed(&message(2, &[0; 60])), Why::Malformed);
    assert_eq!(malformed(&[1, 1, 0, 0, 3, 3]), Why::Malformed);
}

#[test]
fn alerts_in_the_clear() {
    let from = |role, code| vec![alert(role, code)];
    let (client, server) = (whole_client(), whole_server());
    let unknown_ca = record(21, &[2, 48]);
    // In place of the server's hello.
    let tls = said(&[&client], &[&record(21, &[2, 70])]).unwrap();
    assert_eq!(
        (tls.server, tls.alerts),
        (FirstMessage::Nothing, from(Role::Server, 70))
    );
    // Behind the client's hello.
    let tls = said(&[&client, &unknown_ca], &[&server]).unwrap();
    assert_eq!(tls.alerts, from(Role::Client, 48));
    // Behind certificates of which the end was not captured, with the record's length known.
    let mut talks = TlsStreams::default();
    let long = record(22, &message(11, &[7; 5000]));
    push(&mut talks, Way::Received, 0, &server);
    let cut = Segment {
        length: long.len() as u32,
        ..segment(Way::Received, server.len(), &long[..4096])
    };
    talks.push(key(), &cut);
    push(&mut talks, Way::Received, server.len() + long.len(), &unknown_ca);
    let tls = talks.take(&key(), START_NS, Role::Client, all()).unwrap();
    assert_eq!(tls.server, FirstMessage::Hello(chosen(0x0304, None)));
    assert_eq!(tls.alerts, from(Role::Server, 48));
    // And behind a gap, as a segment of its own.
    push(&mut talks, Way::Received, 0, &server);
    push(&mut talks, Way::Received, 3000, &unknown_ca);
    let tls = talks.take(&key(), START_NS, Role::Client, all()).unwrap();
    assert_eq!(tls.alerts, from(Role::Server, 48));
    // Encrypted ones are none: behind the change of keys the same bytes say something else.
    let encrypted = [record(20, &[1]), unknown_ca.clone()].concat();
    let tls = said(&[&client, &encrypted], &[&server]).unwrap();
    assert_eq!(tls.alerts, []);
    // No more than a few.
    let many: Vec<&[u8]> = vec![&unknown_ca; 20];
    let tls = said(&[&client], &many).unwrap();
    assert_eq!(tls.alerts.len(), 2);
}

#[test]
fn descriptions_of_alerts() {
    let all: Vec<_> = (0..=u8::MAX)
        .map(|code| alert(Role::Client, code).description())
        .collect();
    assert_eq!(all[70], "protocol_version");
    assert_eq!(all[255], "unknown");
    let mut named: Vec<_> = all.into_iter().filter(|name| *name != "unknown").collect();
    let count = named.len();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named.len(), count);
}

#[test]
fn versions_by_name() {
    for number in [0x0300, 0x0301, 0x0302, 0x0303, 0x0304, 0x7f17, 0xfeff, 0] {
        let version = Version(number);
        assert_eq!(Version::named(&version.to_string()), Some(version));
    }
    for name in ["", "TLS", "TLS 1.9", "0x", "0x12345", "0xzzzz"] {
        assert_eq!(Version::named(name), None, "{name}");
    }
}

#[test]
fn a_later_connection_from_the_same_port_is_another() {
    let mut talks = TlsStreams::default();
    push(&mut talks, Way::Sent, 0, b"GET / HTTP/1.0\r\n");
    // Nobody asked for it, and this one said nothing.
    assert_eq!(talks.take(&key(), START_NS + 2, Role::Client, all()), None);
    push(&mut talks, Way::Sent, 0, b"GET / HTTP/1.0\r\n");
    let later = Segment {
        socket: 2,
        ..segment(Way::Sent, 0, b"SSH-2.0-x\r\n")
    };
    talks.push(key(), &later);
    let tls = talks.take(&key(), START_NS, Role::Client, all()).unwrap();
    assert_eq!(tls.client, FirstMessage::Other(Protocol::Ssh));
    // With the same memory for its socket, too.
    push(&mut talks, Way::Sent, 0, b"GET / HTTP/1.0\r\n");
    let (sequence, first) = (FIRST.wrapping_add(1 << 30), FIRST.wrapping_add(1 << 30));
    let later = Segment {
        sequence,
        first,
        ..segment(Way::Sent, 0, b"SSH-2.0-x\r\n")
    };
    talks.push(key(), &later);
    let tls = talks.take(&key(), START_NS, Role::Client, all()).unwrap();
    assert_eq!(tls.client, FirstMessage::Other(Protocol::Ssh));
}

#[test]
fn what_is_kept_is_bounded() {
    let mut talks = TlsStreams::bounded(NonZeroUsize::new(8).unwrap(), 40_000);
    for port in 1..100 {
        for at in 0..200 {
            let mut key = key();
            key.local.set_port(port);
            // Never one behind the other.
            let segment = segment(Way::Sent, at * 2000, &[0; 1000]);
            talks.push(key, &segment);
            assert!(talks.bytes() <= 40_000, "{}", talks.bytes());
        }
    }
    let mut left = 0;
    for port in 1..100 {
        let mut key = key();
        key.local.set_port(port);
        left += usize::from(talks.take(&key, START_NS, Role::Client, all()).is_some());
    }
    assert_eq!(left, 1, "24 kB each");
    assert_eq!(talks.bytes(), 0);
}

/// Any change of any byte is read as something, and never panics.
#[test]
fn hostile_bytes() {
    let whole = [whole_client(), record(21, &[2, 48])].concat();
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[at] = value;
            assert!(said(&[&changed], &[&changed]).is_some(), "{at} {value}");
        }
    }
}
