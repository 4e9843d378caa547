//! Tables of iptables-legacy from the kernel, beside what its tool prints of them.

use std::{fmt::Write as _, process::Command, time::Duration};

use super::{
    Outputs, Save,
    changes::{apart, has, restore, run},
};
use crate::{
    model::bypass::service::Service,
    netfilter::{
        rules::{
            Action, Family, Packet, PacketPath, PathPosition, Rules, Tool, complete,
            fingerprint::{Fingerprint, check},
        },
        services,
    },
};

const ALL: [Action; 3] = [Action::Drop, Action::Reject, Action::NoTrack];

/// kube-proxy's rules of so many Services, with rules of others between them.
fn kube_proxy(count: u16, more: &str) -> String {
    let (mut chains, mut rules) = (String::new(), String::new());
    for n in 1..=count {
        let [a, b] = n.to_be_bytes();
        writeln!(chains, ":KUBE-SVC-{n} - [0:0]\n:KUBE-SEP-{n} - [0:0]").unwrap();
        writeln!(
            rules,
            "-A KUBE-SERVICES -d 10.96.{a}.{b}/32 -p tcp -m comment --comment \"shop/web-{n}:http cluster IP\" -m tcp --dport 80 -j KUBE-SVC-{n}\n\
             -A KUBE-SVC-{n} -m comment --comment \"shop/web-{n}:http -> 10.244.{a}.{b}:8080\" -j KUBE-SEP-{n}\n\
             -A KUBE-SEP-{n} -p tcp -m comment --comment \"shop/web-{n}:http\" -m tcp -j DNAT --to-destination 10.244.{a}.{b}:8080"
        )
        .unwrap();
    }
    format!(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
         :KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:MORE - [0:0]\n{chains}-A PREROUTING -p tcp -j MORE\n\
         -A PREROUTING -j KUBE-SERVICES\n{more}{rules}\
         -A KUBE-SERVICES -d 10.96.255.1/32 -p sctp -m comment --comment \"shop/calls:sctp cluster IP\" -m sctp --dport 90 -j KUBE-SVC-1\n\
         -A KUBE-SERVICES ! -d 10.96.255.2/32 -p udp -m udp --dport 90 -j KUBE-SVC-1\n\
         -A KUBE-SERVICES -d 10.96.255.0/24 -p udp -m udp --dport 90 -j KUBE-SVC-1\n\
         -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
         -A KUBE-NODEPORTS -p udp -m comment --comment \"shop/dns:dns\" -m udp --dport 30053 -j KUBE-SVC-1\nCOMMIT\n\
         *filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n\
         -A INPUT -p udp -j ACCEPT\n-A INPUT -j KUBE-SERVICES\n\
         -A KUBE-SERVICES -d 10.96.255.9/32 -p tcp -m comment --comment \"shop/none:http has no endpoints\" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable\n\
         COMMIT\n"
    )
}

fn by_tool() -> Outputs {
    let save = |family, program: &str| {
        let output = Command::new(program).arg("-c").output().unwrap();
        Save {
            tool: Tool::IptablesLegacy,
            family,
            text: String::from_utf8(output.stdout).unwrap(),
        }
    };
    Outputs {
        saves: vec![
            save(Family::Ip, "iptables-legacy-save"),
            save(Family::Ip6, "ip6tables-legacy-save"),
        ],
        ..Outputs::default()
    }
}

fn sorted(services: impl IntoIterator<Item = Service>) -> Vec<String> {
    let mut sorted: Vec<String> = services
        .into_iter()
        .map(|service| format!("{service:?}"))
        .collect();
    sorted.sort();
    sorted
}

fn packet(destination: [u8; 4], protocol: u8, port: u16) -> Packet {
    Packet {
        path: PacketPath::In,
        protocol,
        source: [10, 244, 0, 9].into(),
        destination: destination.into(),
        source_port: Some(40_000),
        destination_port: Some(port),
        input: Some("eth0".to_owned()),
        output: None,
        is_new: true,
        position: PathPosition::Anywhere,
    }
}

