//! The options of iptables' extensions, out of the structures that they have in the kernel, as iptables-save writes them.
//!
//! These structures are the kernel's interface to iptables and don't change; a new one has a new revision.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{expression::Extension, plain_word};
use crate::netfilter::{link::text, rules::Family};

/// A structure, read from the beginning on. Numbers are in this machine's order if not said otherwise.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn short(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn long(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    /// A number of the packet, which is big-endian.
    fn port(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }
}

/// The match in iptables' words; `None` if it isn't understood.
pub(in crate::netfilter::rules) fn matching(family: Family, extension: &Extension) -> Option<String> {
    let mut fields = Fields(&extension.options);
    match (extension.name.as_str(), extension.revision) {
        ("conntrack", 1..=3) => conntrack(family, extension.revision, &mut fields),
        ("iprange", 1) => iprange(family, &mut fields),
        ("mark", 1) => mark(&mut fields),
        ("multiport", 1) => multiport(&mut fields),
        (name @ ("tcp" | "udp"), 0) => transport(name, &mut fields),
        ("sctp", 0) => sctp(&mut fields),
        ("addrtype", 1) => addrtype(&mut fields),
        ("comment", 0) => Some(comment(&text(&extension.options))),
        _ => None,
    }
}

/// A comment in iptables' words. It is in quotes always, where iptables leaves them out if it can.
pub(super) fn comment(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("-m comment --comment \"{}\"", crate::model::rule::clean(&text))
}

/// `struct xt_multiport_v1`: which ports, how many, 15 ports, whether each begins a range, whether all is inverted.
fn multiport(fields: &mut Fields<'_>) -> Option<String> {
    let option = match fields.byte()? {
        0 => "--sports",
        1 => "--dports",
        2 => "--ports",
        _ => return None,
    };
    let count = usize::from(fields.byte()?);
    let mut ports = [0; 15];
    for port in &mut ports {
        *port = fields.short()?;
    }
    let ranges = fields.take::<15>()?;
    let not = if fields.byte()? == 0 { "" } else { "! " };
    let mut list = String::new();
    for (port, begins) in ports.iter().zip(ranges).take(count) {
        let behind = if begins == 0 { ',' } else { ':' };
        list.push_str(&format!("{port}{behind}"));
    }
    list.pop();
    Some(format!("-m multiport {not}{option} {list}"))
}

/// `struct xt_tcp` and `struct xt_udp`: first and last source port, the same of the destination; then, of TCP, what isn't
/// understood here; what is inverted.
fn transport(name: &str, fields: &mut Fields<'_>) -> Option<String> {
    let mut ports = [0; 4];
    for port in &mut ports {
        *port = fields.short()?;
    }
    if name == "tcp" && fields.take::<3>()? != [0; 3] {
        return None;
    }
    let inverted = fields.byte()?;
    let mut words = format!("-m {name}");
    let [from, to, destination_from, destination_to] = ports;
    for (bit, option, first, last) in [
        (1, "--sport", from, to),
        (2, "--dport", destination_from, destination_to),
    ] {
        let not = if inverted & bit == 0 { "" } else { " !" };
        match (first, last) {
            (0, u16::MAX) if not.is_empty() => {}
            _ if first == last => words.push_str(&format!("{not} {option} {first}")),
            _ => words.push_str(&format!("{not} {option} {first}:{last}")),
        }
    }
    Some(words)
}

