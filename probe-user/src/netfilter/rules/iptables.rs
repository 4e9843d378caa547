//! What `iptables-save` prints.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    Action, Family, Tool,
    model::{Base, Condition, Field, Hook, Statement, Step, Table, Value, shown},
};

/// Matches whose options are all in [`option`], or that ask nothing of the packet.
const KNOWN: [&str; 11] = [
    "tcp",
    "udp",
    "sctp",
    "dccp",
    "udplite",
    "multiport",
    "addrtype",
    "iprange",
    "comment",
    "conntrack",
    "standard",
];

/// The tables of one family. Lines that aren't understood are passed over.
pub(super) fn tables(tool: Tool, family: Family, text: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in lines(text) {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('*') {
            tables.push(Table::new(tool, family, name));
            continue;
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some(line) = line.strip_prefix(':') {
            chain(table, line);
        } else {
            rule(table, line);
        }
    }
    tables
}

/// Lines, together with those that a comment with line feeds in it goes on in: what stands there is no rule.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    /// Longer than any rule.
    const MOST: usize = 16 * 1024;
    let mut rest = text;
    let line_end = |text: &str, start: usize| {
        let more = text.get(start..).unwrap_or_default();
        more.find('\n').map_or(text.len(), |end| start + end)
    };
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let first = line_end(rest, 0);
        let (mut start, mut end, mut within) = (0, first, false);
        loop {
            within = is_open(rest.get(start..end)?, within);
            if !within {
                break;
            }
            // What is never closed is one odd line.
            if end >= rest.len().min(MOST) {
                end = first;
                break;
            }
            (start, end) = (end + 1, line_end(rest, end + 1));
        }
        let line = rest.get(..end)?;
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(line)
    })
}

/// Whether a quote is open at the end; `within`: one was at the beginning.
fn is_open(line: &str, mut within: bool) -> bool {
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => within = !within,
            b'\\' if within => {
                bytes.next();
            }
            _ => {}
        }
    }
    within
}

/// The tables that iptables-nft can't show, because nft has put something of its own in.
pub(super) fn incompatible(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| {
        let rest = line.strip_prefix("# Table `")?;
        let (name, _) = rest
            .split_once("' is incompatible")
            .or_else(|| rest.split_once("' contains incompatible"))?;
        Some(shown(name))
    })
}

/// `INPUT DROP [12:720]`, or `OWN - [0:0]`.
fn chain(table: &mut Table, line: &str) {
    let mut words = line.split_whitespace();
    let Some(name) = words.next() else { return };
    let policy = words.next().unwrap_or("-");
    let packets = words.next().and_then(counter);
    let base = Hook::of_name(name).filter(|_| policy != "-").map(|hook| Base {
        hook,
        priority: priority(table.tool, &table.name, hook),
        nat: table.name == "nat",
        devices: Vec::new(),
        drops: policy == "DROP",
        // nf_tables counts for a policy only if the chain was made so; otherwise this stays 0 whatever
        // happens.
        packets: packets.filter(|&packets| table.tool != Tool::IptablesNft || packets > 0),
    });
    table.chain_mut(name).base = base;
}

/// When the table's chains at a hook are asked (NF_IP_PRI_…).
pub(super) fn priority(tool: Tool, table: &str, hook: Hook) -> i64 {
    match (table, hook) {
        // iptables-nft has a number of its own for it.
        ("security", _) if tool == Tool::IptablesNft => 150,
        ("raw", _) => -300,
        ("mangle", _) => -150,
        ("nat", Hook::Prerouting | Hook::Output) => -100,
        ("nat", _) => 100,
        ("security", _) => 50,
        _ => 0,
    }
}

/// The packets of `[packets:bytes]`.
pub(super) fn counter(text: &str) -> Option<u64> {
    text.strip_prefix('[')?
        .strip_suffix(']')?
        .split_once(':')?
        .0
        .parse()
        .ok()
}

