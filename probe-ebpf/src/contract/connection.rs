//! Connections: the record, the maps and the programs of `bin/connection.rs`.
//!
//! Every type here is [`Pod`]: no padding, so no byte of kernel memory leaves unwritten, and user space decodes
//! it without `unsafe`.

use bytemuck::{Pod, Zeroable};

/// Names of the maps. Kernel names are cut at 15 characters; these are shorter.
pub mod map {
    /// Connections under way: an array of [`Slot`](super::Slot), [`WAYS`](super::WAYS) of each bucket.
    pub const SLOTS: &str = "SLOTS";
    /// Whose slots they are: an array of [`Bucket`](super::Bucket), its length a power of two.
    pub const BUCKETS: &str = "BUCKETS";
    /// Those that found no slot: `u64` socket pointer → [`Connection`](super::Connection).
    pub const CONNECTIONS: &str = "CONNECTIONS";
    /// SYN-ACKs sent more than once: [`HandshakeKey`](super::HandshakeKey) → [`Handshake`](super::Handshake).
    pub const HANDSHAKES: &str = "HANDSHAKES";
    /// Ring buffer of [`Record`](super::Record).
    pub const RECORDS: &str = "RECORDS";
    /// Connections that ended and are not in the ring, because it was full, their outcome was not asked for, or they
    /// were beyond [`STORM_LIMIT`]: [`CounterKey`](super::CounterKey) → [`Counter`](super::Counter). With the records that user
    /// space read, the count is exact.
    pub const COUNTERS: &str = "COUNTERS";
    /// One [`StormLimit`](super::StormLimit), which user space may change at any time.
    pub const STORM_LIMIT: &str = "STORM_LIMIT";
    /// One `u64` per CPU for each [`Loss`](super::Loss).
    pub const LOSSES: &str = "LOSSES";
    /// Peer prefixes to watch, a trie of 128-bit addresses (IPv4 mapped into IPv6) → `u8`.
    pub const PREFIXES: &str = "PREFIXES";
    /// Control group id → [`CgroupPath`](super::CgroupPath), taken at connect time.
    pub const CGROUPS: &str = "CGROUPS";
    /// Process id → [`Process`](super::Process), taken at connect time.
    pub const PROCESSES: &str = "PROCESSES";
}

/// Names of the read-only globals that user space fills before load.
pub mod global {
    /// [`Offsets`](crate::contract::offsets::Offsets).
    pub const OFFSETS: &str = "OFFSETS";
    /// [`Settings`](super::Settings).
    pub const SETTINGS: &str = "SETTINGS";
    /// [`Ports`](super::Ports).
    pub const PORTS: &str = "PORTS";
}

/// An address as the kernel hands it over: IPv6, or IPv4 mapped into it (`::ffff:a.b.c.d`), network byte order.
pub type Address = [u8; 16];

/// Who owns one end, as the kernel knew it when the process was on the CPU. All zero when it never was.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Task {
    /// Id of the process's control group (kernfs node id), in the hierarchy of [`Settings::cgroup_subsystem`].
    pub cgroup: u64,
    /// Start of the process, nanoseconds since boot, suspend included: with `pid` it names a process for good.
    pub start_boot_ns: u64,
    /// Process (thread group) id in the initial pid namespace; 0 when unknown.
    pub pid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Name of the process (its thread group leader's comm), cut at 15 bytes, zero-terminated.
    pub name: [u8; 16],
}

/// One end of a connection under way.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Connection {
    /// SYN sent (client) or handshake finished (server), `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    pub task: Task,
    pub client: Address,
    pub server: Address,
    /// Host byte order; 0 at the client until the handshake finished.
    pub client_port: u16,
    /// Host byte order.
    pub server_port: u16,
    /// Inode of the network namespace.
    pub netns: u32,
    /// `data_segs_in` when this end sent its FIN: a RST sent for late data differs from a RST received in it.
    pub segments_at_fin: u32,
    /// [`Role`](super::outcome::Role).
    pub role: u8,
    /// 1 once the handshake finished.
    pub established: u8,
    /// 1 once this end sent its FIN.
    pub fin_sent: u8,
    /// The last state change that was handled: a program that an interrupt hides it from has another run after it.
    pub state: u8,
}

/// Slots a socket may have.
pub const WAYS: usize = 4;

/// Whose the slots of a bucket are: as [`Slot::socket`], which follows it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Bucket {
    pub sockets: [u64; WAYS],
}

/// A place for one end of a connection under way.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Slot {
    /// The kernel's address of the socket; 0 when the slot is free.
    pub socket: u64,
    pub connection: Connection,
}

