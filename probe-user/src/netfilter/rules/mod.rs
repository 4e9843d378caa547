//! Which rule dropped a packet, or left it untracked: iptables (both kinds) and nftables.
//!
//! The kernel says that netfilter dropped a packet, not by which rule. So the rules of the network namespace
//! are read with the node's own tools, or from the kernel where they're missing, and the packet is walked through
//! them. What a rule asks that can't be known from here (conntrack states, marks, limits, ipsets) may match or not: such a rule is named as
//! possible, and ends nothing.

mod by_action;
mod expression;
mod iptables;
mod matching;
mod model;
mod names;
mod netlink;
mod nft;
mod nft_text;
pub(super) mod read;
#[cfg(test)]
mod tests;
pub(crate) mod tools;
mod walk;

use std::{
    collections::HashSet,
    fmt::{self, Display, Formatter},
    net::IpAddr,
};

use self::{
    model::{Table, clean},
    read::Outputs,
};
use crate::model::bypass::service::Service;

/// Whose rule it is: the tool that shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tool {
    /// `iptables-legacy`: x_tables of the kernel.
    IptablesLegacy,
    /// `iptables-nft`: rules of iptables, kept by nf_tables.
    IptablesNft,
    /// `nft`.
    Nft,
}

impl Tool {
    /// The command's name. That for IPv6 differs with iptables.
    pub fn name(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::IptablesLegacy, Family::Ip6) => "ip6tables-legacy",
            (Self::IptablesLegacy, Family::Ip | Family::Inet | Family::Netdev) => "iptables-legacy",
            (Self::IptablesNft, Family::Ip6) => "ip6tables-nft",
            (Self::IptablesNft, Family::Ip | Family::Inet | Family::Netdev) => "iptables-nft",
            (Self::Nft, Family::Ip | Family::Ip6 | Family::Inet | Family::Netdev) => "nft",
        }
    }
}

probe_model::names! {
    /// Of which packets a table is, as nft writes it. Those that no IP packet of ours goes through (bridge, arp) are none.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Family {
        /// IPv4.
        Ip = "ip",
        /// IPv6.
        Ip6 = "ip6",
        /// Both.
        Inet = "inet",
        /// Both, at a device.
        Netdev = "netdev",
    }
}

impl Family {
    /// Whether packets of this address's kind go through the family's tables.
    fn covers(self, address: IpAddr) -> bool {
        match self {
            Self::Ip => address.is_ipv4(),
            Self::Ip6 => address.is_ipv6(),
            Self::Inet | Self::Netdev => true,
        }
    }
}

/// What a rule did to the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Dropped it without a word.
    Drop,
    /// Dropped it and told the sender.
    Reject,
    /// Kept it from connection tracking. The packet goes on.
    NoTrack,
}

/// Which hooks the packet came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// To this network namespace: prerouting, input.
    In,
    /// From this network namespace: output, postrouting.
    Out,
    /// Through this network namespace: prerouting, forward, postrouting.
    Forward,
}

/// What is known of the packet. Unknown is not the same as absent: a rule that asks for it then may match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Which hooks it came by.
    pub path: Path,
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
}

/// Where in its chain a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RulePosition {
    /// Counted from 1, as `iptables -L --line-numbers` does.
    Position(u32),
    /// The handle, as `nft --handle list ruleset` shows.
    Handle(u64),
    /// No rule of the chain: its policy.
    Policy,
}

/// A rule, or a chain's policy, that did it or may have done it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Whose rule it is.
    pub tool: Tool,
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// Where in the chain.
    pub place: RulePosition,
    /// The rule as its tool writes it, without counters, 200 characters at the most. Free of control
    /// characters.
    pub text: String,
    /// What it does.
    pub action: Action,
    /// Every match of the rule is understood and matches, and so does every jump on the way: a packet that
    /// comes to the rule is caught by it. Rules before it may still have let the packet go.
    pub certain: bool,
    /// How many packets the rule, or the policy, counted; `None` where it doesn't count.
    pub packets: Option<u64>,
}