/// All Services; and of table nat, of which only chains that can do something are kept, the same rules for each packet.
#[test]
fn rules_and_services_as_by_the_tool() {
    if !has(&["iptables-legacy", "ip6tables-legacy"]) {
        return;
    }
    for (more, is_in_nat) in [
        ("", false),
        (
            "-A MORE -p tcp -m tcp --dport 81 -j RETURN\n-A MORE -p tcp -j NFQUEUE --queue-num 1\n",
            true,
        ),
        // In a Service's own chain, behind one that only translates.
        (
            "-A MORE -p tcp -m tcp --dport 81 -j KUBE-SVC-2\n-A KUBE-SVC-3 -p tcp -j NFQUEUE --queue-num 1\n",
            true,
        ),
    ] {
        apart(move || {
            restore("iptables-legacy-restore", &kube_proxy(20, more));
            run("ip6tables-legacy -t raw -A PREROUTING -p udp -j NOTRACK");
            let ((rules, sets), by_tool) = (Rules::read_with_services(), by_tool());
            assert_eq!(rules.unread(), [""; 0]);
            let names: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
            assert_eq!(names, ["iptables-legacy"]);
            let services = sorted(sets.into_iter().flat_map(|set| set.services));
            assert_eq!(services, sorted(services::of(&by_tool)));
            assert_eq!(services.len(), 23, "{services:#?}");
            let all = Rules::of(by_tool);
            let every = |rules: &Rules, action| -> Vec<String> {
                let every = rules.every(action).into_iter();
                every.map(|rule| rule.to_string()).collect()
            };
            assert_eq!(every(&rules, Action::NoTrack), every(&all, Action::NoTrack));
            let mut found = 0;
            for (destination, protocol, port) in [
                ([10, 96, 0, 1], 6, 80),
                ([10, 96, 0, 3], 6, 80),
                ([10, 96, 0, 3], 6, 81),
                ([10, 96, 255, 9], 6, 80),
                ([10, 96, 0, 3], 17, 80),
                ([192, 0, 2, 1], 6, 81),
                ([192, 0, 2, 1], 6, 443),
            ] {
                let packet = packet(destination, protocol, port);
                let (mut kept, expected) = (rules.candidates(&packet, &ALL), all.candidates(&packet, &ALL));
                complete(&mut kept);
                // A chain that is left out may accept a packet, for all that is known of it: then one behind it may not be reached.
                for (kept, expected) in kept.iter_mut().zip(&expected) {
                    assert!(expected.reached || !kept.reached, "{packet:?}");
                    kept.reached = expected.reached;
                }
                assert_eq!(kept, expected, "{packet:?}");
                found += kept.iter().filter(|rule| rule.table == "nat").count();
            }
            assert_eq!(found > 0, is_in_nat, "{more}");
        });
    }
}

/// A large table is not compared each time: then that is said.
#[test]
fn a_large_table_of_the_same_size() {
    const LATER: Duration = Duration::from_secs(11);
    if !has(&["iptables-legacy"]) {
        return;
    }
    apart(|| {
        restore("iptables-legacy-restore", &kube_proxy(4000, ""));
        let unread = |fingerprint: &Fingerprint| fingerprint.unread().count();
        let mut first = check(None).unwrap().fingerprint;
        let (rules, _) = Rules::read_with_services();
        let before = first.clone();
        first.settle(&rules);
        // Until it is read, nothing is known of its content.
        assert_ne!(before, first);
        let second = check(Some(&first)).unwrap();
        assert!(rules.unchanged(&first, &second).is_some());
        restore(
            "iptables-legacy-restore",
            &kube_proxy(4000, "").replace("10.244.0.7:8080", "10.244.0.7:8081"),
        );
        let third = check(Some(&second.fingerprint)).unwrap().fingerprint;
        assert!(third == second.fingerprint && unread(&third) == 0);
        let mut old = third;
        old.age(LATER);
        assert_eq!(unread(&old), 1);
        // After the longest time at the latest.
        old.age(LATER * 2);
        let last = check(Some(&old)).unwrap().fingerprint;
        assert!(last != old && unread(&last) == 0);
        // One of another size is found at once.
        run("iptables-legacy -t nat -A MORE -j RETURN");
        assert_ne!(check(Some(&last)).unwrap().fingerprint, last);
    });
}
