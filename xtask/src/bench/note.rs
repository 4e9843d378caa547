//! Why a peer tool is missing in a table.

use std::io;

use anyhow::Error;

use super::kind::Kind;

/// Longest quote of what a tool printed.
const LONGEST: usize = 200;

/// Printed below the table: what is wrong with a tool, what it printed first, what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Note {
    what: String,
    fix: Option<&'static str>,
}

impl Note {
    /// `when` is the part of the benchmark that it failed in, such as `round 2 of 7`.
    pub fn new(kind: Kind, when: &str, error: &Error) -> Self {
        let missing = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| cause.kind() == io::ErrorKind::NotFound);
        let text = format!("{error:#}");
        let what = if missing {
            format!("{kind} is not installed")
        } else {
            format!("{kind} failed in {when}: {}", in_one_line(&text))
        };
        Self {
            what,
            fix: kind.fix(missing, &text),
        }
    }

    /// The lines to print.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("note: {}", self.what)];
        lines.extend(self.fix.map(|fix| format!("  fix: {fix}")));
        lines
    }
}

/// An error in one line: its first, and where that announces what a program printed, the first line of that.
fn in_one_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    if !first.ends_with(':') {
        return cut(first);
    }
    let (harmless, errors): (Vec<_>, Vec<_>) = lines.partition(|line| is_harmless(line));
    let printed = errors.first().or(harmless.first());
    cut(&format!("{first} {}", printed.unwrap_or(&"nothing printed")))
}

/// bpftrace prints this as an error and goes on. From kernel 5.11 on, BPF memory is charged to the control group and not
/// limited by `RLIMIT_MEMLOCK`.
fn is_harmless(line: &str) -> bool {
    line.contains("couldn't set RLIMIT_MEMLOCK")
}

fn cut(line: &str) -> String {
    if line.chars().count() <= LONGEST {
        return line.to_owned();
    }
    let cut: String = line.chars().take(LONGEST).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_broken_peer() {
        const RLIMIT: &str = "ERROR: Unknown error -1: couldn't set RLIMIT_MEMLOCK for bpftrace.";
        for (printed, expected, fix) in [
            (
                format!("{RLIMIT}\n"),
                RLIMIT,
                "prlimit --pid $$ --memlock=unlimited # needs CAP_SYS_RESOURCE; in the shell that runs the benchmark",
            ),
            (
                format!("{RLIMIT}\nstdin:1-2: ERROR: tracepoint not found: sock:inet_sock_set_state\n"),
                "stdin:1-2: ERROR: tracepoint not found: sock:inet_sock_set_state",
                "mount -t tracefs tracefs /sys/kernel/tracing # where bpftrace looks up tracepoints",
            ),
            (
                "\n  ERROR: no BTF\nmore\n".to_owned(),
                "ERROR: no BTF",
                "bpftrace -e 'BEGIN { exit(); }' # shows whether it works on this machine at all",
            ),
            (
                String::new(),
                "nothing printed",
                "bpftrace -e 'BEGIN { exit(); }' # shows whether it works on this machine at all",
            ),
        ] {
            let error = anyhow!("bpftrace ended before it traced:\n{printed}");
            assert_eq!(
                Note::new(Kind::Bpftrace, "round 1 of 7", &error).lines(),
                [
                    format!(
                        "note: bpftrace failed in round 1 of 7: bpftrace ended before it traced: {expected}"
                    ),
                    format!("  fix: {fix}")
                ]
            );
        }
    }

    #[test]
    fn a_missing_peer() {
        let error = Err::<(), _>(io::Error::from(io::ErrorKind::NotFound)).context("no bpftrace in PATH");
        let note = Note::new(Kind::Bpftrace, "round 1 of 7", &error.unwrap_err());
        assert_eq!(
            note.lines(),
            [
                "note: bpftrace is not installed",
                "  fix: apt-get install bpftrace # Debian's package"
            ]
        );
    }

    #[test]
    fn errors_in_one_line() {
        for (text, expected) in [
            ("", ""),
            ("\n \n a \nb", "a"),
            ("a:\n\nb\nc", "a: b"),
            ("a:", "a: nothing printed"),
        ] {
            assert_eq!(in_one_line(text), expected, "{text:?}");
        }
        let long = in_one_line(&"ä".repeat(300));
        assert_eq!((long.chars().count(), long.ends_with('…')), (LONGEST + 1, true));
    }
}
