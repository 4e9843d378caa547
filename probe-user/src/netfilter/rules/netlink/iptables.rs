//! Tables that iptables-nft made, as `iptables-save -c` writes them.

use ipnet::IpNet;
use netlink_packet_netfilter::nftables::Operator;

use super::{
    expression::{Expression, RuleVerdict},
    field::{Datum, Device, Field},
    registers::{Part, Parts, Test, Values},
    ruleset::{Base, Chain, Rule, Table},
    xt,
};
use crate::netfilter::rules::{Family, Tool, iptables::priority, model::Hook};

/// The table; `None` if it isn't one that iptables-nft would show: others have names, hooks and expressions that it doesn't
/// know.
pub(super) fn save(table: &Table, rules: &[Vec<Parts<'_>>]) -> Option<String> {
    let known = ["raw", "mangle", "nat", "filter", "security"];
    match table.family {
        Family::Ip | Family::Ip6
            if known.contains(&table.name.as_str()) && !table.dormant && !table.is_foreign => {}
        Family::Ip | Family::Ip6 | Family::Inet | Family::Netdev | Family::Bridge => return None,
    }
    let mut text = format!("*{}\n", table.name);
    for chain in &table.chains {
        text.push_str(&head(table, chain)?);
        text.push('\n');
    }
    for (chain, rules) in table.chains.iter().zip(rules) {
        for (rule, parts) in chain.rules.iter().zip(rules) {
            text.push_str(&line(table.family, chain, rule, parts)?);
            text.push('\n');
        }
    }
    Some(text + "COMMIT\n")
}

/// `:INPUT DROP [12:720]`, or `:OWN - [0:0]`.
fn head(table: &Table, chain: &Chain) -> Option<String> {
    let name = word(&chain.name)?;
    let Some(base) = &chain.base else {
        return Some(format!(":{name} - [0:0]"));
    };
    is_its_own(&table.name, base, name).then(|| {
        let policy = if base.drops { "DROP" } else { "ACCEPT" };
        let (packets, bytes) = base.counted;
        format!(":{name} {policy} [{packets}:{bytes}]")
    })
}

/// Whether iptables attaches a chain of that name so.
pub(super) fn is_its_own(table: &str, base: &Base, name: &str) -> bool {
    let is_capital = name.chars().all(|c| c.is_ascii_uppercase());
    is_capital
        && Hook::of_name(name) == Some(base.hook)
        && i64::from(base.priority) == priority(Tool::IptablesNft, table, base.hook)
}

/// A word that needs no quotes, and isn't an option.
pub(in crate::netfilter::rules) fn word(text: &str) -> Option<&str> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\');
    let plain = text.chars().all(plain) && !text.is_empty() && !text.starts_with(['-', '!', '[', '*', '#']);
    plain.then_some(text)
}

/// A rule's words, as iptables orders them.
#[derive(Default)]
struct Words {
    /// Source, destination, input, output, protocol.
    header: [Option<String>; 5],
    matches: Vec<String>,
    target: String,
    counted: (u64, u64),
    /// The protocol's name, which is the name of the match for ports too.
    protocol: Option<String>,
    /// The last match is that for ports.
    ports: bool,
}

/// `[5:300] -A INPUT -p udp -j DROP`; `None` if iptables couldn't have made it.
fn line(family: Family, chain: &Chain, rule: &Rule, parts: &Parts<'_>) -> Option<String> {
    let mut words = Words::default();
    for part in &parts.parts {
        match part {
            Part::Test(test) => words.test(test)?,
            Part::Choose { .. } | Part::Zone(..) => return None,
            Part::Plain(expression) => words.expression(family, expression)?,
        }
    }
    if let Some(comment) = &rule.comment {
        words.matches.push(xt::comment(comment));
    }
    let (packets, bytes) = words.counted;
    let mut line = format!("[{packets}:{bytes}] -A {}", word(&chain.name)?);
    let target = Some(words.target).filter(|target| !target.is_empty());
    let header = words.header.into_iter().flatten();
    for words in header.chain(words.matches).chain(target) {
        line.push(' ');
        line.push_str(&words);
    }
    Some(line)
}

