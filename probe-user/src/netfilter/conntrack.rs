//! One conntrack entry by its original tuple, over ctnetlink. The table is never streamed: on a busy node that is what
//! costs others most.
//!
//! Linux 2.6.14 with `nf_conntrack_netlink`; takes CAP_NET_ADMIN in the namespace asked.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use netlink_packet_core::{DefaultNla, NLM_F_DUMP, NetlinkBuffer, NetlinkMessage, NetlinkPayload, Nla};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{
        ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Protocol, Tuple,
    },
};

use super::link::{Attributes, Link};
use crate::model::translation::{ConntrackEntry, TcpState};

/// Why conntrack can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    #[error("conntrack is not loaded: no address is translated, or not by this kernel")]
    NotLoaded,
    #[error("conntrack lookups need CAP_NET_ADMIN")]
    NotAllowed,
    #[error("can't enter the network namespace {}: {source}", path.display())]
    Namespace { path: PathBuf, source: io::Error },
    #[error("can't query conntrack: {0}")]
    Io(#[from] io::Error),
    #[error("conntrack's answer can't be read: {0}")]
    Malformed(String),
}

/// `IPCTNL_MSG_CT_GET`
const GET: u8 = 1;
/// `IPCTNL_MSG_CT_GET_STATS_CPU`
const GET_STATISTICS: u8 = 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Netfilter's own header before the attributes.
const HEADER: usize = 4;
/// Entries of a dump that are read.
const MOST: usize = 262_144;

/// What conntrack could not do, since the network namespace was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries that were not made, as two packets wanted the same: most often two DNS queries of one socket.
    pub insert_failed: u64,
    /// Packets dropped, as the table was full or there was no memory.
    pub drop: u64,
    /// Entries of living connections that made room.
    pub early_drop: u64,
}

impl Counts {
    /// Adds those of one processor.
    fn add(&mut self, of_cpu: Attributes<'_>) {
        const INSERT_FAILED: u16 = 9;
        const DROP: u16 = 10;
        const EARLY_DROP: u16 = 11;
        let count = |kind| u64::from(of_cpu.number(kind).unwrap_or_default());
        self.insert_failed += count(INSERT_FAILED);
        self.drop += count(DROP);
        self.early_drop += count(EARLY_DROP);
    }
}

/// Asks the conntrack table of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    link: Link,
}

impl Conntrack {
    /// Of the network namespace at `netns`, or this process's own.
    ///
    /// # Errors
    /// When conntrack is not loaded, which is not changed, or the namespace can't be entered.
    pub fn open(netns: Option<&Path>) -> Result<Self, ConntrackError> {
        let namespace = |source| ConntrackError::Namespace {
            path: netns.unwrap_or(Path::new("")).to_owned(),
            source,
        };
        let netns = netns.map(File::open).transpose().map_err(namespace)?;
        // Asking would load the module, and probe changes nothing on a node.
        if !Path::new("/proc/sys/net/netfilter/nf_conntrack_count").exists()
            && !Path::new("/sys/module/nf_conntrack").exists()
        {
            return Err(ConntrackError::NotLoaded);
        }
        let link = match &netns {
            None => Link::open(None)?,
            Some(netns) => Link::open(Some(netns)).map_err(namespace)?,
        };
        Ok(Self { link })
    }

    /// The TCP entry whose first packet went from `client` to `server`; `None` when there is none, or no longer.
    ///
    /// # Errors
    /// When the kernel does not answer, or not what can be read.
    pub fn lookup(
        &mut self,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Result<Option<ConntrackEntry>, ConntrackError> {
        self.ask(vec![ConntrackAttribute::CtaTupleOrig(tuple(client, server))])
    }

    /// The same in a conntrack zone other than 0.
    ///
    /// # Errors
    /// As [`Conntrack::lookup`].
    pub fn lookup_in_zone(
        &mut self,
        client: SocketAddr,
        server: SocketAddr,
        zone: u16,
    ) -> Result<Option<ConntrackEntry>, ConntrackError> {
        const CTA_ZONE: u16 = 18;
        self.ask(vec![
            ConntrackAttribute::CtaTupleOrig(tuple(client, server)),
            ConntrackAttribute::Other(DefaultNla::new(CTA_ZONE, zone.to_be_bytes().to_vec())),
        ])
    }

    /// The TCP entry whose replies come from `server` to `client`, as they are before they are translated back.
    ///
    /// # Errors
    /// As [`Conntrack::lookup`].
    pub fn lookup_reply(
        &mut self,
        server: SocketAddr,
        client: SocketAddr,
    ) -> Result<Option<ConntrackEntry>, ConntrackError> {
        self.ask(vec![ConntrackAttribute::CtaTupleReply(tuple(server, client))])
    }

    /// What conntrack counted in this network namespace so far, on all processors.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn counts(&mut self) -> Result<Counts, ConntrackError> {
        let ask = ConntrackMessage::Other {
            message_type: GET_STATISTICS,
            attributes: Vec::new(),
        };
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
        let mut counts = Counts::default();
        let refused = self.dump(NetfilterMessage::new(header, ask), |of_cpu| {
            counts.add(of_cpu);
            ControlFlow::Continue(())
        })?;
        match refused {
            None => Ok(counts),
            Some(libc::EPERM) => Err(ConntrackError::NotAllowed),
            Some(code) => Err(io::Error::from_raw_os_error(code).into()),
        }
    }

