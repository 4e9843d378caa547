//! What a rule of kube-proxy's says of a Service, read from its entry: as text, those of 10,000 Services would be 20 MB.

use std::{collections::HashMap, net::IpAddr};

use super::{
    super::netlink::{destination_ports, xt},
    entries::{Blob, Chain, Entry, short},
    save::{DEVICE, NOT_DESTINATION, NOT_PROTOCOL, address, layout},
};
use crate::netfilter::{
    link::text,
    services::iptables::{Collector, Rule},
};

/// Adds the Services of a table; `any`: see [`Collector::add`].
pub(super) fn collect(
    blob: &Blob,
    chains: &[Chain],
    names: &HashMap<usize, &str>,
    any: IpAddr,
    into: &mut Collector,
) {
    for chain in chains.iter().filter(|chain| Collector::knows(&chain.name)) {
        for entry in blob.rules(chain) {
            if let Some(rule) = rule(blob, &chain.name, &entry, names) {
                into.add(&rule, any);
            }
        }
    }
}

fn rule<'a>(blob: &Blob, chain: &'a str, entry: &Entry, names: &HashMap<usize, &'a str>) -> Option<Rule<'a>> {
    let bytes = blob.bytes(entry)?;
    let (length, flags_at, _) = layout(blob.family);
    let inverted = *bytes.get(flags_at + 1)?;
    let part = |at: usize| bytes.get(at..)?.get(..length);
    let mut rule = Rule {
        chain,
        ..Rule::default()
    };
    let is_one = part(3 * length)?.iter().all(|byte| *byte == u8::MAX);
    if is_one && inverted & NOT_DESTINATION == 0 {
        rule.destination = address(part(length)?);
    }
    if inverted & NOT_PROTOCOL == 0 {
        rule.protocol = u8::try_from(short(bytes, 4 * length + 4 * DEVICE)?).ok();
    }
    for (name, options) in blob.match_parts(entry) {
        match name {
            b"comment" => rule.comment = text(options),
            name => {
                let port = destination_ports(name, options).filter(|(first, last)| first == last);
                rule.port = rule.port.or(port.map(|(port, _)| port));
            }
        }
    }
    match blob.target_name(entry)? {
        (_, Some(verdict)) => {
            let begin = usize::try_from(verdict)
                .ok()
                .filter(|begin| *begin != entry.end());
            rule.target = begin
                .and_then(|begin| names.get(&begin).copied())
                .unwrap_or_default();
        }
        (b"REJECT", None) => rule.target = "REJECT",
        (b"DNAT", None) => {
            let words = xt::target(blob.family, &blob.target(entry)?)?;
            rule.to = words.rsplit(' ').next()?.parse().ok();
        }
        (_, None) => {}
    }
    Some(rule)
}