/// `struct xt_sctp_info`: first and last destination port, the same of the source; what isn't understood here; what is asked for, and
/// what of it is inverted.
fn sctp(fields: &mut Fields<'_>) -> Option<String> {
    const SOURCE: u32 = 1;
    const DESTINATION: u32 = 2;
    let mut ports = || Some((fields.short()?, fields.short()?));
    let (destinations, sources) = (ports()?, ports()?);
    fields.take::<{ 64 * 4 + 4 + 4 * 3 + 4 }>()?;
    let (asked, inverted) = (fields.long()?, fields.long()?);
    if asked & !(SOURCE | DESTINATION) != 0 {
        return None;
    }
    let mut words = "-m sctp".to_owned();
    for (bit, option, (first, last)) in [
        (SOURCE, "--sport", sources),
        (DESTINATION, "--dport", destinations),
    ] {
        if asked & bit == 0 {
            continue;
        }
        let not = if inverted & bit == 0 { "" } else { " !" };
        match first == last {
            true => words.push_str(&format!("{not} {option} {first}")),
            false => words.push_str(&format!("{not} {option} {first}:{last}")),
        }
    }
    Some(words)
}

/// `struct xt_addrtype_info_v1`: bits of source and destination, and flags.
fn addrtype(fields: &mut Fields<'_>) -> Option<String> {
    /// By the number of the bit.
    const TYPES: [&str; 9] = [
        "UNSPEC",
        "UNICAST",
        "LOCAL",
        "BROADCAST",
        "ANYCAST",
        "MULTICAST",
        "BLACKHOLE",
        "UNREACHABLE",
        "PROHIBIT",
    ];
    let (source, destination, flags) = (fields.short()?, fields.short()?, fields.long()?);
    let mut words = "-m addrtype".to_owned();
    for (bits, flag, option) in [(source, 1, "--src-type"), (destination, 2, "--dst-type")] {
        if bits == 0 {
            continue;
        }
        if bits >> TYPES.len() != 0 {
            return None;
        }
        let names: Vec<&str> = TYPES
            .iter()
            .enumerate()
            .filter_map(|(bit, name)| (bits >> bit & 1 == 1).then_some(*name))
            .collect();
        let not = if flags & flag == 0 { "" } else { " !" };
        words.push_str(&format!("{not} {option} {}", names.join(",")));
    }
    for (flag, option) in [(4, "--limit-iface-in"), (8, "--limit-iface-out")] {
        if flags & flag != 0 {
            words.push_str(&format!(" {option}"));
        }
    }
    Some(words)
}

/// `struct xt_mark_mtinfo1`: mark, mask, whether it is inverted.
fn mark(fields: &mut Fields<'_>) -> Option<String> {
    let (mark, mask) = (fields.long()?, fields.long()?);
    let not = if fields.byte()? == 0 { "" } else { "! " };
    let mask = if mask == u32::MAX {
        String::new()
    } else {
        format!("/0x{mask:x}")
    };
    Some(format!("-m mark {not}--mark 0x{mark:x}{mask}"))
}

/// `union nf_inet_addr`, which has 16 bytes.
fn address(family: Family, fields: &mut Fields<'_>) -> Option<IpAddr> {
    let bytes = fields.take::<16>()?;
    Some(match (family, bytes) {
        (Family::Ip, [a, b, c, d, ..]) => Ipv4Addr::from([a, b, c, d]).into(),
        (Family::Ip6 | Family::Inet | Family::Netdev | Family::Bridge, _) => Ipv6Addr::from(bytes).into(),
    })
}

/// `struct xt_iprange_mtinfo`: first and last source, the same of the destination, and flags.
fn iprange(family: Family, fields: &mut Fields<'_>) -> Option<String> {
    let mut addresses = || Some((address(family, fields)?, address(family, fields)?));
    let (sources, destinations) = (addresses()?, addresses()?);
    let flags = fields.byte()?;
    let mut words = "-m iprange".to_owned();
    for (flag, inverted, option, (first, last)) in [
        (1, 1 << 4, "--src-range", sources),
        (2, 1 << 5, "--dst-range", destinations),
    ] {
        if flags & flag != 0 {
            let not = if flags & inverted == 0 { "" } else { "! " };
            words.push_str(&format!(" {not}{option} {first}-{last}"));
        }
    }
    Some(words)
}

