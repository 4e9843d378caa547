//! Lines of a log about connections that its server gave up: etcd's, in every shape that etcd 3.2 to 3.7, container runtimes,
//! journald and collectors give them, and those of other servers.

mod address;
pub mod advice;
mod block;
pub mod earlier;
mod json;
mod kind;
pub mod matching;
mod pairs;
mod prefixed;
mod quoted;
mod servers;
mod shapes;
pub mod summary;
mod time;
mod wrappers;

#[cfg(test)]
mod many_tests;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use jiff::{
    Timestamp,
    tz::{Offset, TimeZone},
};

pub use self::{address::address, block::CONTEXT, time::offset};

/// What every such line of etcd has in it, whatever is around.
pub const REJECTED: &str = "rejected connection";

/// The same as journald writes a message of bytes into JSON: before systemd 236 with blanks.
const REJECTED_BYTES: [&str; 2] = [
    "114,101,106,101,99,116,101,100,32,99,111,110,110,101,99,116,105,111,110",
    "114, 101, 106, 101, 99, 116, 101, 100, 32, 99, 111, 110, 110, 101, 99, 116, 105, 111, 110",
];

crate::names! {
    /// Whose log it is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum ServerKind {
        /// etcd, also inside k3s, k0s, PD and others.
        Etcd = "etcd",
        /// A server of Go's net/http or gRPC: kube-apiserver, webhooks.
        Go = "go",
        PostgreSql = "postgresql",
        /// MySQL and MariaDB.
        MySql = "mysql",
        Redis = "redis",
        Sshd = "sshd",
        HaProxy = "haproxy",
        Nginx = "nginx",
    }
}

impl ServerKind {
    /// For sentences.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Go => "a Go server",
            Self::PostgreSql => "PostgreSQL",
            Self::MySql => "MySQL",
            Self::Redis => "Redis",
            Self::Sshd => "sshd",
            Self::HaProxy => "HAProxy",
            Self::Nginx => "nginx",
        }
    }

    /// The words by which lines about such connections are found in its log.
    pub fn patterns(self) -> impl Iterator<Item = &'static str> {
        let etcd = (self == Self::Etcd).then_some([REJECTED, REJECTED_BYTES[0], REJECTED_BYTES[1]]);
        let others = servers::ROWS.iter().filter(move |row| row.kind == self);
        etcd.into_iter().flatten().chain(others.map(|row| row.pattern))
    }
}

/// A connection that a server gave up before it was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// When the server logged it, or when the runtime or journald took the line. `None` where neither is in the line.
    pub time: Option<Timestamp>,
    /// The client, as the server sees it.
    pub peer: SocketAddr,
    pub error: String,
    /// The name the client asked for (SNI); empty where it sent none.
    pub server_name: String,
    /// Which of etcd's listeners, since 3.5.15.
    pub endpoint: Option<Endpoint>,
    /// Whether the offset of `time` from UTC is known: written with it, or given. Else the zone is the reader's assumption.
    pub has_offset: bool,
    /// The zone of an IPv6 link-local peer: the name of an interface of the node that logged.
    pub zone: Option<String>,
    /// The server's own address, where the error names it: `read tcp SERVER->CLIENT: …`.
    pub server: Option<SocketAddr>,
    /// Which kind of server logged it.
    pub logged_by: ServerKind,
}

crate::names! {
    /// What the connection was to.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Endpoint {
        Client = "client",
        Peer = "peer",
    }
}

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// About something else.
    Other,
    Rejected(Rejected),
    /// About a rejected connection, but which one can't be read, for this reason.
    Unreadable(&'static str),
}

/// A line and what is around it in the log: some shapes take several lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Excerpt<'a> {
    /// What comes before the line, [`CONTEXT`] bytes of it at most.
    pub before: &'a [u8],
    pub line: &'a str,
    /// What comes after the line.
    pub after: &'a [u8],
    /// Whether more than `after` may follow.
    pub more: bool,
}

