use super::*;
use crate::{
    doctor::{CheckVerdict, shown::text},
    network,
    rule::{CandidateRule, PacketPath, RuleFlow, Tool, samples::policy},
    vxlan::overlay::{PeerSource, Underlay},
};

fn device(name: &str, role: Role, mtu: u32) -> DeviceSettings {
    DeviceSettings {
        name: name.to_owned(),
        role,
        mtu,
        forwarding: Some(true),
        rp_filter: 2,
    }
}

fn overlay(mtu: u32) -> Overlay {
    Overlay {
        device: network::Device {
            index: 4,
            name: "flannel.1".to_owned(),
            up: true,
            ethernet: true,
            mtu,
            mac: None,
            controller: None,
            bridge: false,
            received: 0,
            sent: 0,
            send_failures: 0,
            vxlan: None,
            xdp: None,
        },
        vxlan: network::Vxlan::default(),
        underlay: Some(Underlay {
            index: 2,
            name: "eth0".to_owned(),
            mtu: 1500,
            ethernet: true,
        }),
        other_underlays: Vec::new(),
        kind: PeerSource::Entries,
        peers: Vec::new(),
        conflict: None,
        is_port_shared: false,
        lacks_address: false,
        underlay_down: None,
        overlaps: Vec::new(),
        subnet_length: None,
    }
}

fn healthy() -> SettingsFacts {
    SettingsFacts {
        window: Duration::from_secs(5),
        conntrack: Some(Table {
            entries: 700,
            room: 1000,
            counts: Some(Counts {
                insert_failed: Growth::of(7, 7),
                ..Counts::default()
            }),
        }),
        forwarding: Some(true),
        rp_filter: 0,
        reverse_path: Growth::of(0, 0),
        strays: Vec::new(),
        policies: Vec::new(),
        devices: vec![
            device("cni0", Role::Bridge, 1450),
            device("flannel.1", Role::Vxlan, 1450),
            device("eth0", Role::Underlay, 1500),
        ],
        bridge_filtering: Some(true),
        services: 2,
        rule_sets: Vec::new(),
        cluster_ips: Vec::new(),
        rejections: Vec::new(),
        pods: Some("10.244.1.0/24".parse().unwrap()),
        droppers: Vec::new(),
        overlays: vec![overlay(1450)],
        flannel_mtu: Some(1450),
        checksum_errors: Growth::of(3, 3),
        offload: vec![("flannel.1".to_owned(), Some(true))],
        clock: Some(Clock {
            synchronised: true,
            ..Clock::default()
        }),
        unknown: Vec::new(),
    }
}

fn table(seen: &mut SettingsFacts) -> &mut Table {
    seen.conntrack.as_mut().unwrap()
}

fn dropper(packets: Option<u64>) -> Dropper {
    Dropper {
        rule: CandidateRule {
            packets,
            ..policy(Tool::IptablesNft, "FORWARD", &[])
        },
        way: "traffic from pods to pods of other nodes".to_owned(),
        flow: RuleFlow {
            path: PacketPath::Forward,
            protocol: None,
            source: Some("10.244.1.0/24".parse().unwrap()),
            destination: None,
            source_port: None,
            destination_port: None,
        },
    }
}

#[test]
fn well() {
    let answer = judge(&healthy());
    assert_eq!(answer.verdict, CheckVerdict::Ok, "{}", text(&answer));
    assert!(
        answer.summary.contains("insert_failed 7 before"),
        "{}",
        answer.summary
    );
    assert!(answer.summary.contains("checksum offload of flannel.1 is on"));
}

