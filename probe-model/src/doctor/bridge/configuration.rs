//! The CNI configuration that counts, and what flannel's plugin reads.

use super::{Facts, Finding, KIND, pod_cidr, restart_flannel};

pub(super) fn faults(facts: &Facts<'_>) -> Vec<Finding> {
    let networks = &facts.seen.networks;
    let mut faults = Vec::new();
    let Some((first, network)) = networks.first() else {
        if !facts.seen.has_kubelet {
            return faults;
        }
        faults.push(
            Finding::failed(
                KIND,
                "the CNI configuration is missing: the node is NotReady, and no pod gets \
                                   a network",
            )
            .seen("no *.conf, *.conflist or *.json in /etc/cni/net.d; the kubelet then logs \"cni plugin not initialized\"")
            .advise("Check flannel's pod on this node: its init container install-cni writes the file.")
            .fix(restart_flannel(facts.node_name())),
        );
        return faults;
    };
    if let Err(why) = network {
        faults.push(
            Finding::failed(
                KIND,
                format!("the runtime can't read the CNI configuration {first}, and uses no other"),
            )
            .seen(format!("{first}: {why}"))
            .advise(format!(
                "Correct {first}, or move it away if a former network plugin left it."
            )),
        );
    }
    let uses_flannel =
        |network: &crate::host::CniNetwork| network.plugins.iter().any(|plugin| plugin.kind == "flannel");
    let first_is = network.as_ref().is_ok_and(uses_flannel);
    let later = networks
        .iter()
        .skip(1)
        .find(|(_, network)| network.as_ref().is_ok_and(uses_flannel));
    if let (false, Some((later, _))) = (first_is, later)
        && facts.seen.subnet_env.is_some()
    {
        faults.push(
            Finding::failed(KIND, format!(
                "pods are not attached to flannel's network: {first} sorts before {later}, and the runtime \
                 uses only the first file"
            ))
            .seen(format!("in sort order: {}", names(facts)))
            .run(["mv", first, "/root/"], "if a former network plugin left it")
            .advise("The runtime then uses the next file; delete the pods that were created with the other."),
        );
    }
    if first_is {
        faults.extend(subnet_env(facts));
    }
    faults
}

fn names(facts: &Facts<'_>) -> String {
    let names: Vec<_> = facts
        .seen
        .networks
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    names.join(", ")
}

/// flannel's plugin can't do without it.
fn subnet_env(facts: &Facts<'_>) -> Option<Finding> {
    let file = facts.main.and_then(|plugin| plugin.subnet_file.as_deref());
    let file = file.unwrap_or("/run/flannel/subnet.env");
    let fault = match &facts.seen.subnet_env {
        Some(Ok(env)) if env.subnets.is_empty() => Finding::failed(
            KIND,
            format!("no new pod can start: {file} has no FLANNEL_SUBNET of this node"),
        ),
        Some(Ok(_)) => return None,
        Some(Err(why)) => Finding::failed(KIND, "no new pod can start: flannel's subnet can't be read")
            .seen(format!("{file}: {why}")),
        None => Finding::failed(
            KIND,
            "no new pod can start: flannel does not run here, or has no subnet yet",
        )
        .seen(format!(
            "loadFlannelSubnetEnv failed: open {file}: no such file or directory"
        )),
    };
    let node = facts.node_name();
    Some(
        fault
            .fix(pod_cidr(node, "if it is empty, flannel waits for it"))
            .fix(restart_flannel(node)),
    )
}