    /// The addresses of UDP flows to this port, of either end; each once. The kernel filters them from 5.8 on; before, all of its
    /// table is read, up to a bound. For what is rarely asked.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn udp_contacts(&mut self, port: u16) -> Result<BTreeSet<IpAddr>, ConntrackError> {
        const CTA_TUPLE_ORIG: u16 = 1;
        const CTA_TUPLE_IP: u16 = 1;
        const CTA_TUPLE_PROTO: u16 = 2;
        const CTA_PROTO_NUM: u16 = 1;
        const CTA_PROTO_DST_PORT: u16 = 3;
        let mut contacts = BTreeSet::new();
        for family in [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6] {
            let message = NetfilterMessage::new(
                NetfilterHeader::new(family, 0, 0),
                ConntrackMessage::Other {
                    message_type: GET,
                    attributes: udp_filter(port),
                },
            );
            let mut seen = 0;
            // What the kernel refuses has no contacts.
            self.dump(message, |entry| {
                seen += 1;
                // The rest of it is left in a socket that is closed with this one.
                if seen > MOST {
                    return ControlFlow::Break(());
                }
                let tuple = entry.within(CTA_TUPLE_ORIG);
                let protocol = tuple.within(CTA_TUPLE_PROTO);
                let is_udp = protocol.get(CTA_PROTO_NUM) == Some(&[17]);
                if is_udp && protocol.get(CTA_PROTO_DST_PORT) == Some(&port.to_be_bytes()) {
                    let addresses = tuple
                        .within(CTA_TUPLE_IP)
                        .iter()
                        .filter_map(|(_, bytes)| address(bytes));
                    contacts.extend(addresses);
                }
                ControlFlow::Continue(())
            })?;
            if seen > MOST {
                break;
            }
        }
        Ok(contacts)
    }

    /// Hands the attributes of each object that the kernel has to `each`, until that breaks. The number of the kernel's error, if
    /// it refused.
    fn dump(
        &mut self,
        ask: NetfilterMessage,
        mut each: impl FnMut(Attributes<'_>) -> ControlFlow<()>,
    ) -> Result<Option<i32>, ConntrackError> {
        let malformed = || ConntrackError::Malformed("cut short".to_owned());
        let sequence = self.link.ask(ask, NLM_F_DUMP)?;
        loop {
            let mut rest = self.link.receive()?;
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(|_| malformed())?;
                let length = usize::try_from(message.length()).map_err(|_| malformed())?;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if message.sequence_number() != sequence {
                    continue;
                }
                match message.message_type() {
                    NLMSG_DONE => return Ok(None),
                    NLMSG_ERROR => {
                        let code = message.payload().first_chunk();
                        let code = code.map(|code| i32::from_ne_bytes(*code));
                        return Ok(Some(code.unwrap_or_default().saturating_neg()));
                    }
                    _ => {}
                }
                let attributes = Attributes(message.payload().get(HEADER..).unwrap_or_default());
                if each(attributes).is_break() {
                    return Ok(None);
                }
            }
        }
    }

    fn ask(&mut self, of: Vec<ConntrackAttribute>) -> Result<Option<ConntrackEntry>, ConntrackError> {
        let sequence = self.link.ask(request(of), 0)?;
        loop {
            let answer = NetlinkMessage::<NetfilterMessage>::deserialize(self.link.receive()?)
                .map_err(|error| ConntrackError::Malformed(error.to_string()))?;
            if answer.header.sequence_number != sequence {
                continue;
            }
            return match answer.payload {
                NetlinkPayload::InnerMessage(message) => match message.inner {
                    NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) => {
                        entry(&attributes).map(Some)
                    }
                    other => Err(ConntrackError::Malformed(format!("{other:?}"))),
                },
                NetlinkPayload::Error(error) => {
                    let error = error.to_io();
                    match error.raw_os_error() {
                        Some(libc::ENOENT) => Ok(None),
                        Some(libc::EPERM) => Err(ConntrackError::NotAllowed),
                        Some(libc::EINVAL | libc::EOPNOTSUPP) => Err(ConntrackError::NotLoaded),
                        _ => Err(error.into()),
                    }
                }
                other => Err(ConntrackError::Malformed(format!("{other:?}"))),
            };
        }
    }
}

