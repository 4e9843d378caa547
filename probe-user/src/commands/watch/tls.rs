//! What connections begin with: read out of the kernel's buffers, kept, and told at their end.

use anyhow::{Context, Result};
use probe_ebpf::contract::{
    connection::{Connection as Raw, Record},
    outcome::Role,
};

use crate::{
    capture::{connection as capture, tls::segment},
    commands::clock,
    kernel::{connection::Options, tls::TlsProbe},
    model::{
        summary::Tally,
        tls::{Key, Tls, TlsStreams, Totals},
    },
};

/// The kernel side, and what it told so far.
pub struct TlsCapture {
    probe: TlsProbe,
    talks: TlsStreams,
    /// When its buffers were last read, `CLOCK_MONOTONIC` nanoseconds.
    read_ns: u64,
    malformed: u64,
}

impl TlsCapture {
    /// Attaches the kernel side. Before that of connections, so that of each of those all is seen.
    ///
    /// # Errors
    /// A kernel that can't do it.
    pub fn attach(options: &Options, kernel: &str) -> Result<Self> {
        let probe = TlsProbe::load(options)
            .with_context(|| format!("watch can't run with --tls on kernel {kernel}"))?;
        Ok(Self {
            probe,
            talks: TlsStreams::default(),
            read_ns: 0,
            malformed: 0,
        })
    }

    /// What this kernel does not give, in sentences.
    pub fn lacks<'a>(&'a self, kernel: &'a str) -> impl Iterator<Item = String> + 'a {
        let degraded = self.probe.degraded.iter();
        degraded.map(move |lack| format!("{} on kernel {kernel}: {}", lack.hook.gives, lack.reason))
    }

    /// Reads what there is.
    pub fn read(&mut self) {
        self.read_ns = clock::now().now_ns();
        let Self {
            probe,
            talks,
            malformed,
            ..
        } = self;
        probe.drain(|bytes| match segment(bytes) {
            Ok((key, segment)) => talks.push(key, &segment),
            Err(_) => *malformed += 1,
        });
    }

    /// What was said on a connection that ended.
    pub fn of_record(&mut self, record: &Record) -> Option<Box<Tls>> {
        // Its segments were in the buffers before its end was in the ring.
        if record.end_ns >= self.read_ns {
            self.read();
        }
        let totals = Totals {
            client: Some(record.client_bytes),
            server: Some(record.server_bytes),
        };
        self.of(&record.connection, totals)
    }

    /// What was said so far on one that is still open.
    pub fn of_open(&mut self, raw: &Raw) -> Option<Box<Tls>> {
        self.of(raw, Totals::default())
    }

    fn of(&mut self, raw: &Raw, totals: Totals) -> Option<Box<Tls>> {
        let client = capture::socket_address(raw.client, raw.client_port);
        let server = capture::socket_address(raw.server, raw.server_port);
        let role = capture::role(raw).ok()?;
        let (local, peer) = match role {
            Role::Client => (client, server),
            Role::Server => (server, client),
        };
        let netns = raw.netns;
        let key = Key { local, peer, netns };
        self.talks.take(&key, raw.start_ns, role, totals).map(Box::new)
    }

    /// Pairing it; what the buffers hold can still be read.
    pub fn detach(&mut self) {
        self.probe.detach();
    }

    /// What could not be kept.
    pub fn losses(&self) -> [Tally; 3] {
        [
            (
                "tls_segments",
                "segments with the beginning of a connection lost, the buffer was full",
                self.probe.lost(),
            ),
            (
                "tls_skipped",
                "segments not seen: an interrupt came while probe's program ran on that CPU",
                self.probe.skipped(),
            ),
            ("tls_malformed", "segments that could not be read", self.malformed),
        ]
        .map(|(name, what, count)| Tally { name, what, count })
    }
}
