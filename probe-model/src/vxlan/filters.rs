//! What may drop packets on an underlay device besides the packet filter: tc filters and XDP programs.

use std::fmt::{self, Display, Formatter};

crate::names! {
    /// Where on its device it runs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum FilterHook {
        Xdp = "XDP",
        Ingress = "tc ingress",
        Egress = "tc egress",
    }
}

impl FilterHook {
    /// The hook that the kernel names with this reason for a drop.
    pub fn of_reason(reason: &str) -> Option<Self> {
        match reason {
            "XDP" => Some(Self::Xdp),
            "TC_INGRESS" => Some(Self::Ingress),
            "TC_EGRESS" => Some(Self::Egress),
            _ => None,
        }
    }
}

/// A filter, or a program that filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFilter {
    /// Index of the device.
    pub device: u32,
    pub device_name: String,
    pub hook: FilterHook,
    pub kind: FilterKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterKind {
    /// A BPF program.
    Bpf {
        /// `None` where the kernel does not give it.
        id: Option<u32>,
        name: String,
    },
    /// A classifier, such as matchall, u32, flower.
    Classifier {
        kind: String,
        priority: u16,
        handle: u32,
    },
    /// The kernel did not list them, for this reason.
    Unread(String),
}

impl Display for DeviceFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (device, hook) = (&self.device_name, self.hook.name());
        match &self.kind {
            FilterKind::Bpf { id, name } => {
                write!(f, "{hook} of {device}: BPF program")?;
                if let Some(id) = id {
                    write!(f, " id {id}")?;
                }
                if name.is_empty() {
                    Ok(())
                } else {
                    write!(f, " {name}")
                }
            }
            FilterKind::Classifier {
                kind,
                priority,
                handle,
            } => write!(
                f,
                "{hook} of {device}: {kind} filter, pref {priority}, handle {handle:#x}"
            ),
            FilterKind::Unread(why) => write!(f, "{hook} of {device}: not read ({why})"),
        }
    }
}

impl DeviceFilter {
    /// The command that shows it.
    pub fn listed_by(&self) -> Vec<String> {
        let device = self.device_name.clone();
        let words: &[&str] = match (&self.kind, self.hook) {
            (FilterKind::Bpf { id: Some(id), .. }, _) => {
                let id = id.to_string();
                return ["bpftool", "prog", "show", "id", &id].map(str::to_owned).to_vec();
            }
            (_, FilterHook::Xdp) => {
                return ["ip", "-d", "link", "show", "dev"]
                    .map(str::to_owned)
                    .into_iter()
                    .chain([device])
                    .collect();
            }
            (_, FilterHook::Ingress) => &["ingress"],
            (_, FilterHook::Egress) => &["egress"],
        };
        let show = ["tc", "-s", "filter", "show", "dev"].map(str::to_owned);
        show.into_iter()
            .chain([device])
            .chain(words.iter().map(|word| (*word).to_owned()))
            .collect()
    }
}
