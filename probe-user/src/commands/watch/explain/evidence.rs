//! What was seen on this node that can tell why a connection failed: untracked packets, dropped packets, VXLAN devices,
//! and the rules and Services to read them by. Nothing but hooks runs before a connection fails.

use std::{
    collections::HashSet,
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use super::{ExplainConfig, Observed};
use crate::{
    attribution::kube::{Credentials, ServiceList},
    capture::{bypass as capture, clock::Clock, drops::dropped},
    cli::Vxlan,
    commands::{
        bypass,
        periodic::{self, Looks, now_ns},
        rules::Rules,
        vxlan,
    },
    error::chain,
    kernel::{
        KernelError,
        bypass::{BypassProbe, Options},
        drops::DropsProbe,
        symbols::Symbols,
    },
    model::{
        Cause, Connection,
        bypass::stream::{self, UntrackedCount, UntrackedStream},
        cause::{
            Blame, Blamed, CauseKind, Evidence, FaultyTunnel, UntrackedPackets, dropped::DroppedPackets,
            explain,
        },
        network::{Device, upper_name},
        part::{Part, State},
    },
    netfilter::rules::{Packet, Path},
    report::say,
    rtnetlink::Routing,
};

/// Streams of untracked packets counted at once.
const STREAMS: u32 = 1024;
/// One without a packet for so long makes room for others.
const IDLE: Duration = Duration::from_secs(60);
const TCP: u8 = 6;

/// Untracked packets.
enum Streams {
    Unseen,
    Counted(Box<BypassProbe>),
    /// The same, for somebody who wants to know all of them.
    Looked(Box<bypass::Poller>),
}

impl Streams {
    fn probe(&self) -> Option<&BypassProbe> {
        match self {
            Self::Unseen => None,
            Self::Counted(probe) => Some(probe),
            Self::Looked(looker) => Some(looker.probe()),
        }
    }

    fn looker(&self) -> Option<&bypass::Poller> {
        match self {
            Self::Unseen | Self::Counted(_) => None,
            Self::Looked(looker) => Some(looker),
        }
    }
}

/// When to try again what failed.
struct Retry {
    at: Instant,
    wait: Duration,
}

impl Retry {
    const FIRST: Duration = Duration::from_secs(10);
    const LONGEST: Duration = Duration::from_secs(600);

    fn new() -> Self {
        Self {
            at: Instant::now() + Self::FIRST,
            wait: Self::FIRST,
        }
    }

    /// Whether it is time; the next time is twice as far away.
    fn is_due(&mut self) -> bool {
        let due = Instant::now() >= self.at;
        if due {
            self.wait = (self.wait * 2).min(Self::LONGEST);
            self.at = Instant::now() + self.wait;
        }
        due
    }
}

/// All that is looked at; what this kernel does not give is missing.
pub struct Collector {
    subject: ExplainConfig,
    ports: HashSet<u16>,
    netns: u32,
    streams: Streams,
    drops: Option<DropsProbe>,
    vxlan: Option<vxlan::Poller>,
    tunnels: Vec<FaultyTunnel>,
    routing: Option<Routing>,
    /// Read when the first connection fails, where no others are.
    rules: Option<Rules>,
    symbols: Symbols,
    tidied: Instant,
    retries: [Retry; 2],
}

impl Collector {
    /// In the node's network namespace, to which this thread goes.
    pub fn new(mut subject: ExplainConfig) -> Self {
        subject.kube = subject
            .kube
            .filter(|access| access.credentials != Credentials::Nobody);
        let mut witnesses = Self {
            ports: subject.ports.iter().copied().collect(),
            subject,
            netns: 0,
            streams: Streams::Unseen,
            drops: None,
            vxlan: None,
            tunnels: Vec::new(),
            routing: None,
            rules: None,
            symbols: Symbols::default(),
            tidied: Instant::now(),
            retries: [Retry::new(), Retry::new()],
        };
        if witnesses.subject.causes {
            witnesses.begin_drops();
        }
        if let Some(netns) = &witnesses.subject.netns
            && let Err(error) = periodic::enter(netns)
        {
            say(format_args!(
                "probe: watch tells no causes of failed connections but dropped packets: {error:#}"
            ));
            return witnesses;
        }
        witnesses.netns = fs::metadata("/proc/thread-self/ns/net").map_or(0, |netns| netns.ino() as u32);
        witnesses.routing = Routing::open()
            .map_err(|error| without("addresses and devices", &chain(&error)))
            .ok();
        witnesses.begin_streams();
        witnesses.begin_vxlan();
        witnesses.look();
        witnesses
    }

    fn begin_drops(&mut self) {
        match DropsProbe::load(&self.subject.source, &self.ports) {
            Ok(probe) => {
                self.drops = Some(probe);
                self.runs(Part::Drops, Vec::new());
            }
            Err(error) => self.fails(Part::Drops, &chain(&error)),
        }
    }

    fn begin_streams(&mut self) {
        let begun = match &self.subject.observed {
            Some(Observed { bypass: None, .. }) => return,
            Some(Observed {
                bypass: Some(settings),
                known,
                ..
            }) => bypass::Poller::new(settings, known.clone())
                .map(|looker| (looker.degraded(), Streams::Looked(Box::new(looker))))
                .map_err(|error| format!("{error:#}")),
            None => self.count().map_err(|error| chain(&error)),
        };
        match begun {
            Ok((lacks, streams)) => {
                self.streams = streams;
                if self.subject.observed.is_none() {
                    for lack in &lacks {
                        without(lack, "this kernel does not give them");
                    }
                }
                self.runs(Part::Bypass, lacks);
            }
            Err(reason) => self.fails(Part::Bypass, &reason),
        }
    }

    /// Counts untracked packets, and no more.
    fn count(&self) -> Result<(Vec<String>, Streams), KernelError> {
        let mut probe = BypassProbe::load(&Options {
            netns: self.netns,
            streams: STREAMS,
            source: self.subject.source.clone(),
        })?;
        probe.know_ports(&self.ports)?;
        let degraded = probe.degraded.iter();
        let lacks = degraded.map(|degraded| format!("{} ({})", degraded.hook.gives, degraded.reason));
        Ok((lacks.collect(), Streams::Counted(Box::new(probe))))
    }

    fn begin_vxlan(&mut self) {
        let settings = match &self.subject.observed {
            Some(Observed { vxlan: None, .. }) => return,
            Some(Observed {
                vxlan: Some(settings),
                ..
            }) => settings,
            None => &Vxlan::faults(self.subject.source.clone()),
        };
        match vxlan::Poller::new(settings) {
            Ok(looker) => {
                let lacks = looker.degraded();
                self.vxlan = Some(looker);
                self.runs(Part::Vxlan, lacks);
            }
            Err(error) => self.fails(Part::Vxlan, &format!("{error:#}")),
        }
    }

    fn runs(&mut self, part: Part, lacks: Vec<String>) {
        if let Some(observed) = &mut self.subject.observed {
            observed.by.state(part, State::Runs { lacks });
        }
    }

    fn fails(&mut self, part: Part, reason: &str) {
        let what = match part {
            Part::Drops => "dropped packets",
            Part::Bypass => "untracked packets",
            Part::Vxlan => "VXLAN",
            Part::Watch => "connections",
        };
        match &mut self.subject.observed {
            Some(observed) => observed.by.state(part, State::Failed(reason.to_owned())),
            None => without(what, reason),
        }
    }

    /// What shows only from look to look; makes room for what is new.
    pub fn look(&mut self) {
        if self.subject.observed.is_some() {
            if self.vxlan.is_none() && self.retries[0].is_due() {
                self.begin_vxlan();
            }
            if matches!(self.streams, Streams::Unseen) && self.retries[1].is_due() {
                self.begin_streams();
            }
        }
        self.look_at_vxlan();
        self.look_at_streams();
        let unkept = self.unkept();
        if let Some(observed) = &mut self.subject.observed {
            observed.by.looked(unkept);
        }
    }

    fn look_at_vxlan(&mut self) {
        let Some(looker) = &mut self.vxlan else { return };
        match looker.look(true) {
            Ok(view) => {
                let tunnel = |finding: &crate::model::vxlan::Diagnosed| FaultyTunnel {
                    fault: finding.fault,
                    networks: view.networks(finding),
                    what: finding.what.trim_end_matches('.').to_owned(),
                    remedy: finding.fixes_in_one_line(),
                    certain: finding.certain,
                };
                self.tunnels = view.findings.iter().map(tunnel).collect();
                if let Some(observed) = &mut self.subject.observed {
                    observed.by.vxlan(view);
                }
            }
            Err(error) => {
                self.vxlan = None;
                self.tunnels.clear();
                self.fails(Part::Vxlan, &format!("{error:#}"));
            }
        }
    }

    fn look_at_streams(&mut self) {
        match &mut self.streams {
            Streams::Unseen => {}
            Streams::Looked(looker) => match looker.look(true) {
                Ok(view) => {
                    if let Some(observed) = &mut self.subject.observed {
                        observed.by.bypass(view);
                    }
                }
                Err(error) => {
                    self.streams = Streams::Unseen;
                    self.fails(Part::Bypass, &format!("{error:#}"));
                }
            },
            Streams::Counted(probe) => {
                if self.tidied.elapsed() <= IDLE {
                    return;
                }
                self.tidied = Instant::now();
                let mut idle = Vec::new();
                let now = now_ns();
                let _ = probe.streams(|key, counters| {
                    if Duration::from_nanos(now.saturating_sub(counters.last_ns)) > IDLE {
                        idle.push(key);
                    }
                });
                for key in idle {
                    probe.forget(&key);
                }
            }
        }
    }

    /// Dropped and untracked packets that found no room.
    pub fn unkept(&self) -> u64 {
        self.drops.as_ref().map_or(0, DropsProbe::lost) + self.streams.probe().map_or(0, BypassProbe::rest)
    }

    /// The causes of failed connections, as far as something was seen.
    pub fn explain(&mut self, connections: &[&Connection], clock: &Clock) -> Vec<Option<Box<Cause>>> {
        let (drops, newest_drop) = self.dropped(connections, clock);
        let devices = self
            .routing
            .as_mut()
            .and_then(|routing| routing.devices().ok())
            .unwrap_or_default();
        let streams = self.tcp_streams(&devices);
        let own: HashSet<IpAddr> = self.own();
        let outside = self.outside();
        let untracked: Vec<UntrackedPackets> = streams
            .iter()
            .map(|(stream, count)| UntrackedPackets {
                stream: *stream,
                first: clock.time(count.first_ns),
                last: clock.time(count.last_ns),
                outside: stream.output.is_some_and(|device| outside.contains(&device)),
            })
            .collect();
        self.refresh(None);
        // Rules are not said to be innocent by what was read before they could have done it.
        let newest_stream = streams.iter().map(|(_, count)| count.first_ns).max();
        let newest_ns = newest_stream.max(newest_drop).unwrap_or(0);
        let mut causes = Vec::new();
        // Once more with newer rules, where nobody is to blame by those that were read.
        for last in [false, true] {
            let Some(rules) = self.rules() else { break };
            let evidence = Evidence {
                services: rules.services(),
                untracked: &untracked,
                drops: &drops,
                tunnels: &self.tunnels,
                own: &own,
                netns: self.netns,
                rules: &ReadRules {
                    rules,
                    looker: self.streams.looker(),
                    streams: &streams,
                    devices: &devices,
                    own: &own,
                },
            };
            causes = connections
                .iter()
                .map(|connection| explain(connection, &evidence).map(Box::new))
                .collect();
            let puzzled = causes.iter().flatten().any(|cause| {
                cause.rule.is_none() && matches!(cause.kind, CauseKind::Untracked | CauseKind::Dropped)
            });
            let newer = !last && puzzled && self.refresh(Some(newest_ns));
            if !newer {
                break;
            }
        }
        if let (Streams::Counted(probe), Some(rules)) = (&mut self.streams, &self.rules) {
            let ports = rules
                .services()
                .ports()
                .chain(self.ports.iter().copied())
                .collect();
            let _ = probe.know_ports(&ports);
        }
        causes
    }

    fn rules(&self) -> Option<&Rules> {
        match &self.streams {
            Streams::Looked(looker) => Some(looker.rules()),
            Streams::Unseen | Streams::Counted(_) => self.rules.as_ref(),
        }
    }

    /// Reads the rules where that is due; `puzzled`: they don't explain what was seen first at that time (`CLOCK_MONOTONIC`
    /// nanoseconds). Whether they were read.
    fn refresh(&mut self, puzzled: Option<u64>) -> bool {
        if let Streams::Looked(looker) = &mut self.streams {
            return looker.refresh(puzzled);
        }
        if let Some(rules) = &mut self.rules {
            return rules.refresh(puzzled.is_some(), puzzled);
        }
        let mut rules = Rules::read_late();
        let observed = self.subject.observed.as_ref();
        let services = match observed.and_then(|observed| observed.known.services.clone()) {
            Some(services) => Ok(Some(services)),
            None => self.subject.kube.take().map(ServiceList::start).transpose(),
        };
        match services {
            Ok(Some(services)) => rules.take(services),
            Ok(None) => {}
            Err(error) => without("the Kubernetes API", &error.to_string()),
        }
        self.rules = Some(rules);
        true
    }

    /// Dropped packets of these connections, and when the newest of them was seen first (`CLOCK_MONOTONIC` nanoseconds).
    fn dropped(&mut self, connections: &[&Connection], clock: &Clock) -> (Vec<DroppedPackets>, Option<u64>) {
        let Some(probe) = &self.drops else {
            return (Vec::new(), None);
        };
        let mut found = Vec::new();
        let mut newest = None;
        let _ = probe.drops(|key, count| {
            let told = dropped(&key, &count, clock, probe.reasons.as_ref(), None);
            if connections.iter().any(|connection| told.is_of_client(connection)) {
                found.push((told, count.location));
                newest = newest.max(Some(count.first_ns));
            }
        });
        self.symbols.find(found.iter().map(|(_, location)| *location));
        let drops = found
            .into_iter()
            .map(|(told, location)| DroppedPackets {
                at: self.symbols.name(location).map(str::to_owned),
                ..told
            })
            .collect();
        (drops, newest)
    }

    fn tcp_streams(&self, devices: &[Device]) -> Vec<(UntrackedStream, UntrackedCount)> {
        let mut streams = Vec::new();
        if let Some(probe) = self.streams.probe() {
            let _ = probe.streams(|key, counters| {
                if key.protocol == TCP {
                    streams.extend(capture::stream(&key, &counters));
                }
            });
        }
        stream::once(streams, devices)
    }

    /// The node's own addresses.
    fn own(&mut self) -> HashSet<IpAddr> {
        let addresses = self.routing.as_mut().and_then(|routing| routing.addresses().ok());
        let addresses = addresses.into_iter().flatten();
        addresses.map(|(_, address)| address).collect()
    }

    /// Devices that lead to everybody else.
    fn outside(&mut self) -> HashSet<u32> {
        let routes = self.routing.as_mut().and_then(|routing| routing.routes().ok());
        let routes = routes.into_iter().flatten();
        routes
            .filter(|route| route.prefix.prefix_len() == 0)
            .filter_map(|route| route.device)
            .collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // A looker does so itself.
        if let Streams::Counted(probe) = &mut self.streams {
            probe.detach();
        }
        if let Some(probe) = &mut self.drops {
            probe.detach();
        }
    }
}

fn without(what: &str, reason: &str) {
    say(format_args!(
        "probe: watch tells no causes of failed connections by {what}: {reason}"
    ));
}

/// The rules as they were read.
struct ReadRules<'a> {
    rules: &'a Rules,
    looker: Option<&'a bypass::Poller>,
    streams: &'a [(UntrackedStream, UntrackedCount)],
    devices: &'a [Device],
    own: &'a HashSet<IpAddr>,
}

