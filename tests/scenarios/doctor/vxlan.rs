//! What `probe vxlan` finds.

use probe_lab::{Chatter, Cluster, Pair, shell};

use crate::{all, doctor, fault};

#[test]
fn vxlan() {
    let cluster = Cluster::new().unwrap();
    let pods = [cluster.alpha.pod(5).unwrap(), cluster.beta.pod(5).unwrap()];
    let _chatter = Chatter::between(&pods[0], &pods[1]).unwrap();
    let node = &cluster.alpha.netns;
    let answer = doctor(node, "vxlan", &[]);
    assert_eq!(answer["verdict"], "ok", "{answer:#}");
    assert!(
        answer["summary"]
            .as_str()
            .unwrap()
            .contains("1 of 1 peer heard from"),
        "{answer:#}"
    );

    shell(node, "iptables -w -A INPUT -p udp --dport 8472 -j DROP").unwrap();
    let answer = doctor(node, "vxlan", &[]);
    assert_eq!(answer["verdict"], "failed", "{answer:#}");
    let found = fault(&answer, "dropped on this node by a rule");
    assert_eq!(found["kind"], "filtered", "{answer:#}");
    assert!(all(&found["fixes"]).contains("8472"), "{answer:#}");
}

#[test]
fn no_vxlan_device() {
    let pair = Pair::new().unwrap();
    assert_eq!(doctor(&pair.server, "vxlan", &[])["verdict"], "not-applicable");
}
