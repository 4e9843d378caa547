//! What `ebtables-nft-save -c` and `ebtables-legacy -L --Lc` print.

use super::{
    Action, Family, RulePosition, Tool,
    iptables::{self, Words},
    model::{Base, Condition, Field, Hook, Rule, Statement, Step, Table, Value},
};

/// The table whose chain decides between bridging and routing: its DROP drops nothing.
const BROUTE: &str = "broute";
/// Options that write something down.
const WATCHERS: [&str; 3] = ["--log", "--nflog", "--ulog"];

/// The tables. Lines that aren't understood are passed over.
pub(super) fn tables(tool: Tool, text: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    // Of chains that others jump to, what is done at their end.
    let mut ends: Vec<(String, Statement)> = Vec::new();
    let mut chain = String::new();
    let lines = iptables::lines(text).map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line
            .strip_prefix('*')
            .or_else(|| line.strip_prefix("Bridge table: "))
        {
            if let Some(table) = tables.last_mut() {
                end(table, std::mem::take(&mut ends));
            }
            tables.push(Table::new(tool, Family::Bridge, name));
            continue;
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some((name, policy)) = head(line) {
            chain = name.to_owned();
            let base = base(&table.name, name, policy);
            if base.is_none() {
                let at_end = match policy {
                    "DROP" => Statement::Act(Action::Drop),
                    "RETURN" => Statement::Return,
                    _ => Statement::Accept,
                };
                ends.push((chain.clone(), at_end));
            }
            table.chain_mut(name).base = base;
        } else if let Some((rule, counted)) = line.split_once(" , pcnt = ") {
            // Of a list, where the chain stands above its rules.
            let packets = counted
                .split_once(' ')
                .and_then(|(packets, _)| packets.parse().ok());
            self::rule(table, &format!("-A {chain} {}", rule.trim_end()), packets);
        } else {
            let (packets, rule) = match line.split_once(' ') {
                Some((first, rest)) if first.starts_with('[') => (iptables::counter(first), rest),
                Some(_) | None => (None, line),
            };
            self::rule(table, rule, packets);
        }
    }
    if let Some(table) = tables.last_mut() {
        end(table, ends);
    }
    tables.retain(|table| table.name != BROUTE);
    tables
}

/// The name and the policy in `:FORWARD DROP`, or in `Bridge chain: FORWARD, entries: 1, policy: DROP`.
fn head(line: &str) -> Option<(&str, &str)> {
    if let Some(line) = line.strip_prefix(':') {
        let (name, rest) = line.split_once(' ')?;
        return Some((name, rest.split(' ').next()?));
    }
    let (name, rest) = line.strip_prefix("Bridge chain: ")?.split_once(", ")?;
    Some((name, rest.rsplit_once("policy: ")?.1))
}

fn base(table: &str, name: &str, policy: &str) -> Option<Base> {
    let is_capital = name.bytes().all(|byte| byte.is_ascii_uppercase());
    let hook = Hook::of_name(name).filter(|_| is_capital)?;
    Some(Base {
        hook,
        priority: priority(table, hook),
        nat: false,
        devices: Vec::new(),
        drops: policy == "DROP",
        packets: None,
    })
}

/// When the table's chains at a hook are asked (`NF_BR_PRI_…`).
fn priority(table: &str, hook: Hook) -> i64 {
    match (table, hook) {
        ("nat", Hook::Prerouting) => -300,
        ("nat", Hook::Output) => 100,
        ("nat", _) => 300,
        (_, Hook::Output) => 200,
        _ => -200,
    }
}

/// Adds what chains that others jump to do at their end: they have policies, too.
fn end(table: &mut Table, ends: Vec<(String, Statement)>) {
    for (chain, statement) in ends {
        let text = if statement == Statement::Act(Action::Drop) {
            "policy DROP"
        } else {
            "policy"
        };
        table.chain_mut(&chain).rules.push(Rule {
            place: RulePosition::Policy,
            text: text.to_owned(),
            whole: None,
            packets: None,
            steps: vec![Step::Do(statement)],
        });
    }
}

