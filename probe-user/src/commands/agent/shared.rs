//! What the agent's parts write and its answers read.

use std::{
    collections::BTreeMap,
    io,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lru::LruCache;
use tokio::sync::broadcast;

use super::rate::Rate;
use crate::{
    cli::Watch,
    kernel,
    model::{
        bypass,
        part::{Part, State},
        recording_scope::RecordingScope,
        settings::{HistoryBounds, StoreBounds},
        unlisted_time::{UnlistedTime, UnlistedTimes},
        vxlan,
    },
    recording::{
        history::{Filter, History, Kept},
        store::Store,
    },
    report::{metrics::Metrics, say},
};

/// Connections that a follower may be behind.
const BEHIND: usize = 1024;
/// A thread that was not heard of for so long hangs. Reading rules may take other tools' time.
const WATCH_HANGS: Duration = Duration::from_secs(15);
const LOOKS_HANG: Duration = Duration::from_secs(60);

/// A source has at most this part of the disk in that time, and may have an hour's worth at once.
const SHARE: f64 = 8.0;
const SHARE_TIME: Duration = Duration::from_secs(24 * 3600);
const SHARE_BURST: Duration = Duration::from_secs(3600);
/// Bytes that a connection takes on disk, about.
const STORED_SIZE: f64 = 64.0;
/// Sources whose shares are kept.
const SOURCES: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// All that is known.
pub struct Shared {
    pub node: String,
    pub kernel: String,
    pub metrics: Metrics,
    held: Mutex<History>,
    store: Mutex<Option<Disk>>,
    unlisted: Mutex<UnlistedTimes>,
    news: broadcast::Sender<Arc<Kept>>,
    parts: Mutex<BTreeMap<Part, State>>,
    looks: Mutex<Looks>,
    /// What is watched and kept; `None`: nothing.
    watch: Mutex<Option<Watch>>,
    /// Connections that the kernel program could not report.
    lost: AtomicU64,
    began: Instant,
    /// When the threads were last heard of, milliseconds since then.
    watched: AtomicU64,
    looked: AtomicU64,
}

/// The latest.
#[derive(Clone, Default)]
struct Looks {
    vxlan: Option<Arc<vxlan::view::View>>,
    bypass: Option<Arc<bypass::View>>,
}

/// How far the memory reaches.
pub struct Reach {
    pub held: usize,
    pub oldest: Option<jiff::Timestamp>,
    pub forgotten: u64,
    pub lost: u64,
    pub unlisted: Vec<UnlistedTime>,
}

/// The history on disk, shared among sources.
struct Disk {
    store: Store,
    /// What each may still have, those that were quiet longest forgotten first.
    shares: LruCache<u64, Rate>,
    /// Connections a second that a source may have for good.
    share: f64,
}

impl Disk {
    fn start(bounds: StoreBounds) -> io::Result<Self> {
        Ok(Self {
            share: bounds.size as f64 / STORED_SIZE / SHARE / SHARE_TIME.as_secs_f64(),
            shares: LruCache::new(SOURCES),
            store: Store::start(bounds, |what| say(format_args!("probe: {what}")))?,
        })
    }

    /// One that connects ten thousand times a second must not push all others out.
    fn keep(&mut self, kept: &Kept, source: u64, now: Instant) {
        let share = self.share;
        let rate = self
            .shares
            .get_or_insert_mut(source, || Rate::new(share, SHARE_BURST, now));
        if rate.takes(now) {
            self.store.keep(kept.ends.time, kept.line.clone());
        } else {
            self.store.leave_out();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(node: String, memory: HistoryBounds, max_series: usize) -> Self {
        let kernel = kernel::release();
        Self {
            metrics: Metrics::new(max_series, &kernel),
            node,
            kernel,
            held: Mutex::new(History::new(memory)),
            store: Mutex::default(),
            unlisted: Mutex::default(),
            news: broadcast::channel(BEHIND).0,
            parts: Mutex::default(),
            looks: Mutex::default(),
            watch: Mutex::default(),
            lost: AtomicU64::new(0),
            began: Instant::now(),
            watched: AtomicU64::new(0),
            looked: AtomicU64::new(0),
        }
    }

    /// Other bounds.
    pub fn bound(&self, memory: HistoryBounds, max_series: usize) {
        locked(&self.held).bound(memory);
        self.metrics.bound(max_series);
    }

    /// Where the history is on disk from now on, if anywhere.
    ///
    /// # Errors
    /// When this process may not have another thread.
    pub fn stores(&self, bounds: Option<StoreBounds>) -> io::Result<()> {
        let mut store = locked(&self.store);
        if store.as_ref().map(|disk| disk.store.bounds()) != bounds.as_ref() {
            // The one before ends what it writes.
            *store = None;
            *store = bounds.map(Disk::start).transpose()?;
        }
        Ok(())
    }

    /// The history on disk.
    pub fn store(&self) -> Option<Store> {
        locked(&self.store).as_ref().map(|disk| disk.store.clone())
    }

    /// What is watched from now on.
    pub fn watches(&self, watch: Option<Watch>) {
        *locked(&self.watch) = watch;
    }

    /// What the history leaves out of connections to these server ports.
    pub fn scope(&self, ports: &[u16]) -> Option<RecordingScope> {
        locked(&self.watch)
            .as_ref()
            .map(|watch| watch.history_scope(ports))
    }

    /// Adds a connection; `source` identifies its owner.
    pub fn keep(&self, kept: Kept, source: u64) {
        let (kept, now) = (Arc::new(kept), Instant::now());
        if let Some(disk) = &mut *locked(&self.store) {
            disk.keep(&kept, source, now);
        }
        let mut held = locked(&self.held);
        held.keep(Arc::clone(&kept), source, now);
        // Under the lock, so that a new follower gets it exactly once. Sending without followers is no error.
        let _ = self.news.send(kept);
    }

    /// Notes a time in which connections were not handed over one by one.
    pub fn unlisted(&self, time: UnlistedTime) {
        locked(&self.unlisted).add(time);
    }

    /// Those asked for, and how far the memory reaches.
    pub fn find(&self, filter: &Filter) -> (Vec<Arc<Kept>>, Reach) {
        let mut held = locked(&self.held);
        held.tidy(Instant::now());
        (held.find(filter), self.reach(&held))
    }

    /// Those asked for since then, if that is said, and all that come.
    pub fn follow(&self, filter: &Filter) -> (Vec<Arc<Kept>>, broadcast::Receiver<Arc<Kept>>) {
        let held = locked(&self.held);
        let before = match filter.since {
            Some(_) => held.find(filter),
            None => Vec::new(),
        };
        (before, self.news.subscribe())
    }

    fn reach(&self, held: &History) -> Reach {
        Reach {
            held: held.count(),
            oldest: held.oldest(),
            forgotten: held.forgotten().total(),
            lost: self.lost.load(Ordering::Relaxed),
            unlisted: locked(&self.unlisted).all().to_vec(),
        }
    }

    /// Writes down how full the memory is.
    pub fn count_held(&self) {
        let mut held = locked(&self.held);
        held.tidy(Instant::now());
        self.metrics.held(held.count(), held.forgotten().named());
        if let Some(disk) = &*locked(&self.store) {
            let unstored = disk.store.unstored();
            self.metrics.stored(disk.store.state().size, unstored.named());
        }
    }

    /// How a part is doing from now on.
    pub fn is(&self, part: Part, state: State) {
        self.metrics.part(part, &state);
        let mut looks = locked(&self.looks);
        if !matches!(state, State::Runs { .. }) {
            match part {
                Part::Vxlan => looks.vxlan = None,
                Part::Bypass => looks.bypass = None,
                Part::Watch | Part::Drops => {}
            }
        }
        drop(looks);
        locked(&self.parts).insert(part, state);
    }

    pub fn parts(&self) -> BTreeMap<Part, State> {
        locked(&self.parts).clone()
    }

    pub fn lost(&self, lost: u64) {
        self.lost.store(lost, Ordering::Relaxed);
    }

    pub fn see_vxlan(&self, view: vxlan::view::View) {
        locked(&self.looks).vxlan = Some(Arc::new(view));
    }

    pub fn see_bypass(&self, view: bypass::View) {
        locked(&self.looks).bypass = Some(Arc::new(view));
    }

    pub fn vxlan(&self) -> Option<Arc<vxlan::view::View>> {
        locked(&self.looks).vxlan.clone()
    }

    pub fn bypass(&self) -> Option<Arc<bypass::View>> {
        locked(&self.looks).bypass.clone()
    }

    /// How long the agent has been at work.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The thread that watches is at work.
    pub fn watched(&self) {
        self.watched.store(self.now_ms(), Ordering::Relaxed);
    }

    /// The polling thread is busy.
    pub fn looked(&self) {
        self.looked.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Which threads hang, in words; none: all is well.
    pub fn hangs(&self) -> Vec<String> {
        let parts = self.parts();
        let runs = |part: &Part| matches!(parts.get(part), Some(State::Runs { .. }));
        let now = self.now_ms();
        let silent = |at: &AtomicU64, longest: Duration| {
            let silent = Duration::from_millis(now.saturating_sub(at.load(Ordering::Relaxed)));
            (silent > longest).then_some(silent)
        };
        let mut hangs = Vec::new();
        if runs(&Part::Watch)
            && let Some(time) = silent(&self.watched, WATCH_HANGS)
        {
            hangs.push(format!("connections were not processed for {} s", time.as_secs()));
        }
        if (runs(&Part::Vxlan) || runs(&Part::Bypass))
            && let Some(time) = silent(&self.looked, LOOKS_HANG)
        {
            hangs.push(format!("no snapshot of VXLAN and rules for {} s", time.as_secs()));
        }
        hangs
    }
}