/// `[5:300] -A INPUT -p udp -j DROP`.
fn rule(table: &mut Table, line: &str) {
    let (packets, line) = match line.split_once(' ') {
        Some((first, rest)) if first.starts_with('[') => (counter(first), rest.trim_start()),
        Some(_) | None => (None, line),
    };
    let mut words = Words::of(line);
    if words.next().is_none_or(|word| word.text != "-A") {
        return;
    }
    let Some(name) = words.next() else { return };
    let steps = steps(table, &mut words);
    table.append(&name.text, line, packets, steps);
}

pub(super) struct Word {
    text: String,
    quoted: bool,
}

/// The words of a rule; `None`: a quote in it is never closed.
pub(super) fn whole_words(line: &str) -> Option<Vec<String>> {
    let (words, is_open) = words(line);
    (!is_open).then(|| words.into_iter().map(|word| word.text).collect())
}

/// Words are in quotes if need be; a backslash there makes the next character an ordinary one. And whether the last quote is
/// open.
fn words(line: &str) -> (Vec<Word>, bool) {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut within = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character.is_whitespace() && !within {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert(Word {
            text: String::new(),
            quoted: false,
        });
        match character {
            '"' => {
                within = !within;
                word.quoted = true;
            }
            '\\' if within => word.text.extend(characters.next()),
            _ => word.text.push(character),
        }
    }
    words.extend(word);
    (words, within)
}

pub(super) struct Words(std::vec::IntoIter<Word>);

impl Words {
    pub(super) fn of(line: &str) -> Self {
        Self(words(line).0.into_iter())
    }

    /// The next word.
    pub(super) fn word(&mut self) -> Option<String> {
        self.next().map(|word| word.text)
    }

    /// Whether the next word is this one; it is taken then.
    pub(super) fn skip(&mut self, wanted: &str) -> bool {
        let is_next = self
            .0
            .as_slice()
            .first()
            .is_some_and(|word| !word.quoted && word.text == wanted);
        if is_next {
            self.0.next();
        }
        is_next
    }

    /// All that are left.
    pub(super) fn rest(&mut self) -> Vec<String> {
        self.0.by_ref().map(|word| word.text).collect()
    }

    fn next(&mut self) -> Option<Word> {
        self.0.next()
    }

    pub(super) fn value(&mut self) -> String {
        self.next().map(|word| word.text).unwrap_or_default()
    }

    /// The values of an option that isn't known: all up to the next one.
    pub(super) fn values(&mut self) -> Vec<String> {
        let values = self.0.as_slice().iter();
        let count = values
            .take_while(|w| w.quoted || !(w.text.starts_with('-') || w.text == "!"))
            .count();
        self.0.by_ref().take(count).map(|word| word.text).collect()
    }
}

fn steps(table: &Table, words: &mut Words) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut not = false;
    while let Some(word) = words.next() {
        match word.text.as_str() {
            "!" => {
                not = true;
                continue;
            }
            "-m" => {
                if !KNOWN.contains(&words.value().as_str()) {
                    steps.push(Step::unknown());
                }
            }
            "-j" => {
                let target = words.value();
                let options = words.rest();
                steps.extend(statement(table, target, &options).map(Step::Do));
            }
            "-g" => steps.push(Step::Do(Statement::Goto(words.value()))),
            "--comment" => drop(words.next()),
            name => match option(name, words) {
                Some(condition) => steps.push(Step::Match(condition.negated(not))),
                None => {
                    words.values();
                    steps.push(Step::unknown());
                }
            },
        }
        not = false;
    }
    steps
}