/// `-A FORWARD -p IPv4 --ip-dst 10.244.1.5 -j DROP`.
fn rule(table: &mut Table, line: &str, packets: Option<u64>) {
    let mut words = Words::of(line);
    if words.value() != "-A" {
        return;
    }
    let chain = words.value();
    let steps = steps(table, &mut words);
    table.append(&chain, line, packets, steps);
}

fn steps(table: &Table, words: &mut Words) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut not = false;
    while let Some(option) = words.word() {
        match option.as_str() {
            "!" => {
                not = true;
                continue;
            }
            "-j" => {
                let target = words.value();
                steps.extend(statement(table, target, &words.rest()).map(Step::Do));
            }
            // Counters.
            "-c" => drop((words.value(), words.value())),
            option if is_watcher(option) => drop(words.values()),
            option => {
                // The mark of negation stands before the option or behind it.
                not |= words.skip("!");
                let values = words.values();
                let value = values.first().map(String::as_str).unwrap_or_default();
                let condition = condition(option, value).filter(|_| values.len() == 1);
                steps.push(
                    condition.map_or_else(Step::unknown, |condition| Step::Match(condition.negated(not))),
                );
            }
        }
        not = false;
    }
    steps
}

/// Whether the option is of what writes the packet down.
fn is_watcher(option: &str) -> bool {
    let rest = WATCHERS.iter().find_map(|watcher| option.strip_prefix(watcher));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The options that are understood.
fn condition(option: &str, value: &str) -> Option<Condition> {
    let one = |field, value| Some(Condition::of(field, [value]));
    match option {
        "-p" => one(Field::Family, family(value)),
        "-i" => one(Field::Input, iptables::device(value)),
        "-o" => one(Field::Output, iptables::device(value)),
        "--logical-in" => one(Field::InputBridge, iptables::device(value)),
        "--logical-out" => one(Field::OutputBridge, iptables::device(value)),
        "--ip-src" | "--ip-source" | "--ip6-src" | "--ip6-source" => {
            one(Field::Source, iptables::network(value))
        }
        "--ip-dst" | "--ip-destination" | "--ip6-dst" | "--ip6-destination" => {
            one(Field::Destination, iptables::network(value))
        }
        "--ip-proto" | "--ip-protocol" | "--ip6-proto" | "--ip6-protocol" => {
            one(Field::Protocol, Value::Text(value.to_owned()))
        }
        "--ip-sport" | "--ip-source-port" | "--ip6-sport" | "--ip6-source-port" => {
            Some(Condition::of(Field::SourcePort, iptables::ports(value)))
        }
        "--ip-dport" | "--ip-destination-port" | "--ip6-dport" | "--ip6-destination-port" => {
            Some(Condition::of(Field::DestinationPort, iptables::ports(value)))
        }
        _ => None,
    }
}

/// By the names of /etc/ethertypes.
fn family(name: &str) -> Value {
    let number = name
        .strip_prefix("0x")
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    if let Some(number) = number {
        return Value::Numbers(number, number);
    }
    match name.to_ascii_lowercase().as_str() {
        "ipv4" => Value::Text("ip".to_owned()),
        "ipv6" => Value::Text("ip6".to_owned()),
        "arp" => Value::Text("arp".to_owned()),
        _ => Value::Unknown,
    }
}

/// What a target does. Those that change something have a verdict of their own.
fn statement(table: &Table, target: String, options: &[String]) -> Option<Statement> {
    let verdict = options
        .windows(2)
        .find(|pair| matches!(pair, [option, _] if option.starts_with("--") && option.ends_with("-target")))
        .and_then(|pair| pair.get(1));
    let verdict = match target.as_str() {
        "dnat" | "snat" | "redirect" | "mark" => verdict.map_or("ACCEPT", String::as_str),
        "arpreply" => verdict.map_or("DROP", String::as_str),
        other => other,
    };
    match verdict {
        "ACCEPT" => Some(Statement::Accept),
        "DROP" => Some(Statement::Act(Action::Drop)),
        "RETURN" => Some(Statement::Return),
        "CONTINUE" => None,
        _ if table.chain(&target).is_some() => Some(Statement::Jump(target)),
        _ => Some(Statement::Unknown),
    }
}
