//! The object that follows packets: load, read.

use std::net::{IpAddr, Ipv6Addr};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
};
use ipnet::IpNet;
use probe_ebpf::contract::{
    hooks::{Family, Hook, PATH, Program},
    path::{Loss, Point, Prefix, Settings, global, map},
};

use super::{
    KernelError,
    btf::Absent,
    hooks::{Degraded, take_away},
    losses::{self, Run},
    maps::take,
    messages::Reader,
    object::{Attached, Checked, Object, Reasons, Types},
};
use crate::model::settings::KernelSource;

const FEATURE: &str = "path";

pub(super) static OBJECT: Object = Object {
    name: "path",
    feature: FEATURE,
    plain: include_bytes!(env!("PROBE_OBJECT_PATH")),
    with_messages: include_bytes!(env!("PROBE_OBJECT_PATH_LOG")),
    hooks: &PATH,
    reads: env!("PROBE_READS_PATH"),
};

/// What a hook of [`PATH`] shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The tracepoint or function that all programs of the hook are at.
    pub function: &'static str,
    pub point: Point,
    /// `None`: packets of both.
    pub family: Option<Family>,
    /// IP protocol number; `None`: any.
    pub protocol: Option<u8>,
}

impl Shown {
    /// Whether it shows packets with this source address and IP protocol number at this point.
    pub fn shows(&self, point: Point, source: IpAddr, protocol: u8) -> bool {
        let family = match source {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        self.point == point
            && self.family.is_none_or(|only| only == family)
            && self.protocol.is_none_or(|only| only == protocol)
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// One entry a hook, in the order of [`PATH`]: a hook without one does not compile.
const SHOWN: [Shown; PATH.len()] = {
    const fn of(function: &'static str, point: Point, family: Option<Family>, protocol: Option<u8>) -> Shown {
        Shown {
            function,
            point,
            family,
            protocol,
        }
    }
    const fn any(function: &'static str, point: Point) -> Shown {
        of(function, point, None, None)
    }
    const fn v4(function: &'static str, point: Point) -> Shown {
        of(function, point, Some(Family::V4), None)
    }
    const fn v6(function: &'static str, point: Point) -> Shown {
        of(function, point, Some(Family::V6), None)
    }
    [
        any("nf_hook_slow", Point::Hook),
        any("ip_route_input_noref", Point::Route),
        v4("ip_forward", Point::Forward),
        v6("ip6_forward", Point::Forward),
        v4("ip_local_deliver", Point::Local),
        v6("ip6_input", Point::Local),
        v4("ip_output", Point::Output),
        v6("ip6_output", Point::Output),
        of("tcp_v4_do_rcv", Point::Socket, Some(Family::V4), Some(TCP)),
        of("tcp_v6_do_rcv", Point::Socket, Some(Family::V6), Some(TCP)),
        of("__udp_enqueue_schedule_skb", Point::Socket, None, Some(UDP)),
        v4("__icmp_send", Point::Icmp),
        v6("icmp6_send", Point::Icmp),
        any("nf_conntrack_in", Point::Conntrack),
        any("nf_nat_manip_pkt", Point::Nat),
        any("vxlan_xmit", Point::Encapsulate),
        any("vxlan_rcv", Point::Decapsulate),
        any("consume_skb", Point::Consumed),
        any("kfree_skb", Point::Dropped),
        any("netif_receive_skb", Point::Received),
        any("net_dev_start_xmit", Point::Sent),
    ]
};

/// What begins a flow, and how much of it is reported.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of a request's source; `None`: any.
    pub from: Option<IpNet>,
    /// Of a request's destination; `None`: any.
    pub to: Option<IpNet>,
    /// The server's; `None`: any.
    pub port: Option<u16>,
    /// IP protocol number; `None`: any.
    pub protocol: Option<u8>,
    /// Inode of the network namespace it begins in; `None`: any.
    pub netns: Option<u32>,
    /// Index of the device it begins at; `None`: any.
    pub device: Option<u32>,
    /// UDP ports of VXLAN.
    pub vxlan_ports: [u16; 2],
    /// Events a second and CPU.
    pub budget: u32,
    /// Size of the ring in bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    pub source: KernelSource,
}

/// The loaded object. Dropping it removes it from the kernel.
pub struct PathProbe {
    /// Which program serves which hook.
    pub used: Vec<(Hook, Program)>,
    /// Hooks this kernel does not give.
    pub degraded: Vec<Degraded>,
    /// Fields this kernel does not have.
    pub absent: Vec<Absent>,
    pub reasons: Reasons,
    ring: RingBuf<MapData>,
    losses: PerCpuArray<MapData, u64>,
    /// Once detached.
    skipped: Option<u64>,
    ebpf: Ebpf,
    /// After the programs that write them.
    _messages: Option<Reader>,
}

/// Loads every program for real, and takes all of it away again.
///
/// # Errors
/// When the kernel has no BTF, a required field is not in it, or its maps can't be made.
pub fn check(source: KernelSource) -> Result<Checked, KernelError> {
    let options = Options {
        from: None,
        to: None,
        port: None,
        protocol: None,
        netns: None,
        device: None,
        vxlan_ports: [0; 2],
        // No event is sent.
        budget: 0,
        ring_bytes: 4096,
        source,
    };
    let (mut ebpf, types, _) = load(&options)?;
    types.check(&mut ebpf, &OBJECT, &options.source)
}

fn load(options: &Options) -> Result<(Ebpf, Types, Reasons), KernelError> {
    let types = OBJECT.types(&options.source)?;
    let reasons = types.reasons();
    let settings = Settings {
        from: prefix(options.from),
        to: prefix(options.to),
        netns: options.netns.unwrap_or(0),
        device: options.device.unwrap_or(0),
        budget: options.budget,
        reasons: u32::from(reasons.is_some()),
        port: options.port.unwrap_or(0),
        vxlan_ports: options.vxlan_ports,
        protocol: options.protocol.unwrap_or(0),
        zero: 0,
    };
    let ebpf = OBJECT.load(
        &types,
        &[(global::SETTINGS, bytemuck::bytes_of(&settings))],
        &[(map::EVENTS, options.ring_bytes)],
    )?;
    Ok((ebpf, types, reasons))
}

/// As the kernel side compares it: words as they lie in memory.
fn prefix(net: Option<IpNet>) -> Prefix {
    let (address, length) = match net {
        None => (Ipv6Addr::UNSPECIFIED, 0),
        Some(net) => match net.network() {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped(), u32::from(net.prefix_len()) + 96),
            IpAddr::V6(v6) => (v6, u32::from(net.prefix_len())),
        },
    };
    let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    Prefix {
        address: bytemuck::cast((u128::from(address) & mask).to_be_bytes()),
        mask: bytemuck::cast(mask.to_be_bytes()),
    }
}

impl PathProbe {
    /// Loads the object and attaches every hook this kernel has.
    ///
    /// # Errors
    /// When the kernel has no BTF, a required field is not in it, or a required program is refused.
    pub fn load(options: &Options) -> Result<Self, KernelError> {
        let (mut ebpf, types, reasons) = load(options)?;
        let Attached {
            used,
            degraded,
            absent,
            messages,
            ..
        } = types.attach(&mut ebpf, &OBJECT, &options.source)?;
        Ok(Self {
            used,
            degraded,
            absent,
            reasons,
            ring: take(&mut ebpf, FEATURE, map::EVENTS)?,
            losses: take(&mut ebpf, FEATURE, map::LOSSES)?,
            skipped: None,
            ebpf,
            _messages: messages,
        })
    }