/// The options that are understood. A value that isn't makes the match an unknown one.
fn option(name: &str, words: &mut Words) -> Option<Condition> {
    Some(match name {
        "-p" => Condition::of(Field::Protocol, [protocol(&words.value())]),
        "-s" => Condition::of(Field::Source, [network(&words.value())]),
        "-d" => Condition::of(Field::Destination, [network(&words.value())]),
        "-i" => Condition::of(Field::Input, [device(&words.value())]),
        "-o" => Condition::of(Field::Output, [device(&words.value())]),
        "--sport" | "--source-port" | "--sports" | "--source-ports" => {
            Condition::of(Field::SourcePort, ports(&words.value()))
        }
        "--dport" | "--destination-port" | "--dports" | "--destination-ports" => {
            Condition::of(Field::DestinationPort, ports(&words.value()))
        }
        "--ctorigsrc" => Condition::of(Field::OriginalSource, [network(&words.value())]),
        "--ctreplsrc" => Condition::of(Field::ReplySource, [network(&words.value())]),
        "--ports" => Condition::of(Field::EitherPort, ports(&words.value())),
        "--src-range" => Condition::of(Field::Source, [addresses(&words.value())]),
        "--dst-range" => Condition::of(Field::Destination, [addresses(&words.value())]),
        "--dst-type" => {
            let value = words.value();
            Condition::of(
                Field::DestinationType,
                value.split(',').map(|kind| Value::Text(kind.to_owned())),
            )
        }
        _ => return None,
    })
}

fn protocol(name: &str) -> Value {
    match name {
        "all" | "0" => Value::Any,
        _ => Value::Text(name.to_owned()),
    }
}

/// `10.0.0.0/8`, or `10.0.0.0/255.0.0.0`.
pub(super) fn network(text: &str) -> Value {
    let masked = || {
        let (address, mask) = text.split_once('/')?;
        IpNet::with_netmask(address.parse().ok()?, mask.parse().ok()?).ok()
    };
    let network = text
        .parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        .or_else(masked);
    network.map_or(Value::Unknown, |network: IpNet| {
        Value::Addresses(network.network(), network.broadcast())
    })
}

pub(super) fn device(name: &str) -> Value {
    match name.strip_suffix('+') {
        Some(prefix) => Value::Prefix(prefix.to_owned()),
        None => Value::Text(name.to_owned()),
    }
}

/// `80,443,1000:2000`.
pub(super) fn ports(text: &str) -> impl Iterator<Item = Value> {
    text.split(',').map(|range| {
        let (first, last) = range.split_once(':').unwrap_or((range, range));
        let number = |text: &str, none| {
            if text.is_empty() {
                Some(none)
            } else {
                text.parse::<u16>().ok()
            }
        };
        match (number(first, 0), number(last, u16::MAX)) {
            (Some(first), Some(last)) if !range.is_empty() => Value::Numbers(first.into(), last.into()),
            (Some(_) | None, Some(_) | None) => Value::Unknown,
        }
    })
}

/// `10.0.0.1-10.0.0.9`.
fn addresses(text: &str) -> Value {
    let range = || {
        let (first, last) = text.split_once('-')?;
        Some(Value::Addresses(first.parse().ok()?, last.parse().ok()?))
    };
    range().unwrap_or(Value::Unknown)
}

/// Whether a target may do to a packet what is asked about.
pub(super) fn may_act(target: &str) -> bool {
    let done = built_in(target, &["--notrack".to_owned()]);
    matches!(done, Some(Statement::Act(_) | Statement::May(_)))
}

/// What a target does. Those that only write something down, or change the packet, do nothing that matters
/// here.
fn statement(table: &Table, target: String, options: &[String]) -> Option<Statement> {
    let is_chain = || table.chain(&target).is_some();
    built_in(&target, options).or_else(|| is_chain().then(|| Statement::Jump(target.clone())))
}

/// The same of targets that are no chains.
fn built_in(target: &str, options: &[String]) -> Option<Statement> {
    Some(match target {
        "ACCEPT" => Statement::Accept,
        "DROP" => Statement::Act(Action::Drop),
        "REJECT" => Statement::Act(Action::Reject),
        "RETURN" => Statement::Return,
        "NOTRACK" => Statement::Act(Action::NoTrack),
        "CT" if options.iter().any(|option| option == "--notrack") => Statement::Act(Action::NoTrack),
        // The address is translated, and the table left.
        "SNAT" | "DNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" => Statement::Accept,
        // A program, a missing socket or a bad handshake decides.
        "NFQUEUE" | "QUEUE" | "TPROXY" | "SYNPROXY" | "CLUSTERIP" | "TARPIT" => Statement::May(Action::Drop),
        _ => return None,
    })
}
