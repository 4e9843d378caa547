//! Rule sets: some chains at some hooks, with rules that a packet often meets.

use std::net::Ipv4Addr;

use probe_user::model::rule::PacketPath;

use crate::{
    network,
    packet::{ICMP, PORTS, TCP, TestPacket, UDP},
    random::Random,
    render,
    truth::Moved,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    Legacy,
    IptablesNft,
    Nft,
}

/// A hook, with where in it the chains are.
#[derive(Clone, Debug)]
pub struct Attached {
    pub stack: Stack,
    /// Of iptables, or of nft (all sets have one of their own).
    pub table: &'static str,
    /// As nft writes it.
    pub hook: &'static str,
    pub priority: i64,
    /// nft: of type nat, which only the first packet of a connection meets.
    pub is_nat: bool,
    /// nft: the policy is drop, and what is at the end of the chain is counted under this id.
    pub policy: Option<u32>,
    /// The first is reached from the hook; others are jumped to.
    pub chains: Vec<Vec<GeneratedRule>>,
}

#[derive(Clone, Debug)]
pub struct GeneratedRule {
    pub id: u32,
    pub conditions: Vec<Matching>,
    pub target: Target,
    /// What its counter begins with; `None`: it has none that probe reads.
    pub counter: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Drop,
    Reject,
    Accept,
    Return,
    Jump(usize),
    Goto(usize),
    NoTrack,
    Nothing,
}

