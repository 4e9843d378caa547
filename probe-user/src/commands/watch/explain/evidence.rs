//! The evidence that explains why a connection failed, each kind collected by a type of its own. Nothing but hooks runs before
//! a connection fails.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt};

use super::{
    ExplainConfig, Observed,
    addresses::Addresses,
    drops::Drops,
    retry::Retry,
    rules::{LateRules, ReadRules},
    tunnels::Tunnels,
    untracked::Untracked,
};
use crate::{
    capture::clock::Clock,
    cli::Vxlan,
    commands::{periodic, rule_book::RuleBook, rules::Rules},
    error::chain,
    kernel::types::KernelTypes,
    model::{
        Cause, Connection,
        cause::{Evidence, UntrackedPackets, explain},
        part::{Part, State},
    },
    netfilter::rules::exemptions::Exemptions,
    report::say,
};

/// All evidence; what this kernel can't do is missing.
pub struct Collector {
    config: ExplainConfig,
    ports: HashSet<u16>,
    netns: u32,
    drops: Drops,
    untracked: Untracked,
    tunnels: Tunnels,
    addresses: Addresses,
    /// Rules, read once for all that use them.
    book: RuleBook,
    rules: LateRules,
    /// The revision of the Services whose ports the hooks know.
    known_services: Option<u64>,
    retry_tunnels: Retry,
    retry_untracked: Retry,
    /// For the causes of `watch`, hooks are attached once there may be something to see. Those that can't be are not tried again.
    exemptions: Exemptions,
    refused: HashSet<Part>,
}

impl Collector {
    /// In the node's network namespace, which this thread enters.
    pub fn new(mut config: ExplainConfig) -> Self {
        let services = config.observed.as_ref();
        let services = services.and_then(|observed| observed.known.services.clone());
        // The poller of untracked packets reports all rules and Services; a cause needs those of one connection.
        let polls = |observed: &Observed| observed.bypass.is_some();
        let book = if config.observed.as_ref().is_some_and(polls) {
            RuleBook::default()
        } else {
            RuleBook::for_packets()
        };
        let mut collector = Self {
            ports: config.ports.iter().copied().collect(),
            rules: LateRules::new(config.kube.take(), services, book.clone()),
            config,
            book,
            known_services: None,
            netns: 0,
            drops: Drops::default(),
            untracked: Untracked::Off,
            tunnels: Tunnels::default(),
            addresses: Addresses::default(),
            retry_tunnels: Retry::new(),
            retry_untracked: Retry::new(),
            exemptions: Exemptions::default(),
            refused: HashSet::new(),
        };
        // Held for all three objects. What is wrong with them is said by each.
        let _types = KernelTypes::hold(&collector.config.source);
        if collector.config.causes {
            collector.begin_drops();
        }
        if let Some(netns) = &collector.config.netns
            && let Err(error) = periodic::enter(netns)
        {
            say(format_args!(
                "warning: causes of failed connections are limited to dropped packets: {error:#}"
            ));
            return collector;
        }
        collector.netns = fs::metadata("/proc/thread-self/ns/net").map_or(0, |netns| netns.ino() as u32);
        if let Err(error) = collector.addresses.open() {
            without("addresses and devices", &chain(&error));
        }
        if collector.config.observed.is_some() {
            collector.begin_untracked();
            collector.begin_tunnels();
        }
        collector.poll();
        collector
    }

    /// Attaches what there may be something to see for by now, and takes away what has nothing to see any more: a packet is untracked by a
    /// rule, and a VXLAN device has faults. Hooks that see nothing cost time with every packet.
    fn attach_what_is_needed(&mut self) {
        // The node's network namespace could not be entered.
        if self.netns == 0 {
            return;
        }
        let is_refused = self.refused.contains(&Part::Bypass);
        let may_be_untracked = !is_refused && self.exemptions.may_exist();
        if may_be_untracked && self.untracked.is_off() {
            self.begin_untracked();
        } else if !may_be_untracked && self.untracked.is_idle() {
            self.untracked = Untracked::Off;
        }
        if self.tunnels.is_off()
            && !self.refused.contains(&Part::Vxlan)
            && self
                .addresses
                .devices()
                .iter()
                .any(|device| device.vxlan.is_some())
        {
            self.begin_tunnels();
        }
    }

    fn begin_drops(&mut self) {
        let begun = self.drops.begin(&self.config.source, &self.ports);
        match begun.map_err(|error| chain(&error)) {
            Ok(()) => self.runs(Part::Drops, Vec::new()),
            Err(reason) => self.fails(Part::Drops, &reason),
        }
    }

    fn begin_untracked(&mut self) {
        let begun = match &self.config.observed {
            Some(Observed { bypass: None, .. }) => return,
            Some(Observed {
                bypass: Some(settings),
                known,
                ..
            }) => Untracked::poll_all(settings, known.clone(), self.book.clone())
                .map_err(|error| format!("{error:#}")),
            None => {
                Untracked::count(self.netns, &self.config.source, &self.ports).map_err(|error| chain(&error))
            }
        };
        match begun {
            Ok((lacks, untracked)) => {
                self.untracked = untracked;
                if self.config.observed.is_none() {
                    for lack in &lacks {
                        without(lack, "not available on this kernel");
                    }
                }
                self.runs(Part::Bypass, lacks);
            }
            Err(reason) => self.fails(Part::Bypass, &reason),
        }
    }