impl Words {
    fn test(&mut self, test: &Test) -> Option<()> {
        let [field] = test.fields.as_slice() else {
            return None;
        };
        let Values::One(value) = &test.values else {
            return None;
        };
        let (ports, place) = (self.ports, self.matches.len());
        self.ports = false;
        if self.known(field, test, value, ports).is_none() {
            self.matches.truncate(place);
            self.matches.push(format!("[nft {}]", words(field)));
        }
        Some(())
    }

    /// Of what isn't known, nothing is written here.
    fn known(&mut self, field: &Field, test: &Test, value: &Datum, ports: bool) -> Option<()> {
        let not = match test.operator {
            Operator::NotEqual => "! ",
            _ => "",
        };
        if !matches!(test.operator, Operator::Equal | Operator::NotEqual)
            && !matches!(field, Field::SourcePort | Field::DestinationPort)
        {
            return None;
        }
        let mask = test.mask.as_ref();
        match field {
            Field::Source(_) => self.head(0, format!("{not}-s {}", network(value, mask)?)),
            Field::Destination(_) => self.head(1, format!("{not}-d {}", network(value, mask)?)),
            Field::Input(Device::Name) if mask.is_none() => {
                self.head(2, format!("{not}-i {}", device(value)?))
            }
            Field::Output(Device::Name) if mask.is_none() => {
                self.head(3, format!("{not}-o {}", device(value)?))
            }
            Field::Protocol | Field::NextProtocol(_) if mask.is_none() => {
                let name = match value {
                    Datum::Name(name) => word(name)?.to_owned(),
                    Datum::Number(number) => number.to_string(),
                    _ => return None,
                };
                if not.is_empty() {
                    self.protocol = Some(name.clone());
                }
                self.head(4, format!("{not}-p {name}"))
            }
            Field::SourcePort | Field::DestinationPort if mask.is_none() => {
                let option = match field {
                    Field::SourcePort => "--sport",
                    _ => "--dport",
                };
                let protocol = self.protocol.as_deref()?;
                let words = format!("{not}{option} {}", self::ports(test.operator, value)?);
                self.ports = true;
                match self.matches.last_mut().filter(|_| ports) {
                    Some(last) => {
                        last.push(' ');
                        last.push_str(&words);
                    }
                    None => self.matches.push(format!("-m {protocol} {words}")),
                }
                Some(())
            }
            Field::Mark => {
                let mark = match (value, mask) {
                    (Datum::Number(mark), None) => format!("0x{mark:x}"),
                    (Datum::Number(mark), Some(Datum::Number(mask))) => format!("0x{mark:x}/0x{mask:x}"),
                    _ => return None,
                };
                self.matches.push(format!("-m mark {not}--mark {mark}"));
                Some(())
            }
            Field::Input(_)
            | Field::Output(_)
            | Field::Protocol
            | Field::NextProtocol(_)
            | Field::SourcePort
            | Field::DestinationPort
            | Field::Family
            | Field::EtherType
            | Field::ConntrackState
            | Field::DestinationType
            | Field::Other(_) => None,
        }
    }

    /// One of the header's, which can be asked for only once.
    fn head(&mut self, place: usize, words: String) -> Option<()> {
        let slot = self.header.get_mut(place)?;
        if slot.is_some() {
            return None;
        }
        *slot = Some(words);
        Some(())
    }