    /// What the hooks show that were attached.
    pub fn shown(&self) -> Vec<Shown> {
        let attached = |shown: &Shown| {
            self.used
                .iter()
                .any(|(_, program)| program.tracepoint == shown.function)
        };
        SHOWN.into_iter().filter(attached).collect()
    }

    /// Hands at most `most` events of the ring to `each`, as raw bytes; how many there were.
    pub fn drain(&mut self, most: usize, mut each: impl FnMut(&[u8])) -> usize {
        let mut events = 0;
        while events < most
            && let Some(event) = self.ring.next()
        {
            each(&event);
            events += 1;
        }
        events
    }

    /// How much of one kind the kernel side could not keep.
    pub fn lost(&self, loss: Loss) -> u64 {
        losses::total(&self.losses, loss as u32)
    }

    /// How often a hook did not run because it was already running on that CPU.
    pub fn skipped(&self) -> u64 {
        self.skipped.unwrap_or_else(|| losses::skipped(&self.ebpf, &[]))
    }

    /// How long the kernel ran its programs, while it counts that.
    pub fn runs(&self) -> Vec<Run> {
        losses::runs(&self.ebpf)
    }

    /// Ends the following; what the ring holds can still be read.
    pub fn detach(&mut self) {
        self.skipped = Some(self.skipped());
        take_away(&mut self.ebpf);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// The table of what hooks show names the functions that the hooks are at.
    #[test]
    fn each_hook_has_what_it_shows() {
        for (hook, shown) in PATH.iter().zip(SHOWN) {
            for program in hook.programs {
                assert_eq!(program.tracepoint, shown.function, "{}", hook.gives);
            }
        }
        for point in Point::ALL {
            assert!(SHOWN.iter().any(|shown| shown.point == *point), "{point:?}");
        }
    }

    /// What one packet passes at one point is one function.
    #[test]
    fn functions_of_packets() {
        const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
        const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
        let function = |point, source, protocol| {
            let found: Vec<_> = SHOWN
                .iter()
                .filter(|shown| shown.shows(point, source, protocol))
                .map(|shown| shown.function)
                .collect();
            assert!(found.len() <= 1, "{point:?} {source} {protocol}: {found:?}");
            found.first().copied().unwrap_or_default()
        };
        for point in Point::ALL {
            for source in [V4, V6] {
                for protocol in [TCP, UDP] {
                    assert_ne!(function(*point, source, protocol), "", "{point:?} {source}");
                }
            }
        }
        for (source, protocol, expected) in [
            (V4, TCP, "tcp_v4_do_rcv"),
            (V6, TCP, "tcp_v6_do_rcv"),
            (V4, UDP, "__udp_enqueue_schedule_skb"),
            (V6, UDP, "__udp_enqueue_schedule_skb"),
            (V4, 1, ""),
        ] {
            assert_eq!(function(Point::Socket, source, protocol), expected);
        }
    }

    #[test]
    fn prefixes_as_words() {
        for (net, inside, outside) in [
            ("10.244.0.0/16", "10.244.9.9", "10.245.0.1"),
            ("10.96.0.1/32", "10.96.0.1", "10.96.0.2"),
            ("fd77::/64", "fd77::9", "fd78::9"),
            ("fd77::1/128", "fd77::1", "fd77::2"),
        ] {
            let prefix = prefix(Some(net.parse().unwrap()));
            let has = |address: &str| {
                let address: IpAddr = address.parse().unwrap();
                let bytes = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                let words: [u64; 2] = bytemuck::cast(bytes);
                (0..2).all(|word| words[word] & prefix.mask[word] == prefix.address[word])
            };
            assert!(has(inside) && !has(outside), "{net}");
        }
        assert_eq!(prefix(None).mask, [0; 2]);
        assert_eq!(prefix(Some("::/0".parse().unwrap())).mask, [0; 2]);
    }
}
