//! The stage that adds the first messages of TLS: read out of the kernel's buffers, and kept until the connection ends.

use anyhow::{Context, Result};
use probe_ebpf::contract::connection::{Connection as Raw, Record};

use crate::{
    capture::{
        connection::{Side, SideState},
        tls::segment,
    },
    commands::clock,
    kernel::tls::TlsProbe,
    model::{
        Role,
        connection::socket_address,
        settings::ConnectionOptions,
        summary::Tally,
        tls::{Key, Tls, TlsStreams, Totals},
    },
};

/// A side in, its first messages out. Holds the kernel side, and what it has read so far.
pub struct TlsCapture {
    probe: TlsProbe,
    streams: TlsStreams,
    /// When its buffers were last read, `CLOCK_MONOTONIC` nanoseconds.
    read_ns: u64,
    malformed: u64,
}

impl TlsCapture {
    /// Attaches the kernel side. Before that of connections, so that of each of those all is seen.
    ///
    /// # Errors
    /// A kernel that can't do it.
    pub fn attach(options: &ConnectionOptions, kernel: &str) -> Result<Self> {
        let probe = TlsProbe::load(options)
            .with_context(|| format!("watch can't run with --tls on kernel {kernel}"))?;
        Ok(Self {
            probe,
            streams: TlsStreams::default(),
            read_ns: 0,
            malformed: 0,
        })
    }

    /// What this kernel can't do, in sentences.
    pub fn lacks<'a>(&'a self, kernel: &'a str) -> impl Iterator<Item = String> + 'a {
        let degraded = self.probe.degraded.iter();
        degraded.map(move |lack| format!("{} on kernel {kernel}: {}", lack.hook.gives, lack.reason))
    }

    /// Reads the buffers.
    pub fn read(&mut self) {
        self.read_ns = clock::now().now_ns();
        let Self {
            probe,
            streams,
            malformed,
            ..
        } = self;
        probe.drain(|bytes| match segment(bytes) {
            Ok((key, segment)) => streams.push(key, &segment),
            Err(_) => *malformed += 1,
        });
    }

    /// The messages of this side's connection so far.
    pub fn find(&mut self, side: &Side) -> Option<Box<Tls>> {
        match &side.state {
            SideState::Ended(record, _) => self.of_ended(side.role, record),
            SideState::Open(raw) => self.of(side.role, raw, Totals::default()),
            SideState::Unfinished(..) => None,
        }
    }

    fn of_ended(&mut self, role: Role, record: &Record) -> Option<Box<Tls>> {
        // Its segments were in the buffers before its end was in the ring.
        if record.end_ns >= self.read_ns {
            self.read();
        }
        let totals = Totals {
            client: Some(record.client_bytes),
            server: Some(record.server_bytes),
        };
        self.of(role, &record.connection, totals)
    }

    fn of(&mut self, role: Role, raw: &Raw, totals: Totals) -> Option<Box<Tls>> {
        let client = socket_address(raw.client, raw.client_port);
        let server = socket_address(raw.server, raw.server_port);
        let (local, peer) = match role {
            Role::Client => (client, server),
            Role::Server => (server, client),
        };
        let netns = raw.netns;
        let key = Key { local, peer, netns };
        self.streams.take(&key, raw.start_ns, role, totals).map(Box::new)
    }

    /// Stops the capture; what the buffers hold can still be read.
    pub fn detach(&mut self) {
        self.probe.detach();
    }

    /// What could not be kept.
    pub fn losses(&self) -> [Tally; 3] {
        [
            (
                "tls_segments",
                "first segments of connections lost (buffer full)",
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
