//! Which rule dropped a packet, or left it untracked: iptables (both kinds) and nftables.
//!
//! The kernel says that netfilter dropped a packet, not by which rule. So the rules of the network namespace are read from the kernel,
//! chain by chain, and the packet is walked through them. What a rule asks that can't be known from here (conntrack states, marks,
//! limits, ipsets) may match or not: such a rule is named as possible, and ends nothing.

mod by_action;
pub mod counters;
mod ebtables;
pub mod exemptions;
mod expression;
pub mod fingerprint;
mod iptables;
mod matching;
mod model;
mod names;
mod nat;
mod netlink;
mod nft;
mod nft_text;
pub(super) mod read;
mod stage;
#[cfg(test)]
mod tests;
mod walk;
mod whole;
mod xtables;

use std::{collections::HashSet, mem, net::IpAddr, sync::Arc, time::Duration};

use self::{
    model::Table,
    nat::NatReader,
    netlink::{Aim, ChainReader, DumpError, ListedServices},
    read::{Outputs, Reading},
    stage::Bridges,
    xtables::TableFingerprint,
};
pub use self::{stage::PathPosition, whole::complete};
use crate::{
    host::cpu::CpuMeter,
    model::{
        bypass::service::{Service, ServiceRules},
        rule::{Action, CandidateRule, Family, PacketPath, RulePosition, Tool, clean},
    },
    netfilter::services::RuleSets,
};

/// What is known of the packet. Unknown is not the same as absent: a rule that asks for it then may match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Which hooks it came by.
    pub path: PacketPath,
    /// The transport protocol's number (6 is TCP, 17 is UDP).
    pub protocol: u8,
    /// Where it comes from, as it was when dropped: translation isn't undone.
    pub source: IpAddr,
    /// Where it goes, as it was when dropped.
    pub destination: IpAddr,
    /// `None` is unknown.
    pub source_port: Option<u16>,
    /// `None` is unknown.
    pub destination_port: Option<u16>,
    /// The device it came in by; `None` is unknown.
    pub input: Option<String>,
    /// The device it was to leave by; `None` is unknown.
    pub output: Option<String>,
    /// It is the first of its connection, and conntrack knows it.
    pub is_new: bool,
    /// Where something happened to it.
    pub position: PathPosition,
}

/// Tables told of one hook.
const PASSED: usize = 32;

/// Rules told that choose a conntrack zone.
const ZONES: usize = 16;

/// The conntrack zone that a rule chooses, as iptables-save (`--zone`, `--zone-orig`) and nft (`ct zone set`) print it.
fn zone(text: &str) -> Option<u16> {
    let before_comment = text.split(" comment \"").next().unwrap_or_default();
    let mut words = before_comment.split_whitespace();
    while let Some(word) = words.next() {
        let is_zone = matches!(word, "--zone" | "--zone-orig" | "--zone-reply")
            || word == "zone" && words.clone().next() == Some("set");
        if is_zone {
            return words.find_map(|word| word.parse().ok());
        }
    }
    None
}

/// The rules of a network namespace, as they were when read.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    tables: Arc<Vec<Table>>,
    /// Chains of type nat, where they are read for the packets that meet them.
    nat: Option<Arc<NatReader>>,
    /// Those of these chains that are at hooks, without their rules.
    nat_hooks: Arc<Vec<Table>>,
    has_services_late: bool,
    /// The CPU time that listing all Services took.
    listing: Duration,
    legacy: Arc<Vec<TableFingerprint>>,
    bridges: Bridges,
    unread: Vec<String>,
    /// Something could not be read that may be the next time.
    failed: bool,
    /// Some rules have devices by their numbers, and were read with the names that these had.
    names_devices: bool,
}

impl Rules {
    /// Reads the rules of the calling thread's network namespace: from the kernel, and by the tools what it doesn't tell. Rules in
    /// nf_tables' chains of type nat are read when a packet meets them. And the Services that kube-proxy made rules of, by rule set;
    /// those of nf_tables with endpoints are read by [`Rules::services_at`].
    ///
    /// Nothing here fails: what can't be read is told by [`Rules::unread`]. Each tool has three seconds, and so has the kernel.
    pub fn read() -> (Self, Vec<ServiceRules>) {
        Self::read_with(|_| None)
    }

    /// The same, with all Services.
    pub fn read_with_services() -> (Self, Vec<ServiceRules>) {
        Self::read_with(|reader| Some(reader.services()))
    }

    /// The rules as their tools print them, all at once, and from the kernel where these are missing: what [`Rules::read`] falls back
    /// on.
    pub fn read_by_tools() -> Self {
        Self::of(read::all_by_tools())
    }

