//! The conntrack table filled for real, forwarding switched off, a policy that drops.

use std::{fs, net::UdpSocket, path::Path, time::Duration};

use probe_lab::{Files, Shop, shell, wait_until};
use serde_json::Value;

fn look(shop: &Shop, files: &Files) -> Value {
    let arguments = ["--cri", "none", "--duration", "1s"];
    files.doctor("settings", shop.node(), &arguments).unwrap()
}

/// What is wrong, but for the clock: that is the machine's.
fn faults(answer: &Value) -> Vec<&Value> {
    let faults = answer["findings"].as_array().unwrap().iter();
    let says = |fault: &Value, word: &str| fault["what"].as_str().unwrap().contains(word);
    faults
        .filter(|fault| !says(fault, "clock is not synchronized"))
        .collect()
}

fn only(answer: &Value, severity: &str, words: &[&str]) {
    let faults = faults(answer);
    assert_eq!(faults.len(), 1, "{answer:#}");
    assert_eq!(faults[0]["severity"], severity, "{answer:#}");
    let text = faults[0].to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{answer:#}");
}

fn node() -> (Shop, Files) {
    let (shop, files) = (Shop::new("iptables").unwrap(), Files::new().unwrap());
    files
        .write(
            "/run/flannel/subnet.env",
            "FLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\n",
        )
        .unwrap();
    // Without the module there is nothing to set, and no bridge calls iptables.
    set(&shop, "net.bridge.bridge-nf-call-iptables=1");
    (shop, files)
}

fn has_bridge_filtering() -> bool {
    Path::new("/proc/sys/net/bridge").exists()
}

fn set(shop: &Shop, setting: &str) {
    if has_bridge_filtering() || !setting.contains("bridge") {
        shop.node().run(&format!("sysctl -qw {setting}")).unwrap();
    }
}

#[test]
fn settings_that_break_pods() {
    let (shop, files) = node();
    let answer = look(&shop, &files);
    if !has_bridge_filtering() {
        only(&answer, "failed", &["modprobe br_netfilter"]);
        return;
    }
    assert!(faults(&answer).is_empty(), "{answer:#}");

    set(&shop, "net.bridge.bridge-nf-call-iptables=0");
    only(
        &look(&shop, &files),
        "failed",
        &["net.bridge.bridge-nf-call-iptables = 0"],
    );
    set(&shop, "net.bridge.bridge-nf-call-iptables=1");

    set(&shop, "net.ipv4.conf.cni0.forwarding=0");
    only(&look(&shop, &files), "failed", &["net.ipv4.conf.cni0.forwarding"]);
    set(&shop, "net.ipv4.conf.cni0.forwarding=1");

    shop.node().ip("link set eth0 mtu 1400").unwrap();
    let answer = look(&shop, &files);
    assert_eq!(answer["verdict"], "failed", "{answer:#}");
    assert!(
        answer["findings"]
            .to_string()
            .contains("ip link set flannel.1 mtu 1350"),
        "{answer:#}"
    );
    shop.node().ip("link set eth0 mtu 1500").unwrap();

    shell(shop.node(), "iptables -w -P FORWARD DROP").unwrap();
    let server = format!("{}:443", shop.server.address);
    assert!(!shop.dials(&server).unwrap());
    let answer = look(&shop, &files);
    only(&answer, "failed", &["FORWARD", "policy DROP", "it counted"]);
    // The policy stays: pods are accepted before it.
    let commands = faults(&answer)[0]["fixes"].as_array().unwrap().iter();
    for command in commands.filter_map(|fix| fix["shell"].as_str()) {
        shell(shop.node(), command).unwrap();
    }
    shop.reaches(&server).unwrap();
    let answer = look(&shop, &files);
    assert!(faults(&answer).is_empty(), "{answer:#}");
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap()
}

#[test]
fn a_full_conntrack_table() {
    let (shop, files) = node();
    let room = number(&fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap());
    set(&shop, "net.netfilter.nf_conntrack_udp_timeout=600");
    let count = || {
        number(
            &shop
                .node()
                .run("sysctl -n net.netfilter.nf_conntrack_count")
                .unwrap(),
        )
    };
    // Each from a port to a port of the other node: an entry.
    let fill = |percent: u64| {
        shop.node()
            .enter(|| {
                let mut left = (room * percent / 100).saturating_sub(count());
                while left > 0 {
                    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                    for port in 1024..60_000 {
                        if left == 0 {
                            break;
                        }
                        left -= 1;
                        // An earlier one may have been answered with an ICMP error.
                        while socket.send_to(b"x", ("192.168.88.12", port)).is_err() {}
                    }
                }
            })
            .unwrap();
    };
    for (percent, severity, words) in [(85, "warning", "% full"), (97, "failed", "nf_conntrack_max")] {
        wait_until("the table is that full", Duration::from_secs(60), || {
            fill(percent);
            (count() * 100 / room >= percent - 2).then_some(())
        })
        .unwrap();
        let answer = look(&shop, &files);
        let full = faults(&answer)
            .into_iter()
            .find(|fault| fault["what"].as_str().unwrap().contains("% full"))
            .cloned();
        let full = full.unwrap_or_else(|| panic!("{answer:#}"));
        assert_eq!(full["severity"], severity, "{answer:#}");
        assert!(full.to_string().contains(words), "{answer:#}");
    }
}
