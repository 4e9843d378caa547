//! What a runtime or a tool writes before each line of an entry that takes several: printed JSON, and lines that containerd cut.

use super::{Excerpt, Extent, Line, Reader, block, time, wrappers};

/// A prefix is no longer than this.
const LONGEST: usize = 256;
/// Lines around a line that are looked at, on either side.
const LINES: usize = 256;

/// A line as a tool gave it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefixed<'a> {
    /// Whose line it is: lines of others stand between.
    source: &'a str,
    prefix: &'a str,
    content: &'a str,
    /// The next one of the same source goes on with the same line.
    is_partial: bool,
}

/// `kubectl logs --prefix`, docker compose, containerd and CRI-O, times of `kubectl logs --timestamps`; each in the one before.
fn split(line: &str) -> Option<Prefixed<'_>> {
    let line = line.trim_end_matches('\r');
    let (source, rest) = named(line).unwrap_or(("", line));
    let timed = rest.split_once(' ').filter(|(time, _)| is_time(time));
    let (stream, content, is_partial) = match timed {
        Some((_, after)) => of_runtime(after).unwrap_or(("", after, false)),
        None if source.is_empty() => return None,
        None => ("", rest, false),
    };
    Some(Prefixed {
        source: if source.is_empty() { stream } else { source },
        prefix: line.get(..line.len() - content.len())?,
        content,
        is_partial,
    })
}

fn named(line: &str) -> Option<(&str, &str)> {
    if let Some(pod) = line.strip_prefix("[pod/") {
        return pod.split_once("] ").filter(|(name, _)| name.len() < LONGEST);
    }
    let (name, rest) = line.split_once(" | ").or_else(|| line.split_once(" |"))?;
    let name = name.trim_end();
    let is_name = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    (is_name && !name.is_empty() && name.len() < LONGEST).then_some((name, rest))
}

fn is_time(word: &str) -> bool {
    word.len() > 19 && word.as_bytes().get(10) == Some(&b'T') && word.parse::<jiff::Timestamp>().is_ok()
}

/// `stderr F `, `stdout P `.
fn of_runtime(text: &str) -> Option<(&str, &str, bool)> {
    let (stream, rest) = text.split_once(' ')?;
    let (tags, content) = rest.split_once(' ').unwrap_or((rest, ""));
    let tag = tags.split(':').next()?;
    let is_known = matches!(stream, "stdout" | "stderr") && matches!(tag, "F" | "P");
    is_known.then_some((stream, content, tag == "P"))
}

/// Lines of one source, without their prefixes, those that were cut joined.
#[derive(Default)]
struct Joined {
    lines: Vec<String>,
    /// For each, how many lines of the log it ends behind.
    ends: Vec<usize>,
    is_open: bool,
}

impl Joined {
    fn add(&mut self, line: &Prefixed<'_>, end: usize) {
        match (self.is_open, self.lines.last_mut(), self.ends.last_mut()) {
            (true, Some(last), Some(its)) => {
                last.push_str(line.content);
                *its = end;
            }
            _ => {
                self.lines.push(line.content.to_owned());
                self.ends.push(end);
            }
        }
        self.is_open = line.is_partial;
    }
}

