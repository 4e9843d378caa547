//! Who keeps a rule. What its owner wrote, it writes again: the fix is a setting of the owner, never a deletion.

use super::{CandidateRule, Family, Tool};

crate::names! {
    /// A program that keeps rules of its own.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum RuleOwner {
        Antrea = "Antrea",
        Calico = "Calico",
        Cilium = "Cilium",
        Docker = "Docker",
        Firewalld = "firewalld",
        Flannel = "flannel",
        KubeProxy = "kube-proxy",
        KubeRouter = "kube-router",
        Libvirt = "libvirt",
        NodeLocalDns = "NodeLocal DNSCache",
        Ufw = "ufw",
    }
}

impl RuleOwner {
    /// Whether it is the cluster's network plugin.
    pub const fn is_network_plugin(self) -> bool {
        match self {
            Self::Antrea | Self::Calico | Self::Cilium | Self::Flannel | Self::KubeRouter => true,
            Self::Docker
            | Self::Firewalld
            | Self::KubeProxy
            | Self::Libvirt
            | Self::NodeLocalDns
            | Self::Ufw => false,
        }
    }
}

/// The beginnings of chains' names. Of several that fit, the first: kube-router's chains begin as kube-proxy's do.
const CHAINS: [(&str, RuleOwner); 22] = [
    ("ANTREA-", RuleOwner::Antrea),
    ("cali-", RuleOwner::Calico),
    ("CILIUM_", RuleOwner::Cilium),
    ("OLD_CILIUM_", RuleOwner::Cilium),
    ("DOCKER", RuleOwner::Docker),
    ("FLANNEL-", RuleOwner::Flannel),
    ("KUBE-ROUTER-", RuleOwner::KubeRouter),
    ("KUBE-NWPLCY-", RuleOwner::KubeRouter),
    ("KUBE-POD-FW-", RuleOwner::KubeRouter),
    ("KUBE-", RuleOwner::KubeProxy),
    ("LIBVIRT_", RuleOwner::Libvirt),
    // In ebtables.
    ("libvirt-", RuleOwner::Libvirt),
    ("ufw-", RuleOwner::Ufw),
    ("ufw6-", RuleOwner::Ufw),
    // The chains that choose a zone; those of the zones have names of their own.
    ("INPUT_ZONES", RuleOwner::Firewalld),
    ("FORWARD_ZONES", RuleOwner::Firewalld),
    ("FORWARD_IN_ZONES", RuleOwner::Firewalld),
    ("FORWARD_OUT_ZONES", RuleOwner::Firewalld),
    ("PREROUTING_ZONES", RuleOwner::Firewalld),
    ("POSTROUTING_ZONES", RuleOwner::Firewalld),
    ("INPUT_direct", RuleOwner::Firewalld),
    ("FORWARD_direct", RuleOwner::Firewalld),
];

/// Tables of nft that have one owner, by the beginnings of their names.
const TABLES: [(&str, RuleOwner); 7] = [
    ("firewalld", RuleOwner::Firewalld),
    ("kube-proxy", RuleOwner::KubeProxy),
    ("docker-bridges", RuleOwner::Docker),
    ("libvirt_network", RuleOwner::Libvirt),
    ("flannel-ipv", RuleOwner::Flannel),
    ("antrea", RuleOwner::Antrea),
    ("cali", RuleOwner::Calico),
];

/// What owners write in comments.
const COMMENTS: [(&str, RuleOwner); 4] = [
    ("cali:", RuleOwner::Calico),
    ("cilium:", RuleOwner::Cilium),
    ("Antrea:", RuleOwner::Antrea),
    ("NodeLocal DNS Cache", RuleOwner::NodeLocalDns),
];

/// The owner of a rule; `None`: unknown.
pub fn owner_of(rule: &CandidateRule) -> Option<RuleOwner> {
    if rule.tool == Tool::Nft {
        let by_table = TABLES.iter().find(|(name, _)| rule.table.starts_with(name));
        if let Some((_, owner)) = by_table {
            return Some(*owner);
        }
    }
    let by_chain = CHAINS.iter().find(|(start, _)| rule.chain.starts_with(start));
    by_chain
        .map(|(_, owner)| *owner)
        .or_else(|| is_of_zone(&rule.chain).then_some(RuleOwner::Firewalld))
        .or_else(|| by_comment(rule))
        .or_else(|| is_dockers(rule).then_some(RuleOwner::Docker))
}

/// Who set the policy of a chain, by the chains in its table: none of them is in the policy itself.
pub fn owner_of_policy<'a>(chain: &str, chains: impl IntoIterator<Item = &'a str>) -> Option<RuleOwner> {
    let mut docker = false;
    for other in chains {
        if other.starts_with("ufw-") || other.starts_with("ufw6-") {
            return Some(RuleOwner::Ufw);
        }
        docker |= other.starts_with("DOCKER");
    }
    // Docker sets no other policy.
    (docker && chain == "FORWARD").then_some(RuleOwner::Docker)
}

/// Whether it is the chain of a zone of firewalld, such as `IN_public` or `IN_office_allow`.
fn is_of_zone(chain: &str) -> bool {
    const HOOKS: [&str; 6] = ["IN_", "FWD_", "FWDI_", "FWDO_", "PRE_", "POST_"];
    const ZONES: [&str; 11] = [
        "block", "dmz", "docker", "drop", "external", "home", "internal", "libvirt", "public", "trusted",
        "work",
    ];
    const PARTS: [&str; 5] = ["_allow", "_deny", "_log", "_post", "_pre"];
    let Some(zone) = HOOKS.iter().find_map(|hook| chain.strip_prefix(hook)) else {
        return false;
    };
    ZONES.contains(&zone) || PARTS.iter().any(|part| zone.ends_with(part))
}

fn by_comment(rule: &CandidateRule) -> Option<RuleOwner> {
    let comments = comments(rule);
    let mut owners = COMMENTS.iter();
    let found = owners.find(|(start, _)| comments.iter().any(|comment| comment.starts_with(start)));
    found.map(|(_, owner)| *owner)
}

/// The comments of a rule, whole where it was read whole.
pub(super) fn comments(rule: &CandidateRule) -> Vec<&str> {
    if let Some(words) = &rule.words {
        let behind = words.iter().skip(1);
        let pairs = words.iter().zip(behind);
        return pairs
            .filter(|(option, _)| *option == "--comment")
            .map(|(_, comment)| comment.as_str())
            .collect();
    }
    let option = match rule.tool {
        Tool::IptablesLegacy | Tool::IptablesNft | Tool::EbtablesLegacy | Tool::EbtablesNft => "--comment \"",
        Tool::Nft => "comment \"",
    };
    rule.text.split(option).skip(1).collect()
}

/// Docker 28 and later drop packets for a container's address that arrive on another device than its bridge, in iptables' own
/// chain.
fn is_dockers(rule: &CandidateRule) -> bool {
    let Some(words) = &rule.words else { return false };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let is_bridge = |device: &str| {
        let id = device.strip_prefix("br-").unwrap_or_default();
        device == "docker0" || id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let one_address = if rule.family == Family::Ip6 { "/128" } else { "/32" };
    rule.table == "raw"
        && matches!(
            words.as_slice(),
            ["PREROUTING", "-d", address, "!", "-i", device, "-j", "DROP"]
                if address.ends_with(one_address) && is_bridge(device)
        )
}
