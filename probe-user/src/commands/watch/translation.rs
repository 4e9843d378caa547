//! The stage that adds what the node made of a client's addresses: one conntrack lookup for each connection.
//!
//! An entry found may be of a later connection from the same port. So each client's side that has one waits a round after its
//! lookup: if by then there was another connection of the same pair, nothing is claimed.

use std::{
    collections::VecDeque,
    fs, mem,
    num::NonZeroUsize,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use lru::LruCache;

use crate::{
    capture::connection::Side,
    model::{
        Connection, Role,
        outcome::is_healthy,
        pairing::Pair,
        summary::Tally,
        translation::{Translation, Untranslated, translation},
    },
    netfilter::conntrack::{Conntrack, ConntrackError},
};

/// Lookups a second; each takes some microseconds.
const A_SECOND: u32 = 2000;
/// Connections that wait for the next round.
const WAITING: usize = 8192;
/// Room for so many is kept when none waits.
const FEW: usize = 256;
/// Pairs whose latest connection is remembered.
const PAIRS: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// How long one waits at the most.
const LONGEST: Duration = Duration::from_secs(1);
/// How often conntrack is tried again once it could not be asked.
const RETRY: Duration = Duration::from_secs(10);

/// A client's side that was looked up.
struct Pending {
    pair: Pair,
    start_ns: u64,
    round: u64,
    came: Instant,
    connection: Connection,
    translation: Result<Translation, Untranslated>,
}

/// Connections in, the clients' of them translated out. Lookups are bounded in rate.
pub struct Translator {
    netns: Option<PathBuf>,
    /// Inode of that namespace; 0 if unknown.
    inode: u32,
    conntrack: Result<Conntrack, (ConntrackError, Instant)>,
    /// Whether it was available when [`status`](Self::status) was last called.
    was_available: bool,
    waiting: VecDeque<Pending>,
    /// The start of the latest connection of each pair.
    latest: LruCache<Pair, u64>,
    round: u64,
    /// When the round began.
    now: Instant,
    left: u32,
    refilled: Instant,
    misses: Misses,
}

#[derive(Clone, Copy, Debug, Default)]
struct Misses {
    no_entry: u64,
    reused: u64,
    busy: u64,
    unavailable: u64,
}

impl Translator {
    /// Asks the table of the namespace at `netns`, or of this thread's own.
    pub fn new(netns: Option<PathBuf>) -> Self {
        Self {
            conntrack: open(netns.as_deref()),
            inode: inode(netns.as_deref().unwrap_or(Path::new("/proc/thread-self/ns/net"))),
            netns,
            was_available: true,
            waiting: VecDeque::new(),
            latest: LruCache::sparse(PAIRS),
            round: 0,
            now: Instant::now(),
            left: A_SECOND,
            refilled: Instant::now(),
            misses: Misses::default(),
        }
    }

    /// Whether conntrack is available, where that has changed since the last call; at first it is.
    pub fn status(&mut self) -> Option<Result<(), &ConntrackError>> {
        let was = mem::replace(&mut self.was_available, self.conntrack.is_ok());
        if was == self.was_available {
            return None;
        }
        Some(self.conntrack.as_ref().map(drop).map_err(|(error, _)| error))
    }

    pub fn next_round(&mut self, now: Instant) {
        self.round += 1;
        self.now = now;
        if now.duration_since(self.refilled) >= Duration::from_secs(1) {
            self.refilled = now;
            self.left = A_SECOND;
        }
        if let Err((_, at)) = &self.conntrack
            && at.elapsed() >= RETRY
        {
            self.conntrack = open(self.netns.as_deref());
        }
    }

    /// Looks a client's side up and keeps it until the next round. Gives back a server's, one without an entry that may be
    /// another's unless `waits` says so of it, and what has no more room.
    pub fn push(
        &mut self,
        side: &Side,
        connection: Connection,
        waits: impl Fn(&Connection, Instant) -> bool,
    ) -> Option<Connection> {
        if side.role == Role::Server {
            return Some(connection);
        }
        let (pair, start_ns) = (side.pair(), side.start_ns());
        let Connection {
            source, destination, ..
        } = connection;
        // Loopback is not translated, and what no SYN left of is not either.
        let translation = if source.port() == 0 || destination.ip().is_loopback() {
            if !waits(&connection, self.now) {
                return Some(connection);
            }
            Ok(Translation {
                seen_as: source,
                backend: destination,
            })
        } else {
            self.latest.put(pair, start_ns);
            self.look_up(&connection)
        };
        let is_final = translation.is_err() && !waits(&connection, self.now);
        let pending = Pending {
            pair,
            start_ns,
            round: self.round,
            came: self.now,
            connection,
            translation,
        };
        if is_final {
            return Some(self.judged(pending));
        }
        self.waiting.push_back(pending);
        if self.waiting.len() > WAITING {
            self.waiting.pop_front().map(|joined| self.judged(joined))
        } else {
            None
        }
    }

    fn look_up(&mut self, connection: &Connection) -> Result<Translation, Untranslated> {
        let conntrack = self.conntrack.as_mut().map_err(|_| Untranslated::Unavailable)?;
        // Half of the lookups are for connections that failed, however many others there are.
        let reserved = if is_healthy(connection.outcome) {
            A_SECOND / 2
        } else {
            0
        };
        if self.left <= reserved {
            return Err(Untranslated::Busy);
        }
        self.left -= 1;
        let Connection {
            source, destination, ..
        } = *connection;
        match conntrack.lookup(source, destination) {
            Ok(Some(entry)) => translation(&entry, connection.outcome, connection.began()),
            Ok(None) => Err(Untranslated::NoEntry),
            Err(error) => {
                self.conntrack = Err((error, Instant::now()));
                Err(Untranslated::Unavailable)
            }
        }
    }

    /// Takes one that has waited; at the end of the run any. It waits longer, though not for long, where `waits` says so
    /// of it and of when it came.
    pub fn pop(&mut self, end: bool, waits: impl FnOnce(&Connection, Instant) -> bool) -> Option<Connection> {
        let joined = self.waiting.front()?;
        if joined.round >= self.round && !end {
            return None;
        }
        if self.now.duration_since(joined.came) < LONGEST && waits(&joined.connection, joined.came) {
            return None;
        }
        let joined = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            self.waiting.shrink_to(FEW);
        }
        Some(self.judged(joined))
    }

    fn judged(&mut self, joined: Pending) -> Connection {
        let Pending {
            pair,
            start_ns,
            mut connection,
            mut translation,
            ..
        } = joined;
        let again = self.latest.peek(&pair).is_some_and(|latest| *latest != start_ns);
        if again && translation.is_ok() {
            translation = Err(Untranslated::Reused);
        }
        // Without any entry nothing is translated; that a pod's is not tracked is worth telling.
        if connection.netns == self.inode && translation == Err(Untranslated::NoEntry) {
            return connection;
        }
        if let Err(reason) = translation {
            *match reason {
                Untranslated::NoEntry => &mut self.misses.no_entry,
                Untranslated::Reused => &mut self.misses.reused,
                Untranslated::Busy => &mut self.misses.busy,
                Untranslated::Unavailable => &mut self.misses.unavailable,
            } += 1;
        }
        connection.translate(translation);
        connection
    }

    /// For the summary.
    pub fn tallies(&self) -> Vec<Tally> {
        let Misses {
            no_entry,
            reused,
            busy,
            unavailable,
        } = self.misses;
        [
            (
                "untracked",
                "client sides without a conntrack entry: their translated address is unknown",
                no_entry,
            ),
            (
                "reused",
                "client sides whose port was reused before the conntrack lookup: their translated address \
                 is unknown",
                reused,
            ),
            (
                "busy",
                "client sides without a conntrack lookup (too many at once)",
                busy,
            ),
            (
                "conntrack",
                "client sides whose conntrack lookup failed",
                unavailable,
            ),
        ]
        .into_iter()
        .map(|(name, what, count)| Tally { name, what, count })
        .collect()
    }
}

fn open(netns: Option<&Path>) -> Result<Conntrack, (ConntrackError, Instant)> {
    Conntrack::open(netns).map_err(|error| (error, Instant::now()))
}

fn inode(netns: &Path) -> u32 {
    let inode = fs::metadata(netns).map(|metadata| metadata.ino());
    inode
        .ok()
        .and_then(|inode| u32::try_from(inode).ok())
        .unwrap_or_default()
}