    fn expression(&mut self, family: Family, expression: &Expression) -> Option<()> {
        self.ports = false;
        match expression {
            Expression::Counter(packets, bytes) => self.counted = (*packets, *bytes),
            Expression::Do(verdict) => {
                self.target = match verdict {
                    RuleVerdict::Accept => "-j ACCEPT".to_owned(),
                    RuleVerdict::Drop => "-j DROP".to_owned(),
                    RuleVerdict::Queue => "-j QUEUE".to_owned(),
                    RuleVerdict::Return => "-j RETURN".to_owned(),
                    RuleVerdict::Continue => String::new(),
                    RuleVerdict::Jump(chain) => format!("-j {}", word(chain)?),
                    RuleVerdict::Goto(chain) => format!("-g {}", word(chain)?),
                };
            }
            Expression::Match(extension) => {
                let words = xt::matching(family, extension)
                    .or_else(|| Some(format!("-m {0} [xt match {0}]", word(&extension.name)?)))?;
                self.matches.push(words);
            }
            Expression::Target(extension) => {
                let words = xt::target(family, extension)
                    .or_else(|| Some(format!("{0} [xt target {0}]", word(&extension.name)?)))?;
                self.target = format!("-j {words}");
            }
            Expression::Log(_) => self.target = "-j LOG [nft log]".to_owned(),
            Expression::Other(name) if name == "log" => self.target = "-j LOG [nft log]".to_owned(),
            Expression::Other(name) => self.matches.push(format!("[nft {}]", word(name)?)),
            // These iptables-nft never writes.
            Expression::Object(..)
            | Expression::NoTrack
            | Expression::Reject(_)
            | Expression::Change(_)
            | Expression::Constant { .. }
            | Expression::SetZone { .. }
            | Expression::Load { .. }
            | Expression::Mask { .. }
            | Expression::Overwrite { .. }
            | Expression::Compare { .. }
            | Expression::Range { .. }
            | Expression::Lookup { .. }
            | Expression::Choose { .. } => return None,
        }
        Some(())
    }
}

fn words(field: &Field) -> &str {
    match field {
        Field::NextProtocol(_) | Field::Protocol => "l4proto",
        Field::Source(_) => "saddr",
        Field::Destination(_) => "daddr",
        Field::SourcePort => "sport",
        Field::DestinationPort => "dport",
        Field::Family => "nfproto",
        Field::EtherType => "protocol",
        Field::Input(_) => "iif",
        Field::Output(_) => "oif",
        Field::Mark => "mark",
        Field::ConntrackState => "ct state",
        Field::DestinationType => "fib daddr type",
        Field::Other(name) => word(name).unwrap_or("match"),
    }
}

fn network(value: &Datum, mask: Option<&Datum>) -> Option<String> {
    match (value, mask) {
        (Datum::Address(address), None) => Some(IpNet::from(*address).to_string()),
        (Datum::Network(address, length), None) => Some(format!("{address}/{length}")),
        (Datum::Address(address), Some(Datum::Address(mask))) => Some(format!("{address}/{mask}")),
        _ => None,
    }
}

fn device(value: &Datum) -> Option<String> {
    match value {
        Datum::Name(name) if !name.ends_with('+') => word(name).map(str::to_owned),
        Datum::Names(beginning) => word(beginning).map(|name| format!("{name}+")),
        _ => None,
    }
}

fn ports(operator: Operator, value: &Datum) -> Option<String> {
    let number = |datum: &Datum| match datum {
        Datum::Number(number) => u16::try_from(*number).ok(),
        _ => None,
    };
    let (first, last) = match (operator, value) {
        (Operator::Equal | Operator::NotEqual, Datum::Range(first, last)) => (number(first)?, number(last)?),
        (Operator::Equal | Operator::NotEqual, one) => (number(one)?, number(one)?),
        (Operator::LessThan, one) => (0, number(one)?.checked_sub(1)?),
        (Operator::LessThanEqual, one) => (0, number(one)?),
        (Operator::GreaterThan, one) => (number(one)?.checked_add(1)?, u16::MAX),
        (Operator::GreatherThanEqual, one) => (number(one)?, u16::MAX),
        (_, _) => return None,
    };
    Some(if first == last {
        first.to_string()
    } else {
        format!("{first}:{last}")
    })
}
