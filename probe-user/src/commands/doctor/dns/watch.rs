//! DNS queries as the kernel sees them, by the programs of `probe path`, of which tracepoints are enough.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use probe_ebpf::contract::{hooks::PATH, path::Loss};

use super::super::CheckContext;
use crate::{
    attribution::{cri::Runtime, node_scope::NodeScope},
    capture::path as capture,
    commands::periodic::now_ns,
    kernel::{
        capabilities,
        path::{Options, PathProbe},
    },
    model::{
        Owner,
        doctor::dns::queries::{Asked, Queries},
    },
    namespace,
};

const DNS: u16 = 53;
const UDP: u8 = 17;
/// Events a second and processor: far more than a node's DNS makes.
const BUDGET: u32 = 20_000;
const RING: u32 = 1 << 20;
const AT_ONCE: usize = 20_000;
/// How often the ring is emptied.
const EVERY: Duration = Duration::from_millis(40);
const VXLAN_PORTS: [u16; 2] = [8472, 4789];

/// Watches for the time asked for.
///
/// # Errors
/// In words: what is not allowed, or this kernel does not give.
pub fn queries(node: &CheckContext, runtime: Option<&Runtime>) -> Result<Asked, String> {
    let missing = capabilities::missing(&capabilities::PATH);
    if let Some(need) = missing.iter().find(|need| need.lost.is_none()) {
        return Err(format!("{} is needed to {}", need.capability, need.purpose));
    }
    let mut source = node.settings.source.clone();
    // A packet that devices have is followed through translation by itself.
    let functions = PATH.iter().flat_map(|hook| hook.programs);
    let functions = functions.filter(|program| program.access.is_of_function());
    source
        .without
        .extend(functions.map(|program| program.tracepoint.to_owned()));
    let mut probe = PathProbe::load(&Options {
        from: None,
        to: None,
        port: Some(DNS),
        protocol: Some(UDP),
        netns: None,
        device: None,
        vxlan_ports: VXLAN_PORTS,
        budget: BUDGET,
        ring_bytes: RING,
        source,
    })
    .map_err(|error| error.to_string())?;
    let begun = Instant::now();
    let mut queries = Queries::default();
    let mut malformed = 0;
    loop {
        read(&mut probe, &mut queries, &mut malformed);
        let left = node.settings.duration.saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        thread::sleep(EVERY.min(left));
    }
    let end = now_ns();
    probe.detach();
    read(&mut probe, &mut queries, &mut malformed);
    let losses = [Loss::Ring, Loss::Budget, Loss::Flows];
    let lost = losses.into_iter().map(|loss| probe.lost(loss)).sum::<u64>() + probe.skipped() + malformed;
    let own = namespace::own_netns().map_or(0, |inode| inode as u32);
    let mut home = NodeScope::new(Path::new("/proc"));
    Ok(queries.end(end, node.settings.duration, lost, |netns| {
        if netns == own {
            return Some("the node itself".to_owned());
        }
        match runtime.map(|runtime| runtime.netns(netns)) {
            Some(Some(named)) => Some(format!("{}/{}", named.pod.namespace, named.pod.name)),
            // What the runtime does not know is no pod of this node.
            Some(None) => None,
            None => home
                .has(netns, &Owner::default(), None)
                .then(|| format!("network namespace {netns}")),
        }
    }))
}

fn read(probe: &mut PathProbe, queries: &mut Queries, malformed: &mut u64) {
    let reasons = probe.reasons.take();
    let known = capture::EventContext {
        reasons: reasons.as_ref(),
        vxlan_ports: VXLAN_PORTS,
        function: &|_, _| "",
        symbol: &|_| None,
    };
    probe.drain(AT_ONCE, |bytes| {
        match capture::raw(bytes).and_then(|raw| capture::event(&raw, &known)) {
            Ok(Some(event)) => queries.push(&event),
            Ok(None) => {}
            Err(_) => *malformed += 1,
        }
    });
    probe.reasons = reasons;
}