/// Attributes that select UDP entries by the destination port of the original direction. The filter has to say that it is
/// nested, or the kernel refuses it (`nla_parse_nested`).
fn udp_filter(port: u16) -> Vec<DefaultNla> {
    const TUPLE_ORIGINAL: u16 = 1;
    const FILTER: u16 = 25;
    const NESTED: u16 = 1 << 15;
    const ORIGINAL_FLAGS: u16 = 1;
    const PROTOCOL: u32 = 1 << 3;
    const DESTINATION_PORT: u32 = 1 << 5;
    let [high, low] = port.to_be_bytes();
    // CTA_TUPLE_PROTO with CTA_PROTO_NUM and CTA_PROTO_DST_PORT, each padded to 4 bytes.
    let attribute = |kind: u16, length: u16| [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    let tuple = [
        attribute(2 | NESTED, 20),
        attribute(1, 5),
        vec![17, 0, 0, 0],
        attribute(3, 6),
        vec![high, low, 0, 0],
    ];
    let flags = [
        attribute(ORIGINAL_FLAGS, 8),
        (PROTOCOL | DESTINATION_PORT).to_ne_bytes().to_vec(),
    ];
    vec![
        DefaultNla::new(TUPLE_ORIGINAL | NESTED, tuple.concat()),
        DefaultNla::new(FILTER | NESTED, flags.concat()),
    ]
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn tuple(source: SocketAddr, destination: SocketAddr) -> Vec<Tuple> {
    vec![
        Tuple::Ip(vec![
            IPTuple::SourceAddress(source.ip()),
            IPTuple::DestinationAddress(destination.ip()),
        ]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(Protocol::Tcp),
            ProtoTuple::SourcePort(source.port()),
            ProtoTuple::DestinationPort(destination.port()),
        ]),
    ]
}

fn request(of: Vec<ConntrackAttribute>) -> NetfilterMessage {
    let six = of.iter().any(|attribute| match attribute {
        ConntrackAttribute::CtaTupleOrig(parts) | ConntrackAttribute::CtaTupleReply(parts) => {
            ends(parts).is_some_and(|(source, _)| source.is_ipv6())
        }
        _ => false,
    });
    let family = if six {
        NetfilterProtoFamily::IPv6
    } else {
        NetfilterProtoFamily::IPv4
    };
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), ConntrackMessage::Get(of))
}

fn entry(attributes: &[ConntrackAttribute]) -> Result<ConntrackEntry, ConntrackError> {
    const CTA_TIMESTAMP: u16 = 20;
    let (mut original, mut reply, mut state, mut started) = (None, None, None, None);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuples) => original = ends(tuples),
            ConntrackAttribute::CtaTupleReply(tuples) => reply = ends(tuples),
            ConntrackAttribute::CtaProtoInfo(infos) => {
                state = infos.iter().find_map(|info| match info {
                    ProtoInfo::TCP(infos) => infos.iter().find_map(|info| match info {
                        ProtoInfoTCP::State(state) => TcpState::from_kernel(*state),
                        _ => None,
                    }),
                    _ => None,
                });
            }
            ConntrackAttribute::Other(other) if other.kind() == CTA_TIMESTAMP => started = start(other),
            _ => {}
        }
    }
    let missing = |what: &str| ConntrackError::Malformed(format!("no {what} tuple"));
    let (client, dialled) = original.ok_or_else(|| missing("original"))?;
    let (backend, seen_as) = reply.ok_or_else(|| missing("reply"))?;
    Ok(ConntrackEntry {
        client,
        dialled,
        seen_as,
        backend,
        state,
        started,
    })
}

/// When the entry was made, where `net.netfilter.nf_conntrack_timestamp` is on: nanoseconds, big-endian, in a nested
/// attribute of type 1.
fn start(attribute: &impl Nla) -> Option<Timestamp> {
    const CTA_TIMESTAMP_START: u16 = 1;
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    let nanoseconds = Attributes(&value).long(CTA_TIMESTAMP_START)?;
    Timestamp::from_nanosecond(nanoseconds.into()).ok()
}

/// Source and destination of a tuple.
fn ends(tuples: &[Tuple]) -> Option<(SocketAddr, SocketAddr)> {
    let (mut addresses, mut ports) = ((None::<IpAddr>, None::<IpAddr>), (None, None));
    for tuple in tuples {
        match tuple {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(address) => addresses.0 = Some(*address),
                        IPTuple::DestinationAddress(address) => addresses.1 = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::SourcePort(port) => ports.0 = Some(*port),
                        ProtoTuple::DestinationPort(port) => ports.1 = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some((
        SocketAddr::new(addresses.0?, ports.0?),
        SocketAddr::new(addresses.1?, ports.1?),
    ))
}
