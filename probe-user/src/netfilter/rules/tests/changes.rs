//! That a change of rules shows, and what their counters are by now, as the kernel of this machine has it.

use std::{
    io::Write as _,
    net::UdpSocket,
    process::{Command, Stdio},
    thread,
};

use nix::sched::{CloneFlags, unshare};

use crate::netfilter::rules::{
    Action, CandidateRule, Family, Rules, counters,
    fingerprint::{Fingerprint, check},
    xtables,
};

/// In a network namespace of its own.
pub(super) fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let work = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    thread::spawn(work).join().unwrap()
}

pub(super) fn has(tools: &[&str]) -> bool {
    let there = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    let here = nix::unistd::geteuid().is_root() && tools.iter().all(there);
    if !here {
        eprintln!("skipped: no {tools:?}, or not root");
    }
    here
}

pub(super) fn run(line: &str) {
    let mut words = line.split_whitespace();
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{line}");
}

pub(super) fn restore(tool: &str, text: &str) {
    let mut child = Command::new(tool).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn fingerprint() -> Fingerprint {
    check(None).unwrap().fingerprint
}

/// One datagram to a port of this machine, which the rules below drop.
fn send(port: u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let _ = socket.send_to(b"x", ("127.0.0.1", port));
}

#[test]
fn what_changes_rules_changes_the_fingerprint() {
    if !has(&["nft", "iptables-nft", "iptables-legacy"]) {
        return;
    }
    apart(|| {
        run("ip link set lo up");
        let mut before = fingerprint();
        for (changes, line) in [
            (true, "nft add table ip shop"),
            (false, "nft list ruleset"),
            (true, "iptables-nft -A INPUT -p udp --dport 9 -j DROP"),
            (false, "iptables-nft -L INPUT"),
            (true, "iptables-legacy -A INPUT -p udp --dport 9 -j DROP"),
            // One of the same size.
            (true, "iptables-legacy -R INPUT 1 -p udp --dport 10 -j DROP"),
            (false, "iptables-legacy-save"),
            (false, "iptables-legacy -Z INPUT"),
            (true, "iptables-legacy -P FORWARD DROP"),
            (true, "ip6tables-legacy -t raw -A PREROUTING -j NOTRACK"),
            (true, "iptables-legacy -F INPUT"),
        ] {
            run(line);
            let now = fingerprint();
            assert_eq!(now != before, changes, "{line}: {now:?}");
            before = now;
        }
        // Packets change counters alone.
        run("iptables-legacy -A INPUT -p udp --dport 9 -j DROP");
        let before = fingerprint();
        send(9);
        assert_eq!(fingerprint(), before);
    });
}

#[test]
fn devices_are_no_change_of_rules_that_name_none_by_number() {
    if !has(&["nft"]) {
        return;
    }
    apart(|| {
        run("ip link set lo up");
        let is_same =
            |rules: &Rules, then: &Fingerprint| rules.unchanged(then, &check(Some(then)).unwrap()).is_some();
        for (rule, is_changed) in [("iifname lo", false), ("iif lo", true)] {
            run("nft flush ruleset");
            restore_nft(&format!(
                "table ip t {{ chain c {{ type filter hook input priority 0; {rule} drop; }} }}"
            ));
            let then = fingerprint();
            let (rules, _) = Rules::read();
            assert!(is_same(&rules, &then));
            run("ip link add va type veth peer name vb");
            assert_eq!(is_same(&rules, &then), !is_changed, "{rule}");
            run("ip link del va");
        }
        // The ports of bridges are those that there are now.
        run("ip link add br0 type bridge");
        let ((rules, _), then) = (Rules::read(), fingerprint());
        run("ip link add va type veth peer name vb");
        run("ip link set va master br0");
        let same = Rules {
            names_devices: false,
            ..rules
        }
        .unchanged(&then, &check(Some(&then)).unwrap())
        .unwrap();
        assert_eq!(
            same.position(Some("va"), Some("va")),
            super::PathPosition::Arriving
        );
    });
}

fn restore_nft(text: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // Within braces, a line or a semicolon ends each.
    let text = text.replace('}', "};");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// The counters of three tools' rules, the third one of several in a chain, without reading the rules again.
#[test]
fn counters_are_those_of_now() {
    if !has(&["nft", "iptables-nft", "iptables-legacy"]) {
        return;
    }
    apart(|| {
        run("ip link set lo up");
        let rules = "*filter\n:INPUT ACCEPT [0:0]\n:OWN - [0:0]\n:EMPTY - [0:0]\n-A INPUT -p udp --dport 1 -j DROP\n\
                     -A INPUT -p udp -j OWN\n-A OWN -p udp --dport 2 -j DROP\n-A OWN -p udp --dport 3 -j DROP\nCOMMIT\n";
        restore("iptables-nft-restore", &rules.replace("dport ", "dport 1"));
        restore("iptables-legacy-restore", &rules.replace("dport ", "dport 2"));
        restore_nft(
            "table inet t { chain c { type filter hook input priority 10; udp dport 31 counter drop; \
             udp dport 32 counter drop; udp dport 33 counter drop; udp dport 34 drop; } }",
        );
        let (read, _) = Rules::read();
        assert_eq!(read.unread(), [""; 0]);
        let mut drops = read.every(Action::Drop);
        assert_eq!(drops.len(), 10);
        for (port, times) in [(11, 1), (13, 3), (22, 2), (23, 4), (33, 5), (34, 6)] {
            for _ in 0..times {
                send(port);
            }
        }
        assert!(
            drops
                .iter()
                .all(|rule| rule.packets.is_none_or(|packets| packets == 0))
        );
        counters::refresh(&mut drops).unwrap();
        let counted = |drops: &[CandidateRule]| -> Vec<String> {
            let mut counted: Vec<String> = drops
                .iter()
                .map(|rule| {
                    let words: Vec<&str> = rule.text.split_whitespace().collect();
                    let port = words.iter().position(|word| word.ends_with("dport"));
                    let port = port.and_then(|at| words.get(at + 1)).unwrap();
                    format!("{port}: {:?}", rule.packets)
                })
                .collect();
            counted.sort();
            counted
        };
        let expected = [
            "11: Some(1)",
            "12: Some(0)",
            "13: Some(3)",
            "21: Some(0)",
            "22: Some(2)",
            "23: Some(4)",
            "31: Some(0)",
            "32: Some(0)",
            "33: Some(5)",
            "34: None",
        ];
        assert_eq!(counted(&drops), expected);
        // As all of them read again have them.
        assert_eq!(counted(&Rules::read().0.every(Action::Drop)), expected);
        // A rule that is gone has none.
        run("iptables-legacy -F OWN");
        let mut legacy: Vec<CandidateRule> = drops
            .into_iter()
            .filter(|rule| rule.text.contains("dport 23"))
            .collect();
        assert!(counters::refresh(&mut legacy).is_err());
    });
}

/// The kernel's tables of iptables-legacy, as its own tool prints them; and what isn't understood, as possible.
#[test]
fn legacy_tables_without_their_tool() {
    if !has(&["iptables-legacy"]) {
        return;
    }
    apart(|| {
        let rules = "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:EMPTY - [0:0]\n:OWN - [0:0]\n\
            -A INPUT -j EMPTY\n\
            -A INPUT -p tcp -m multiport --dports 80,443 -m comment --comment \"two words\" -j REJECT --reject-with tcp-reset\n\
            -A INPUT -i fifteen-letters -p 200\n\
            -A FORWARD -s 10.0.0.0/8 ! -d 10.1.2.3/32 -i eth+ ! -o lo -p tcp -m tcp --sport 1024:65535 ! --dport 80 -j DROP\n\
            -A FORWARD ! -p udp -g OWN\n\
            -A OUTPUT -m addrtype ! --dst-type LOCAL -j QUEUE\n\
            -A OWN -p sctp -m sctp --sport 1:2 --dport 80 -j DROP\n\
            -A OWN -f -j ACCEPT\n\
            -A OWN -s 10.0.2.0/255.0.255.0 -j RETURN\n\
            COMMIT\n";
        let rules_v6 = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
            -A PREROUTING -s fd00::/8 -i eth0 -p ipv6-icmp -j CT --notrack\n\
            -A PREROUTING -i cni0 -j CT --zone-orig 5\n\
            -A OUTPUT ! -s fd00::1/128 -p udp -m udp --dport 53 -j DROP\nCOMMIT\n";
        for (tool, family, rules) in [
            ("iptables-legacy", Family::Ip, rules),
            ("ip6tables-legacy", Family::Ip6, rules_v6),
        ] {
            restore(&format!("{tool}-restore"), rules);
            let text = xtables::save(family);
            let save = Command::new(format!("{tool}-save")).arg("-c").output().unwrap();
            let save = String::from_utf8(save.stdout).unwrap();
            let expected: Vec<&str> = save.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        }
        run("iptables-legacy -I INPUT -p tcp -m limit --limit 5/sec -j DROP");
        run("iptables-legacy -I INPUT 2 -p tcp -m tcp --syn -j MARK --set-mark 7");
        let text = xtables::save(Family::Ip);
        for line in [
            "-A INPUT -p tcp -m limit [xt match limit] -j DROP",
            "-A INPUT -p tcp -m tcp [xt match tcp] -j MARK [xt target MARK]",
        ] {
            assert!(text.lines().any(|of| of.ends_with(line)), "{line}: {text}");
        }
    });
}