    fn begin_tunnels(&mut self) {
        let settings = match &self.config.observed {
            Some(Observed { vxlan: None, .. }) => return,
            Some(Observed {
                vxlan: Some(settings),
                ..
            }) => settings,
            None => &Vxlan::faults(self.config.source.clone()),
        };
        match self.tunnels.begin(settings, self.book.clone()) {
            Ok(lacks) => self.runs(Part::Vxlan, lacks),
            Err(error) => self.fails(Part::Vxlan, &format!("{error:#}")),
        }
    }

    fn runs(&mut self, part: Part, lacks: Vec<String>) {
        if let Some(observed) = &mut self.config.observed {
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
        match &mut self.config.observed {
            Some(observed) => observed.by.state(part, State::Failed(reason.to_owned())),
            None => {
                self.refused.insert(part);
                without(what, reason);
            }
        }
    }

    /// What need not be done before the hooks are said to be attached.
    pub fn settle(&mut self) {
        self.drops.leave_out_settled();
    }

    /// What shows only from interval to interval; makes room for what is new.
    pub fn poll(&mut self) {
        if self.config.observed.is_some() {
            if self.tunnels.is_off() && self.retry_tunnels.is_due() {
                self.begin_tunnels();
            }
            if self.untracked.is_off() && self.retry_untracked.is_due() {
                self.begin_untracked();
            }
        } else {
            self.attach_what_is_needed();
        }
        match self.tunnels.poll() {
            Ok(view) => {
                if let (Some(view), Some(observed)) = (view, &mut self.config.observed) {
                    observed.by.vxlan(view);
                }
            }
            Err(error) => self.fails(Part::Vxlan, &format!("{error:#}")),
        }
        match self.untracked.poll() {
            Ok(view) => {
                if let (Some(view), Some(observed)) = (view, &mut self.config.observed) {
                    observed.by.bypass(view);
                }
            }
            Err(error) => {
                self.untracked = Untracked::Off;
                self.fails(Part::Bypass, &format!("{error:#}"));
            }
        }
        let lost = self.lost();
        if let Some(observed) = &mut self.config.observed {
            observed.by.polled(lost);
        }
    }

    /// Dropped and untracked packets that found no room.
    pub fn lost(&self) -> u64 {
        self.drops.lost() + self.untracked.lost()
    }

    /// How often newer rules were wanted, and not read for the budget of CPU time.
    pub fn rules_skipped(&self) -> u64 {
        self.book.skipped()
    }

    /// The causes of failed connections, as far as there is evidence.
    pub fn explain(&mut self, connections: &[&Connection], clock: &Clock) -> Vec<Option<Box<Cause>>> {
        let (drops, newest_drop) = self.drops.of(connections, clock);
        let devices = self.addresses.devices();
        let streams = self.untracked.tcp_streams(&devices);
        let own = self.addresses.own();
        let outside = self.addresses.outside();
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
        // Rules read before they could have done it are no evidence that none did.
        let newest_stream = streams.iter().map(|(_, count)| count.first_ns).max();
        let newest_ns = newest_stream.max(newest_drop).unwrap_or(0);
        let mut causes: Vec<Option<Box<Cause>>> = Vec::new();
        // Once more with newer rules, where those that were read explain nothing.
        for last in [false, true] {
            self.rules
                .look_up(connections.iter().map(|connection| connection.asked()));
            let Some(rules) = self.rules() else { break };
            let evidence = Evidence {
                services: rules.services(),
                untracked: &untracked,
                drops: &drops,
                tunnels: self.tunnels.faulty(),
                own: &own,
                netns: self.netns,
                rules: &ReadRules {
                    rules,
                    poller: self.untracked.poller(),
                    streams: &streams,
                    devices: &devices,
                    own: &own,
                },
            };
            causes = connections
                .iter()
                .map(|connection| explain(connection, &evidence).map(Box::new))
                .collect();
            let puzzled = causes.iter().flatten().any(|cause| cause.lacks_rule());
            let newer = !last && puzzled && self.refresh(Some(newest_ns));
            if !newer {
                break;
            }
        }
        if let Some(rules) = self.rules.get()
            && self.known_services != Some(rules.services_revision())
        {
            self.known_services = Some(rules.services_revision());
            let own = &self.ports;
            let services = rules.services();
            self.untracked
                .know_ports(|| services.ports().chain(own.iter().copied()).collect());
        }
        causes
    }

    /// A poller's, or those read late.
    fn rules(&self) -> Option<&Rules> {
        match self.untracked.poller() {
            Some(poller) => Some(poller.rules()),
            None => self.rules.get(),
        }
    }

    fn refresh(&mut self, puzzled: Option<u64>) -> bool {
        match self.untracked.poller_mut() {
            Some(poller) => poller.refresh(puzzled),
            None => self
                .rules
                .refresh(puzzled, |reason| without("the Kubernetes API", &reason)),
        }
    }
}

fn without(what: &str, reason: &str) {
    say(format_args!(
        "warning: causes of failed connections by {what} will be missing: {reason}"
    ));
}
