use std::time::Duration;

use super::*;
use crate::{doctor::CheckVerdict, host::Reservation};

fn device(index: u32, name: &str) -> Device {
    Device {
        index,
        name: name.to_owned(),
        up: true,
        ethernet: true,
        mtu: 1450,
        mac: None,
        controller: None,
        bridge: name.starts_with("cni") || name.starts_with("docker"),
        received: 0,
        sent: 0,
        send_failures: 0,
        vxlan: None,
        xdp: None,
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn network(kind: &str) -> CniNetwork {
    CniNetwork {
        name: "cbr0".to_owned(),
        plugins: vec![CniPlugin {
            kind: kind.to_owned(),
            bridge: ["flannel", "bridge"].contains(&kind).then(|| "cni0".to_owned()),
            ..CniPlugin::default()
        }],
    }
}

fn reserved(address: &str, gone: bool) -> Reserved {
    Reserved {
        reservation: Reservation {
            address: address.parse().unwrap(),
            container: "0123456789abcdef".to_owned(),
            device: None,
        },
        age: Duration::from_secs(3600),
        gone: Some(gone),
    }
}

/// A node of a healthy cluster.
fn healthy() -> BridgeFacts {
    BridgeFacts {
        devices: vec![
            device(1, "lo"),
            device(2, "eth0"),
            device(3, "cni0"),
            device(4, "flannel.1"),
        ],
        addresses: vec![
            (1, net("127.0.0.1/8")),
            (2, net("192.168.88.11/24")),
            (3, net("10.244.1.1/24")),
            (3, net("fe80::1/64")),
            (4, net("10.244.1.0/32")),
        ],
        routes: vec![
            Route {
                prefix: net("10.244.1.0/24"),
                gateway: None,
                device: Some(3),
                metric: 0,
                ..Route::default()
            },
            Route {
                prefix: net("10.244.2.0/24"),
                gateway: None,
                device: Some(4),
                metric: 0,
                ..Route::default()
            },
        ],
        subnet_env: Some(Ok(env("10.244.1.1/24"))),
        networks: vec![(
            "/etc/cni/net.d/10-flannel.conflist".to_owned(),
            Ok(network("flannel")),
        )],
        has_kubelet: true,
        node: Ok(api("10.244.1.0/24")),
        reservations: vec![reserved("10.244.1.5", false)],
        reserved_in: "/var/lib/cni/networks/cbr0".to_owned(),
        unknown: Vec::new(),
    }
}

fn env(subnet: &str) -> SubnetEnv {
    SubnetEnv {
        networks: vec![net("10.244.0.0/16")],
        subnets: vec![net(subnet)],
        mtu: Some(1450),
        masquerade: Some(true),
    }
}

fn api(cidr: &str) -> ApiNode {
    ApiNode {
        name: "alpha".to_owned(),
        pod_cidrs: vec![net(cidr)],
        by_flannel: true,
    }
}

fn set_bridge(seen: &mut BridgeFacts, nets: &[&str]) {
    seen.addresses.retain(|(index, _)| *index != 3);
    seen.addresses.extend(nets.iter().map(|text| (3, net(text))));
}

/// All that is said, line by line.
fn told(answer: &Answer) -> String {
    crate::doctor::shown::text(answer)
}

#[test]
fn what_is_well_and_what_is_not_there() {
    let answer = judge(&healthy());
    assert_eq!(answer.verdict, CheckVerdict::Ok, "{}", told(&answer));
    // Nobody to ask: it is said, and no fault.
    let answer = judge(&BridgeFacts {
        node: Err("no kubelet.conf".to_owned()),
        ..healthy()
    });
    assert_eq!((answer.verdict, answer.unknown.len()), (CheckVerdict::Ok, 1));
    let mut bare = healthy();
    bare.devices.truncate(2);
    (bare.subnet_env, bare.reservations) = (None, Vec::new());
    bare.networks = vec![("05-cilium.conflist".to_owned(), Ok(network("cilium-cni")))];
    assert_eq!(judge(&bare).verdict, CheckVerdict::NotApplicable);
    bare.networks.clear();
    assert_eq!(judge(&bare).verdict, CheckVerdict::NotApplicable);
    // No pod yet, so no bridge.
    let mut fresh = healthy();
    (fresh.devices, fresh.reservations) = (vec![device(2, "eth0"), device(4, "flannel.1")], Vec::new());
    let answer = judge(&fresh);
    assert_eq!(answer.verdict, CheckVerdict::Ok, "{}", told(&answer));
}

/// Who of three is wrong decides what to do.
#[test]
fn who_is_wrong() {
    let (old, new) = ("10.244.7.1/24", "10.244.1.1/24");
    let refused = "different from 10.244.1.1/24";
    for (bridge, lease, cidr, words, never) in [
        // The bridge alone.
        (
            old,
            new,
            Some("10.244.1.0/24"),
            vec![refused, "disconnects", "ip link delete cni0"],
            vec!["app=flannel"],
        ),
        // subnet.env alone: the bridge is not to be touched.
        (
            new,
            old,
            Some("10.244.1.0/24"),
            vec!["podCIDR is 10.244.1.0/24", "app=flannel", "Leave cni0"],
            vec!["delete cni0"],
        ),
        // Both: flannel first.
        (
            old,
            old,
            Some("10.244.1.0/24"),
            vec![
                "app=flannel",
                refused,
                "First apply the fix for flannel above",
                "ip link delete cni0",
            ],
            vec!["Leave cni0"],
        ),
        // Nobody to ask: then by subnet.env, and how to find out.
        (
            old,
            new,
            None,
            vec![refused, "jsonpath", "ip link delete cni0"],
            vec!["app=flannel"],
        ),
    ] {
        let mut seen = healthy();
        set_bridge(&mut seen, &[bridge]);
        seen.reservations = vec![reserved("10.244.1.5", false)];
        seen.subnet_env = Some(Ok(env(lease)));
        seen.node = cidr.map(api).ok_or_else(|| "nobody".to_owned());
        let answer = judge(&seen);
        let told = told(&answer);
        assert_eq!(answer.verdict, CheckVerdict::Failed, "{told}");
        let mut rest = told.as_str();
        for word in words {
            let at = rest.find(word);
            rest = &rest[at.unwrap_or_else(|| panic!("{word} in its place:\n{told}"))..];
        }
        assert!(never.iter().all(|word| !told.contains(word)), "{told}");
    }
}

#[test]
fn leases_out_of_etcd_need_no_pod_cidr() {
    let mut seen = healthy();
    seen.node = Ok(ApiNode {
        by_flannel: false,
        ..api("10.1.1.0/24")
    });
    let answer = judge(&seen);
    assert_eq!(answer.verdict, CheckVerdict::Ok, "{}", told(&answer));
}

#[test]
fn one_thing_wrong() {
    type Change = fn(&mut BridgeFacts);
    let rows: [(&str, Change, CheckVerdict, &str); 17] = [
        (
            "down",
            |seen| seen.devices[2].up = false,
            CheckVerdict::Failed,
            "ip link set cni0 up",
        ),
        (
            "two addresses",
            |seen| set_bridge(seen, &["10.244.1.1/24", "10.9.0.1/24"]),
            CheckVerdict::Warning,
            "ip addr del 10.9.0.1/24 dev cni0",
        ),
        (
            "forced",
            |seen| {
                set_bridge(seen, &["10.9.0.1/24"]);
                seen.networks[0].1.as_mut().unwrap().plugins[0].force_address = true;
            },
            CheckVerdict::Warning,
            "forceAddress",
        ),
        (
            "bridge gone",
            |seen| drop(seen.devices.remove(2)),
            CheckVerdict::Failed,
            "disconnected",
        ),
        (
            "pod without a bridge",
            |seen| seen.devices.push(device(9, "veth0a1b2c3d")),
            CheckVerdict::Failed,
            "veth0a1b2c3d",
        ),
        (
            "no configuration",
            |seen| seen.networks.clear(),
            CheckVerdict::Failed,
            "the CNI configuration is missing",
        ),
        (
            "no configuration, and no kubelet",
            |seen| {
                seen.networks.clear();
                seen.has_kubelet = false;
            },
            CheckVerdict::Ok,
            "",
        ),
        (
            "broken configuration",
            |seen| seen.networks[0].1 = Err("no JSON".to_owned()),
            CheckVerdict::Failed,
            "can't read the CNI configuration",
        ),
        (
            "another configuration first",
            |seen| {
                seen.networks.insert(
                    0,
                    ("/etc/cni/net.d/00-old.conf".to_owned(), Ok(network("bridge"))),
                );
            },
            CheckVerdict::Failed,
            "00-old.conf sorts before",
        ),
        (
            "no subnet.env",
            |seen| seen.subnet_env = None,
            CheckVerdict::Failed,
            "loadFlannelSubnetEnv failed",
        ),
        (
            "empty subnet.env",
            |seen| seen.subnet_env = Some(Ok(SubnetEnv::default())),
            CheckVerdict::Failed,
            "has no FLANNEL_SUBNET",
        ),
        (
            "docker has it",
            |seen| {
                seen.devices.push(device(9, "docker0"));
                seen.addresses.push((9, net("10.244.1.128/25")));
            },
            CheckVerdict::Failed,
            "docker0 also has the pods' subnet",
        ),
        (
            "docker has another node's",
            |seen| {
                seen.devices.push(device(9, "docker0"));
                seen.addresses.push((9, net("10.244.9.1/24")));
            },
            CheckVerdict::Warning,
            "all pods: 10.244.0.0/16",
        ),
        (
            "flannel.1 is old",
            |seen| seen.addresses[4].1 = net("10.244.7.0/32"),
            CheckVerdict::Failed,
            "ip link delete flannel.1",
        ),
        (
            "stray route",
            |seen| {
                seen.routes.push(Route {
                    prefix: net("10.244.1.0/24"),
                    gateway: None,
                    device: Some(4),
                    metric: 0,
                    ..Route::default()
                });
            },
            CheckVerdict::Failed,
            "ip route del 10.244.1.0/24 dev flannel.1",
        ),
        (
            "pod of a former subnet",
            |seen| seen.reservations.push(reserved("10.244.7.9", false)),
            CheckVerdict::Failed,
            "1 pod has an address that is not of 10.244.1.0/24",
        ),
        (
            "a deleted pod",
            |seen| seen.reservations.push(reserved("10.244.1.9", true)),
            CheckVerdict::Warning,
            "rm /var/lib/cni/networks/cbr0/10.244.1.9",
        ),
    ];
    for (name, change, verdict, word) in rows {
        let mut seen = healthy();
        change(&mut seen);
        let answer = judge(&seen);
        let told = told(&answer);
        assert!(answer.verdict == verdict && told.contains(word), "{name}: {told}");
    }
}

#[test]
fn how_full_the_range_is() {
    for (used, verdict, word) in [
        (200, CheckVerdict::Ok, "200 addresses are reserved"),
        (230, CheckVerdict::Warning, "230 of the 253"),
        (253, CheckVerdict::Failed, "no IP addresses available"),
    ] {
        let mut seen = healthy();
        seen.reservations = (0..used)
            .map(|host| reserved(&format!("10.244.1.{}", host + 2), false))
            .collect();
        let answer = judge(&seen);
        assert!(
            answer.verdict == verdict && told(&answer).contains(word),
            "{}",
            told(&answer)
        );
    }
    // A sandbox that is being made is no pod that is gone.
    let mut seen = healthy();
    seen.reservations.push(Reserved {
        age: Duration::from_secs(5),
        ..reserved("10.244.1.9", true)
    });
    assert_eq!(judge(&seen).verdict, CheckVerdict::Ok);
}

/// kube-lab's, and many a cluster's without flannel: the range stands in the file.
#[test]
fn a_range_in_the_file() {
    let mut seen = healthy();
    let mut fixed = network("bridge");
    fixed.plugins[0].ranges = vec![net("10.244.1.0/24")];
    seen.networks[0].1 = Ok(fixed);
    seen.subnet_env = None;
    assert_eq!(judge(&seen).verdict, CheckVerdict::Ok, "{}", told(&judge(&seen)));
    seen.node = Ok(api("10.244.3.0/24"));
    let answer = judge(&seen);
    assert!(
        told(&answer).contains("Replace 10.244.1.0/24 by 10.244.3.0/24"),
        "{}",
        told(&answer)
    );
}