/// `struct xt_conntrack_mtinfo1` to `3`: addresses and masks of the source and the destination of both directions, expiry, protocol,
/// ports, what is asked for, what of it is inverted, and states. Only states and addresses are understood.
fn conntrack(family: Family, revision: u32, fields: &mut Fields<'_>) -> Option<String> {
    const STATE: u16 = 1;
    const ADDRESSES: [(u16, &str); 4] = [
        (1 << 2, "--ctorigsrc"),
        (1 << 3, "--ctorigdst"),
        (1 << 4, "--ctreplsrc"),
        (1 << 5, "--ctrepldst"),
    ];
    /// The bit in the mask, in iptables' order.
    const STATES: [(u16, &str); 7] = [
        (1, "INVALID"),
        (1 << 3, "NEW"),
        (1 << 2, "RELATED"),
        (1 << 1, "ESTABLISHED"),
        (1 << 8, "UNTRACKED"),
        (1 << 6, "SNAT"),
        (1 << 7, "DNAT"),
    ];
    let mut networks = Vec::new();
    for _ in ADDRESSES {
        networks.push((address(family, fields)?, address(family, fields)?));
    }
    fields.take::<{ 4 + 4 + 2 + 4 * 2 }>()?;
    let (asked, inverted) = (fields.short()?, fields.short()?);
    let states = match revision {
        1 => fields.byte()?.into(),
        _ => fields.short()?,
    };
    let understood = ADDRESSES.iter().fold(STATE, |all, (flag, _)| all | flag);
    if asked & !understood != 0 {
        return None;
    }
    let not = |flag| if inverted & flag == 0 { "" } else { "! " };
    let mut words = "-m conntrack".to_owned();
    if asked & STATE != 0 {
        let known = STATES.iter().fold(0, |all, (bit, _)| all | bit);
        if states & !known != 0 {
            return None;
        }
        let names = STATES.iter().filter(|(bit, _)| states & bit != 0);
        let names: Vec<&str> = names.map(|(_, name)| *name).collect();
        words.push_str(&format!(" {}--ctstate {}", not(STATE), names.join(",")));
    }
    for ((flag, option), (address, mask)) in ADDRESSES.into_iter().zip(networks) {
        if asked & flag != 0 {
            let network = ipnet::IpNet::with_netmask(address, mask).ok()?;
            let network = if network.prefix_len() == network.max_prefix_len() {
                address.to_string()
            } else {
                network.to_string()
            };
            words.push_str(&format!(" {}{option} {network}", not(flag)));
        }
    }
    Some(words)
}

/// The target in iptables' words, without `-j`.
pub(in crate::netfilter::rules) fn target(family: Family, extension: &Extension) -> Option<String> {
    let mut fields = Fields(&extension.options);
    match (extension.name.as_str(), extension.revision) {
        ("NOTRACK", 0) => Some("NOTRACK".to_owned()),
        ("CT", 0..=2) if is_notrack(extension) => {
            // The alias says as what it was written.
            let alias = fields.short()? & 2 != 0;
            Some(if alias { "NOTRACK" } else { "CT --notrack" }.to_owned())
        }
        ("CT", 0..=2) => conntrack_target(extension.revision, &mut fields),
        ("REJECT", 0) => reject(family, fields.long()?),
        ("DNAT", 0..=2) => dnat(family, extension.revision, &mut fields),
        _ => None,
    }
}

