//! Rules of the check `node`: whether kubelet reaches its API server, and is authorized.

mod connections;
mod identity;
mod server;

use jiff::Timestamp;

use super::{Check, Finding, Kind, certificate::Certificate};

pub use connections::{ApiService, Ended, FailedDial, User};
pub use server::{DialledAddress, Server};

const KIND: Kind = Kind::Doctor(Check::Node);

/// A certificate that expires sooner than this is reported.
pub const SOON_HOURS: i64 = 7 * 24;

/// kubelet, as its node's processes show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kubelet {
    Runs {
        pid: u32,
    },
    Stopped,
    /// This process does not see the node's.
    NotSeen,
}

/// A configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub path: String,
    pub state: FileState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    Missing,
    /// It is there, and no use.
    Bad(String),
    Good,
}

/// As whom kubelet comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeletClient {
    Certificate {
        place: String,
        certificate: Box<Certificate>,
    },
    /// Where it should be, and why it is of no use.
    Bad { place: String, why: String },
    /// A token, a program, or nothing: what it is, in words.
    Other(&'static str),
}

/// All that is looked at.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    pub now: Timestamp,
    pub kubelet: Kubelet,
    pub config: File,
    pub bootstrap: Option<File>,
    /// `None`: no configuration has it.
    pub client: Option<KubeletClient>,
    pub server: Option<Server>,
    pub users: Vec<User>,
    pub service: Option<ApiService>,
    /// Why dials of this node failed, if the kernel showed it.
    pub causes: Vec<FailedDial>,
}

/// What is well, in one line, and what is not.
pub fn judge(seen: &NodeFacts) -> (String, Vec<Finding>) {
    let mut faults = Vec::new();
    if seen.kubelet == Kubelet::Stopped {
        faults.push(
            Finding::failed(KIND, "kubelet does not run")
                .run(
                    ["journalctl", "-u", "kubelet", "-n", "50"],
                    "shows why it stopped",
                )
                .run(
                    ["systemctl", "enable", "--now", "kubelet"],
                    "starts it, now and after a reboot",
                ),
        );
    }
    faults.extend(identity::faults(seen));
    let answers = seen.server.as_ref().is_some_and(server::answers);
    let mut of_server = seen
        .server
        .as_ref()
        .map_or_else(Vec::new, |server| server::faults(server, seen));
    let cut_off = seen.server.as_ref().filter(|server| server::is_cut_off(server));
    for (fault, leads) in connections::faults(seen, answers) {
        // That the others do not reach it either is the same fault, not another one.
        let same = cut_off.is_some_and(|server| leads.iter().all(|address| server::has(server, address)));
        match of_server.first_mut() {
            Some(root) if same => {
                root.evidence.push(fault.what);
                root.evidence.extend(fault.evidence);
            }
            _ => of_server.push(fault),
        }
    }
    faults.extend(of_server);
    (summary(seen), faults)
}

fn summary(seen: &NodeFacts) -> String {
    let mut parts = vec![match seen.kubelet {
        Kubelet::Runs { pid } => format!("kubelet (pid {pid}) uses {}", seen.config.path),
        Kubelet::Stopped | Kubelet::NotSeen => format!("kubelet's configuration is {}", seen.config.path),
    }];
    parts.extend(seen.client.as_ref().map(identity::summary));
    parts.extend(seen.server.as_ref().map(server::summary));
    parts.extend(connections::summary(seen));
    parts.join("; ")
}

#[cfg(test)]
mod tests;
