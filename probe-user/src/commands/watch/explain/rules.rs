//! Evidence: netfilter's rules and the Services.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use crate::{
    attribution::kube::{Access, Credentials, ServiceList},
    commands::{bypass, rule_book::RuleBook, rules::Rules},
    model::{
        bypass::stream::{UntrackedCount, UntrackedStream},
        cause::{RuleSource, UntrackedPackets, dropped::DroppedPackets},
        network::{Device, upper_name},
        rule::CandidateRule,
    },
    netfilter::rules::{Packet, PathPosition},
};

const TCP: u8 = 6;

/// Rules that are read when the first connection fails.
pub struct LateRules {
    book: RuleBook,
    rules: Option<Rules>,
    /// How Kubernetes is asked for Services, until that begins.
    kube: Option<Access>,
    /// What already asks for them.
    services: Option<ServiceList>,
}

impl LateRules {
    pub fn new(kube: Option<Access>, services: Option<ServiceList>, book: RuleBook) -> Self {
        Self {
            book,
            rules: None,
            kube: kube.filter(|access| access.credentials != Credentials::Nobody),
            services,
        }
    }

    pub fn get(&self) -> Option<&Rules> {
        self.rules.as_ref()
    }

    /// Reads the Services at these addresses, where they were not read with the rules.
    pub fn look_up(&mut self, addresses: impl IntoIterator<Item = SocketAddr>) {
        if let Some(rules) = &mut self.rules {
            rules.look_up(TCP, addresses);
        }
    }

    /// Reads them where that is due; `puzzled`: they don't explain what was first there at that time (`CLOCK_MONOTONIC`
    /// nanoseconds). Whether they were read. `without` is given the reason for which the Kubernetes API can't be asked.
    pub fn refresh(&mut self, puzzled: Option<u64>, without: impl FnOnce(String)) -> bool {
        if let Some(rules) = &mut self.rules {
            return rules.refresh(puzzled.is_some(), puzzled);
        }
        let mut rules = Rules::read_late(self.book.clone());
        let services = match self.services.clone() {
            Some(services) => Ok(Some(services)),
            None => self.kube.take().map(ServiceList::start).transpose(),
        };
        match services {
            Ok(Some(services)) => rules.take(services),
            Ok(None) => {}
            Err(error) => without(error.to_string()),
        }
        self.rules = Some(rules);
        true
    }
}

/// The rules as they were read.
pub struct ReadRules<'a> {
    pub rules: &'a Rules,
    pub poller: Option<&'a bypass::Poller>,
    pub streams: &'a [(UntrackedStream, UntrackedCount)],
    pub devices: &'a [Device],
    pub own: &'a HashSet<IpAddr>,
}

impl ReadRules<'_> {
    fn name(&self, index: u32) -> Option<String> {
        upper_name(self.devices, index).map(str::to_owned)
    }
}

impl RuleSource for ReadRules<'_> {
    fn untracked(&self, untracked: &UntrackedPackets) -> Option<CandidateRule> {
        let (stream, count) = self
            .streams
            .iter()
            .find(|(stream, _)| *stream == untracked.stream)?;
        let candidates = self.rules.candidates(stream, count, |index| self.name(index));
        // A rule that was deleted meanwhile is the cause all the same.
        let before = || self.poller?.blamed(stream).first().cloned();
        candidates.into_iter().next().or_else(before)
    }

    fn dropped(&self, dropped: &DroppedPackets) -> Option<CandidateRule> {
        self.rules.dropper(&Packet {
            path: dropped.path(self.own),
            protocol: TCP,
            source: dropped.source.ip(),
            destination: dropped.destination.ip(),
            source_port: Some(dropped.source.port()),
            destination_port: Some(dropped.destination.port()),
            // A port: that of a bridge has chains before those of the bridge.
            input: dropped.input.and_then(|index| {
                let device = self.devices.iter().find(|device| device.index == index)?;
                Some(device.name.clone())
            }),
            output: None,
            is_new: false,
            position: PathPosition::Anywhere,
        })
    }

    fn unread(&self) -> Vec<String> {
        self.rules.unread()
    }
}