    fn read_with(
        list: impl FnOnce(&mut ChainReader) -> Option<Result<ListedServices, DumpError>>,
    ) -> (Self, Vec<ServiceRules>) {
        let Reading {
            outputs,
            bridge,
            legacy,
            mut reader,
        } = read::rules();
        let meter = CpuMeter::start();
        let listed = reader.as_mut().and_then(list).transpose();
        let nat = reader.filter(ChainReader::has_nat);
        let listing = meter.spent();
        let mut sets = RuleSets::default();
        let (mut tables, mut fingerprints) = (Vec::new(), Vec::new());
        // In this order, which a finding has.
        for legacy in legacy {
            tables.extend(legacy.tables);
            fingerprints.extend(legacy.fingerprints);
            sets.add(Tool::IptablesLegacy, legacy.services);
        }
        let is_listed = matches!(listed, Ok(Some(_)));
        let has_services_late = nat.is_some() && !is_listed;
        let unlisted = match listed {
            Ok(listed) => {
                let listed = listed.unwrap_or_default();
                sets.add(Tool::IptablesNft, listed.iptables);
                sets.add(Tool::Nft, listed.nft);
                None
            }
            Err(error) => Some(format!("Services were not listed: {error}")),
        };
        // A list has all of those that are in maps, and those with endpoints of chains.
        sets.add_all(&outputs, |tool| !is_listed || tool != Tool::Nft);
        let hooks = nat
            .as_ref()
            .map(|reader| rule_tables(&reader.nat_hooks().into()).0);
        let mut rules = Self::of(outputs);
        rules.failed |= unlisted.is_some();
        rules.unread.extend(unlisted);
        tables.extend(Arc::into_inner(rules.tables).unwrap_or_default());
        if let Some(bridge) = bridge.map(Self::of) {
            tables.extend(Arc::into_inner(bridge.tables).unwrap_or_default());
            rules.unread.extend(bridge.unread);
            rules.failed |= bridge.failed;
            rules.names_devices |= bridge.names_devices;
        }
        whole::complete_exempting(&mut tables);
        (
            Self {
                tables: Arc::new(tables),
                nat: nat.map(|reader| Arc::new(NatReader::new(reader))),
                nat_hooks: Arc::new(hooks.unwrap_or_default()),
                has_services_late,
                listing,
                legacy: Arc::new(fingerprints),
                ..rules
            },
            sets.with_ipvs(),
        )
    }

    /// Whether Services with endpoints were not read with the rules.
    pub fn has_services_late(&self) -> bool {
        self.has_services_late
    }

    /// The tables of iptables-legacy, as they were when they were read.
    fn legacy(&self) -> &[TableFingerprint] {
        &self.legacy
    }

    /// The CPU time of reading them that it took to list all Services.
    pub fn listing(&self) -> Duration {
        self.listing
    }

    /// Services at an address that were not read with the rules.
    pub fn services_at(&self, protocol: u8, address: IpAddr, port: u16) -> Vec<Service> {
        let aim = Aim {
            protocol,
            destination: address.to_canonical(),
            port: Some(port),
        };
        self.nat.as_ref().map(|nat| nat.services(aim)).unwrap_or_default()
    }

    /// Rules that put packets into a conntrack zone, each with the zone; [`ZONES`] at the most, zone 0 left out. Their conditions
    /// are not looked at.
    pub fn zones(&self) -> Vec<(CandidateRule, u16)> {
        let mut zones = Vec::new();
        for table in self.tables.iter() {
            for chain in table.chains() {
                for rule in &chain.rules {
                    let zone = zone(&rule.text).filter(|zone| *zone != 0);
                    if let Some(zone) = zone.filter(|_| zones.len() < ZONES) {
                        let rule = model::RuleOrPolicy::Rule(rule);
                        zones.push((table.candidate(chain, rule, Action::NoTrack, false, false), zone));
                    }
                }
            }
        }
        zones
    }

    /// The rules that may have done one of `actions` to the packet, in the order the packet meets them; 16 at
    /// the most.
    ///
    /// The walk is bounded, so of a ruleset that's built to be endless only the beginning is looked at.
    pub fn candidates(&self, packet: &Packet, actions: &[Action]) -> Vec<CandidateRule> {
        let nat = self.nat.as_ref().map(|nat| nat.met_by(packet));
        let is_whole = nat.as_ref().is_none_or(Option::is_some);
        let nat = nat.flatten();
        let met = nat.iter().flat_map(|nat| &nat.tables);
        let tables: Vec<&Table> = self.tables.iter().chain(met).collect();
        let mut candidates = walk::candidates(&tables, &self.bridges, packet, actions);
        if !is_whole {
            // A rule of nat may have done it.
            for candidate in &mut candidates {
                candidate.certain = false;
            }
        }
        candidates
    }

    /// Where a packet is that came by one device and is at another, as the kernel has it when it drops the packet.
    pub fn position(&self, input: Option<&str>, device: Option<&str>) -> PathPosition {
        self.bridges.position(input, device)
    }

