//! One snapshot: counters, rules, Services, and findings.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use probe_ebpf::contract::bypass::Key;

use super::{
    counting::{Counting, Presence},
    replies::Replies,
    senders::Senders,
};
use crate::{
    attribution::{cri::Runtime, kube::ServiceList},
    capture::bypass as capture,
    cli::Bypass as Settings,
    commands::{
        periodic::{Looks, now_ns},
        pods,
        rule_book::RuleBook,
        rules::Rules,
    },
    kernel::bypass::Options,
    model::{
        bypass::{
            View,
            cause::StreamCause,
            diagnose, diagnosis,
            service::Services,
            stream::{self, UntrackedCount, UntrackedStream},
            view::{JudgedStream, SeenBy},
            virtual_server::{self, InTable},
        },
        network::{Device, upper_name},
        plural::counted,
        rule::CandidateRule,
    },
    netfilter::services::ipvs,
    rtnetlink::Routing,
};

/// A stream without a packet for so long makes room for others.
const IDLE: Duration = Duration::from_secs(120);

/// Streams whose connections are looked for in IPVS' table.
const WAITING: usize = 256;

/// Looks again and again.
pub struct Poller {
    counting: Counting,
    routing: Routing,
    rules: Rules,
    senders: Senders,
    once: bool,
    replies: Replies,
    blamed: HashMap<UntrackedStream, StreamCause>,
}

/// Who is asked for names.
#[derive(Clone, Debug, Default)]
pub struct NameSources {
    pub runtime: Option<Runtime>,
    pub services: Option<ServiceList>,
}

impl Poller {
    /// Begins to count, in the calling thread's network namespace.
    ///
    /// # Errors
    /// A kernel that can't do it, or tables that can't be read.
    pub fn new(settings: &Settings, known: NameSources, book: RuleBook, presence: Presence) -> Result<Self> {
        let netns = std::fs::metadata("/proc/thread-self/ns/net")
            .context("can't read this process's network namespace in /proc")?;
        let mut routing = Routing::open()?;
        // Before anything is counted: what their counters have by then is older.
        let mut rules = Rules::read(book);
        routing.devices()?;
        let netns = std::os::unix::fs::MetadataExt::ino(&netns) as u32;
        let options = Options {
            netns,
            streams: settings.max_streams,
            source: settings.source.clone(),
        };
        let mut counting = Counting::start(options, presence)?;
        if let Some(services) = known.services {
            rules.take(services);
        }
        counting.know_ports(rules.services().ports().collect())?;
        Ok(Self {
            counting,
            routing,
            rules,
            senders: Senders::new(settings.pod_logs.clone(), known.runtime, netns),
            once: settings.pace.once,
            replies: Replies::new(),
            blamed: HashMap::new(),
        })
    }

    /// What this kernel does not give, and why.
    pub fn degraded(&self) -> Vec<String> {
        let hooks = self.counting.degraded().iter();
        let hooks = hooks.map(|degraded| format!("{} ({})", degraded.hook.gives, degraded.reason));
        let fields = self.counting.absent().iter();
        hooks
            .chain(fields.map(|absent| format!("{} (no {})", absent.lost, absent.what)))
            .collect()
    }

    pub fn counting(&self) -> &Counting {
        &self.counting
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The rules that exempt a stream, as of the latest snapshot.
    pub fn blamed(&self, stream: &UntrackedStream) -> &[CandidateRule] {
        self.blamed
            .get(stream)
            .map_or(&[], |blame| blame.rules.as_slice())
    }

    /// Reads the rules again if that is due; `puzzled`: a stream first seen at that time has no candidate rule
    /// (`CLOCK_MONOTONIC` nanoseconds).
    pub fn refresh(&mut self, puzzled: Option<u64>) -> bool {
        self.rules.refresh(puzzled.is_some(), puzzled)
    }

    /// What is looked at, for people.
    pub fn description(&self) -> String {
        let (rules, services) = (self.rules.all().len(), self.rules.services().all().len());
        format!(
            "{} notrack, {}{} (Ctrl-C ends)",
            counted(rules, "rule sets", "rules set"),
            counted(services, "Service", "Services"),
            self.delivered(),
        )
    }

    /// What shows the packets that are delivered here: kernels differ.
    fn delivered(&self) -> String {
        let optional = self.counting.used().iter().filter(|(hook, _)| !hook.required);
        let mut by: Vec<_> = optional.map(|(_, program)| program.access.name()).collect();
        by.dedup();
        match by.as_slice() {
            [] => String::new(),
            by => format!(", delivered packets by {}", by.join(" and ")),
        }
    }

    fn seen_by(&self) -> impl Iterator<Item = SeenBy> {
        self.counting.used().iter().map(|(hook, program)| SeenBy {
            gives: hook.gives,
            hook: program.tracepoint,
            program: program.name,
        })
    }

    fn streams(&mut self, now_ns: u64) -> Result<Vec<(UntrackedStream, UntrackedCount)>> {
        let (mut streams, mut idle) = (Vec::new(), Vec::<Key>::new());
        self.counting.streams(|key, counters| {
            let quiet = Duration::from_nanos(now_ns.saturating_sub(counters.last_ns));
            if quiet > IDLE && !self.once {
                idle.push(key);
            } else {
                streams.extend(capture::stream(&key, &counters));
            }
        })?;
        for key in idle {
            self.counting.forget(&key);
        }
        Ok(streams)
    }

    fn blame(&self, streams: &[(UntrackedStream, UntrackedCount)], devices: &[Device]) -> Vec<StreamCause> {
        let name = |index: u32| upper_name(devices, index).map(str::to_owned);
        streams
            .iter()
            .map(|(stream, count)| {
                StreamCause::of(self.blamed.get(stream), count, self.rules.read_ns(), || {
                    self.rules.candidates(stream, count, name)
                })
            })
            .collect()
    }
}

impl Looks for Poller {
    type View = View;