/// Reads a line with those around it, without what stands before each.
pub fn read(reader: &Reader, excerpt: &Excerpt<'_>, out: &mut Vec<Line>) -> Extent {
    let Some(own) = split(excerpt.line) else {
        return Extent::default();
    };
    let before: Vec<_> = block::lines_backwards(excerpt.before)
        .take(LINES)
        .map(String::from_utf8_lossy)
        .collect();
    let after = String::from_utf8_lossy(&excerpt.after[..excerpt.after.len().min(block::CONTEXT)]);
    let is_own = |line: &Prefixed<'_>| line.source == own.source;
    let mut joined = Joined::default();
    for line in before.iter().rev().filter_map(|line| split(line)).filter(is_own) {
        joined.add(&line, 0);
    }
    let is_continued = joined.is_open;
    joined.add(&own, 0);
    let at = joined.lines.len() - 1;
    for (number, line) in after.lines().enumerate().take(LINES) {
        if let Some(line) = split(line).filter(is_own) {
            joined.add(&line, number + 1);
        }
    }
    let wants_more = joined.is_open && excerpt.more && excerpt.after.len() < block::CONTEXT;
    if wants_more {
        return Extent { lines: 0, wants_more };
    }
    let text = |lines: &[String]| {
        let mut text = lines.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        text.into_bytes()
    };
    let (head, rest) = joined.lines.split_at(at);
    let (before, line, after) = (
        text(head),
        rest.first().cloned().unwrap_or_default(),
        text(rest.get(1..).unwrap_or_default()),
    );
    let without = Excerpt {
        before: &before,
        line: &line,
        after: &after,
        more: excerpt.more,
    };
    let outer = time::before(own.prefix, &reader.zone, reader.now);
    let is_read = |line: &Line| matches!(line, Line::Rejected(_));
    let ends = |lines: usize| joined.ends.get(at + lines).copied().unwrap_or_default();
    if own.is_partial || is_continued {
        wrappers::text(reader, &without, outer, out);
        if out.iter().all(is_read) && !out.is_empty() {
            return Extent {
                lines: ends(0),
                wants_more: false,
            };
        }
        out.clear();
    }
    let extent = block::read(reader, &without, out);
    for line in out.iter_mut() {
        if let (Line::Rejected(rejected), Some(outer)) = (line, outer)
            && rejected.time.is_none()
        {
            rejected.time = Some(outer.time());
            rejected.has_offset = matches!(outer, time::Reading::Exact(_));
        }
    }
    Extent {
        lines: if out.iter().any(is_read) {
            ends(extent.lines)
        } else {
            0
        },
        wants_more: extent.wants_more,
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};

    use super::*;
    use crate::etcd_log::Rejected;

    /// What the line with the words says, of a whole log.
    fn of(log: &str) -> (Vec<Line>, Extent) {
        let now: Timestamp = "2026-11-30T00:00:00Z".parse().unwrap();
        let reader = Reader::new(TimeZone::UTC, now);
        let hit = log.find("rejected connection").unwrap();
        let from = log[..hit].rfind('\n').map_or(0, |at| at + 1);
        let to = log[hit..].find('\n').map_or(log.len(), |at| hit + at);
        let excerpt = Excerpt {
            before: &log.as_bytes()[..from],
            line: &log[from..to],
            after: &log.as_bytes()[(to + 1).min(log.len())..],
            more: false,
        };
        let mut out = Vec::new();
        let extent = reader.read_excerpt(&excerpt, &mut out);
        (out, extent)
    }

    fn one(log: &str) -> Rejected {
        match of(log).0.as_slice() {
            [Line::Rejected(rejected)] => rejected.clone(),
            other => panic!("{log}: {other:?}"),
        }
    }

    const PRINTED: [&str; 7] = [
        "{",
        r#"  "level": "warn","#,
        r#"  "ts": "2026-11-23T09:10:10.613Z","#,
        r#"  "msg": "rejected connection","#,
        r#"  "remote-addr": "192.168.88.12:62134","#,
        r#"  "server-name": "", "error": "EOF""#,
        "}",
    ];

    #[test]
    fn printed_json_behind_prefixes() {
        for prefix in [
            "2026-11-23T09:10:10.7Z stderr F ",
            "2026-11-23T10:10:10.700000000+01:00 stdout F ",
            "etcd-1  | ",
            "etcd-1  | 2026-11-23T09:10:10.7Z ",
            "[pod/etcd-alpha/etcd] ",
            "[pod/etcd-alpha/etcd] 2026-11-23T09:10:10.7Z ",
            "2026-11-23T09:10:10.7Z ",
        ] {
            for end in ["\n", "\r\n"] {
                let lines = |of: &[&str]| {
                    let lines = of.iter().map(|line| format!("{prefix}{line}{end}"));
                    lines.collect::<String>()
                };
                let rejected = one(&lines(&PRINTED));
                assert_eq!(rejected.peer, "192.168.88.12:62134".parse().unwrap());
                assert_eq!(rejected.error, "EOF");
                assert_eq!(rejected.time, "2026-11-23T09:10:10.613Z".parse().ok());
                // Another entry before and after it.
                let other = [PRINTED[0], PRINTED[2], "}"];
                let log = format!("{}{}{}", lines(&other), lines(&PRINTED), lines(&other));
                let (read, extent) = of(&log);
                assert!(
                    matches!(&*read, [Line::Rejected(read)] if *read == rejected),
                    "{read:?}"
                );
                assert_eq!(extent.lines, 3, "{prefix}");
            }
        }
        // Without a time of its own it has that of the runtime.
        let lines = PRINTED.iter().filter(|line| !line.contains("ts\""));
        let log: String = lines
            .map(|line| format!("2026-11-23T09:10:10.7Z stderr F {line}\n"))
            .collect();
        let rejected = one(&log);
        assert_eq!(rejected.time, "2026-11-23T09:10:10.7Z".parse().ok());
        assert!(rejected.has_offset);
    }

    #[test]
    fn lines_of_another_container_between() {
        let log: String = PRINTED
            .iter()
            .map(|line| format!("etcd-1  | {line}\napi-1   | {{\"remote-addr\": \"10.0.0.1:1\",\n"))
            .collect();
        assert_eq!(one(&log).peer, "192.168.88.12:62134".parse().unwrap());
        assert_eq!(of(&log).1.lines, 6);
    }

    #[test]
    fn lines_that_containerd_cut() {
        let line = PRINTED.concat();
        for cut in 1..line.len() {
            let log = format!(
                "2026-11-23T09:10:10.7Z stderr F other\n2026-11-23T09:10:10.7Z stderr P {}\n\
                 2026-11-23T09:10:10.7Z stdout F between\n2026-11-23T09:10:10.7Z stderr F {}\n",
                &line[..cut],
                &line[cut..]
            );
            // Cut within the words it is not found.
            if !log.contains("rejected connection") {
                continue;
            }
            let rejected = one(&log);
            assert_eq!(rejected.peer, "192.168.88.12:62134".parse().unwrap(), "{cut}");
            assert_eq!(rejected.time, "2026-11-23T09:10:10.613Z".parse().ok(), "{cut}");
        }
        // Three parts, the last of which is not there.
        let log = "2026-11-23T09:10:10.7Z stderr P {\"msg\":\"rejected connection\",\"remote-addr\":\n\
                   2026-11-23T09:10:10.7Z stderr P \"192.168.88.12:62134\",\n";
        assert!(matches!(&*of(log).0, [Line::Unreadable(_)]));
    }

    #[test]
    fn what_is_no_prefix() {
        for line in [
            "",
            "{",
            "2026-11-23T09:10:10.7Z",
            "2026-11-23 09:10:10 stderr F x",
            "a b | c",
            "| c",
            "[pod/x",
            "yesterday stderr F x",
        ] {
            assert_eq!(split(line), None, "{line}");
        }
    }
}
