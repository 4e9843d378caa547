//! What was seen on this node that can tell why a connection failed: untracked packets, dropped packets, VXLAN devices,
//! and the rules and Services to read them by. Nothing but hooks runs before a connection fails.

use std::{
    collections::HashSet,
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use super::Subject;
use crate::{
    attribution::kube::{Access, Credentials},
    capture::{bypass as capture, clock::Clock, drops::dropped},
    cli::Vxlan,
    commands::{
        looks::{self, Looks, now_ns},
        rules::Rules,
        vxlan::Looker,
    },
    error::chain,
    kernel::{
        KernelError,
        bypass::{self, BypassProbe},
        drops::DropsProbe,
        symbols::Symbols,
    },
    model::{
        Cause, Connection,
        bypass::stream::{self, Count, Stream},
        cause::{Blame, Blamed, Evidence, Kind, Tunnel, Untracked, dropped::Dropped, explain},
        network::{Device, upper_name},
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

/// All that is looked at; what this kernel does not give is missing.
pub struct Witnesses {
    ports: HashSet<u16>,
    netns: u32,
    bypass: Option<BypassProbe>,
    drops: Option<DropsProbe>,
    vxlan: Option<Looker>,
    tunnels: Vec<Tunnel>,
    routing: Option<Routing>,
    /// Read when the first connection fails.
    rules: Option<Rules>,
    /// Asked from then on.
    kube: Option<Access>,
    symbols: Symbols,
    tidied: Instant,
}

impl Witnesses {
    /// In the node's network namespace, to which this thread goes.
    pub fn new(subject: &Subject) -> Self {
        let ports: HashSet<u16> = subject.ports.iter().copied().collect();
        let mut witnesses = Self {
            ports,
            netns: 0,
            bypass: None,
            drops: None,
            vxlan: None,
            tunnels: Vec::new(),
            routing: None,
            rules: None,
            kube: subject
                .kube
                .clone()
                .filter(|access| access.credentials != Credentials::Nobody),
            symbols: Symbols::default(),
            tidied: Instant::now(),
        };
        witnesses.drops = given("dropped packets", || {
            DropsProbe::load(&subject.source, &witnesses.ports)
        });
        if let Some(netns) = &subject.netns
            && let Err(error) = looks::enter(netns)
        {
            say(format_args!(
                "probe: watch tells no causes of failed connections but dropped packets: {error:#}"
            ));
            return witnesses;
        }
        witnesses.netns = fs::metadata("/proc/thread-self/ns/net").map_or(0, |netns| netns.ino() as u32);
        witnesses.bypass = given("untracked packets", || {
            let mut probe = BypassProbe::load(&bypass::Options {
                netns: witnesses.netns,
                streams: STREAMS,
                source: subject.source.clone(),
            })?;
            probe.know_ports(&witnesses.ports)?;
            for degraded in &probe.degraded {
                without(degraded.hook.gives, &degraded.reason);
            }
            Ok::<_, KernelError>(probe)
        });
        witnesses.routing = given("addresses and devices", Routing::open);
        witnesses.vxlan = match Looker::new(&Vxlan::faults(subject.source.clone())) {
            Ok(looker) => Some(looker),
            Err(error) => {
                without("VXLAN", &format!("{error:#}"));
                None
            }
        };
        witnesses.look();
        witnesses
    }

    /// What shows only from look to look; makes room for what is new.
    pub fn look(&mut self) {
        if let Some(looker) = &mut self.vxlan {
            match looker.look(true) {
                Ok(view) => {
                    let tunnel = |finding: &crate::model::vxlan::finding::Finding| Tunnel {
                        fault: finding.fault,
                        networks: view.networks(finding),
                        what: finding.what.trim_end_matches('.').to_owned(),
                        remedy: finding.remedy.clone(),
                        certain: finding.certain,
                    };
                    self.tunnels = view.findings.iter().map(tunnel).collect();
                }
                Err(error) => {
                    without("VXLAN", &format!("{error:#}"));
                    self.vxlan = None;
                    self.tunnels.clear();
                }
            }
        }
        if self.tidied.elapsed() > IDLE {
            self.tidied = Instant::now();
            if let Some(probe) = &mut self.bypass {
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
        self.drops.as_ref().map_or(0, DropsProbe::lost) + self.bypass.as_ref().map_or(0, BypassProbe::rest)
    }

    /// The causes of failed connections, as far as something was seen.
    pub fn explain(&mut self, connections: &[&Connection], clock: &Clock) -> Vec<Option<Box<Cause>>> {
        let drops = self.dropped(connections, clock);
        let devices = self
            .routing
            .as_mut()
            .and_then(|routing| routing.devices().ok())
            .unwrap_or_default();
        let streams = self.streams(&devices);
        let own: HashSet<IpAddr> = self.own();
        let outside = self.outside();
        let untracked: Vec<Untracked> = streams
            .iter()
            .map(|(stream, count)| Untracked {
                stream: *stream,
                first: clock.time(count.first_ns),
                last: clock.time(count.last_ns),
                outside: stream.output.is_some_and(|device| outside.contains(&device)),
            })
            .collect();
        match &mut self.rules {
            Some(rules) => {
                rules.refresh(false, false);
            }
            None => {
                let mut rules = Rules::read_late();
                if let Some(Err(error)) = self.kube.take().map(|access| rules.ask(access)) {
                    without("the Kubernetes API", &error.to_string());
                }
                self.rules = Some(rules);
            }
        }
        let mut causes = Vec::new();
        // Once more with newer rules, where nobody is to blame by those that were read.
        for last in [false, true] {
            let Some(rules) = &self.rules else { break };
            let evidence = Evidence {
                services: rules.services(),
                untracked: &untracked,
                drops: &drops,
                tunnels: &self.tunnels,
                own: &own,
                netns: self.netns,
                rules: &Known {
                    rules,
                    streams: &streams,
                    devices: &devices,
                    own: &own,
                },
            };
            causes = connections
                .iter()
                .map(|connection| explain(connection, &evidence).map(Box::new))
                .collect();
            let puzzled = causes
                .iter()
                .flatten()
                .any(|cause| cause.rule.is_none() && matches!(cause.kind, Kind::Untracked | Kind::Dropped));
            let newer = self
                .rules
                .as_mut()
                .is_some_and(|rules| !last && puzzled && rules.refresh(true, true));
            if !newer {
                break;
            }
        }
        if let (Some(probe), Some(rules)) = (&mut self.bypass, &self.rules) {
            let ports = rules
                .services()
                .ports()
                .chain(self.ports.iter().copied())
                .collect();
            let _ = probe.know_ports(&ports);
        }
        causes
    }

    /// Dropped packets of these connections.
    fn dropped(&mut self, connections: &[&Connection], clock: &Clock) -> Vec<Dropped> {
        let Some(probe) = &self.drops else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let _ = probe.drops(|key, count| {
            let told = dropped(&key, &count, clock, probe.reasons.as_ref(), None);
            if connections.iter().any(|connection| told.is_of_client(connection)) {
                found.push((told, count.location));
            }
        });
        self.symbols.find(found.iter().map(|(_, location)| *location));
        found
            .into_iter()
            .map(|(told, location)| Dropped {
                at: self.symbols.name(location).map(str::to_owned),
                ..told
            })
            .collect()
    }

    fn streams(&self, devices: &[Device]) -> Vec<(Stream, Count)> {
        let mut streams = Vec::new();
        if let Some(probe) = &self.bypass {
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

impl Drop for Witnesses {
    fn drop(&mut self) {
        if let Some(probe) = &mut self.bypass {
            probe.detach();
        }
        if let Some(probe) = &mut self.drops {
            probe.detach();
        }
    }
}

/// What there is, or why not, said once.
fn given<T, E: std::error::Error + 'static>(what: &str, make: impl FnOnce() -> Result<T, E>) -> Option<T> {
    make().map_err(|error| without(what, &chain(&error))).ok()
}

fn without(what: &str, reason: &str) {
    say(format_args!(
        "probe: watch tells no causes of failed connections by {what}: {reason}"
    ));
}

/// The rules as they were read.
struct Known<'a> {
    rules: &'a Rules,
    streams: &'a [(Stream, Count)],
    devices: &'a [Device],
    own: &'a HashSet<IpAddr>,
}

impl Known<'_> {
    fn name(&self, index: u32) -> Option<String> {
        upper_name(self.devices, index).map(str::to_owned)
    }
}

impl Blame for Known<'_> {
    fn untracked(&self, untracked: &Untracked) -> Option<Blamed> {
        let (stream, count) = self
            .streams
            .iter()
            .find(|(stream, _)| *stream == untracked.stream)?;
        let culprits = self.rules.culprits(stream, count, |index| self.name(index));
        let culprit = culprits.into_iter().next()?;
        let rule = self.rules.known().get(&culprit.rule);
        Some(Blamed {
            remedy: rule.map_or_else(String::new, |rule| {
                format!(
                    "Take the rule away, or narrow it, and find who sets it: {}",
                    rule.remedy
                )
            }),
            rule: culprit.rule,
            certain: culprit.certain,
        })
    }

    fn dropped(&self, dropped: &Dropped) -> Option<Blamed> {
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
