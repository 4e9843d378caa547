//! Chains of a table as `iptables-legacy-save -c` writes them.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    super::{
        Family,
        netlink::{plain_word, xt},
    },
    entries::{Blob, Chain, Entry, STANDARD, long, short},
    kept::Kept,
};
use crate::netfilter::link::text;

/// `IPT_F_FRAG` of IPv4; the same bit of IPv6 says that there is a protocol.
const FRAGMENT: u8 = 1;
/// `IPT_INV_VIA_IN` and the others, the same numbers for IPv6.
const NOT_INPUT: u8 = 1;
const NOT_OUTPUT: u8 = 2;
const NOT_SOURCE: u8 = 8;
pub(super) const NOT_DESTINATION: u8 = 0x10;
const NOT_FRAGMENT: u8 = 0x20;
pub(super) const NOT_PROTOCOL: u8 = 0x40;
/// The length of a device's name.
pub(super) const DEVICE: usize = 16;

/// The chains of the table that `kept` has, and those that these jump to, without their rules; `None` if a part of it isn't as
/// iptables writes it.
pub(super) fn save(
    blob: &Blob,
    table: &str,
    chains: &[Chain],
    names: &HashMap<usize, &str>,
    kept: &Kept,
) -> Option<String> {
    let mut text = format!("*{}\n", plain_word(table)?);
    for chain in kept.heads(chains) {
        let name = plain_word(&chain.name)?;
        match &chain.policy {
            Some(policy) => {
                let target = match verdict(blob.target(policy)?.options.as_slice())? {
                    -1 => "DROP",
                    -2 => "ACCEPT",
                    _ => return None,
                };
                text.push_str(&format!(
                    ":{name} {target} [{}:{}]\n",
                    policy.packets, policy.bytes
                ));
            }
            None => text.push_str(&format!(":{name} - [0:0]\n")),
        }
    }
    let name_at = |begin: i32| names.get(&usize::try_from(begin).ok()?).copied();
    for chain in kept.whole(chains) {
        for rule in blob.rules(chain) {
            let rule = &rule;
            let mut words = vec![
                format!("[{}:{}]", rule.packets, rule.bytes),
                format!("-A {}", chain.name),
            ];
            let is_goto = header(blob, rule, &mut words)?;
            for extension in blob.matches(rule)? {
                let unknown = || Some(format!("-m {0} [xt match {0}]", plain_word(&extension.name)?));
                words.push(xt::matching(blob.family, &extension).or_else(unknown)?);
            }
            words.extend(target(blob, rule, is_goto, name_at)?);
            text.push_str(&words.join(" "));
            text.push('\n');
        }
    }
    Some(text + "COMMIT\n")
}

/// `-j DROP`; nothing for a rule without a target; `None` if it isn't understood.
fn target<'a>(
    blob: &Blob,
    rule: &Entry,
    is_goto: bool,
    name_at: impl Fn(i32) -> Option<&'a str>,
) -> Option<Option<String>> {
    let target = blob.target(rule)?;
    if target.name != STANDARD {
        let unknown = || Some(format!("{0} [xt target {0}]", plain_word(&target.name)?));
        let words = xt::target(blob.family, &target).or_else(unknown)?;
        return Some(Some(format!("-j {words}")));
    }
    let verdict = verdict(&target.options)?;
    Some(Some(match verdict {
        -1 => "-j DROP".to_owned(),
        -2 => "-j ACCEPT".to_owned(),
        -4 => "-j QUEUE".to_owned(),
        -5 => "-j RETURN".to_owned(),
        // To the next rule: it has no target.
        _ if usize::try_from(verdict) == Ok(rule.end()) => return Some(None),
        _ if is_goto => format!("-g {}", name_at(verdict)?),
        _ => format!("-j {}", name_at(verdict)?),
    }))
}

fn verdict(options: &[u8]) -> Option<i32> {
    Some(long(options, 0)?.cast_signed())
}

/// How long an address is, where flags and inverted flags are, and the flag for `-g`.
pub(super) const fn layout(family: Family) -> (usize, usize, u8) {
    match family {
        Family::Ip6 => (16, 131, 4),
        Family::Ip | Family::Inet | Family::Netdev | Family::Bridge => (4, 82, 2),
    }
}

/// Adds what an entry asks without a match (`struct ipt_ip` or `struct ip6t_ip6`); whether its target is one to go to.
fn header(blob: &Blob, rule: &Entry, words: &mut Vec<String>) -> Option<bool> {
    let bytes = blob.bytes(rule)?;
    let (address, flags_at, goto) = layout(blob.family);
    let part = |at: usize, length: usize| bytes.get(at..)?.get(..length);
    let (flags, inverted) = (*bytes.get(flags_at)?, *bytes.get(flags_at + 1)?);
    // The class of traffic, which iptables can't ask for so.
    if blob.family == Family::Ip6 && flags & 2 != 0 {
        return None;
    }
    let not = |bit: u8| if inverted & bit == 0 { "" } else { "! " };
    for (option, place, bit) in [("-s", 0, NOT_SOURCE), ("-d", address, NOT_DESTINATION)] {
        if let Some(network) = network(
            part(place, address)?,
            part(2 * address + place, address)?,
            not(bit),
        )? {
            words.push(format!("{}{option} {network}", not(bit)));
        }
    }
    let devices = 4 * address;
    for (option, place, bit) in [("-i", devices, NOT_INPUT), ("-o", devices + DEVICE, NOT_OUTPUT)] {
        let name = device(part(place, DEVICE)?, part(place + 2 * DEVICE, DEVICE)?)?;
        if !name.is_empty() {
            words.push(format!("{}{option} {}", not(bit), plain_word(&name)?));
        }
    }
    let protocol = short(bytes, devices + 4 * DEVICE)?;
    if protocol != 0 {
        let name = match protocol {
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "ipv6-icmp".to_owned(),
            132 => "sctp".to_owned(),
            _ => protocol.to_string(),
        };
        words.push(format!("{}-p {name}", not(NOT_PROTOCOL)));
    }
    if blob.family != Family::Ip6 && flags & FRAGMENT != 0 {
        words.push(format!("{}-f", not(NOT_FRAGMENT)));
    }
    Some(flags & goto != 0)
}

/// An address of either family, by its length.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    Some(match bytes.len() {
        4 => Ipv4Addr::from(*bytes.first_chunk()?).into(),
        _ => Ipv6Addr::from(*bytes.first_chunk()?).into(),
    })
}

/// `10.0.0.0/8`; nothing where any address will do; `None` if it isn't an address.
fn network(address: &[u8], mask: &[u8], not: &str) -> Option<Option<String>> {
    if not.is_empty() && mask.iter().all(|byte| *byte == 0) {
        return Some(None);
    }
    let (address, mask) = (self::address(address)?, self::address(mask)?);
    Some(Some(match ipnet::IpNet::with_netmask(address, mask) {
        Ok(network) => network.to_string(),
        Err(_) => format!("{address}/{mask}"),
    }))
}

/// `eth0`, or `eth+` where the mask leaves out the end; nothing where any device will do.
fn device(name: &[u8], mask: &[u8]) -> Option<String> {
    let asked = mask.iter().take_while(|byte| **byte != 0).count();
    let beginning = name.get(..asked)?;
    let mut words = text(beginning);
    if asked > 0 && beginning.last() != Some(&0) {
        words.push('+');
    }
    Some(words)
}
