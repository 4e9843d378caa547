//! The points where chains are attached, in the order in which a packet meets them: at devices, at a bridge, in IP.

use std::collections::HashMap;

use super::{
    Family, Packet, PacketPath,
    model::{Base, Hook},
};
use crate::model::network::Device;

/// Where a packet was when something happened to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PathPosition {
    /// Not known.
    #[default]
    Anywhere,
    /// At the bridge port that it came by, or in that port's bridge.
    Arriving,
    /// At the bridge port that it leaves by.
    Leaving,
    /// In IP, or at a device that is no port of a bridge.
    Network,
}

/// The bridges of a network namespace.
#[derive(Debug, Clone, Default)]
pub(super) struct Bridges {
    /// The names of ports, by the bridge's.
    ports: HashMap<String, Vec<String>>,
    /// The bridge's name, by a port's.
    of: HashMap<String, String>,
    /// Bridged packets of IPv4 and of IPv6 pass the chains of IP too (`bridge-nf-call-iptables`, `bridge-nf-call-ip6tables`).
    pub(super) calls_ip: [bool; 2],
}

impl Bridges {
    pub(super) fn new(devices: &[Device], calls_ip: [bool; 2]) -> Self {
        let mut bridges = Self {
            calls_ip,
            ..Self::default()
        };
        for bridge in devices.iter().filter(|device| device.bridge) {
            let ports = devices
                .iter()
                .filter(|port| port.controller == Some(bridge.index))
                .map(|port| port.name.clone());
            let ports: Vec<String> = ports.collect();
            for port in &ports {
                bridges.of.insert(port.clone(), bridge.name.clone());
            }
            bridges.ports.insert(bridge.name.clone(), ports);
        }
        bridges
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Where a packet is that came by one device and is at another, as the kernel has it when it drops the packet.
    pub(super) fn position(&self, input: Option<&str>, device: Option<&str>) -> PathPosition {
        let is_port = |name: Option<&str>| name.is_some_and(|name| self.of.contains_key(name));
        match (is_port(input), is_port(device)) {
            (_, true) if input != device => PathPosition::Leaving,
            (true, _) => PathPosition::Arriving,
            (false, _) => PathPosition::Network,
        }
    }

    /// The bridge that a packet passes at a device, and which of its ports.
    fn at<'a>(&'a self, device: Option<&'a str>) -> Option<BridgePort<'a>> {
        let device = device?;
        if let Some(bridge) = self.of.get(device) {
            return Some(BridgePort {
                bridge,
                port: Interface::Named(device),
            });
        }
        let (bridge, ports) = self.ports.get_key_value(device)?;
        Some(BridgePort {
            bridge,
            port: Interface::OneOf(ports),
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct BridgePort<'a> {
    bridge: &'a str,
    port: Interface<'a>,
}

/// A device as a hook sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface<'a> {
    /// The empty name: it has none there.
    Named(&'a str),
    OneOf(&'a [String]),
    Unknown,
}

impl<'a> Interface<'a> {
    const NONE: Self = Self::Named("");

    fn of(name: Option<&'a str>) -> Self {
        name.map_or(Self::Unknown, Self::Named)
    }
}

/// Whose chains they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChainLayer {
    /// A device's: family netdev, and ingress of family inet.
    Device,
    Bridge,
    Ip,
}

impl ChainLayer {
    fn of(family: Family, hook: Hook) -> Self {
        match (family, hook) {
            (Family::Bridge, _) => Self::Bridge,
            (Family::Netdev, _) | (_, Hook::Ingress | Hook::Egress) => Self::Device,
            (Family::Ip | Family::Ip6 | Family::Inet, _) => Self::Ip,
        }
    }
}

/// One of those points.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage<'a> {
    layer: ChainLayer,
    hook: Hook,
    pub(super) input: Interface<'a>,
    pub(super) output: Interface<'a>,
    pub(super) input_bridge: Interface<'a>,
    pub(super) output_bridge: Interface<'a>,
}

impl<'a> Stage<'a> {
    fn new(layer: ChainLayer, hook: Hook, input: Interface<'a>, output: Interface<'a>) -> Self {
        Self {
            layer,
            hook,
            input,
            output,
            input_bridge: Interface::NONE,
            output_bridge: Interface::NONE,
        }
    }

    /// Whether a chain of that family is attached there.
    pub(super) fn has(&self, family: Family, base: &Base) -> bool {
        self.hook == base.hook && self.layer == ChainLayer::of(family, base.hook)
    }
}

/// The points that the packet passes, in order; of those, where it may be.
pub(super) fn stages<'a>(packet: &'a Packet, bridges: &'a Bridges) -> Vec<Stage<'a>> {
    let (input, output) = match packet.path {
        PacketPath::In => (packet.input.as_deref(), None),
        PacketPath::Out => (None, packet.output.as_deref()),
        PacketPath::Forward => (packet.input.as_deref(), packet.output.as_deref()),
    };
    let way = PassedStages {
        arrives: packet.path != PacketPath::Out,
        leaves: packet.path != PacketPath::In,
        from: bridges.at(input),
        to: bridges.at(output),
        input: Interface::of(input),
        output: Interface::of(output),
        calls_ip: bridges.calls_ip[usize::from(packet.destination.to_canonical().is_ipv6())],
    };
    let mut stages = match (way.from, way.to) {
        (Some(from), Some(to)) if from.bridge == to.bridge && way.is_between_ports() => way.bridged(from, to),
        _ => way.routed(),
    };
    stages.retain(|stage| way.may_be(packet.position, stage));
    stages
}

struct PassedStages<'a> {
    arrives: bool,
    leaves: bool,
    from: Option<BridgePort<'a>>,
    to: Option<BridgePort<'a>>,
    input: Interface<'a>,
    output: Interface<'a>,
    calls_ip: bool,
}

impl<'a> PassedStages<'a> {
    /// It is given by the ports themselves: what comes by a bridge and leaves by it is routed, else.
    fn is_between_ports(&self) -> bool {
        let is_port = |port: Option<BridgePort<'_>>| {
            matches!(
                port,
                Some(BridgePort {
                    port: Interface::Named(_),
                    ..
                })
            )
        };
        is_port(self.from) && is_port(self.to)
    }

    /// Between two ports of a bridge.
    fn bridged(&self, from: BridgePort<'a>, to: BridgePort<'a>) -> Vec<Stage<'a>> {
        let mut stages = arriving(from);
        // What iptables is given there has the bridge's name, in place of those of ports.
        let here = Interface::Named(from.bridge);
        let ip = |hook, input, output| {
            self.calls_ip
                .then(|| Stage::new(ChainLayer::Ip, hook, input, output))
        };
        stages.extend(ip(Hook::Prerouting, here, Interface::NONE));
        stages.push(Stage {
            input_bridge: here,
            output_bridge: here,
            ..Stage::new(ChainLayer::Bridge, Hook::Forward, from.port, to.port)
        });
        stages.extend(ip(Hook::Forward, here, here));
        let mut leaving = leaving(to);
        let egress = leaving.pop();
        stages.extend(leaving.pop());
        stages.extend(ip(Hook::Postrouting, here, here));
        stages.extend(egress);
        stages
    }

