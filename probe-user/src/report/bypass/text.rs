//! For people.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::super::{
    clock::Clock,
    finding,
    snapshot::{ago, local, safe},
};
use crate::model::{
    bypass::{
        View,
        diagnosis::{moved, protocol},
        rule::NotrackRule,
        stream::{Server, UntrackedStream},
        view::{JudgedStream, RuleState},
    },
    plural::counted,
};

/// Streams shown.
const STREAMS: usize = 20;

/// Streams, rules, findings.
pub fn all(view: &View, clock: &mut Clock) -> String {
    let mut out = String::new();
    streams(&mut out, view);
    for rule in &view.rules {
        out.push_str(&safe(&rule_line(rule)));
        out.push('\n');
    }
    let time = local(view.time, clock);
    if view.findings.is_empty() {
        let latent = if view.streams.iter().any(|seen| seen.intended.is_none()) {
            "no packet bypasses conntrack any more"
        } else if !view.streams.is_empty() {
            "all untracked packets are intended"
        } else if view.rules.is_empty() {
            "no packet bypassed conntrack, and no rule exempts any"
        } else {
            "no packet bypassed conntrack during the run"
        };
        out.push_str(&format!("\n{time}  no finding: {latent}\n"));
    } else {
        let findings = counted(view.findings.len(), "finding", "findings");
        out.push_str(&format!("\n{time}  {findings}\n"));
        for found in &view.findings {
            finding::text(&mut out, found);
        }
    }
    for unseen in &view.unseen {
        out.push_str(&format!("not visible on this kernel: {unseen}\n"));
    }
    for unread in &view.unread {
        out.push_str(&format!("note: {}\n", safe(unread)));
    }
    if view.rest > 0 {
        out.push_str(&format!(
            "not assigned to a stream (table full): {} packets\n",
            view.rest
        ));
    }
    out
}

fn rule_line(rule: &NotrackRule) -> String {
    let state = match (rule.intended, RuleState::of(rule)) {
        (Some(intended), _) => format!("intended, {}", intended.name()),
        (None, RuleState::Hit) => RuleState::Hit.name().to_owned(),
        (None, RuleState::Latent) if rule.rule.packets.is_none() => "no counter".to_owned(),
        (None, RuleState::Latent) => RuleState::Latent.name().to_owned(),
    };
    format!("rule ({state}): {}{}", rule.name(), moved(rule))
}

fn streams(out: &mut String, view: &View) {
    if view.streams.is_empty() {
        return;
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "UNTRACKED",
        "",
        "PROTOCOL",
        "WAY",
        "DEVICES",
        "PACKETS",
        "SYN",
        "SYN-ACK",
        "RST",
        "LAST SEEN",
        "STATE",
    ]);
    for seen in view.streams.iter().take(STREAMS) {
        let (stream, count) = (&seen.stream, &seen.count);
        table.add_row([
            source(view, seen),
            format!("→ {}", end(view, stream, Server::Destination)),
            protocol(stream.protocol),
            stream.direction.name().to_owned(),
            devices(view, stream),
            count.packets.to_string(),
            count.syn.to_string(),
            count.syn_ack.to_string(),
            count.rst.to_string(),
            ago(view.now_ns, count.last_ns),
            state(seen),
        ]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if (5..=8).contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    out.push_str(&table.trim_fmt());
    out.push_str("\n\n");
    if view.streams.len() > STREAMS {
        out.push_str(&format!(
            "and {} more, with fewer packets: -o json has all\n",
            view.streams.len() - STREAMS
        ));
    }
}

/// Whose socket sends it says more than the node's address.
fn source(view: &View, seen: &JudgedStream) -> String {
    let end = end(view, &seen.stream, Server::Source);
    match &seen.sender {
        Some(sender) => format!("{end} ({})", safe(&sender.name())),
        None => end,
    }
}

/// One end, with its port if it is the server.
fn end(view: &View, stream: &UntrackedStream, which: Server) -> String {
    let address = match which {
        Server::Source => stream.source,
        Server::Destination | Server::Neither => stream.destination,
    };
    let end = if stream.server == which {
        std::net::SocketAddr::new(address, stream.port).to_string()
    } else {
        address.to_string()
    };
    match view.names.get(&address) {
        Some(name) => safe(&format!("{end} ({}/{})", name.namespace, name.pod)),
        None => end,
    }
}

fn devices(view: &View, stream: &UntrackedStream) -> String {
    let name = |index: Option<u32>| {
        index.map(|index| {
            view.devices
                .get(&index)
                .map_or_else(|| index.to_string(), |name| safe(name))
        })
    };
    match (name(stream.input), name(stream.output)) {
        (Some(input), Some(output)) => format!("{input} → {output}"),
        (Some(input), None) => format!("from {input}"),
        (None, Some(output)) => format!("to {output}"),
        (None, None) => "-".to_owned(),
    }
}

fn state(seen: &JudgedStream) -> String {
    seen.intended.map_or_else(
        || seen.fault.name().to_owned(),
        |intended| format!("intended, {}", intended.name()),
    )
}
