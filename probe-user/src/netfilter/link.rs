//! A netlink socket to the kernel's netfilter, and the attributes that its answers are made of.

use std::{fs::File, io, thread};

use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_netfilter::NetfilterMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sched::{CloneFlags, setns};

/// Larger than what the kernel sends at once.
const BUFFER: usize = 64 << 10;

/// A socket in one network namespace.
#[derive(Debug)]
pub(super) struct Link {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Link {
    /// In that network namespace, or the calling thread's own.
    pub(super) fn open(netns: Option<&File>) -> io::Result<Self> {
        let socket = match netns {
            None => Socket::new(NETLINK_NETFILTER)?,
            // A socket stays in the namespace that it was made in; a thread of its own goes there for it.
            Some(netns) => thread::scope(|scope| {
                let made = scope.spawn(|| {
                    setns(netns, CloneFlags::CLONE_NEWNET)?;
                    Socket::new(NETLINK_NETFILTER)
                });
                made.join()
                    .unwrap_or_else(|_| Err(io::Error::other("the thread that enters it ended")))
            })?,
        };
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(BUFFER),
            sequence: 0,
        })
    }

    /// Sends a request; gives the number that the answer will have.
    pub(super) fn ask(&mut self, message: NetfilterMessage, flags: u16) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&request(message, flags, self.sequence), 0)?;
        Ok(self.sequence)
    }

    /// What the kernel sends next: a message, or several of a dump. It answers within the call that asks, so while an
    /// answer isn't over there is always something to read.
    pub(super) fn receive(&mut self) -> io::Result<&[u8]> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0)?;
        Ok(&self.buffer)
    }
}

fn request(message: NetfilterMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Attributes one after the other, each with a kind and a value, which may be attributes again. Numbers in them are
/// big-endian.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// All up to the first that is malformed.
    pub(super) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        NlasIterator::new(self.0).map_while(|attribute| {
            let attribute = attribute.ok()?;
            let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
            Some((kind, attribute.into_inner().get(NLA_HEADER_SIZE..length)?))
        })
    }

    pub(super) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter()
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }

    /// The attributes in one; none, if it isn't there.
    pub(super) fn within(self, kind: u16) -> Self {
        Self(self.get(kind).unwrap_or_default())
    }

    pub(super) fn number(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub(super) fn long(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub(super) fn text(self, kind: u16) -> Option<String> {
        self.get(kind).map(text)
    }

    /// Whether it is that text.
    pub(super) fn is_text(self, kind: u16, text: &str) -> bool {
        let bytes = self.get(kind).unwrap_or_default();
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        bytes.get(..end) == Some(text.as_bytes())
    }
}

/// What stands before the zero byte. It may be in any encoding.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
