//! For people.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::super::{
    clock::Clock,
    finding,
    snapshot::{ago, local, safe},
};
use crate::model::{
    plural::counted,
    vxlan::{
        overlay::PeerSource,
        view::{PeerView, View},
    },
};

/// Inner connections shown.
const FLOWS: usize = 20;

/// Devices, peers, inner connections where they were asked for, findings.
pub fn all(view: &View, clock: &mut Clock) -> String {
    let mut out = String::new();
    devices(&mut out, view);
    peers(&mut out, view);
    flows(&mut out, view);
    if view.findings.is_empty() {
        healthy(&mut out, view, clock);
    } else {
        out.push_str(&format!(
            "\n{}  {}\n",
            local(view.time, clock),
            counted(view.findings.len(), "fault", "faults")
        ));
        for found in &view.findings {
            finding::text(&mut out, found);
        }
        for unread in &view.unread {
            out.push_str(&format!("note: {}\n", safe(unread)));
        }
    }
    for (name, lost) in view.traffic.losses.iter().filter(|(_, lost)| *lost > 0) {
        out.push_str(&format!("not counted (table full): {lost} {name}\n"));
    }
    out
}

fn devices(out: &mut String, view: &View) {
    for overlay in &view.overlays {
        let (device, vxlan) = (&overlay.device, &overlay.vxlan);
        let local = vxlan
            .local
            .map_or_else(|| "any address".to_owned(), |local| local.to_string());
        let underlays: Vec<_> = overlay
            .underlays()
            .map(|underlay| format!("{} (MTU {})", underlay.name, underlay.mtu))
            .collect();
        let underlay = if underlays.is_empty() {
            "no underlay".to_owned()
        } else {
            underlays.join(" and ")
        };
        let kind = match overlay.kind {
            PeerSource::Entries => "",
            PeerSource::Learning => ", learns its peers: missing entries can't be detected",
            PeerSource::External => ", gets its peers per packet (external): none are known",
        };
        let up = if device.up { "" } else { ", DOWN" };
        out.push_str(&safe(&format!(
            "{}: VNI {}, UDP port {}, {local} on {underlay}, MTU {}{kind}{up}",
            device.name, vxlan.vni, vxlan.port, device.mtu
        )));
        out.push('\n');
    }
}

fn peers(out: &mut String, view: &View) {
    let peers = view.peers();
    if peers.is_empty() {
        return;
    }
    let mut table = plain();
    table.set_header([
        "DEVICE",
        "PEER",
        "PODS",
        "SENT",
        "RECEIVED",
        "LAST SEEN",
        "DROPS",
        "STATE",
    ]);
    for peer in &peers {
        table.add_row([
            safe(&peer.overlay.device.name),
            peer.vtep.map_or_else(|| "?".to_owned(), |vtep| vtep.to_string()),
            pods(peer),
            peer.sent.packets.to_string(),
            peer.received.packets.to_string(),
            ago(view.traffic.now_ns, peer.last_ns()),
            peer.dropped.to_string(),
            peer.state(),
        ]);
    }
    push(out, table, &[3, 4, 6]);
}

fn plain() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Adds a table. `right`: the columns that hold numbers.
fn push(out: &mut String, mut table: Table, right: &[usize]) {
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    out.push('\n');
    out.push_str(&table.trim_fmt());
    out.push('\n');
}

/// What is behind a peer.
fn pods(peer: &PeerView<'_>) -> String {
    let routes = peer.peer.map(|peer| peer.routes.as_slice()).unwrap_or_default();
    match routes {
        [] => "-".to_owned(),
        [route] => route.to_string(),
        [route, rest @ ..] => format!("{route} +{}", rest.len()),
    }
}

fn flows(out: &mut String, view: &View) {
    let flows = &view.traffic.flows;
    if flows.is_empty() {
        return;
    }
    let mut table = plain();
    table.set_header([
        "INNER CONNECTION",
        "",
        "PROTOCOL",
        "WAY",
        "PACKETS",
        "BYTES",
        "LAST SEEN",
    ]);
    let named = |end: std::net::SocketAddr| match view.names.get(&end.ip()) {
        Some(name) => safe(&format!("{end} ({}/{})", name.namespace, name.pod)),
        None => end.to_string(),
    };
    for (flow, count) in flows.iter().take(FLOWS) {
        table.add_row([
            named(flow.source),
            format!("→ {}", named(flow.destination)),
            protocol(flow.protocol),
            flow.direction.name().to_owned(),
            count.packets.to_string(),
            count.bytes.to_string(),
            ago(view.traffic.now_ns, count.last_ns),
        ]);
    }
    push(out, table, &[4, 5]);
    if flows.len() > FLOWS {
        out.push_str(&format!(
            "and {} more, with fewer bytes: -o json has all\n",
            flows.len() - FLOWS
        ));
    }
}

pub fn protocol(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        number => number.to_string(),
    }
}

fn healthy(out: &mut String, view: &View, clock: &mut Clock) {
    let peers = view.peers();
    let sum = |of: fn(&PeerView<'_>) -> u64| peers.iter().map(of).sum::<u64>();
    let time = local(view.time, clock);
    if view.overlays.is_empty() {
        out.push_str(&format!(
            "\n{time}  no VXLAN device in this network namespace: is this the node's? (--netns)\n"
        ));
        return;
    }
    let (sent, received) = (sum(|peer| peer.sent.packets), sum(|peer| peer.received.packets));
    let dropped = sum(|peer| peer.dropped);
    let active = peers.iter().filter(|peer| peer.received.packets > 0).count();
    let peers = counted(peers.len(), "peer", "peers");
    let idle = if sent + received == 0 {
        " No packet was seen: without traffic only tables can be checked."
    } else {
        ""
    };
    out.push_str(&format!(
        "\n{time}  no fault found: {peers}, {active} with traffic, {sent} packets sent, {received} received, \
         {dropped} dropped.{idle}\n"
    ));
}
