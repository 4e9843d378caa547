//! From raw events to reports.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, IsTerminal as _, StdoutLock},
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use probe_ebpf::contract::path::{self as raw, Loss};

use super::{cause::CauseFinder, namespaces::Namespaces};
use crate::{
    attribution::cri::Runtime,
    capture::{clock::Clock, path as capture},
    cli::Path as Settings,
    commands::{periodic::now_ns, until::Remaining},
    kernel::{
        path::{PathProbe, Shown},
        symbols::Symbols,
    },
    model::path::{Exchange, Exchanges, Outcome, Packet, What},
    report::path::{Lost, PcapWriter, Reporter, Told, Totals},
};

/// Events taken at a time: what is more waits in the ring, and what finds no room there is counted.
const AT_ONCE: usize = 20_000;

pub struct Pipeline {
    exchanges: Exchanges,
    causes: CauseFinder,
    places: Namespaces,
    symbols: Symbols,
    shown: Vec<Shown>,
    vxlan_ports: [u16; 2],
    /// How many may still be reported.
    remaining: Remaining,
    outcomes: BTreeMap<&'static str, (Outcome, u64)>,
    packets: u64,
    malformed: u64,
    /// Points of packets lost so far, and when more were last, `CLOCK_MONOTONIC` nanoseconds.
    lost: (u64, u64),
    started: Timestamp,
    watched: String,
    reporter: Reporter<StdoutLock<'static>>,
    pcap: Option<PcapWriter<BufWriter<File>>>,
}

impl Pipeline {
    /// # Errors
    /// When the file to write to can't be made.
    pub fn new(
        settings: &Settings,
        watched: String,
        own: u32,
        runtime: Option<Runtime>,
        probe: &PathProbe,
    ) -> Result<Self> {
        let node = crate::host::node_name(settings.node.as_deref());
        let pcap = settings.write.as_deref().map(|path| {
            let file = File::create(path).with_context(|| format!("can't write {}", path.display()))?;
            let os = format!("Linux {}", crate::kernel::release());
            PcapWriter::new(BufWriter::new(file), std::env::consts::ARCH, &os)
                .with_context(|| format!("can't write {}", path.display()))
        });
        let terminal = io::stdout().is_terminal();
        let width = terminal
            .then(|| terminal_size::terminal_size_of(io::stdout()))
            .flatten()
            .map(|(width, _)| usize::from(width.0));
        Ok(Self {
            exchanges: Exchanges::default(),
            causes: CauseFinder::new(own),
            places: Namespaces::new(own, node.clone(), runtime),
            symbols: Symbols::default(),
            shown: probe.shown(),
            vxlan_ports: settings.vxlan_ports,
            remaining: Remaining::of(settings.count),
            outcomes: BTreeMap::new(),
            packets: 0,
            malformed: 0,
            lost: (0, 0),
            started: Timestamp::now(),
            watched,
            reporter: Reporter::new(
                settings.format,
                width,
                crate::report::colour(),
                io::stdout().lock(),
            )
            .node(node),
            pcap: pcap.transpose()?,
        })
    }

    /// Takes what is in the ring.
    pub fn read(&mut self, probe: &mut PathProbe) {
        let (mut events, mut malformed) = (Vec::new(), 0);
        probe.drain(AT_ONCE, |bytes| match capture::raw(bytes) {
            Ok(event) => events.push(event),
            Err(_) => malformed += 1,
        });
        let dropped = |event: &&raw::Event| event.point == raw::Point::Dropped as u8;
        self.symbols
            .find(events.iter().filter(dropped).map(|event| event.location));
        let symbols = &self.symbols;
        let function = |point, packet: &Packet| {
            let (source, protocol) = packet.outer();
            let shown = self.shown.iter();
            let mut shown = shown.filter(|shown| shown.shows(point, source, protocol));
            shown.next().map_or("", |shown| shown.function)
        };
        let known = capture::EventContext {
            reasons: probe.reasons.as_ref(),
            vxlan_ports: self.vxlan_ports,
            function: &function,
            symbol: &|address| symbols.name(address).map(str::to_owned),
        };
        for event in &events {
            match capture::event(event, &known) {
                Ok(Some(event)) => self.exchanges.push(event),
                Ok(None) => {}
                Err(_) => malformed += 1,
            }
        }
        self.malformed += malformed;
        let lost = [Loss::Ring, Loss::Budget, Loss::Flows]
            .into_iter()
            .map(|loss| probe.lost(loss))
            .sum();
        if lost > self.lost.0 {
            self.lost = (lost, now_ns());
        }
    }

