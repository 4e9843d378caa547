//! Streams of several nodes → one, in the order of time. Pure: the caller passes the time.
//!
//! What a node says is held back until every other node has said something later, which an idle one does by its keep-alives,
//! but no longer than [`HOLD`]: a node that is slow, or whose clock is behind, delays no other.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

/// How long one waits for another node's that may be earlier.
pub const HOLD: Duration = Duration::from_millis(1500);
/// Bytes that wait at the most; beyond, the earliest goes.
pub const MOST: usize = 64 << 20;

/// Orders by time, then node, then as it came.
type Key = (Timestamp, Arc<str>, u64);

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    bytes: usize,
}

/// What waits, and how far each node is.
#[derive(Debug)]
pub struct Merge<T> {
    waiting: BTreeMap<Key, Waiting<T>>,
    /// When each came, in that order.
    arrivals: BTreeMap<u64, (Instant, Key)>,
    clocks: BTreeMap<Arc<str>, Timestamp>,
    bytes: usize,
    most: usize,
    next: u64,
}

impl<T> Merge<T> {
    /// Holds at most `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            clocks: BTreeMap::new(),
            bytes: 0,
            most,
            next: 0,
        }
    }

    /// A node starts to answer.
    pub fn begins(&mut self, node: &Arc<str>) {
        self.clocks.entry(Arc::clone(node)).or_insert(Timestamp::MIN);
    }

    /// A node says that nothing earlier is to come.
    pub fn alive(&mut self, node: &Arc<str>, time: Timestamp) {
        let clock = self.clocks.entry(Arc::clone(node)).or_insert(time);
        *clock = time.max(*clock);
    }

    /// A node has stopped answering: it is not waited for.
    pub fn ends(&mut self, node: &Arc<str>) {
        self.clocks.remove(node);
    }

    /// Takes what a node says, of so many bytes.
    pub fn push(&mut self, node: &Arc<str>, time: Timestamp, bytes: usize, item: T, now: Instant) {
        self.alive(node, time);
        let key = (time, Arc::clone(node), self.next);
        self.arrivals.insert(self.next, (now, key.clone()));
        self.waiting.insert(key, Waiting { item, bytes });
        self.bytes += bytes;
        self.next += 1;
    }

    /// The next, if it is time for it.
    pub fn pop(&mut self, now: Instant) -> Option<(Arc<str>, T)> {
        let (time, ..) = self.waiting.first_key_value()?.0;
        let settled = self.clocks.values().all(|clock| clock >= time);
        // All that is earlier than one that has waited goes before it.
        let overdue = || {
            let first = self.arrivals.first_key_value();
            first.is_some_and(|(_, (at, _))| now.duration_since(*at) >= HOLD)
        };
        if settled || self.bytes > self.most || overdue() {
            self.take()
        } else {
            None
        }
    }

    /// The next, whether it is time or not: at the end.
    pub fn take(&mut self) -> Option<(Arc<str>, T)> {
        let ((_, node, place), Waiting { item, bytes }) = self.waiting.pop_first()?;
        self.arrivals.remove(&place);
        self.bytes -= bytes;
        Some((node, item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens at a millisecond.
    enum Event {
        Begins(&'static str),
        Ends(&'static str),
        Alive(&'static str, i64),
        Says(&'static str, i64),
    }
    use Event::{Alive, Begins, Ends, Says};

    /// Its name, the most bytes, what happens, and what comes out when.
    type Case = (
        &'static str,
        usize,
        Vec<(u64, Event)>,
        &'static [(u64, &'static str)],
    );

    fn time(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    /// What comes out, and when: looked at every 100 ms.
    fn merged(most: usize, events: &[(u64, Event)]) -> Vec<(u64, String)> {
        let start = Instant::now();
        let mut merge = Merge::new(most);
        let mut events = events.iter().peekable();
        let mut out = Vec::new();
        for at in (0..5000).step_by(100) {
            while let Some((_, event)) = events.next_if(|(when, _)| *when <= at) {
                let now = start + Duration::from_millis(at);
                match event {
                    Begins(node) => merge.begins(&Arc::from(*node)),
                    Ends(node) => merge.ends(&Arc::from(*node)),
                    Alive(node, clock) => merge.alive(&Arc::from(*node), time(*clock)),
                    Says(node, of) => merge.push(&Arc::from(*node), time(*of), 10, *of, now),
                }
            }
            while let Some((node, of)) = merge.pop(start + Duration::from_millis(at)) {
                out.push((at, format!("{node}{of}")));
            }
        }
        assert_eq!((merge.bytes, merge.arrivals.len()), (0, 0));
        out
    }

    #[test]
    fn the_order_of_time() {
        let cases: [Case; 10] = [
            ("nothing", MOST, vec![], &[]),
            (
                "one node alone waits for nobody",
                MOST,
                vec![(0, Says("a", 10)), (200, Says("a", 20))],
                &[(0, "a10"), (200, "a20")],
            ),
            (
                "an idle node is waited for, but not for long",
                MOST,
                vec![(0, Begins("b")), (0, Says("a", 10))],
                &[(1500, "a10")],
            ),
            (
                "a keep-alive moves it on",
                MOST,
                vec![(0, Begins("b")), (0, Says("a", 10)), (300, Alive("b", 10))],
                &[(300, "a10")],
            ),
            (
                "one that comes later and was earlier goes first",
                MOST,
                vec![
                    (0, Begins("b")),
                    (0, Says("a", 10)),
                    (900, Says("b", 5)),
                    (1000, Says("b", 30)),
                ],
                &[(900, "b5"), (1000, "a10"), (2500, "b30")],
            ),
            (
                "at the same time, by node, then as they came",
                MOST,
                vec![
                    (0, Begins("a")),
                    (0, Says("b", 10)),
                    (0, Says("b", 10)),
                    (100, Says("a", 10)),
                ],
                &[(100, "a10"), (100, "b10"), (100, "b10")],
            ),
            (
                "who went is waited for no more",
                MOST,
                vec![(0, Begins("b")), (0, Says("a", 10)), (400, Ends("b"))],
                &[(400, "a10")],
            ),
            (
                "a clock that goes after holds nobody up for long",
                MOST,
                vec![(0, Says("b", 1)), (0, Says("a", 1000)), (500, Says("b", 2))],
                &[(0, "b1"), (500, "b2"), (1500, "a1000")],
            ),
            (
                "too late is too late",
                MOST,
                vec![
                    (0, Begins("b")),
                    (0, Says("a", 10)),
                    (1600, Says("b", 5)),
                    (1600, Alive("a", 20)),
                ],
                &[(1500, "a10"), (1600, "b5")],
            ),
            (
                "memory is bounded",
                25,
                vec![
                    (0, Begins("b")),
                    (0, Says("a", 30)),
                    (0, Says("a", 20)),
                    (0, Says("a", 10)),
                ],
                &[(0, "a10"), (1500, "a20"), (1500, "a30")],
            ),
        ];
        for (what, most, events, expected) in cases {
            let expected: Vec<_> = expected
                .iter()
                .map(|(at, said)| (*at, (*said).to_owned()))
                .collect();
            assert_eq!(merged(most, &events), expected, "{what}");
        }
    }

    #[test]
    fn at_the_end_all_goes() {
        let mut merge = Merge::new(MOST);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        merge.begins(&b);
        for of in [2, 1] {
            merge.push(&a, time(of), 10, of, Instant::now());
        }
        assert!(merge.pop(Instant::now()).is_none());
        let all: Vec<_> = std::iter::from_fn(|| merge.take()).map(|(_, of)| of).collect();
        assert_eq!(all, [1, 2]);
    }
}