impl ReadRules<'_> {
    fn name(&self, index: u32) -> Option<String> {
        upper_name(self.devices, index).map(str::to_owned)
    }
}

impl Blame for ReadRules<'_> {
    fn untracked(&self, untracked: &UntrackedPackets) -> Option<Blamed> {
        let (stream, count) = self
            .streams
            .iter()
            .find(|(stream, _)| *stream == untracked.stream)?;
        let candidates = self.rules.candidates(stream, count, |index| self.name(index));
        // A rule that is gone by now did it all the same.
        let before = || self.looker?.blamed(stream).first().cloned();
        let candidate = candidates.into_iter().next().or_else(before)?;
        let rule = self.rules.known().get(&candidate.rule);
        Some(Blamed {
            remedy: rule.map_or_else(String::new, |rule| {
                format!(
                    "Take the rule away, or narrow it, and find who sets it: {}",
                    rule.remedy
                )
            }),
            rule: candidate.rule,
            certain: candidate.certain,
        })
    }

    fn dropped(&self, dropped: &DroppedPackets) -> Option<Blamed> {
        let path = match dropped.input {
            None => Path::Out,
            Some(_) if self.own.contains(&dropped.destination.ip()) => Path::In,
            Some(_) => Path::Forward,
        };
        let suspect = self.rules.dropper(&Packet {
            path,
            protocol: TCP,
            source: dropped.source.ip(),
            destination: dropped.destination.ip(),
            source_port: Some(dropped.source.port()),
            destination_port: Some(dropped.destination.port()),
            input: dropped.input.and_then(|index| self.name(index)),
            output: None,
        })?;
        Some(Blamed {
            rule: suspect.to_string(),
            certain: suspect.certain,
            remedy: format!(
                "Take the rule away, or accept these packets before it: {}",
                suspect.removal()
            ),
        })
    }
}