impl Suspect {
    /// What takes the rule away, as a command of its tool.
    pub fn removal(&self) -> String {
        let tool = self.tool.name(self.family);
        let (table, chain) = (clean(&self.table), clean(&self.chain));
        // What the text doesn't say whole can't be repeated.
        let cut = self.text.ends_with('…') || netlink::is_partly_read(&self.text);
        match (self.tool, self.place, self.text.strip_prefix("-A ")) {
            (Tool::IptablesLegacy | Tool::IptablesNft, RulePosition::Position(_), Some(rule)) if !cut => {
                format!("{tool} -t {table} -D {rule}")
            }
            (Tool::IptablesLegacy | Tool::IptablesNft, RulePosition::Position(position), _) => {
                format!("{tool} -t {table} -D {chain} {position}")
            }
            (Tool::Nft, RulePosition::Handle(handle), _) => {
                format!(
                    "nft delete rule {} {table} {chain} handle {handle}",
                    self.family.name()
                )
            }
            (Tool::IptablesLegacy | Tool::IptablesNft, RulePosition::Policy, _) => {
                format!("{tool} -t {table} -P {chain} ACCEPT")
            }
            (Tool::Nft, RulePosition::Policy, _) => {
                let family = self.family.name();
                format!("nft chain {family} {table} {chain} '{{ policy accept; }}'")
            }
            (Tool::IptablesLegacy | Tool::IptablesNft, RulePosition::Handle(_), _)
            | (Tool::Nft, RulePosition::Position(_), _) => {
                format!("{tool}: {table} {chain}: {}", self.text)
            }
        }
    }
}

impl Display for Suspect {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.tool.name(self.family))?;
        match self.tool {
            Tool::IptablesLegacy | Tool::IptablesNft => {}
            Tool::Nft => write!(f, "{} ", self.family.name())?,
        }
        write!(f, "{} {} ", clean(&self.table), clean(&self.chain))?;
        match self.place {
            RulePosition::Position(position) => write!(f, "rule {position}: {}", self.text),
            RulePosition::Handle(handle) => write!(f, "handle {handle}: {}", self.text),
            RulePosition::Policy => f.write_str(&self.text),
        }
    }
}

/// Node ports of Services whose own port is 443, as kube-proxy's rules of the calling thread's network namespace have them,
/// each with its Service's name. In mode iptables only.
pub fn https_node_ports() -> Vec<(String, u16)> {
    super::services::https_node_ports(&read::outputs())
}

/// Tables told of one hook.
const PASSED: usize = 32;

/// The rules of a network namespace, as they were when read.
#[derive(Debug, Default)]
pub struct Rules {
    tables: Vec<Table>,
    unread: Vec<String>,
}

impl Rules {
    /// Reads the rules of the calling thread's network namespace with the tools found on this machine, and from the
    /// kernel what they leave out.
    ///
    /// Nothing here fails: what can't be read is told by [`Rules::unread`]. Each tool has three seconds, and so has
    /// the kernel.
    pub fn read() -> Self {
        Self::of(read::outputs())
    }

    /// The same, with the Services that kube-proxy made rules of.
    pub fn read_with_services() -> (Self, Vec<Service>) {
        let outputs = read::outputs();
        let services = super::services::of(&outputs);
        (Self::of(outputs), services)
    }

    /// The rules that may have done one of `actions` to the packet, in the order the packet meets them; 16 at
    /// the most.
    ///
    /// The walk is bounded, so of a ruleset that's built to be endless only the beginning is looked at.
    pub fn suspects(&self, packet: &Packet, actions: &[Action]) -> Vec<Suspect> {
        walk::suspects(&self.tables, packet, actions)
    }

    /// Every rule that does `action`, whether or not a packet can come to it, in no order; none is certain.
    pub fn every(&self, action: Action) -> Vec<Suspect> {
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
                    Tool::IptablesLegacy | Tool::IptablesNft => format!("{tool} {}", clean(&table.name)),
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

    /// The rules in what the tools printed.
    fn of(outputs: Outputs) -> Self {
        let mut rules = Self {
            tables: Vec::new(),
            unread: outputs.unread,
        };
        for save in &outputs.saves {
            rules
                .tables
                .extend(iptables::tables(save.tool, save.family, &save.text));
        }
        let Some(json) = outputs.nft else {
            for save in &outputs.saves {
                rules
                    .unread
                    .extend(iptables::incompatible(&save.text).map(|table| {
                        let name = save.tool.name(save.family);
                        format!("{name} can't show its table {table}, and nft couldn't be asked")
                    }));
            }
            return rules;
        };
        match nft::tables(&json, &nft_text::listed(&outputs.nft_text.unwrap_or_default())) {
            Ok(tables) => {
                // What iptables-nft keeps is shown by nft as well. Its users know it by iptables' account.
                let known: HashSet<(Family, String)> = rules
                    .tables
                    .iter()
                    .filter(|table| table.tool == Tool::IptablesNft)
                    .map(|table| (table.family, table.name.clone()))
                    .collect();
                let more = tables
                    .into_iter()
                    .filter(|t| !known.contains(&(t.family, t.name.clone())));
                rules.tables.extend(more);
            }
            Err(error) => {
                rules.unread.push(format!(
                    "nft's list of rules isn't understood: {}",
                    clean(&error.to_string())
                ));
            }
        }
        rules
    }
}