#[derive(Clone, Debug)]
pub enum Matching {
    Source(Ipv4Addr, u8, bool),
    Destination(Ipv4Addr, u8, bool),
    SourceRange(Ipv4Addr, Ipv4Addr, bool),
    Protocol(u8, bool),
    /// nft: of several.
    Protocols(Vec<u8>),
    SourcePort(u16, u16, bool),
    DestinationPort(u16, u16, bool),
    /// Which ports: source, destination, either; ranges.
    Ports(Side, Vec<(u16, u16)>, bool),
    Input(&'static str, bool),
    Output(&'static str, bool),
    /// The destination is the router's.
    Local(bool),
    /// What probe can't know: in words of iptables, and of nft.
    Opaque(&'static str, &'static str),
    /// nft: source or destination in a named set, with its elements.
    Named(bool, Vec<(Ipv4Addr, u8)>, bool),
    /// nft: source address and destination port, together.
    Pairs(Vec<(Ipv4Addr, u16)>),
    /// nft: the verdict of the rule's target is given by a map.
    Map(Vec<(u16, u16)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
    Either,
}

const OPAQUE: [(&str, &str); 7] = [
    ("-m mark --mark 0x1/0x1", "meta mark & 0x1 == 0x1"),
    ("-m conntrack --ctstate NEW", "ct state new"),
    (
        "-m conntrack ! --ctstate INVALID,ESTABLISHED",
        "ct state != established",
    ),
    ("-m length --length 0:38", "ip length < 39"),
    (
        "-m statistic --mode random --probability 0.5",
        "numgen random mod 2 == 0",
    ),
    ("-m ttl --ttl-gt 60", "ip ttl > 60"),
    ("-m limit --limit 2/second", "limit rate 2/second"),
];

pub struct RuleSet {
    pub random: Random,
    /// The third byte of its packets' source.
    pub net: u8,
    pub attached: Vec<Attached>,
    next: TestPacket,
    ids: u32,
}

impl RuleSet {
    /// The one with this place among those that are loaded together.
    pub fn generate(mut random: Random, place: u64) -> Self {
        let net = u8::try_from(place).unwrap();
        let next = TestPacket::generate(&mut random, net);
        let mut set = Self {
            random,
            net,
            attached: Vec::new(),
            next,
            ids: u32::from(net) * 1000,
        };
        let stacks: &[Stack] = match set.random.below(5) {
            0 => &[Stack::Legacy],
            1 => &[Stack::IptablesNft],
            2 | 3 => &[Stack::Nft],
            _ => &[Stack::Legacy, Stack::IptablesNft, Stack::Nft],
        };
        for _ in 0..set.random.between(1, 4) {
            let stack = set.random.pick(stacks);
            set.attach(stack);
        }
        set
    }

    /// Another packet each time.
    pub fn packet(&mut self) -> TestPacket {
        let again = TestPacket::generate(&mut self.random, self.net);
        std::mem::replace(&mut self.next, again)
    }

    /// Its rules, as they are loaded.
    pub fn text(&self) -> String {
        render::files(&[self])
            .into_iter()
            .map(|(program, text)| format!("{program}:\n{text}"))
            .collect()
    }

    fn id(&mut self) -> u32 {
        self.ids += 1;
        self.ids
    }

    fn attach(&mut self, stack: Stack) {
        let hooks: &[&str] = match self.next.path {
            PacketPath::In => &["prerouting", "input"],
            PacketPath::Forward => &["prerouting", "forward", "postrouting"],
            PacketPath::Out => &["output", "postrouting"],
        };
        let hook = self.random.pick(hooks);
        let (table, priority) = match stack {
            Stack::Legacy | Stack::IptablesNft => {
                let tables: &[(&str, i64)] = match hook {
                    "prerouting" => &[("raw", -300), ("mangle", -150)],
                    "postrouting" => &[("mangle", -150)],
                    "output" => &[("raw", -300), ("mangle", -150), ("filter", 0), ("security", 50)],
                    _ => &[("mangle", -150), ("filter", 0), ("filter", 0), ("security", 50)],
                };
                self.random.pick(tables)
            }
            Stack::Nft => (
                self.random.pick(&["inet", "ip"]),
                self.random.pick(&[-300, -300, -150, 0, 0, 10, 50]),
            ),
        };
        let is_nat = stack == Stack::Nft && hook != "forward" && self.random.percent(15);
        let priority = match hook {
            "prerouting" | "output" if is_nat => -100,
            _ if is_nat => 100,
            _ => priority,
        };
        if self.attached.iter().any(|other| {
            stack != Stack::Nft && (other.stack, other.table, other.hook) == (stack, table, hook)
        }) {
            return;
        }
        let policy = (stack == Stack::Nft && self.random.percent(25)).then(|| self.id());
        let count = usize::try_from(self.random.between(1, 4)).unwrap();
        let mut attached = Attached {
            stack,
            table,
            hook,
            priority,
            is_nat,
            policy,
            chains: Vec::new(),
        };
        for chain in 0..count {
            let rules = self.random.between(1, 5);
            let rules = (0..rules).map(|_| self.rule(&attached, chain, count)).collect();
            attached.chains.push(rules);
        }
        self.attached.push(attached);
    }

    fn rule(&mut self, at: &Attached, chain: usize, chains: usize) -> GeneratedRule {
        let target = self.target(at, chain, chains);
        let count = self.random.pick(&[0, 1, 1, 1, 2, 2, 3]);
        let mut conditions = Vec::new();
        for _ in 0..count {
            let condition = self.condition(at);
            // iptables takes each but once, and wants a protocol with ports.
            let is_there = conditions.iter().any(|other| render::is_alike(other, &condition));
            if !is_there {
                conditions.push(condition);
            }
        }
        if conditions.iter().any(render::is_of_ports) {
            conditions.retain(|condition| !matches!(condition, Matching::Protocol(..)));
            let protocol = if self.next.has_ports() && self.random.percent(85) {
                self.next.protocol
            } else {
                TCP
            };
            let has_several = conditions
                .iter()
                .any(|condition| matches!(condition, Matching::Protocols(_)));
            if !has_several {
                conditions.insert(0, Matching::Protocol(protocol, false));
            }
        }
        // The protocol's own options stand behind the protocol: others have such names, too.
        conditions.sort_by_key(|condition| match condition {
            Matching::Protocol(..) => 0,
            Matching::SourcePort(..) | Matching::DestinationPort(..) => 1,
            _ => 2,
        });
        if at.stack == Stack::Nft
            && target != Target::Nothing
            && target != Target::NoTrack
            && self.random.percent(12)
        {
            let ranges = self.ranges(Side::Destination);
            conditions
                .retain(|condition| !matches!(condition, Matching::Protocol(..) | Matching::Protocols(_)));
            conditions.insert(
                0,
                Matching::Protocol(if self.next.protocol == UDP { UDP } else { TCP }, false),
            );
            conditions.push(Matching::Map(ranges));
        }
        let has_none = at.stack == Stack::Nft && self.random.percent(40);
        let counter = self.random.pick(&[0, 3, 7, 100]);
        GeneratedRule {
            id: self.id(),
            conditions,
            target,
            counter: (!has_none).then_some(counter),
        }
    }

    fn target(&mut self, at: &Attached, chain: usize, chains: usize) -> Target {
        let may_exempt = at.priority == -300 && matches!(at.hook, "prerouting" | "output");
        let may_reject = match at.stack {
            Stack::Legacy | Stack::IptablesNft => at.table == "filter",
            Stack::Nft => matches!(at.hook, "input" | "forward" | "output"),
        };
        let next = usize::try_from(self.random.between(chain as u64 + 1, chains as u64)).unwrap();
        match self.random.below(100) {
            0..30 if may_exempt => Target::NoTrack,
            0..30 => Target::Drop,
            30..38 if may_reject => Target::Reject,
            30..38 => Target::Drop,
            38..50 => Target::Accept,
            50..60 => Target::Return,
            60..82 if next < chains => Target::Jump(next),
            82..88 if next < chains => Target::Goto(next),
            60..88 => Target::Drop,
            _ => Target::Nothing,
        }
    }

    fn condition(&mut self, at: &Attached) -> Matching {
        let not = self.random.percent(20);
        let packet = self.next;
        let near = |random: &mut Random, address: Ipv4Addr| {
            let address = if random.percent(70) {
                address
            } else {
                Ipv4Addr::from(u32::from(address) ^ 3)
            };
            let length = random.pick(&[8, 16, 24, 29, 31, 32, 32]);
            let mask = u32::MAX << (32 - length);
            (
                Ipv4Addr::from(u32::from(address) & mask),
                u8::try_from(length).unwrap(),
            )
        };
        let is_nft = at.stack == Stack::Nft;
        let port = |random: &mut Random, port: u16| {
            let first = if random.percent(65) {
                port
            } else {
                random.pick(&PORTS)
            };
            if random.percent(40) {
                (first.saturating_sub(30), first.saturating_add(30))
            } else {
                (first, first)
            }
        };
        match self.random.below(if is_nft { 17 } else { 13 }) {
            0 => {
                let (address, length) = near(&mut self.random, packet.source);
                Matching::Source(address, length, not)
            }
            1 | 2 => {
                let (address, length) = near(&mut self.random, packet.destination);
                Matching::Destination(address, length, not)
            }
            3 => {
                let first =
                    u32::from(packet.source).saturating_sub(u32::try_from(self.random.below(9)).unwrap());
                let last = first + u32::try_from(self.random.below(12)).unwrap();
                Matching::SourceRange(first.into(), last.into(), not)
            }
            4 => Matching::Protocol(
                self.random
                    .pick(&[packet.protocol, packet.protocol, TCP, UDP, ICMP]),
                not,
            ),
            5 => {
                let (first, last) = port(&mut self.random, packet.source_port);
                Matching::SourcePort(first, last, not)
            }
            6 | 7 => {
                let (first, last) = port(&mut self.random, packet.destination_port);
                Matching::DestinationPort(first, last, not)
            }
            8 => {
                let side = self.random.pick(&[Side::Source, Side::Destination, Side::Either]);
                let side = if is_nft && side == Side::Either {
                    Side::Destination
                } else {
                    side
                };
                let ranges = self.ranges(side);
                Matching::Ports(side, ranges, not)
            }
            9 if matches!(at.hook, "prerouting" | "input" | "forward") => Matching::Input(
                self.random
                    .pick(&[network::INPUT, network::INPUT, "in+", "i+", "eth0"]),
                not,
            ),
            10 if matches!(at.hook, "output" | "postrouting" | "forward") => Matching::Output(
                self.random
                    .pick(&[network::OUTPUT, network::OUTPUT, "out+", "eth+", "lo"]),
                not,
            ),
            9 | 10 => Matching::Protocol(packet.protocol, not),
            11 if !is_nft || matches!(at.hook, "prerouting" | "input" | "output") => Matching::Local(not),
            11 | 12 => {
                let (iptables, nft) = self.random.pick(&OPAQUE);
                Matching::Opaque(iptables, nft)
            }
            13 => Matching::Protocols(self.random.pick(&[vec![TCP, UDP], vec![UDP, TCP], vec![TCP]])),
            14 | 15 => {
                let is_source = self.random.percent(50);
                let of = if is_source {
                    packet.source
                } else {
                    packet.destination
                };
                let elements = vec![near(&mut self.random, of), (Ipv4Addr::new(192, 0, 2, 0), 24)];
                Matching::Named(is_source, elements, not)
            }
            _ => {
                let port = if self.random.percent(70) {
                    packet.destination_port
                } else {
                    self.random.pick(&PORTS)
                };
                Matching::Pairs(vec![(packet.source, port), (Ipv4Addr::new(192, 0, 2, 1), 80)])
            }
        }
    }

    /// That do not overlap.
    fn ranges(&mut self, side: Side) -> Vec<(u16, u16)> {
        let of = if side == Side::Source {
            self.next.source_port
        } else {
            self.next.destination_port
        };
        let mut ports = vec![if self.random.percent(65) {
            of
        } else {
            self.random.pick(&PORTS)
        }];
        for _ in 0..self.random.below(4) {
            ports.push(self.random.pick(&PORTS));
        }
        ports.sort_unstable();
        ports.dedup();
        let ends = ports.iter().map(|port| {
            if *port == 1000 {
                (1000, 1100)
            } else {
                (*port, *port)
            }
        });
        ends.collect()
    }

    fn rules(&self) -> impl Iterator<Item = (&Attached, &GeneratedRule)> {
        self.attached
            .iter()
            .flat_map(|at| at.chains.iter().flatten().map(move |rule| (at, rule)))
    }

    /// The rule, or the policy, that dropped the packet.
    pub fn dropper(&self, moved: &Moved) -> Vec<String> {
        let mut found: Vec<String> = self
            .rules()
            .filter(|(_, rule)| matches!(rule.target, Target::Drop | Target::Reject) && moved.ends_at(rule))
            .map(|(_, rule)| render::comment_id(rule.id))
            .collect();
        let policies = self.attached.iter().filter_map(|at| Some((at, at.policy?)));
        let policies = policies.filter(|(_, id)| moved.has_policy(*id));
        found.extend(policies.map(|(at, _)| format!("policy {}", render::base_name(at))));
        assert!(
            found.len() < 2,
            "{found:?} dropped one packet; moved: {moved:?}\n{}",
            self.text()
        );
        found
    }

    /// The rules that exempted the packet from conntrack, in the order in which it met them; `None`: that can't be known.
    pub fn exempter(&self, moved: &Moved) -> Option<Vec<String>> {
        let mut found: Vec<Vec<u32>> = Vec::new();
        for at in &self.attached {
            let mut met = Vec::new();
            exempting(at, 0, moved, &mut met);
            if !met.is_empty() {
                found.push(met);
            }
        }
        // Tables of one priority have no order that is known.
        if found.len() > 1 {
            return None;
        }
        let met = found.into_iter().flatten();
        Some(met.map(render::comment_id).collect())
    }
}

/// The rules that exempt packets, from a chain on, in the order in which the packet met them.
fn exempting(at: &Attached, chain: usize, moved: &Moved, met: &mut Vec<u32>) {
    for rule in at.chains[chain].iter().filter(|rule| moved.has(rule.id)) {
        match rule.target {
            Target::NoTrack => met.push(rule.id),
            Target::Jump(next) | Target::Goto(next) => exempting(at, next, moved, met),
            Target::Drop | Target::Reject | Target::Accept | Target::Return | Target::Nothing => {}
        }
    }
}