    /// Reports what is due, or all that is left; returns whether there is more.
    ///
    /// # Errors
    /// An output that can't be written.
    pub fn tell(&mut self, clock: Clock, all: bool) -> Result<bool> {
        let due = if all {
            self.exchanges.rest()
        } else {
            self.exchanges.due(clock.now_ns())
        };
        for mut exchange in due {
            // Packets consumed late, of a flow that was reported already, are not reported.
            if is_over(&exchange) {
                continue;
            }
            // The end of a connection that began before is not what was asked for.
            if self.remaining.is_limited() && !exchange.is_substantial() {
                continue;
            }
            let start = exchange
                .journeys
                .first()
                .map_or(0, probe_model::path::Journey::start_ns);
            exchange.lossy = self.lost.1 >= start.max(1);
            if self.remaining.is_over() {
                return Ok(false);
            }
            self.remaining.report();
            self.explain(&mut exchange);
            self.tell_one(&exchange, clock)?;
        }
        Ok(!self.remaining.is_over())
    }

    fn explain(&mut self, exchange: &mut Exchange) {
        let hops = exchange.journeys.iter().flat_map(|journey| &journey.hops);
        self.places.learn(hops.map(|hop| hop.event.netns));
        self.causes.explain(exchange, &self.places);
    }

    fn tell_one(&mut self, exchange: &Exchange, clock: Clock) -> Result<()> {
        let places = |netns| self.places.name(netns);
        let start = exchange
            .journeys
            .first()
            .map_or(0, probe_model::path::Journey::start_ns);
        let told = Told {
            time: clock.time(start),
            exchange,
            places: &places,
        };
        let outcome = exchange.conclusion(&places).outcome;
        self.outcomes.entry(outcome.name()).or_insert((outcome, 0)).1 += 1;
        self.packets += exchange.journeys.len() as u64;
        self.reporter.exchange(&told).context("can't write")?;
        if let Some(pcap) = &mut self.pcap {
            pcap.exchange(&told, |ns| clock.time(ns))
                .context("can't write the packets")?;
        }
        Ok(())
    }

    /// Tells the summary; how often each outcome was.
    ///
    /// # Errors
    /// An output that can't be written.
    pub fn finish(mut self, probe: &PathProbe) -> Result<Vec<(Outcome, u64)>> {
        let outcomes: Vec<_> = self.outcomes.into_values().collect();
        let totals = Totals {
            exchanges: outcomes.iter().map(|(_, count)| count).sum(),
            packets: self.packets,
            outcomes: outcomes.clone(),
            lost: Lost {
                ring: probe.lost(Loss::Ring),
                budget: probe.lost(Loss::Budget),
                flows: probe.lost(Loss::Flows),
                skipped: probe.skipped(),
                malformed: self.malformed,
            },
            started: self.started,
            ended: Timestamp::now(),
            watched: self.watched,
        };
        self.reporter.last(&totals).context("can't write")?;
        Ok(outcomes)
    }
}

/// Whether only packets consumed after their report are left of it.
fn is_over(exchange: &Exchange) -> bool {
    exchange.journeys.iter().all(|journey| {
        journey
            .hops
            .iter()
            .all(|hop| matches!(hop.event.what, What::Consumed))
    })
}
