//! cni0's address against flannel's subnet.

use probe_lab::{Cluster, Files, Netns};
use serde_json::Value;

const SUBNET_ENV: &str =
    "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
const FLANNEL: &str = r#"{"name":"cbr0","cniVersion":"0.3.1","plugins":[{"type":"flannel","delegate":{"isDefaultGateway":true}}]}"#;

fn node() -> (Cluster, Files) {
    let (cluster, files) = (Cluster::new().unwrap(), Files::new().unwrap());
    files.write("/run/flannel/subnet.env", SUBNET_ENV).unwrap();
    files
        .write("/etc/cni/net.d/10-flannel.conflist", FLANNEL)
        .unwrap();
    (cluster, files)
}

fn look(cluster: &Cluster, files: &Files) -> Value {
    files
        .doctor("bridge", &cluster.alpha.netns, &["--cri", "none"])
        .unwrap()
}

fn says(answer: &Value, words: &[&str]) {
    let text = answer["findings"].to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{answer:#}");
}

#[test]
fn the_bridge_has_another_address() {
    let (cluster, files) = node();
    let answer = look(&cluster, &files);
    assert_eq!(answer["verdict"], "ok", "{answer:#}");

    let node = &cluster.alpha.netns;
    node.ip("addr del 10.244.1.1/24 dev cni0").unwrap();
    node.ip("addr add 10.244.7.1/24 dev cni0").unwrap();
    let answer = look(&cluster, &files);
    assert_eq!(answer["verdict"], "failed", "{answer:#}");
    says(
        &answer,
        &[
            "already has an IP address different from 10.244.1.1/24",
            "cni0: 10.244.7.1/24",
            "ip link delete cni0",
        ],
    );

    // What it says to do.
    node.ip("link set cni0 down").unwrap();
    node.ip("link delete cni0").unwrap();
    let answer = look(&cluster, &files);
    assert_eq!(answer["verdict"], "ok", "{answer:#}");
}

#[test]
fn what_a_former_network_left() {
    let (cluster, files) = node();
    let node = &cluster.alpha.netns;
    node.ip("link add br-old type bridge").unwrap();
    node.ip("addr add 10.244.1.129/25 dev br-old").unwrap();
    files
        .write("/etc/cni/net.d/00-old.conf", r#"{"name":"old","type":"bridge"}"#)
        .unwrap();
    let answer = look(&cluster, &files);
    assert_eq!(answer["verdict"], "failed", "{answer:#}");
    says(
        &answer,
        &["br-old also has the pods' subnet", "00-old.conf sorts before"],
    );

    node.ip("link delete br-old").unwrap();
    std::fs::remove_file(files.path("/etc/cni/net.d/00-old.conf")).unwrap();
    std::fs::remove_file(files.path("/run/flannel/subnet.env")).unwrap();
    says(&look(&cluster, &files), &["loadFlannelSubnetEnv failed"]);
}

#[test]
fn no_node_at_all() {
    let (netns, files) = (Netns::new("bare").unwrap(), Files::new().unwrap());
    for check in ["bridge", "settings"] {
        let answer = files
            .doctor(check, &netns, &["--cri", "none", "--duration", "1s"])
            .unwrap();
        assert_eq!(answer["verdict"], "not-applicable", "{answer:#}");
    }
}
