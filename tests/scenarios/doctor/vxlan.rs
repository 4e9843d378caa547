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
            .contains("traffic from 1 of 1 peer"),
        "{answer:#}"
    );

    shell(node, "iptables -w -A INPUT -p udp --dport 8472 -j DROP").unwrap();
    let answer = doctor(node, "vxlan", &[]);
    assert_eq!(answer["verdict"], "failed", "{answer:#}");
    let found = fault(&answer, "dropped on this node by a rule");
    assert_eq!(found["kind"], "filtered", "{answer:#}");
    assert!(all(&found["fixes"]).contains("8472"), "{answer:#}");
}

/// The path between the nodes loses what is larger than 1,400 bytes, and no ICMP error says so.
#[test]
fn a_path_mtu_black_hole() {
    let cluster = Cluster::new().unwrap();
    let node = &cluster.alpha.netns;
    let lose = "nft -f - <<'END'
table netdev wire {
  chain in {
    type filter hook ingress device eth0 priority 0
    udp dport 8472 meta length > 1400 drop
  }
}
END";
    let active = ["--active"];
    let answer = doctor(node, "vxlan", &active);
    assert_eq!(answer["verdict"], "ok", "{answer:#}");

    shell(&cluster.beta.netns, lose).unwrap();
    let answer = doctor(node, "vxlan", &active);
    let found = fault(
        &answer,
        "larger than 1350 bytes to 192.168.88.12 are lost on the path",
    );
    assert_eq!(found["kind"], "mtu", "{answer:#}");
    assert_eq!(answer["findings"].as_array().unwrap().len(), 1, "{answer:#}");
    let fix = found["fixes"][0]["shell"].as_str().unwrap();
    assert!(fix.starts_with("ip link set flannel.1 mtu 1350"), "{answer:#}");
    shell(node, fix).unwrap();
    let answer = doctor(node, "vxlan", &active);
    assert_eq!(answer["verdict"], "ok", "{answer:#}");
}

/// Nothing is sent between the nodes, and packets of the overlay are lost on the way: pings show it.
#[test]
fn an_idle_peer_that_is_cut_off() {
    let cluster = Cluster::new().unwrap();
    let node = &cluster.alpha.netns;
    let peer = &cluster.beta.netns;
    shell(peer, "iptables -w -I INPUT -p udp --dport 8472 -j DROP").unwrap();
    let answer = doctor(node, "vxlan", &[]);
    assert_eq!(answer["verdict"], "unknown", "{answer:#}");

    let active = ["--active"];
    let answer = doctor(node, "vxlan", &active);
    let found = fault(&answer, "192.168.88.12 does not answer");
    assert_eq!(found["kind"], "no-answer", "{answer:#}");
    assert_eq!(answer["findings"].as_array().unwrap().len(), 1, "{answer:#}");
    assert!(
        all(&found["evidence"]).contains("answers pings outside the overlay"),
        "{answer:#}"
    );

    // A peer that answers no pings at all may be down: that is no proof against the overlay.
    shell(peer, "iptables -w -I INPUT -p icmp -j DROP").unwrap();
    let answer = doctor(node, "vxlan", &active);
    assert_eq!(answer["verdict"], "unknown", "{answer:#}");
    assert!(
        all(&answer["unknown"]).contains("neither through the overlay nor outside it"),
        "{answer:#}"
    );
}

#[test]
fn no_vxlan_device() {
    let pair = Pair::new().unwrap();
    assert_eq!(doctor(&pair.server, "vxlan", &[])["verdict"], "not-applicable");
}
