//! Asks the kernel for the ruleset of nf_tables. The only part that does I/O.
//!
//! Messages are kept as they come: the decoders of netlink-packet-netfilter write each list out once per element, to say
//! what would be wrong with it, so that large sets cost their size squared, and refuse a message for a name that isn't UTF-8.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead as _, BufReader},
    mem::take,
    path::Path,
    sync::OnceLock,
    time::{Duration, Instant},
};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NetlinkBuffer};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, GenMessage, NfTablesMessage, RuleAttribute, RuleMessage,
        SetElementList, SetElementMessage, SetMessage, TableMessage,
    },
};
use nix::net::if_::if_nameindex;

use super::{
    expression::{Expression, expressions},
    ruleset::{Message, NEW_GENERATION, NEW_RULE, NEW_SET, messages},
};
use crate::netfilter::link::Link;

/// How long it may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The same for a list of Services.
const SLOW: Duration = Duration::from_secs(10);
/// How much the kernel may tell.
pub(super) const BYTES: usize = 16 << 20;
/// How often it's begun anew when the rules change meanwhile.
pub(in crate::netfilter::rules) const ATTEMPTS: u32 = 3;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// What the kernel told.
#[derive(Debug, Default)]
pub(super) struct Dump {
    /// Messages, one after the other.
    pub(super) bytes: Vec<u8>,
    /// The names of devices, which rules may have by their numbers.
    pub(super) devices: HashMap<u32, String>,
    /// The rules changed each time they were read, so these may be of two rulesets.
    pub(super) changed: bool,
}

/// Why the kernel doesn't tell its rules.
#[derive(Debug, thiserror::Error)]
pub(in crate::netfilter::rules) enum DumpError {
    #[error("reading the kernel's rules needs CAP_NET_ADMIN")]
    NotAllowed,
    #[error("reading the kernel's rules timed out after {} s", TIMEOUT.as_secs())]
    Late,
    #[error("the kernel's rules are more than {} MB", BYTES >> 20)]
    Large,
    #[error("the kernel's answer about its rules can't be read")]
    Malformed,
    #[error("the rules changed while they were read")]
    Changed,
    #[error("can't query the kernel's rules: {0}")]
    Io(io::Error),
}

impl From<io::Error> for DumpError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM) => Self::NotAllowed,
            _ => Self::Io(error),
        }
    }
}

/// The ruleset of the calling thread's network namespace; `None` if this kernel runs without nf_tables.
pub(super) fn dump() -> Result<Option<Dump>, DumpError> {
    // Asking would load it, and probe changes nothing on a node.
    if !is_loaded() {
        return Ok(None);
    }
    let mut asked = Asked::open()?;
    let devices = devices();
    for _ in 0..ATTEMPTS {
        asked.bytes.clear();
        asked.changed = false;
        asked.ruleset()?;
        if !asked.changed {
            break;
        }
    }
    Ok(Some(Dump {
        bytes: asked.bytes,
        devices,
        changed: asked.changed,
    }))
}

/// The names of the devices in the calling thread's network namespace, by their numbers.
pub(super) fn devices() -> HashMap<u32, String> {
    let devices = if_nameindex().map(|devices| {
        let devices = devices.iter();
        devices
            .map(|device| (device.index(), device.name().to_string_lossy().into_owned()))
            .collect()
    });
    devices.unwrap_or_default()
}

/// A number that each change of the ruleset makes another, in the calling thread's network namespace; `None` if this kernel runs
/// without nf_tables.
pub(super) fn generation() -> Result<Option<u32>, DumpError> {
    if is_loaded() {
        Asked::open()?.generation()
    } else {
        Ok(None)
    }
}

/// The counters of a chain's rules, in their order, each with its rule's handle; then that of its policy. Rules that are not
/// wanted are not read where the kernel can leave them out: `is_enough` is asked after each.
pub(super) fn counters(
    family: u8,
    table: &str,
    chain: &str,
    mut is_enough: impl FnMut(&[RuleCounter]) -> bool,
) -> Result<ChainCounters, DumpError> {
    let mut asked = Asked::open()?;
    let mut found = ChainCounters::default();
    let request = NfTablesMessage::GetChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.to_owned()),
            ChainAttribute::Name(chain.to_owned()),
        ],
    });
    asked.ask(family.into(), request, 0, |message| {
        found.policy = message.attributes.within(8).long(2);
        true
    })?;
    // The kernel (since 4.9) leaves out the rules of other chains; an older one sends all.
    let request = NfTablesMessage::GetRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
        ],
    });
    asked.ask(family.into(), request, NLM_F_DUMP, |message| {
        let attributes = message.attributes;
        let is_here =
            attributes.text(1).as_deref() == Some(table) && attributes.text(2).as_deref() == Some(chain);
        if let Some(handle) = attributes.long(3).filter(|_| is_here && message.kind == NEW_RULE) {
            let packets = expressions(attributes.within(4))
                .iter()
                .find_map(|expression| match expression {
                    Expression::Counter(packets, _) => Some(*packets),
                    _ => None,
                });
            found.rules.push(RuleCounter { handle, packets });
        }
        // With the socket ends the dump.
        !is_enough(&found.rules)
    })?;
    Ok(found)
}

/// What the rules of a chain counted.
#[derive(Debug, Default)]
pub(super) struct ChainCounters {
    pub(super) rules: Vec<RuleCounter>,
    /// `None`: the chain has no policy, or it has no counter.
    pub(super) policy: Option<u64>,
}

#[derive(Debug)]
pub(super) struct RuleCounter {
    pub(super) handle: u64,
    /// `None`: the rule has no counter.
    pub(super) packets: Option<u64>,
}