    /// Every rule that does `action`, whether or not a packet can come to it, in no order; none is certain.
    pub fn every(&self, action: Action) -> Vec<CandidateRule> {
        by_action::rules(&self.tables, action)
    }

    /// The tables whose chains a packet meets at a hook, named as in `PREROUTING`, in their order: `iptables-legacy raw`,
    /// `nft inet shop pre`.
    pub fn passed(&self, hook: &str, is_v6: bool) -> Vec<String> {
        let meets = |family| {
            matches!(
                (family, is_v6),
                (Family::Inet, _) | (Family::Ip, false) | (Family::Ip6, true)
            )
        };
        let mut passed: Vec<(i64, String)> = self
            .tables
            .iter()
            .chain(self.nat_hooks.iter())
            .filter(|table| meets(table.family) && !table.dormant)
            .flat_map(|table| table.chains().iter().map(move |chain| (table, chain)))
            .filter_map(|(table, chain)| {
                let base = chain
                    .base
                    .as_ref()
                    .filter(|base| model::Hook::of_name(hook) == Some(base.hook))?;
                let tool = table.tool.name(table.family);
                let name = match table.tool {
                    Tool::Nft => {
                        let (family, name) = (table.family.name(), clean(&table.name));
                        format!("{tool} {family} {name} {}", clean(&chain.name))
                    }
                    Tool::IptablesLegacy | Tool::IptablesNft | Tool::EbtablesLegacy | Tool::EbtablesNft => {
                        format!("{tool} {}", clean(&table.name))
                    }
                };
                Some((base.priority, name))
            })
            .take(PASSED)
            .collect();
        passed.sort_by_key(|(priority, _)| *priority);
        passed.into_iter().map(|(_, name)| name).collect()
    }

    /// What could not be read, in sentences.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// What could not be read when a packet met it, in a sentence.
    pub fn unread_late(&self) -> Option<String> {
        self.nat.as_ref()?.failed()
    }

    /// The rules in what the tools printed.
    fn of(mut outputs: Outputs) -> Self {
        let (tables, not_understood) = rule_tables(&outputs);
        let mut unread = mem::take(&mut outputs.unread);
        if outputs.nft.is_none() {
            for save in &outputs.saves {
                unread.extend(iptables::incompatible(&save.text).map(|table| {
                    let name = save.tool.name(save.family);
                    format!("{name} can't show its table {table}, and nft failed")
                }));
            }
        }
        unread.extend(not_understood);
        let names_devices = |json: &String| ["\"iif\"", "\"oif\""].iter().any(|key| json.contains(key));
        Self {
            tables: Arc::new(tables),
            nat: None,
            nat_hooks: Arc::default(),
            has_services_late: false,
            listing: Duration::ZERO,
            legacy: Arc::default(),
            bridges: outputs.bridges,
            unread,
            failed: outputs.failed,
            names_devices: outputs.nft.as_ref().is_some_and(names_devices),
        }
    }
}

/// The tables in what the tools printed, and what of it isn't understood, in a sentence.
fn rule_tables(outputs: &Outputs) -> (Vec<Table>, Option<String>) {
    let mut tables = Vec::new();
    for save in &outputs.saves {
        tables.extend(match save.tool {
            Tool::EbtablesLegacy | Tool::EbtablesNft => ebtables::tables(save.tool, &save.text),
            Tool::IptablesLegacy | Tool::IptablesNft | Tool::Nft => {
                iptables::tables(save.tool, save.family, &save.text)
            }
        });
    }
    let Some(json) = &outputs.nft else {
        return (tables, None);
    };
    let listed = nft_text::listed(outputs.nft_text.as_deref().unwrap_or_default());
    match nft::tables(json, &listed) {
        Ok(more) => {
            let more = unknown(&tables, more);
            tables.extend(more);
            (tables, None)
        }
        Err(error) => {
            let error = clean(&error.to_string());
            (
                tables,
                Some(format!("nft's list of rules isn't understood: {error}")),
            )
        }
    }
}

/// What nft shows more than `known`: what iptables-nft and ebtables-nft keep is shown by nft as well, and its users know it by
/// iptables' account. Tables of one name are shared: chains that nft alone has made in one are not in iptables' account.
fn unknown(known: &[Table], tables: Vec<Table>) -> Vec<Table> {
    let known: HashSet<(Family, String, String)> = known
        .iter()
        .filter(|table| matches!(table.tool, Tool::IptablesNft | Tool::EbtablesNft))
        .flat_map(|table| table.chains().iter().map(move |chain| (table, chain)))
        .map(|(table, chain)| (table.family, table.name.clone(), chain.name.clone()))
        .collect();
    let more = tables.into_iter().filter_map(|mut table| {
        let (family, name) = (table.family, table.name.clone());
        table.retain_chains(|chain| !known.contains(&(family, name.clone(), chain.to_owned())));
        (!table.chains().is_empty()).then_some(table)
    });
    more.collect()
}