/// One finished connection, as the ring carries it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Record {
    pub connection: Connection,
    /// When the socket closed, `CLOCK_MONOTONIC` nanoseconds.
    pub end_ns: u64,
    /// Payload bytes from client to server as this end counted them, retransmissions left out.
    pub client_bytes: u64,
    /// Payload bytes from server to client as this end counted them, retransmissions left out.
    pub server_bytes: u64,
    /// `sk->sk_err`, an errno, 0 for none.
    pub error: u32,
    /// [`Outcome`](super::outcome::Outcome).
    pub outcome: u8,
    /// The TCP state left for `TCP_CLOSE`.
    pub last_state: u8,
    pub zero: [u8; 2],
    pub unacknowledged: Unacknowledged,
}

/// What this end was still sending again when the connection ended. All zero where the peer had acknowledged the last
/// retransmission, or nothing was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Unacknowledged {
    /// Sequence numbers sent and not acknowledged: payload, and a FIN.
    pub bytes: u32,
    /// TCP header and payload of a full-size segment.
    pub segment: u16,
    /// Retransmission time-outs since the peer last acknowledged something new, at most 255.
    pub timeouts: u8,
    /// Segments behind the missing one that the peer has by its selective acknowledgments, at most 255.
    pub sacked: u8,
}

impl Unacknowledged {
    pub const NOTHING: Self = Self {
        bytes: 0,
        segment: 0,
        timeouts: 0,
        sacked: 0,
    };
}

/// What a connection without a record is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct CounterKey {
    /// 0 where no process was seen.
    pub cgroup: u64,
    /// Zero, as the server's, in the entry that takes what no longer fits.
    pub client: Address,
    pub server: Address,
    pub netns: u32,
    /// The server's port.
    pub port: u16,
    pub role: u8,
    pub outcome: u8,
}

/// What is counted of connections without a record. Each of the sums is exact; where several CPUs write the times at once, they are
/// those of one of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Counter {
    pub connections: u64,
    /// Payload from clients to servers.
    pub client_bytes: u64,
    /// Payload from servers to clients.
    pub server_bytes: u64,
    /// End of the first, `CLOCK_MONOTONIC` nanoseconds; 0 where there is none yet.
    pub first_ns: u64,
    /// End of the last, `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
    /// The kernel side's: the [`second`] in which a record of this source was last asked for beyond the [`StormLimit`].
    pub second: u64,
    /// The kernel side's: how often it was in that second.
    pub asked: u64,
}

/// How many records are told one by one. In a storm, which is what goes beyond, a source's first ones are, and the rest is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct StormLimit {
    /// Ends in a [`second`] that are all told, all CPUs together. Of what ends beyond, as many again are told at most.
    /// [`StormLimit::UNLIMITED`]: all.
    pub records: u64,
    /// Beyond that: ends told of each source in a second. Half of the room is for sources of which none was told in it.
    pub samples: u64,
}

impl StormLimit {
    pub const UNLIMITED: u64 = u64::MAX;

    /// All are told.
    pub const NONE: Self = Self {
        records: Self::UNLIMITED,
        samples: 0,
    };

    /// So many records a second, and `samples` a second of each source beyond.
    pub const fn of(records_per_second: u64, samples: u64) -> Self {
        let records = ((records_per_second as u128) << SECOND) / 1_000_000_000;
        Self {
            records: records as u64,
            samples,
        }
    }
}

const SECOND: u32 = 30;

/// The second in which a time lies: of 2^30 ns, 1.07 s, so that no division is needed.
#[inline(always)]
pub const fn second(ns: u64) -> u64 {
    ns >> SECOND
}

/// A handshake that the server answered and the client did not finish yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct HandshakeKey {
    pub client: Address,
    pub server: Address,
    pub client_port: u16,
    pub server_port: u16,
    pub netns: u32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Handshake {
    /// First SYN-ACK sent again, `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
    /// Last SYN-ACK sent again, `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
    /// SYN-ACKs sent again.
    pub retransmits: u64,
}

/// Levels of a control group path that the kernel takes, leaf first.
pub const CGROUP_LEVELS: usize = 6;
/// Bytes of each level's name, terminating zero included. The longest name of the kubelet's drivers is
/// `kubepods-besteffort-pod<36>.slice:cri-containerd:<64>`, 150 characters.
pub const CGROUP_NAME: usize = 160;

/// The names of a control group and of those above it, leaf first, zero-terminated; empty beyond the root.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct CgroupPath {
    pub names: [[u8; CGROUP_NAME]; CGROUP_LEVELS],
}