    fn routed(&self) -> Vec<Stage<'a>> {
        let mut stages = Vec::new();
        let input = self.from.map_or(self.input, |from| Interface::Named(from.bridge));
        let output = self.to.map_or(self.output, |to| Interface::Named(to.bridge));
        if self.arrives {
            if let Some(from) = self.from {
                stages.extend(arriving(from));
                if self.calls_ip {
                    stages.push(Stage::new(
                        ChainLayer::Ip,
                        Hook::Prerouting,
                        input,
                        Interface::NONE,
                    ));
                }
                stages.push(Stage {
                    input_bridge: input,
                    ..Stage::new(ChainLayer::Bridge, Hook::Input, from.port, Interface::NONE)
                });
            }
            stages.push(Stage::new(
                ChainLayer::Device,
                Hook::Ingress,
                input,
                Interface::NONE,
            ));
            if self.from.is_none() || !self.calls_ip {
                stages.push(Stage::new(
                    ChainLayer::Ip,
                    Hook::Prerouting,
                    input,
                    Interface::NONE,
                ));
            }
        }
        let before = if self.arrives { input } else { Interface::NONE };
        stages.extend(match (self.arrives, self.leaves) {
            (true, true) => Some(Stage::new(ChainLayer::Ip, Hook::Forward, before, output)),
            (true, false) => Some(Stage::new(ChainLayer::Ip, Hook::Input, before, Interface::NONE)),
            (false, _) => Some(Stage::new(ChainLayer::Ip, Hook::Output, before, output)),
        });
        if self.leaves {
            stages.push(Stage::new(ChainLayer::Ip, Hook::Postrouting, before, output));
            stages.push(Stage::new(
                ChainLayer::Device,
                Hook::Egress,
                Interface::NONE,
                output,
            ));
            stages.extend(self.to.into_iter().flat_map(leaving));
        }
        stages
    }

    /// Whether a packet that is at such a place can be at the stage.
    fn may_be(&self, position: PathPosition, stage: &Stage<'_>) -> bool {
        let at_port = |port: Option<BridgePort<'a>>, interface: Interface<'_>| {
            stage.layer == ChainLayer::Device && port.is_some_and(|port| port.port == interface)
        };
        let arriving = stage.hook == Hook::Ingress && at_port(self.from, stage.input)
            || stage.layer == ChainLayer::Bridge && matches!(stage.hook, Hook::Prerouting | Hook::Input);
        let leaving = stage.hook == Hook::Egress && at_port(self.to, stage.output)
            || stage.layer == ChainLayer::Bridge && !matches!(stage.hook, Hook::Prerouting | Hook::Input);
        match position {
            PathPosition::Anywhere => true,
            PathPosition::Arriving => {
                arriving || self.calls_ip && stage.layer == ChainLayer::Ip && stage.hook == Hook::Prerouting
            }
            PathPosition::Leaving => {
                let by_bridge = self.is_between_ports() && self.calls_ip && stage.layer == ChainLayer::Ip;
                leaving || by_bridge && stage.hook != Hook::Prerouting
            }
            PathPosition::Network => !arriving && !leaving,
        }
    }
}

/// From the port that the packet comes by to the bridge's decision where it goes.
fn arriving(from: BridgePort<'_>) -> Vec<Stage<'_>> {
    vec![
        Stage::new(ChainLayer::Device, Hook::Ingress, from.port, Interface::NONE),
        Stage {
            input_bridge: Interface::Named(from.bridge),
            ..Stage::new(ChainLayer::Bridge, Hook::Prerouting, from.port, Interface::NONE)
        },
    ]
}

/// From the host to the port that the packet leaves by. The last but one, and the last, are also those of a bridged packet.
fn leaving(to: BridgePort<'_>) -> Vec<Stage<'_>> {
    let bridge = |hook| Stage {
        output_bridge: Interface::Named(to.bridge),
        ..Stage::new(ChainLayer::Bridge, hook, Interface::NONE, to.port)
    };
    vec![
        bridge(Hook::Output),
        bridge(Hook::Postrouting),
        Stage::new(ChainLayer::Device, Hook::Egress, Interface::NONE, to.port),
    ]
}