/// Whether the kernel runs with nf_tables, as a module or built in.
pub(super) fn is_loaded() -> bool {
    static BUILT_IN: OnceLock<bool> = OnceLock::new();
    Path::new("/sys/module/nf_tables").exists() || *BUILT_IN.get_or_init(is_built_in)
}

/// It shows by its functions alone, behind which a module's name would be.
fn is_built_in() -> bool {
    File::open("/proc/kallsyms").is_ok_and(|file| {
        let lines = BufReader::with_capacity(1 << 16, file).lines();
        lines
            .map_while(Result::ok)
            .any(|line| line.ends_with(" nf_tables_gettable"))
    })
}

/// A socket that nf_tables is queried by, in the network namespace that the thread had which opened it.
pub(super) struct Asked {
    link: Link,
    deadline: Instant,
    bytes: Vec<u8>,
    /// The rules changed while they were read.
    pub(super) changed: bool,
}

impl Asked {
    pub(super) fn open() -> Result<Self, DumpError> {
        Ok(Self {
            link: Link::open(None)?,
            deadline: Instant::now() + TIMEOUT,
            bytes: Vec::new(),
            changed: false,
        })
    }

    /// Begins to read anew, with all the time that reading may take.
    pub(super) fn restart(&mut self) {
        self.deadline = Instant::now() + TIMEOUT;
        self.changed = false;
    }

    /// The same, for what takes many requests.
    pub(super) fn restart_slow(&mut self) {
        self.restart();
        self.deadline = Instant::now() + SLOW;
    }

    fn ruleset(&mut self) -> Result<(), DumpError> {
        let generation = self.generation()?;
        for message in [
            NfTablesMessage::GetTable(TableMessage { attributes: vec![] }),
            NfTablesMessage::GetChain(ChainMessage { attributes: vec![] }),
            NfTablesMessage::GetRule(RuleMessage { attributes: vec![] }),
        ] {
            self.keep(NetfilterProtoFamily::Unspec, message)?;
        }
        let before = self.bytes.len();
        let sets = NfTablesMessage::GetSet(SetMessage { attributes: vec![] });
        self.keep(NetfilterProtoFamily::Unspec, sets)?;
        let sets = self.bytes.get(before..).unwrap_or_default().to_vec();
        for set in messages(&sets).filter(|message| message.kind == NEW_SET) {
            self.elements(set)?;
        }
        self.changed |= self.generation()? != generation;
        Ok(())
    }

    /// What a set holds. One that has gone meanwhile shows by the generation.
    fn elements(&mut self, set: Message<'_>) -> Result<(), DumpError> {
        let (Some(table), Some(name)) = (set.attributes.text(1), set.attributes.text(2)) else {
            return Ok(());
        };
        let attributes = vec![SetElementList::Table(table), SetElementList::Set(name)];
        let message = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
        match self.keep(set.family.into(), message) {
            Err(DumpError::Io(error)) if error.raw_os_error() == Some(libc::ENOENT) => {
                self.changed = true;
                Ok(())
            }
            result => result,
        }
    }

    /// A number that each change of the ruleset makes another.
    pub(super) fn generation(&mut self) -> Result<Option<u32>, DumpError> {
        let message = NfTablesMessage::GetGen(GenMessage { attributes: vec![] });
        let mut generation = None;
        self.ask(NetfilterProtoFamily::Unspec, message, 0, |message| {
            if message.kind == NEW_GENERATION {
                generation = message.attributes.number(1);
            }
            true
        })?;
        Ok(generation)
    }

    /// Keeps the answer to a request for a list.
    fn keep(&mut self, family: NetfilterProtoFamily, message: NfTablesMessage) -> Result<(), DumpError> {
        let mut bytes = take(&mut self.bytes);
        let mut is_large = false;
        let result = self.ask(family, message, NLM_F_DUMP, |message| {
            is_large = bytes.len() + message.whole.len() > BYTES;
            if !is_large {
                bytes.extend_from_slice(message.whole);
            }
            !is_large
        });
        self.bytes = bytes;
        if is_large { Err(DumpError::Large) } else { result }
    }

    /// Hands over each message of the answer to a request, as long as more are wanted.
    pub(super) fn ask(
        &mut self,
        family: NetfilterProtoFamily,
        message: NfTablesMessage,
        flags: u16,
        mut each: impl FnMut(Message<'_>) -> bool,
    ) -> Result<(), DumpError> {
        let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
        let sequence = self.link.ask(message, flags)?;
        loop {
            if Instant::now() > self.deadline {
                return Err(DumpError::Late);
            }
            let mut rest = self.link.receive()?;
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(|_| DumpError::Malformed)?;
                let length = usize::try_from(message.length()).map_err(|_| DumpError::Malformed)?;
                let (whole, behind) = rest.split_at(length.next_multiple_of(4).min(rest.len()));
                rest = behind;
                if message.sequence_number() != sequence {
                    continue;
                }
                self.changed |= message.flags() & NLM_F_DUMP_INTR != 0;
                match message.message_type() {
                    NLMSG_DONE | NLMSG_ERROR => match code(message.payload()) {
                        0 => return Ok(()),
                        // The kernel ends a dump so that met another ruleset.
                        libc::EINTR => {
                            self.changed = true;
                            return Ok(());
                        }
                        code => return Err(io::Error::from_raw_os_error(code).into()),
                    },
                    _ => {
                        let is_last = flags & NLM_F_DUMP == 0;
                        let mut messages = messages(whole);
                        if messages.next().is_some_and(|message| !each(message)) || is_last {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }
}

/// The error that an answer ends with; 0 is none.
fn code(payload: &[u8]) -> i32 {
    let code = payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    code.unwrap_or_default().saturating_neg()
}