/// `struct xt_ct_target_info` (revision 0) and `struct xt_ct_target_info_v1` (1 and 2): flags, zone, two masks of events, the names of a
/// helper and of a timeout policy. Events are not understood.
fn conntrack_target(revision: u32, fields: &mut Fields<'_>) -> Option<String> {
    const ORIGINAL: u16 = 1 << 2;
    const REPLY: u16 = 1 << 3;
    const MARK: u16 = 1 << 4;
    let (flags, zone) = (fields.short()?, fields.short()?);
    if fields.long()? != 0 || fields.long()? != 0 {
        return None;
    }
    let helper = text(&fields.take::<16>()?);
    let timeout = match revision {
        0 => String::new(),
        _ => text(&fields.take::<32>()?),
    };
    let mut words = "CT".to_owned();
    for (option, name) in [("--helper", &helper), ("--timeout", &timeout)] {
        if !name.is_empty() {
            words.push_str(&format!(" {option} {}", plain_word(name)?));
        }
    }
    let option = match flags & (ORIGINAL | REPLY) {
        ORIGINAL => "--zone-orig",
        REPLY => "--zone-reply",
        _ => "--zone",
    };
    if flags & MARK != 0 {
        words.push_str(&format!(" {option} mark"));
    } else if zone != 0 {
        words.push_str(&format!(" {option} {zone}"));
    }
    Some(words)
}

/// The flags are first in each revision of `struct xt_ct_target_info`.
pub(in crate::netfilter::rules) fn is_notrack(target: &Extension) -> bool {
    match target.name.as_str() {
        "NOTRACK" => true,
        "CT" => Fields(&target.options)
            .short()
            .is_some_and(|flags| flags & 1 != 0),
        _ => false,
    }
}

/// `enum ipt_reject_with` and `enum ip6t_reject_with`.
fn reject(family: Family, with: u32) -> Option<String> {
    let with = match (family, with) {
        (Family::Ip, 0) => "icmp-net-unreachable",
        (Family::Ip, 1) => "icmp-host-unreachable",
        (Family::Ip, 2) => "icmp-proto-unreachable",
        (Family::Ip, 3) => "icmp-port-unreachable",
        (Family::Ip, 5) => "icmp-net-prohibited",
        (Family::Ip, 6) => "icmp-host-prohibited",
        (Family::Ip, 7) | (Family::Ip6, 6) => "tcp-reset",
        (Family::Ip, 8) => "icmp-admin-prohibited",
        (Family::Ip6, 0) => "icmp6-no-route",
        (Family::Ip6, 1) => "icmp6-adm-prohibited",
        (Family::Ip6, 3) => "icmp6-addr-unreachable",
        (Family::Ip6, 4) => "icmp6-port-unreachable",
        (Family::Ip6, 7) => "icmp6-policy-fail",
        (Family::Ip6, 8) => "icmp6-reject-route",
        (Family::Ip | Family::Ip6 | Family::Inet | Family::Netdev | Family::Bridge, _) => return None,
    };
    Some(format!("REJECT --reject-with {with}"))
}

/// One address, and one port if it's translated too: of `struct nf_nat_ipv4_multi_range_compat` (revision 0),
/// `struct nf_nat_range` (1) or `struct nf_nat_range2` (2).
fn dnat(family: Family, revision: u32, fields: &mut Fields<'_>) -> Option<String> {
    const ADDRESS: u32 = 1;
    const PORT: u32 = 2;
    if revision == 0 && fields.long()? != 1 {
        return None;
    }
    let flags = fields.long()?;
    let mut address = || -> Option<IpAddr> {
        Some(match (revision, family) {
            (0, _) => Ipv4Addr::from(fields.take::<4>()?).into(),
            (_, Family::Ip) => {
                let [a, b, c, d, ..] = fields.take::<16>()?;
                Ipv4Addr::from([a, b, c, d]).into()
            }
            (_, Family::Ip6 | Family::Inet | Family::Netdev | Family::Bridge) => {
                Ipv6Addr::from(fields.take::<16>()?).into()
            }
        })
    };
    let (first, last) = (address()?, address()?);
    let (first_port, last_port) = (fields.port()?, fields.port()?);
    if first != last || first_port != last_port {
        return None;
    }
    let to = match flags {
        ADDRESS => first.to_string(),
        _ if flags == ADDRESS | PORT && first.is_ipv6() => format!("[{first}]:{first_port}"),
        _ if flags == ADDRESS | PORT => format!("{first}:{first_port}"),
        _ => return None,
    };
    Some(format!("DNAT --to-destination {to}"))
}