    fn look(&mut self, explain: bool) -> Result<View> {
        self.counting.adapt()?;
        let now_ns = now_ns();
        let streams = self.streams(now_ns)?;
        // After the counters: what was counted passed devices that were there.
        let devices = self.routing.devices()?;
        let mut streams = stream::once(streams, &devices);
        streams.sort_unstable_by_key(|(stream, count)| (std::cmp::Reverse(count.packets), *stream));
        let mut blame = self.blame(&streams, &devices);
        let puzzled = streams
            .iter()
            .zip(&blame)
            .filter(|(_, blame)| blame.rules.is_empty())
            .map(|((_, count), _)| count.first_ns)
            .max();
        if explain && self.rules.refresh(!streams.is_empty(), puzzled) {
            self.counting
                .know_ports(self.rules.services().ports().collect())?;
            blame = self.blame(&streams, &devices);
        }
        let candidates: Vec<_> = blame.iter().map(|blame| blame.rules.clone()).collect();
        self.blamed = streams.iter().map(|(stream, _)| *stream).zip(blame).collect();
        let own: HashSet<IpAddr> = self
            .routing
            .addresses()?
            .into_iter()
            .map(|(_, address)| address)
            .collect();
        let names = self.senders.runtime().map(pods::names).unwrap_or_default();
        let tunnel_ports: HashSet<u16> = devices
            .iter()
            .filter_map(|device| device.vxlan.as_ref())
            .map(|vxlan| vxlan.port)
            .collect();
        let known = diagnosis::BypassFacts {
            services: self.rules.services(),
            rules: self.rules.known(),
            own: &own,
            tunnel_ports: &tunnel_ports,
            names: &names,
        };
        let translated = self.replies.translated(&streams, self.rules.services());
        let in_ipvs = in_ipvs(&streams, self.rules.services(), now_ns);
        let mut seen: Vec<_> = streams
            .into_iter()
            .zip(candidates)
            .zip(translated)
            .zip(in_ipvs)
            .map(
                |((((stream, count), candidates), translated), in_ipvs)| JudgedStream {
                    sender: self
                        .counting
                        .probe()
                        .and_then(|probe| self.senders.sender(&count, probe)),
                    translated: translated.is_translated,
                    dialled: translated.dialled,
                    in_ipvs,
                    ..diagnosis::see(stream, count, candidates, known)
                },
            )
            .collect();
        diagnosis::settle(&mut seen, known);
        let findings = diagnose(&seen, known, now_ns, self.once);
        Ok(View {
            time: Timestamp::now(),
            now_ns,
            findings,
            rules: self.rules.all().to_vec(),
            services: self.rules.services().all().len(),
            devices: devices
                .into_iter()
                .map(|device| (device.index, device.name))
                .collect(),
            streams: seen,
            names,
            rest: self.counting.rest(),
            seen_by: self.seen_by().collect(),
            unseen: self
                .counting
                .degraded()
                .iter()
                .map(|degraded| degraded.hook.gives)
                .chain(self.counting.absent().iter().map(|absent| absent.lost))
                .collect(),
            unread: self.rules.unread(),
        })
    }
}

/// What IPVS has of each stream's latest connection, where it may tell why nobody answers: its table is read for these only.
fn in_ipvs(streams: &[(UntrackedStream, UntrackedCount)], services: &Services, now_ns: u64) -> Vec<InTable> {
    let mut in_ipvs = vec![InTable::default(); streams.len()];
    let (places, wanted): (Vec<&mut InTable>, Vec<ipvs::Ends>) = streams
        .iter()
        .zip(&mut in_ipvs)
        .filter(|((stream, count), _)| virtual_server::is_waiting(stream, count, services, now_ns))
        .take(WAITING)
        .map(|((stream, count), place)| {
            let client = SocketAddr::new(stream.source, count.other_port);
            let to = SocketAddr::new(stream.destination, stream.port);
            (place, (stream.protocol, client, to))
        })
        .unzip();
    for (place, found) in places.into_iter().zip(ipvs::connections(&wanted)) {
        *place = found;
    }
    in_ipvs
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.counting.detach();
    }
}