#[test]
fn one_setting_wrong() {
    use CheckVerdict::{Failed, Ok, Warning};
    type Change = fn(&mut SettingsFacts);
    let rows: [(&str, Change, CheckVerdict, &str); 24] = [
        ("79 %", |seen| table(seen).entries = 799, Ok, ""),
        ("80 %", |seen| table(seen).entries = 800, Warning, "80 % full"),
        ("94 %", |seen| table(seen).entries = 949, Warning, "94 % full"),
        (
            "95 %",
            |seen| table(seen).entries = 950,
            Failed,
            "nf_conntrack_max=2000",
        ),
        ("no table", |seen| seen.conntrack = None, Ok, "not loaded"),
        (
            "drop grows",
            |seen| table(seen).counts.as_mut().unwrap().drop = Growth::of(1, 4),
            Failed,
            "its table is full: 3 in 5 s",
        ),
        (
            "early_drop grows",
            |seen| table(seen).counts.as_mut().unwrap().early_drop = Growth::of(1, 2),
            Failed,
            "evicts live",
        ),
        (
            "insert_failed grows, and drop with it",
            |seen| {
                let counts = table(seen).counts.as_mut().unwrap();
                counts.insert_failed = Growth::of(1, 9);
                counts.drop = Growth::of(1, 9);
            },
            Warning,
            "masquerade has no free source port left",
        ),
        (
            "insert_failed grows",
            |seen| table(seen).counts.as_mut().unwrap().insert_failed = Growth::of(1, 2),
            Warning,
            "insert_failed 2",
        ),
        (
            "no forwarding",
            |seen| seen.forwarding = Some(false),
            Failed,
            "sysctl -w net.ipv4.ip_forward=1",
        ),
        (
            "not by one device",
            |seen| seen.devices[0].forwarding = Some(false),
            Failed,
            "net.ipv4.conf.cni0.forwarding=1",
        ),
        (
            "no br_netfilter",
            |seen| seen.bridge_filtering = None,
            Failed,
            "modprobe br_netfilter",
        ),
        (
            "bridge-nf off",
            |seen| seen.bridge_filtering = Some(false),
            Failed,
            "bridge-nf-call-iptables=1",
        ),
        (
            "no Services",
            |seen| (seen.bridge_filtering, seen.services) = (None, 0),
            Ok,
            "",
        ),
        ("strict", |seen| seen.devices[1].rp_filter = 1, Ok, ""),
        (
            "strict, drops",
            |seen| {
                (seen.devices[1].rp_filter, seen.reverse_path) = (1, Growth::of(2, 5));
            },
            Failed,
            "net/ipv4/conf/flannel.1/rp_filter=2",
        ),
        (
            "strict by all, drops once",
            |seen| {
                (seen.rp_filter, seen.reverse_path) = (1, Growth::of(5, 5));
                seen.devices[1].rp_filter = 0;
            },
            Warning,
            "strict on flannel.1",
        ),
        (
            "loose by all",
            |seen| {
                (seen.rp_filter, seen.devices[1].rp_filter, seen.reverse_path) = (2, 1, Growth::of(2, 5));
            },
            Ok,
            "",
        ),
        (
            "dropped",
            |seen| seen.droppers.push(dropper(Some(9))),
            Failed,
            "it counted 9 packets",
        ),
        (
            "would be dropped",
            |seen| seen.droppers.push(dropper(Some(0))),
            Warning,
            "no hits yet",
        ),
        (
            "too large",
            |seen| seen.overlays = vec![overlay(1500)],
            Failed,
            "ip link set flannel.1 mtu 1450",
        ),
        (
            "flannel's other MTU",
            |seen| seen.flannel_mtu = Some(1400),
            Warning,
            "FLANNEL_MTU=1400",
        ),
        (
            "a wider bridge",
            |seen| seen.devices[0].mtu = 1500,
            Warning,
            "cni0 carries packets of 1500",
        ),
        (
            "checksums",
            |seen| seen.checksum_errors = Growth::of(3, 9),
            Failed,
            "ethtool -K flannel.1",
        ),
    ];
    for (name, change, verdict, word) in rows {
        let mut seen = healthy();
        change(&mut seen);
        let answer = judge(&seen);
        let told = text(&answer);
        assert!(answer.verdict == verdict && told.contains(word), "{name}: {told}");
    }
}

#[test]
fn clocks() {
    let mut seen = healthy();
    seen.clock = Some(Clock::default());
    assert!(text(&judge(&seen)).contains("no time daemon runs"));
    seen.clock = Some(Clock {
        keeper: Some("chronyd".to_owned()),
        ..Clock::default()
    });
    let answer = judge(&seen);
    assert_eq!(answer.verdict, CheckVerdict::Warning);
    assert!(text(&answer).contains("chronyd reaches its servers"));
}