/// How far an excerpt was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The lines of `after` that were part of it.
    pub lines: usize,
    /// The line may be readable with more of what follows.
    pub wants_more: bool,
}

/// What a line itself does not say about its time.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Of times written without one, as etcd up to 3.4 and journald do.
    zone: TimeZone,
    /// Journald leaves out the year: the latest that is not after this.
    now: Timestamp,
    /// Whether that zone is known, not assumed.
    is_zone_known: bool,
    /// Whose lines are read.
    kinds: Vec<ServerKind>,
}

impl Reader {
    /// Of etcd's lines.
    pub fn new(zone: TimeZone, now: Timestamp) -> Self {
        Self {
            zone,
            now,
            is_zone_known: false,
            kinds: vec![ServerKind::Etcd],
        }
    }

    /// Of a log whose times without an offset are of this one.
    #[must_use]
    pub fn in_offset(self, offset: Offset) -> Self {
        Self {
            zone: TimeZone::fixed(offset),
            is_zone_known: true,
            ..self
        }
    }

    /// Of the lines of these servers.
    #[must_use]
    pub fn with_kinds(self, kinds: &[ServerKind]) -> Self {
        Self {
            kinds: kinds.to_vec(),
            ..self
        }
    }

    /// The words by which its lines are found.
    pub fn patterns(&self) -> Vec<&'static str> {
        self.kinds.iter().flat_map(|kind| kind.patterns()).collect()
    }

    /// Reads one line, without its line feed. Of several connections in it, the first.
    pub fn read(&self, line: &str) -> Line {
        let mut lines = Vec::new();
        let excerpt = Excerpt {
            line,
            ..Excerpt::default()
        };
        self.read_excerpt(&excerpt, &mut lines);
        lines.into_iter().next().unwrap_or(Line::Other)
    }

    /// The first time that stands before anything else in a line, whatever it is about.
    pub fn time(&self, line: &str) -> Option<Timestamp> {
        wrappers::time_of(self, line)
    }

    /// Appends what a line is about to `out`: nothing where it is about something else.
    pub fn read_excerpt(&self, excerpt: &Excerpt<'_>, out: &mut Vec<Line>) -> Extent {
        // A line is found by its words as they stand there: with a NUL or a colour between them it is none.
        let mut patterns = self.kinds.iter().flat_map(|kind| kind.patterns());
        if !patterns.any(|pattern| excerpt.line.contains(pattern)) {
            return Extent::default();
        }
        let start = out.len();
        let extent = self.read_lines(excerpt, out);
        if self.is_zone_known {
            for line in &mut out[start..] {
                if let Line::Rejected(rejected) = line {
                    rejected.has_offset = rejected.time.is_some();
                }
            }
        }
        extent
    }

    fn read_lines(&self, excerpt: &Excerpt<'_>, out: &mut Vec<Line>) -> Extent {
        let start = out.len();
        let outer = block::journal_time(self, excerpt);
        wrappers::text(self, excerpt, outer, out);
        let is_read = |line: &Line| matches!(line, Line::Rejected(_));
        // A field of an entry that takes several lines: its time is another field.
        let is_field = |line: &Line| {
            matches!(line, Line::Rejected(rejected) if rejected.time.is_none())
                && excerpt.line.trim_start().starts_with('"')
        };
        if out[start..].iter().all(|line| is_read(line) && !is_field(line)) {
            return Extent::default();
        }
        // It may be a part of what takes several lines.
        let mut whole = Vec::new();
        let mut extent = block::read(self, excerpt, &mut whole);
        if !extent.wants_more && !whole.iter().any(is_read) {
            whole.clear();
            extent = prefixed::read(self, excerpt, &mut whole);
        }
        if whole.iter().any(is_read) {
            out.truncate(start);
            out.append(&mut whole);
        }
        extent
    }
}