/// Bytes of a command line that the kernel takes.
pub const COMMAND_BYTES: usize = 256;

/// What is taken of a process once: it may be gone before user space looks.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Process {
    /// [`Task::start_boot_ns`], so that a reused pid is not taken for the same process.
    pub start_boot_ns: u64,
    /// The kernel's address of its set of control groups, to notice when it was moved to others.
    pub cgroup_set: u64,
    /// [`Task::cgroup`].
    pub cgroup: u64,
    /// [`Task::pid`].
    pub pid: u32,
    pub zero: u32,
    /// Bytes used in `command`.
    pub length: u32,
    /// The command line's length in the process; more than `length` when it was cut.
    pub full_length: u32,
    /// The command line as the process had it when it first connected: arguments separated by zero bytes.
    pub command: [u8; COMMAND_BYTES],
}

/// What could not be kept, counted per CPU in [`map::LOSSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Loss {
    /// The ring was full: a record is missing, its count is not.
    Record = 0,
    /// [`map::SLOTS`] and [`map::CONNECTIONS`] were full: a connection is neither reported nor counted by outcome.
    Connection = 1,
    /// [`map::HANDSHAKES`] was full: a `syn-only` may be missing.
    Handshake = 2,
    /// [`map::COUNTERS`] was full: counted without its addresses.
    Peer = 3,
    /// Not even that entry could be made.
    Count = 4,
    /// A watched connection ended that was not followed: it began before probe did, or found the table full.
    Unfollowed = 5,
    /// The end of a connection was not seen: an interrupt hid it, and its socket is another's now.
    Unended = 6,
    /// Beyond the [`StormLimit`]: a record is missing, its count is not.
    Aggregated = 7,
}

impl Loss {
    pub const ALL: [Self; 8] = [
        Self::Record,
        Self::Connection,
        Self::Handshake,
        Self::Peer,
        Self::Count,
        Self::Unfollowed,
        Self::Unended,
        Self::Aggregated,
    ];

    /// The field in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Record => "records",
            Self::Connection => "connections",
            Self::Handshake => "handshakes",
            Self::Peer => "peers",
            Self::Count => "counts",
            Self::Unfollowed => "unfollowed",
            Self::Unended => "unended",
            Self::Aggregated => "aggregated",
        }
    }

    /// What is missing, in an operator's words.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Record => "records lost, the ring was full (--ring-size; counts stay exact)",
            Self::Connection => "connections not followed, the table was full (--max-connections)",
            Self::Handshake => "unfinished handshakes not followed, the table was full",
            Self::Peer => "connections counted without their addresses, the counter table was full",
            Self::Count => "connections not counted",
            Self::Unfollowed => {
                "connections ended whose beginning was not seen (before probe, or the table was full)"
            }
            Self::Unended => "connections whose end was not seen",
            Self::Aggregated => {
                "connections counted by source, not listed: too many a second (--max-rate; counts stay exact)"
            }
        }
    }
}

/// Entries of [`map::COUNTERS`].
pub const MAX_COUNTERS: u32 = 16_384;
/// Entries of [`map::HANDSHAKES`].
pub const MAX_HANDSHAKES: u32 = 8192;

/// What the kernel side filters, read-only once loaded.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// Outcomes that go to the ring: bits of [`Outcome::bit`](super::outcome::Outcome::bit). All are counted.
    pub outcomes: u32,
    /// Roles that are followed: bits of [`Role::bit`](super::outcome::Role::bit).
    pub roles: u32,
    /// 1: only ports of [`Ports`] are followed.
    pub by_port: u32,
    /// 1: only peers in [`map::PREFIXES`] are followed.
    pub by_prefix: u32,
    /// Wake the reader when the ring holds this many bytes; below, it looks by itself on a timer.
    pub wake_bytes: u32,
    /// Index of a cgroup v1 controller in `css_set.subsys`, or [`CGROUP_V2`].
    pub cgroup_subsystem: u32,
    /// Length of [`map::BUCKETS`] less one.
    pub buckets_mask: u32,
}

/// [`Settings::cgroup_subsystem`]: the version 2 hierarchy.
pub const CGROUP_V2: u32 = u32::MAX;

/// The watched server ports, a bit each.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Ports {
    pub words: [u64; 1024],
}

impl Ports {
    pub fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        let mut words = [0; 1024];
        for port in ports {
            if let Some(word) = words.get_mut(usize::from(port >> 6)) {
                *word |= 1 << (port & 63);
            }
        }
        Self { words }
    }
}

/// Bytes before the payload of a record in the ring (`BPF_RINGBUF_HDR_SZ`).
pub const RING_HEADER: usize = 8;
