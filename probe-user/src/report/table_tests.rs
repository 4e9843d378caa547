use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr;

use super::*;
use crate::report::samples;

fn shown(width: usize, colour: bool, connections: &[Connection]) -> Vec<String> {
    shown_in(&Columns::new(width), colour, connections)
}

fn shown_in(columns: &Columns, colour: bool, connections: &[Connection]) -> Vec<String> {
    let mut clock = Clock::new(TimeZone::UTC);
    let mut out = Vec::new();
    columns.header(&mut out, colour);
    for connection in connections {
        columns.line(
            &mut out,
            &mut clock,
            colour,
            Some("node-1.example\x1b"),
            connection,
        );
    }
    String::from_utf8(out)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn golden() {
    let some: Vec<_> = samples::all().into_iter().take(4).collect();
    assert_eq!(
        shown(100, false, &some).join("\n"),
        include_str!("golden/table-100.txt").trim_end()
    );
    assert_eq!(
        shown(120, false, &some).join("\n"),
        include_str!("golden/table-120.txt").trim_end()
    );
    assert_eq!(
        shown(160, false, &some).join("\n"),
        include_str!("golden/table-160.txt").trim_end()
    );
}

/// A column more, and all others where their headers are.
#[test]
fn nodes_have_a_column() {
    let records = samples::all();
    let lines = shown_in(&Columns::with_node(140, 8), false, &records[..1]);
    let expected = "10:14:03.145 ";
    let place = lines[0].find("NODE").unwrap();
    assert_eq!(place, expected.len(), "{}", lines[0]);
    assert!(
        lines[1][place..].starts_with("node-1.… half-open"),
        "{}",
        lines[1]
    );
    assert_eq!(lines[0].find("OUTCOME"), Some(place + 9));
    let destination = lines[0].find("DESTINATION").unwrap();
    let cells: String = lines[1].chars().skip(destination).collect();
    assert!(cells.starts_with("192.168.88.11:2379"), "{}", lines[1]);
    for width in 120..200 {
        for line in shown_in(&Columns::with_node(width, 8), false, &records[..1]) {
            assert!(line.width() <= width, "{line}");
        }
    }
}

/// Whatever the width, what fits the columns fits the terminal, and each column starts below its header.
#[test]
fn lines_fit_and_columns_hold() {
    let ordinary: Vec<_> = samples::all()
        .into_iter()
        .filter(|record| record.source.is_ipv4())
        .collect();
    for width in 100..300 {
        let lines = shown(width, false, &ordinary);
        let destination = lines[0].find("DESTINATION").unwrap();
        for (line, record) in lines[1..].iter().zip(&ordinary) {
            assert!(line.width() <= width, "{} > {width}: {line}", line.width());
            let cells: String = line.chars().skip(destination).collect();
            assert!(
                cells.starts_with(&record.destination.to_string()),
                "{width}: {line}"
            );
        }
    }
}

#[test]
fn an_address_is_never_cut() {
    let long = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535";
    let mut record = samples::incident();
    record.source = long.parse().unwrap();
    record.destination = record.source;
    for width in [1, 40, 80, 100, 200] {
        let lines = shown(width, false, std::slice::from_ref(&record));
        assert!(lines[1].contains(&format!("{long} → {long} ")), "{lines:?}");
        assert!(lines[1].contains("×12"), "{lines:?}");
    }
    // A long cell takes from the room of the next, and the one after is where it always is.
    record.source = "[fd00::12:789a]:41234".parse().unwrap();
    record.destination = "10.0.0.1:2379".parse().unwrap();
    let lines = shown(100, false, &[samples::incident(), record]);
    let every = |line: &str| line.chars().position(|c| c == '×').unwrap();
    assert_eq!(every(&lines[1]), every(&lines[2]), "{lines:?}");
}

#[test]
fn colour_changes_nothing_else() {
    for width in [100, 120, 160] {
        let records = samples::all();
        let plain = shown(width, false, &records);
        assert!(!plain.concat().contains('\x1b'));
        for (coloured, plain) in shown(width, true, &records).iter().zip(plain) {
            assert!(coloured.contains('\x1b'));
            let mut kept = String::new();
            for (index, part) in coloured.split('\x1b').enumerate() {
                kept.push_str(if index == 0 {
                    part
                } else {
                    part.split_once('m').unwrap().1
                });
            }
            assert_eq!(kept, plain);
        }
    }
}

#[test]
fn what_tls_says_has_a_line_of_its_own() {
    let mut connection = samples::incident();
    connection.tls = samples::tls().into_iter().nth(1).map(Box::new);
    let lines = shown(100, false, &[connection]);
    assert_eq!(
        lines[2],
        "         tls: TLS 1.2, server name shop.example, ALPN h2\\x1b[2J, client sent alert unknown_ca (48)"
    );
}

#[test]
fn a_cause_has_a_line_of_its_own() {
    let lines = shown(100, false, &[samples::failed(), samples::incident()]);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(
        lines[2],
        "         cause: packets left untranslated: exempted by \\x1b[2Jrule 1"
    );
}
