//! What the kernel's routing tables are set to: devices, addresses, routes, neighbours, forwarding entries, tc filters
//! of this network namespace, read over rtnetlink. There is no subscription: each snapshot reads again.

mod devices;
pub mod filters;
mod lookup;
pub mod offload;
pub mod policy;
mod tables;

use std::{collections::HashMap, io};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::model::{routing::RouteQuery, vxlan::overlay::Tables};

/// The kernel hands out dumps in pieces of at most 32 KiB.
const BUFFER: usize = 64 << 10;
/// More entries of one kind than any node has: what goes beyond is an error, not memory.
const MOST: usize = 1 << 20;

/// Why it can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error("can't query the kernel's {what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("the kernel's list of {what} can't be read: {reason}")]
    Malformed { what: &'static str, reason: String },
}

/// Asks the network namespace it was made in.
#[derive(Debug)]
pub struct Routing {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Routing {
    /// # Errors
    /// When this process has no descriptor left.
    pub fn open() -> Result<Self, RouteError> {
        let open = || {
            let socket = Socket::new(NETLINK_ROUTE)?;
            // Strict checking of dump requests (5.0; older kernels ignore the option).
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        Ok(Self {
            socket: open().map_err(|source| RouteError::Io {
                what: "tables",
                source,
            })?,
            buffer: Vec::with_capacity(BUFFER),
            sequence: 0,
        })
    }

    /// The tables that the VXLAN devices of this network namespace use.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn tables(&mut self) -> Result<Tables, RouteError> {
        let mut tables = Tables {
            devices: self.devices()?,
            addresses: self.addresses()?,
            routes: self.all_routes()?,
            neighbours: self.neighbours()?,
            forwarding: self.forwarding()?,
            lookups: HashMap::new(),
        };
        for (source, peer) in tables.needed_lookups() {
            // What can't be looked up stays unknown.
            if let Ok(lookup) = self.lookup(&RouteQuery::of_node(source, peer)) {
                tables.lookups.insert((source, peer), lookup);
            }
        }
        Ok(tables)
    }

    /// All that the kernel has of what `message` asks for.
    fn dump(
        &mut self,
        what: &'static str,
        message: RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), RouteError> {
        let io = |source| RouteError::Io { what, source };
        self.send(message, NLM_F_DUMP).map_err(io)?;
        let mut seen = 0;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0).map_err(io)?;
            let mut rest = self.buffer.as_slice();
            while !rest.is_empty() {
                let malformed = |reason: String| RouteError::Malformed { what, reason };
                let length = rest
                    .first_chunk()
                    .map(|length| u32::from_ne_bytes(*length) as usize)
                    .filter(|length| (16..=rest.len()).contains(length))
                    .ok_or_else(|| malformed("cut short".to_owned()))?;
                let (message, next) = rest.split_at(length);
                rest = next
                    .get(length.next_multiple_of(4) - length..)
                    .unwrap_or_default();
                // A kernel newer than the crate may say what it can't read: that entry is left out.
                let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
                    continue;
                };
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => each(message),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(io(error.to_io())),
                    other => return Err(malformed(format!("{other:?}"))),
                }
                seen += 1;
                if seen > MOST {
                    return Err(malformed(format!("more than {MOST} entries")));
                }
            }
        }
    }

    /// The one message that the kernel answers with.
    fn one(
        &mut self,
        what: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, RouteError> {
        let io = |source| RouteError::Io { what, source };
        let malformed = |reason: String| RouteError::Malformed { what, reason };
        self.send(message, 0).map_err(io)?;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0).map_err(io)?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&self.buffer)
                .map_err(|error| malformed(error.to_string()))?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            return match answer.payload {
                NetlinkPayload::InnerMessage(message) => Ok(message),
                NetlinkPayload::Error(error) => Err(io(error.to_io())),
                other => Err(malformed(format!("{other:?}"))),
            };
        }
    }

    /// Asks for a change, and waits until it is made.
    fn change(&mut self, what: &'static str, message: RouteNetlinkMessage) -> Result<(), RouteError> {
        let io = |source| RouteError::Io { what, source };
        self.send(message, NLM_F_ACK).map_err(io)?;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0).map_err(io)?;
            let answer =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(&self.buffer).map_err(|error| {
                    RouteError::Malformed {
                        what,
                        reason: error.to_string(),
                    }
                })?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            return match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => Err(io(error.to_io())),
                _ => Ok(()),
            };
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }
}
