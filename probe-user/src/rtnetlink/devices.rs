//! Network devices.

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
        LinkXdp, Stats64,
    },
};

use super::{RouteError, Routing};
use crate::model::network::{Device, Mac, Vxlan};

impl Routing {
    /// # Errors
    /// When the kernel does not answer.
    pub fn devices(&mut self) -> Result<Vec<Device>, RouteError> {
        let mut devices = Vec::new();
        let ask = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump("devices", ask, |message| {
            if let RouteNetlinkMessage::NewLink(link) = message {
                devices.push(device(link));
            }
        })?;
        Ok(devices)
    }
}

fn device(link: LinkMessage) -> Device {
    let mut device = Device {
        index: link.header.index,
        name: String::new(),
        up: link.header.flags.contains(LinkFlags::Up),
        ethernet: matches!(
            link.header.link_layer_type,
            LinkLayerType::Ether | LinkLayerType::Loopback
        ),
        mtu: 0,
        mac: None,
        controller: None,
        bridge: false,
        received: 0,
        sent: 0,
        send_failures: 0,
        vxlan: None,
        xdp: None,
    };
    let mut elsewhere = false;
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::Xdp(attributes) => {
                device.xdp = attributes.iter().find_map(|attribute| match attribute {
                    LinkXdp::ProgId(id)
                    | LinkXdp::DrvProgId(id)
                    | LinkXdp::SkbProgId(id)
                    | LinkXdp::HwProgId(id) => Some(*id),
                    _ => None,
                });
            }
            LinkAttribute::IfName(name) => device.name = name,
            LinkAttribute::Mtu(mtu) => device.mtu = mtu,
            LinkAttribute::Address(bytes) => device.mac = Mac::from_slice(&bytes),
            LinkAttribute::Controller(index) => device.controller = Some(index),
            LinkAttribute::Stats64(Stats64 {
                rx_packets,
                tx_packets,
                tx_dropped,
                tx_errors,
                ..
            }) => {
                device.received = rx_packets;
                device.sent = tx_packets;
                device.send_failures = tx_dropped.saturating_add(tx_errors);
            }
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(InfoKind::Bridge) => device.bridge = true,
                        LinkInfo::Data(InfoData::Vxlan(settings)) => device.vxlan = Some(vxlan(settings)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(vxlan) = &mut device.vxlan {
        vxlan.elsewhere = elsewhere;
    }
    device
}

fn vxlan(settings: Vec<InfoVxlan>) -> Vxlan {
    let mut vxlan = Vxlan::default();
    for setting in settings {
        match setting {
            InfoVxlan::Id(vni) => vxlan.vni = vni,
            InfoVxlan::Port(port) => vxlan.port = port,
            InfoVxlan::Local(address) => vxlan.local = Some(address.into()),
            InfoVxlan::Local6(address) => vxlan.local = Some(address.into()),
            InfoVxlan::Link(index) => vxlan.underlay = (index != 0).then_some(index),
            InfoVxlan::Learning(learning) => vxlan.learning = learning,
            InfoVxlan::CollectMetadata(external) => vxlan.external = external,
            InfoVxlan::Group(group) => vxlan.group = Some(group.into()),
            InfoVxlan::Group6(group) => vxlan.group = Some(group.into()),
            InfoVxlan::Gbp => vxlan.options.gbp = true,
            InfoVxlan::Gpe => vxlan.options.gpe = true,
            InfoVxlan::UDPZeroCsumRX(zero) => vxlan.options.zero_checksum = zero,
            InfoVxlan::RemCsumRX(remote) => vxlan.options.remote_checksum = remote,
            _ => {}
        }
    }
    vxlan
}
