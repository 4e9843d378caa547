//! One snapshot: tables, counters, and findings.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use probe_ebpf::contract::vxlan::{FlowKey, Loss};

use super::{checksums, filters, holders::holder, rules::Rules, underlays::Underlays};
use crate::{
    attribution::{cri::Runtime, udp_ports},
    capture::vxlan as capture,
    cli::Vxlan as Settings,
    commands::{
        periodic::{Looks, now_ns},
        pods,
        rule_book::RuleBook,
    },
    kernel::{
        KernelError,
        vxlan::{Options, VxlanProbe},
    },
    model::vxlan::{
        Diagnosis, Overlay, Traffic,
        filters::DeviceFilter,
        overlay::{PeerEntry, Tables},
        view::View,
    },
    netfilter::conntrack::Conntrack,
    rtnetlink::Routing,
};

/// Carry VXLAN by default: Linux' own port, which flannel uses, and the standard's.
const PORTS: [u16; 2] = [8472, 4789];
/// An inner connection without a packet for so long makes room for others.
const IDLE: Duration = Duration::from_secs(60);
/// How often conntrack is searched for a lost VTEP.
const CONTACTS: Duration = Duration::from_secs(10);

/// Looks again and again.
pub struct Poller {
    probe: VxlanProbe,
    underlays: Underlays,
    routing: Routing,
    diagnosis: Diagnosis,
    rules: Rules,
    /// The source of pod names, with --flows.
    runtime: Option<Runtime>,
    device: Option<String>,
    underlay: Option<String>,
    overlays: Vec<Overlay>,
    /// What conntrack last said of who had VXLAN packets.
    contacts: Option<(Instant, Vec<(u16, IpAddr)>)>,
}

impl Poller {
    pub fn new(settings: &Settings, book: RuleBook) -> Result<Self> {
        let netns = std::fs::metadata("/proc/thread-self/ns/net")
            .context("can't read this process's network namespace in /proc")?;
        let probe = VxlanProbe::load(&Options {
            netns: std::os::unix::fs::MetadataExt::ino(&netns) as u32,
            peers: settings.max_peers,
            flows: settings.flows.then_some(settings.max_flows),
            source: settings.source.clone(),
        })?;
        let mut looker = Self {
            probe,
            underlays: Underlays::new()?,
            routing: Routing::open()?,
            diagnosis: Diagnosis::new(settings.pace.once),
            rules: Rules::new(book),
            runtime: if settings.flows {
                pods::runtime(&settings.cri)?
            } else {
                None
            },
            device: settings.device.clone(),
            underlay: settings.underlay.clone(),
            overlays: Vec::new(),
            contacts: None,
        };
        let tables = looker.routing.tables()?;
        looker.follow(&tables)?;
        Ok(looker)
    }

    /// What this kernel does not give, and why.
    pub fn degraded(&self) -> Vec<String> {
        let mut lines: Vec<_> = self
            .probe
            .degraded
            .iter()
            .map(|degraded| format!("{} ({})", degraded.hook.gives, degraded.reason))
            .collect();
        if lines.is_empty() && !self.probe.has_reasons {
            lines.push("drop reasons (kernel 5.17): the cause of drops is inferred,".to_owned());
        }
        lines
    }

    /// The devices that are looked at.
    pub fn overlays(&self) -> &[Overlay] {
        &self.overlays
    }

    /// What is looked at, for people.
    pub fn description(&self) -> String {
        let overlays: Vec<_> = self
            .overlays
            .iter()
            .map(|overlay| {
                format!(
                    "{} (VNI {}, UDP port {}) on {}",
                    overlay.device.name,
                    overlay.vxlan.vni,
                    overlay.vxlan.port,
                    overlay
                        .underlay
                        .as_ref()
                        .map_or("no underlay", |underlay| &underlay.name)
                )
            })
            .collect();
        if overlays.is_empty() {
            return format!(
                "no VXLAN device in this network namespace{}",
                self.device
                    .as_ref()
                    .map(|name| format!(" named {name}"))
                    .unwrap_or_default()
            );
        }
        let way = if self.underlays.outlive_a_kill() {
            "; as filters of clsact queues, before 6.6: if killed, they stay until probe vxlan runs again"
        } else {
            ""
        };
        format!("{} (Ctrl-C ends){way}", overlays.join(", "))
    }

    /// Takes over what the tables have now: devices come and go.
    fn follow(&mut self, tables: &Tables) -> Result<()> {
        let mut overlays = Overlay::all(tables);
        if let Some(name) = &self.device {
            overlays.retain(|overlay| overlay.device.name == *name);
        }
        let mut ports: HashSet<u16> = PORTS.into();
        ports.extend(overlays.iter().map(|overlay| overlay.vxlan.port));
        self.probe.watch_ports(&ports)?;
        let devices = overlays.iter().map(|overlay| overlay.device.index).collect();
        self.probe.watch_devices(&devices)?;
        let mut underlays: HashMap<u32, String> = overlays
            .iter()
            .flat_map(Overlay::underlays)
            .filter(|underlay| underlay.ethernet)
            .map(|underlay| (underlay.index, underlay.name.clone()))
            .collect();
        if let Some(name) = &self.underlay {
            let device = tables.devices.iter().find(|device| device.name == *name);
            let device = device.with_context(|| format!("device {name} not found"))?;
            underlays = HashMap::from([(device.index, name.clone())]);
        }
        self.underlays
            .follow(&mut self.probe, &mut self.routing, &underlays)?;
        self.overlays = overlays;
        Ok(())
    }

