//! Rules in chains of type nat, read for the packets that meet them: kube-proxy has one chain there for each Service and each
//! endpoint, of which a packet meets a handful.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Aim, Packet,
    netlink::{ChainReader, DumpError},
    read::Outputs,
    rule_tables,
};
use crate::{model::bypass::service::Service, namespace::NetnsIdentity, netfilter::services};

/// Servers whose rules are kept.
const KEPT: usize = 128;
/// Servers whose rules are read within [`PERIOD`]: a scan of a network asks for one after the other.
const READ: usize = 512;
const PERIOD: Duration = Duration::from_secs(10);
/// How long reading is not tried again after it failed.
const RETRY: Duration = Duration::from_secs(10);

/// The rules that packets to one server meet in chains of type nat, and its Services.
#[derive(Debug, Default)]
pub(super) struct NatRules {
    pub(super) tables: Vec<super::model::Table>,
    services: Vec<Service>,
}

/// Reads them, and keeps what was read.
pub(super) struct NatReader(Mutex<State>);

struct State {
    /// `None`: it failed, and its socket may be in the middle of an answer.
    reader: Option<ChainReader>,
    /// The rules and the network namespace that it reads.
    generation: Option<u32>,
    netns: Option<NetnsIdentity>,
    /// When and why reading failed.
    broken: Option<(Instant, String)>,
    known: HashMap<Aim, Arc<NatRules>>,
    /// Since when how many were read.
    period: (Instant, usize),
    failed: Option<String>,
}

impl NatReader {
    pub(super) fn new(reader: ChainReader) -> Self {
        Self(Mutex::new(State {
            generation: reader.generation(),
            netns: NetnsIdentity::own(),
            broken: None,
            reader: Some(reader),
            known: HashMap::new(),
            period: (Instant::now(), 0),
            failed: None,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rules that may match a packet, which is of the network namespace that the reader was opened in; `None` where they can't be read, which [`NatReader::failed`] then explains.
    pub(super) fn met_by(&self, packet: &Packet) -> Option<Arc<NatRules>> {
        self.rules(Aim {
            protocol: packet.protocol,
            destination: packet.destination.to_canonical(),
            port: packet.destination_port,
        })
    }

    /// Services at an address, with their endpoints; none where they can't be read.
    pub(super) fn services(&self, aim: Aim) -> Vec<Service> {
        self.rules(aim)
            .map(|rules| rules.services.clone())
            .unwrap_or_default()
    }

    /// Reads anew what is read with the names of devices, in the calling thread's network namespace.
    pub(super) fn rename_devices(&self) {
        let mut state = self.state();
        state.known.clear();
        if let Some(reader) = &mut state.reader {
            reader.rename_devices();
        }
    }

    /// Why the latest rules that were wanted are not there, in a sentence.
    pub(super) fn failed(&self) -> Option<String> {
        self.state().failed.clone()
    }

    fn rules(&self, aim: Aim) -> Option<Arc<NatRules>> {
        let mut state = self.state();
        if let Some(known) = state.known.get(&aim).cloned() {
            state.failed = None;
            return Some(known);
        }
        match state.read(&aim) {
            Ok(rules) => {
                state.failed = None;
                let rules = Arc::new(rules);
                if state.known.len() >= KEPT {
                    state.known.clear();
                }
                state.known.insert(aim, Arc::clone(&rules));
                Some(rules)
            }
            Err(error) => {
                state.failed = Some(format!("rules of nat were not read: {error}"));
                None
            }
        }
    }
}

impl State {
    /// The reader, or a new one of the same rules some time after the former failed.
    fn reader(&mut self, now: Instant) -> Result<ChainReader, String> {
        if let Some(reader) = self.reader.take() {
            return Ok(reader);
        }
        let rested = self
            .broken
            .as_ref()
            .filter(|(at, _)| now.duration_since(*at) < RETRY);
        if let Some((_, error)) = rested {
            return Err(error.clone());
        }
        let reader = ChainReader::open().map_err(|error| error.to_string())?;
        let is_same = |reader: &ChainReader| {
            reader.generation() == self.generation && NetnsIdentity::own() == self.netns
        };
        reader
            .filter(is_same)
            .ok_or_else(|| DumpError::Changed.to_string())
    }

    fn read(&mut self, aim: &Aim) -> Result<NatRules, String> {
        let now = Instant::now();
        if now.duration_since(self.period.0) > PERIOD {
            self.period = (now, 0);
        }
        if self.period.1 >= READ {
            return Err(format!(
                "packets to more than {READ} servers failed within {} s",
                PERIOD.as_secs()
            ));
        }
        self.period.1 += 1;
        let mut reader = self.reader(now)?;
        let (printed, positions) = reader.nat(aim).map_err(|error| {
            let error = error.to_string();
            self.broken = Some((now, error.clone()));
            error
        })?;
        self.reader = Some(reader);
        let outputs = Outputs::from(printed);
        let (mut tables, not_understood) = rule_tables(&outputs);
        if let Some(sentence) = not_understood {
            return Err(sentence);
        }
        for table in &mut tables {
            table.renumber(&positions);
        }
        Ok(NatRules {
            tables,
            services: services::of(&outputs),
        })
    }
}

/// Without all the rules.
impl fmt::Debug for NatReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NatReader")
    }
}
