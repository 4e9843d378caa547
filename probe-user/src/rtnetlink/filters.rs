//! tc filters: what else runs on a device, and the BPF programs that an earlier probe left behind.

use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

use super::{RouteError, Routing};

/// A filter of a device's clsact queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its classifier: `bpf`, `matchall`, `u32`, `flower`.
    pub kind: String,
    /// Of a BPF program its name, else empty.
    pub name: String,
    /// Of a BPF program its id.
    pub id: Option<u32>,
    pub device: u32,
    /// Which of the two places of clsact.
    pub parent: Parent,
    pub priority: u16,
    /// Number within its priority, chosen by who adds it.
    pub handle: u32,
}

probe_model::names! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Parent {
        Ingress = "ingress",
        Egress = "egress",
    }
}

impl Parent {
    const fn handle(self) -> TcHandle {
        TcHandle {
            major: u16::MAX,
            minor: match self {
                Self::Ingress => TcHandle::MIN_INGRESS,
                Self::Egress => TcHandle::MIN_EGRESS,
            },
        }
    }
}

impl Routing {
    /// The filters at one place of a device; none where it has no clsact queue.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn filters(&mut self, device: u32, parent: Parent) -> Result<Vec<Filter>, RouteError> {
        let mut filters = Vec::new();
        let mut ask = TcMessage::default();
        ask.header.index = device.cast_signed();
        ask.header.parent = parent.handle();
        let ask = RouteNetlinkMessage::GetTrafficFilter(ask);
        let dumped = self.dump("tc filters", ask, |message| {
            if let RouteNetlinkMessage::NewTrafficFilter(message) = message {
                filters.extend(filter(&message, device, parent));
            }
        });
        match dumped {
            // There is no such queue.
            Err(RouteError::Io { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                Ok(Vec::new())
            }
            dumped => dumped.map(|()| filters),
        }
    }

    /// # Errors
    /// When it is gone already, or not allowed.
    pub fn remove_filter(&mut self, filter: &Filter) -> Result<(), RouteError> {
        let mut message = TcMessage::default();
        message.header.index = filter.device.cast_signed();
        message.header.parent = filter.parent.handle();
        message.header.handle = TcHandle::from(filter.handle);
        // The lower half is the protocol: all.
        message.header.info = u32::from(filter.priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
        message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
        self.change("tc filter", RouteNetlinkMessage::DelTrafficFilter(message))
    }

    /// Takes away a device's clsact queue, with all that is in it.
    ///
    /// # Errors
    /// When it is gone already, or not allowed.
    pub fn remove_clsact(&mut self, device: u32) -> Result<(), RouteError> {
        let mut message = TcMessage::default();
        message.header.index = device.cast_signed();
        message.header.parent = TcHandle::CLSACT;
        message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        self.change("clsact queue", RouteNetlinkMessage::DelQueueDiscipline(message))
    }
}

/// Each priority has an entry of its own besides, with no handle.
fn filter(message: &TcMessage, device: u32, parent: Parent) -> Option<Filter> {
    let handle = u32::from(message.header.handle);
    if handle == 0 {
        return None;
    }
    let (mut kind, mut name, mut id) = (String::new(), String::new(), None);
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(of) => kind.clone_from(of),
            TcAttribute::Options(options) => {
                for option in options {
                    match option {
                        TcOption::Bpf(TcFilterBpfOption::ProgName(of)) => name.clone_from(of),
                        TcOption::Bpf(TcFilterBpfOption::ProgId(of)) => id = Some(*of),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Filter {
        kind,
        name,
        id,
        device,
        parent,
        priority: (message.header.info >> 16) as u16,
        handle,
    })
}