    fn traffic(&mut self, tables: &Tables, explain: bool) -> Result<Traffic, KernelError> {
        let filters = if explain { self.filters(tables) } else { Vec::new() };
        let contacts = self.contacts();
        let probe = &mut self.probe;
        let mut traffic = Traffic {
            now_ns: now_ns(),
            checksum_errors: checksums::udp(),
            reverse_path_drops: checksums::reverse_path(),
            listening: udp_ports(),
            has_vni_reason: probe
                .reasons
                .values()
                .any(|reason| reason == "VXLAN_VNI_NOT_FOUND"),
            filters,
            contacts,
            losses: Loss::ALL
                .map(|loss| (loss.name(), probe.lost(loss)))
                .into_iter()
                .chain([("skipped", probe.skipped())])
                .collect(),
            ..Traffic::default()
        };
        probe.counters(traffic.now_ns, |key, counters| {
            traffic.streams.extend(capture::stream(&key, &counters));
        })?;
        probe.errors(|key, count| traffic.errors.extend(capture::error(&key, &count)))?;
        let reasons = probe.has_reasons.then_some(&probe.reasons);
        probe.drops(|key, count| traffic.drops.extend(capture::drop(&key, &count, reasons)))?;
        let forgotten = probe.forgotten_peers();
        if forgotten > 0 {
            traffic.losses.push(("forgotten_peers", forgotten));
        }
        let mut idle: Vec<FlowKey> = Vec::new();
        probe.flows(|key, flow| {
            let quiet = traffic.now_ns.saturating_sub(flow.last_ns);
            if Duration::from_nanos(quiet) > IDLE {
                idle.push(key);
            } else {
                traffic.flows.extend(capture::flow(&key, &flow));
            }
        })?;
        for key in idle {
            probe.forget_flow(&key);
        }
        traffic.streams.sort_unstable_by_key(|(stream, _)| *stream);
        traffic.errors.sort_unstable_by_key(|(error, _)| *error);
        traffic
            .drops
            .sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        traffic
            .flows
            .sort_unstable_by_key(|(_, count)| std::cmp::Reverse(count.bytes));
        let down = self.overlays.iter().filter(|overlay| !overlay.device.up);
        let listening = &traffic.listening;
        traffic.holders = down
            .map(|overlay| overlay.vxlan.port)
            .filter(|port| listening.contains(port))
            .map(|port| (port, holder(port)))
            .collect();
        Ok(traffic)
    }

    /// What others run on the underlay devices.
    fn filters(&mut self, tables: &Tables) -> Vec<DeviceFilter> {
        let mut underlays: Vec<_> = self
            .overlays
            .iter()
            .flat_map(Overlay::underlays)
            .map(|underlay| underlay.index)
            .collect();
        underlays.sort_unstable();
        underlays.dedup();
        let devices = tables
            .devices
            .iter()
            .filter(|device| underlays.binary_search(&device.index).is_ok());
        devices
            .flat_map(|device| filters::of_device(&mut self.routing, device))
            .collect()
    }

    /// The addresses that conntrack has VXLAN packets with, where the VTEP of a peer is not known. Read again after a while: the
    /// kernel walks all of its table for it.
    fn contacts(&mut self) -> Vec<(u16, IpAddr)> {
        let lacks = |overlay: &&Overlay| {
            overlay
                .peers
                .iter()
                .any(|peer| peer.vtep.is_none() && peer.lacks.contains(&PeerEntry::Forwarding))
        };
        let ports: HashSet<u16> = self
            .overlays
            .iter()
            .filter(lacks)
            .map(|overlay| overlay.vxlan.port)
            .collect();
        if ports.is_empty() {
            self.contacts = None;
            return Vec::new();
        }
        if let Some((at, contacts)) = &self.contacts
            && at.elapsed() < CONTACTS
        {
            return contacts.clone();
        }
        let mut contacts = Vec::new();
        for port in ports {
            // Without conntrack there is nothing to learn from it.
            let found = Conntrack::open(None).and_then(|mut conntrack| conntrack.udp_contacts(port));
            contacts.extend(
                found
                    .unwrap_or_default()
                    .into_iter()
                    .map(|address| (port, address)),
            );
        }
        self.contacts = Some((Instant::now(), contacts.clone()));
        contacts
    }
}

impl Looks for Poller {
    type View = View;

    fn look(&mut self, explain: bool) -> Result<View> {
        let tables = self.routing.tables()?;
        self.follow(&tables)?;
        let traffic = self.traffic(&tables, explain)?;
        let own: HashSet<IpAddr> = tables.addresses.iter().map(|(_, address)| *address).collect();
        let mut findings = self.diagnosis.look(&self.overlays, &own, &traffic);
        if explain {
            self.rules.explain(&mut findings);
        }
        Ok(View {
            time: Timestamp::now(),
            overlays: self.overlays.clone(),
            devices: tables
                .devices
                .iter()
                .map(|device| (device.index, device.name.clone()))
                .collect(),
            names: self.runtime.as_ref().map(pods::names).unwrap_or_default(),
            traffic,
            findings,
            unread: self.rules.unread(),
        })
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.probe.detach();
        self.underlays.clear(&mut self.routing);
    }
}
