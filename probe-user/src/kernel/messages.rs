//! Messages of the kernel programs, for `--kernel-log`. They are in objects of their own, which are loaded once
//! [`enable`] was called; without it nothing of this costs anything, and there is no map for them.

use std::{
    fmt, io,
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::KernelError;
use crate::{error::chain, model::settings::MessageLevel};

/// The ring that `aya-log-ebpf` defines.
const RING: &str = "AYA_LOGS";
/// The ring has room for some 300 messages: read as often as that.
const INTERVAL: Duration = Duration::from_millis(50);
/// Lines a second, of one object.
const LINES: u32 = 100;

/// As the kernel side compares it.
const fn threshold_of(level: MessageLevel) -> u8 {
    match level {
        MessageLevel::Debug => aya_log::Level::Debug as u8,
        MessageLevel::Trace => aya_log::Level::Trace as u8,
    }
}

struct Output {
    threshold: u8,
    write: fn(fmt::Arguments<'_>),
}

/// As with every logger, of the whole process.
static OUTPUT: OnceLock<Output> = OnceLock::new();

/// Objects that are loaded from now on have messages, which are handed to `write`, a line each. Only the first call counts.
pub fn enable(level: MessageLevel, write: fn(fmt::Arguments<'_>)) {
    let threshold = threshold_of(level);
    OUTPUT.get_or_init(|| Output { threshold, write });
}

/// The level to load objects with; `None`: without messages.
pub(super) fn threshold() -> Option<&'static u8> {
    OUTPUT.get().map(|output| &output.threshold)
}

/// Prints the messages of one object. Dropping it prints what is in the ring and ends it; the programs are to be gone by then.
pub struct Reader {
    /// Closing it ends the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// `None` without `--kernel-log`. The programs of `ebpf` are loaded: it has no ring for others afterwards.
    ///
    /// # Errors
    /// When the object has no messages, or there is no thread for them.
    pub(super) fn start(ebpf: &mut Ebpf) -> Result<Option<Self>, KernelError> {
        let Some(output) = OUTPUT.get() else {
            return Ok(None);
        };
        let error = |reason: String| KernelError::Map { map: RING, reason };
        let printer = Arc::new(Printer {
            write: output.write,
            budget: Mutex::default(),
        });
        let logger = EbpfLogger::init_with_logger(ebpf, Arc::clone(&printer))
            .map_err(|source| error(chain(&source)))?;
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("kernel-log".to_owned())
            .spawn(move || read(logger, &printer, &stopped))
            .map_err(|source: io::Error| error(source.to_string()))?;
        Ok(Some(Self {
            stop: Some(stop),
            thread: Some(thread),
        }))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends with the channel; if it panicked, that was printed.
            let _ = thread.join();
        }
    }
}

fn read(mut logger: EbpfLogger<Arc<Printer>>, printer: &Printer, stopped: &mpsc::Receiver<()>) {
    while stopped.recv_timeout(INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
        logger.flush();
    }
    logger.flush();
    printer.dropped(printer.budget().take_dropped());
}

struct Printer {
    write: fn(fmt::Arguments<'_>),
    budget: Mutex<Budget>,
}

impl Printer {
    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dropped(&self, messages: u64) {
        if messages > 0 {
            (self.write)(format_args!(
                "probe: kernel log: {messages} messages not printed: more than {LINES} a second"
            ));
        }
    }
}

impl log::Log for Printer {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let room = self.budget().admit(Instant::now());
        let Some(dropped) = room else { return };
        self.dropped(dropped);
        (self.write)(format_args!(
            "probe: kernel log: {} {}: {}",
            record.level().as_str().to_ascii_lowercase(),
            record.target(),
            record.args()
        ));
    }

    fn flush(&self) {}
}

/// How many lines there is room for.
#[derive(Default)]
struct Budget {
    second: Option<Instant>,
    lines: u32,
    dropped: u64,
}

impl Budget {
    /// Whether a line has room at `now`, and how many before it had none and are not reported yet.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let is_over = |begin: Instant| now.duration_since(begin) >= Duration::from_secs(1);
        if self.second.is_none_or(is_over) {
            self.second = Some(now);
            self.lines = 0;
        }
        if self.lines == LINES {
            self.dropped += 1;
            return None;
        }
        self.lines += 1;
        Some(self.take_dropped())
    }

    fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{OBJECTS, object::inflated};

    #[test]
    fn lines_are_bounded() {
        let (mut budget, begin) = (Budget::default(), Instant::now());
        for _ in 0..LINES {
            assert_eq!(budget.admit(begin), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(budget.admit(begin + Duration::from_millis(999)), None);
        }
        let later = begin + Duration::from_secs(1);
        assert_eq!(budget.admit(later), Some(7));
        assert_eq!(budget.admit(later), Some(0));
        assert_eq!(budget.take_dropped(), 0);
    }

    /// What is loaded without `--kernel-log` was built without aya-log, so its programs are as large as without it.
    #[test]
    fn objects_without_messages_have_nothing_of_them() {
        let has = |bytes: &[u8], name: &str| bytes.windows(name.len()).any(|at| at == name.as_bytes());
        for object in OBJECTS {
            let [plain, with_messages] =
                [object.plain, object.with_messages].map(|compressed| inflated(compressed).unwrap());
            for name in [RING, aya_log::LEVEL] {
                assert!(!has(&plain, name), "{}: {name}", object.feature);
                assert!(has(&with_messages, name), "{}: {name}", object.feature);
            }
            let plain = aya_obj::Object::parse(&plain).unwrap();
            let with_messages = aya_obj::Object::parse(&with_messages).unwrap();
            let names = |object: &aya_obj::Object| {
                let mut names: Vec<_> = object.programs.keys().cloned().collect();
                names.sort();
                names
            };
            assert_eq!(names(&plain), names(&with_messages), "{}", object.feature);
        }
    }
}
