use std::net::SocketAddr;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::{
    Outcome,
    doctor::{
        certificate::samples::{certificate, now},
        server::{Dialled, Reply, Stop, Trust},
    },
    finding::Severity,
};

const DAY: i64 = 24;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn reply(status: u16, skew: i64, body: &str) -> Result<Option<Reply>, Stop> {
    let there: Timestamp = now() - SignedDuration::from_secs(skew);
    Ok(Some(Reply {
        status,
        dated: Some((there, now())),
        body: body.to_owned(),
    }))
}

fn dialled(trust: Trust, leaf: (i64, i64), reply: Result<Option<Reply>, Stop>) -> Dialled {
    Dialled {
        leaf: Some(certificate("kube-apiserver", leaf.0, leaf.1)),
        trust,
        reply,
    }
}

fn good() -> Dialled {
    dialled(Trust::Trusted, (-DAY, 300 * DAY), reply(200, 0, "ok"))
}

fn server(places: &[Dialled]) -> Option<Server> {
    let place = |(number, dialled): (usize, &Dialled)| DialledAddress {
        address: SocketAddr::from(([192, 168, 88, 11 + number as u8], 6443)),
        dialled: dialled.clone(),
    };
    Some(Server {
        url: "https://api.lab:6443".to_owned(),
        host: "api.lab".to_owned(),
        places: Ok(places.iter().enumerate().map(place).collect()),
    })
}

fn client(from: i64, to: i64) -> Option<KubeletClient> {
    Some(KubeletClient::Certificate {
        place: "/var/lib/kubelet/pki/kubelet-client-current.pem".to_owned(),
        certificate: Box::new(certificate("system:node:alpha", from, to)),
    })
}

fn file(path: &str, state: FileState) -> File {
    File {
        path: path.to_owned(),
        state,
    }
}

fn user(name: &str, pid: u32, open: usize) -> User {
    User {
        name: name.to_owned(),
        pid,
        open: Some(open),
        dials: Vec::new(),
        ended: Vec::new(),
    }
}

/// A node without a fault.
fn well() -> NodeFacts {
    NodeFacts {
        now: now(),
        kubelet: Kubelet::Runs { pid: 42 },
        config: file("/etc/kubernetes/kubelet.conf", FileState::Good),
        bootstrap: Some(file("/etc/kubernetes/bootstrap-kubelet.conf", FileState::Missing)),
        client: client(-DAY, 300 * DAY),
        server: server(&[good()]),
        users: vec![user("kubelet", 42, 1), user("kube-proxy", 43, 2)],
        service: Some(ApiService {
            address: address("10.96.0.1:443"),
            endpoints: vec![address("192.168.88.11:6443")],
            mode: "iptables",
            dialled: dialled(Trust::Trusted, (-DAY, 300 * DAY), Ok(None)),
        }),
        causes: Vec::new(),
    }
}

/// Changes a node that is well, and says what the faults are: `!` for one that failed, `~` for a warning.
fn faults(change: impl FnOnce(&mut NodeFacts)) -> String {
    let mut seen = well();
    change(&mut seen);
    let (_, faults) = judge(&seen);
    for fault in &faults {
        assert!(!fault.fixes.is_empty(), "{fault:?}");
    }
    let mark = |severity| match severity {
        Severity::Failed => '!',
        Severity::Warning => '~',
    };
    let all: Vec<String> = faults
        .iter()
        .map(|fault| {
            format!(
                "{}{}|{}",
                mark(fault.severity),
                fault.what,
                fault.evidence.join("|")
            )
        })
        .collect();
    all.join("\n")
}

#[track_caller]
fn says(change: impl FnOnce(&mut NodeFacts), words: &[&str]) {
    let found = faults(change);
    assert_eq!(found.lines().count(), 1, "{found}");
    for word in words {
        assert!(found.contains(word), "{word}: {found}");
    }
}

#[test]
fn a_node_that_is_well() {
    assert_eq!(faults(|_| {}), "");
    let (summary, _) = judge(&well());
    assert_eq!(
        summary,
        "kubelet (pid 42) uses /etc/kubernetes/kubelet.conf; it authenticates as CN=system:node:alpha until 2027-09-23; \
         https://api.lab:6443 answers 200, its certificate ends 2027-09-23, the clocks agree; \
         kubelet has 1 connection to it, kube-proxy has 2 connections to it; \
         the kubernetes Service 10.96.0.1:443 answers"
    );
}

#[test]
fn kubelets_certificate() {
    for (from, to, words) in [
        (
            -365 * DAY,
            -3 * DAY,
            &["!", "expired 3 days ago", "bootstrap-kubelet.conf is missing"][..],
        ),
        (1, 365 * DAY, &["!", "valid only in 60 min", "clock"]),
        (
            -300 * DAY,
            6 * DAY,
            &["~", "expires in 6 days", "rotation seems stuck", "98 %"],
        ),
        (-20 * DAY, 6 * DAY, &["~", "expires in 6 days", "76 %"]),
        (-340 * DAY, 25 * DAY, &["~", "rotation seems stuck"]),
    ] {
        says(|seen| seen.client = client(from, to), words);
    }
    // A short life is no fault: kubelet gets another in time.
    assert_eq!(faults(|seen| seen.client = client(-DAY, 5 * DAY)), "");
    says(
        |seen| {
            seen.client = Some(KubeletClient::Bad {
                place: "/a.pem".to_owned(),
                why: "not found".to_owned(),
            });
        },
        &["!", "/a.pem: not found"],
    );
    assert_eq!(
        faults(|seen| seen.client = Some(KubeletClient::Other("a token"))),
        ""
    );
}

#[test]
fn a_certificate_is_made_for_the_node_it_names() {
    let mut seen = well();
    seen.client = client(-365 * DAY, -DAY);
    let (_, faults) = judge(&seen);
    assert!(
        faults[0]
            .fixes
            .iter()
            .any(|fix| fix.to_string().contains("--client-name system:node:alpha"))
    );
    // Not what somebody wrote into a certificate for a shell to read.
    let Some(KubeletClient::Certificate { certificate, .. }) = &mut seen.client else {
        panic!("no certificate");
    };
    certificate.common_name = Some("system:node:a; reboot".to_owned());
    let (_, faults) = judge(&seen);
    assert!(!format!("{:?}", faults[0].fixes).contains("reboot"));
}

#[test]
fn configurations() {
    let gone = |seen: &mut NodeFacts| {
        (seen.config.state, seen.client, seen.server) = (FileState::Missing, None, None);
    };
    says(
        gone,
        &[
            "!",
            "no configuration",
            "so is /etc/kubernetes/bootstrap-kubelet.conf",
        ],
    );
    says(
        |seen| {
            gone(seen);
            seen.bootstrap = Some(file("/b", FileState::Good));
        },
        &["!", "has not joined", "/b is there"],
    );
    says(
        |seen| {
            gone(seen);
            seen.config.state = FileState::Bad("it is no kubeconfig".to_owned());
        },
        &["!", "can't be used: it is no kubeconfig"],
    );
    says(
        |seen| seen.kubelet = Kubelet::Stopped,
        &["!", "kubelet does not run"],
    );
    assert_eq!(faults(|seen| seen.kubelet = Kubelet::NotSeen), "");
}

#[test]
fn servers() {
    let stopped = |stop: Stop| Dialled::stopped(stop);
    let long = (-DAY, 300 * DAY);
    let ok = || reply(200, 0, "ok");
    for (dialled, words) in [
        (
            stopped(Stop::Refused),
            &["!", "192.168.88.11:6443 refuses connections"][..],
        ),
        (stopped(Stop::Unanswered), &["!", "does not answer"]),
        (
            stopped(Stop::Unreachable("no route".to_owned())),
            &["!", "can't be reached: no route"],
        ),
        (stopped(Stop::Silent), &["!", "sends nothing"]),
        (stopped(Stop::Closed), &["!", "closes them"]),
        (stopped(Stop::NoTls("x".to_owned())), &["!", "does not use TLS"]),
        (stopped(Stop::Alert("UnknownCA".to_owned())), &["!", "UnknownCA"]),
        (
            dialled(Trust::UnknownIssuer, long, ok()),
            &["!", "another CA", "signed by CN=kubernetes"],
        ),
        (
            dialled(Trust::WrongName, long, ok()),
            &["!", "other names", "no name at all"],
        ),
        (dialled(Trust::Other("odd".to_owned()), long, ok()), &["!", "odd"]),
        (
            dialled(Trust::Expired, (-2 * DAY, -DAY), ok()),
            &["!", "expired 24 h ago"],
        ),
        (
            dialled(Trust::NotYet, (DAY, 2 * DAY), ok()),
            &["!", "valid only in 24 h", "clocks"],
        ),
        (
            dialled(Trust::Trusted, (-DAY, 3 * DAY), ok()),
            &["~", "expires in 3 days"],
        ),
        (dialled(Trust::Trusted, long, reply(401, 0, "")), &["!", "401"]),
        (dialled(Trust::Trusted, long, reply(403, 0, "")), &["~", "403"]),
        (dialled(Trust::Trusted, long, reply(404, 0, "")), &["~", "404"]),
        (
            dialled(
                Trust::Trusted,
                long,
                reply(500, 0, "[+]ping ok\n[-]etcd failed: reason withheld\n"),
            ),
            &["!", "500", "|[-]etcd failed"],
        ),
        (
            dialled(Trust::Trusted, long, reply(200, 31, "ok")),
            &["~", "31 s ahead of"],
        ),
        (
            dialled(Trust::Trusted, long, reply(200, -90, "ok")),
            &["~", "90 s behind"],
        ),
    ] {
        says(|seen| seen.server = server(&[dialled]), words);
    }
    assert_eq!(
        faults(|seen| seen.server = server(&[dialled(Trust::Trusted, long, reply(200, 30, "ok"))])),
        ""
    );
    says(
        |seen| {
            if let Some(server) = &mut seen.server {
                server.places = Err("no answer in 2 s".to_owned());
            }
        },
        &["!", "api.lab does not resolve: no answer in 2 s"],
    );
    // One of two is enough, for now.
    says(
        |seen| seen.server = server(&[Dialled::stopped(Stop::Refused), good()]),
        &["~", "refuses", "another address of it answers"],
    );
}

#[test]
fn connections_that_end() {
    let ended = |outcome, times| Ended {
        to: address("192.168.88.11:6443"),
        outcome,
        times,
        cause: Some("a rule drops it".to_owned()),
    };
    says(
        |seen| seen.users[1].ended = vec![ended(Outcome::Refused, 3), ended(Outcome::ResetByClient, 1)],
        &["~", "3 of kube-proxy's", "refused, 3 times: a rule drops it"],
    );
    says(
        |seen| {
            seen.users[0].open = Some(0);
            seen.users[0].ended = vec![ended(Outcome::Unanswered, 1)];
        },
        &["!", "1 of kubelet's", "none is established"],
    );
    says(
        |seen| {
            seen.users[0].open = Some(0);
            seen.users[0].dials = vec![address("192.168.88.11:6443")];
        },
        &["!", "kubelet has no answer", "SYN sent"],
    );
    says(|seen| seen.users[0].open = Some(0), &["~", "has no connection"]);
    // kubelet itself closes connections when it renews its certificate.
    assert_eq!(
        faults(|seen| seen.users[0].ended = vec![ended(Outcome::ResetByClient, 2)]),
        ""
    );
    // That it has none is no news when the server does not answer.
    says(
        |seen| {
            seen.users[0].open = Some(0);
            seen.server = server(&[Dialled::stopped(Stop::Refused)]);
        },
        &["!", "refuses"],
    );
}

#[test]
fn what_follows_of_a_server_that_is_cut_off_is_its_evidence() {
    says(
        |seen| {
            let api = address("192.168.88.11:6443");
            seen.server = server(&[Dialled::stopped(Stop::Unanswered)]);
            seen.causes = vec![FailedDial {
                to: api,
                what: "iptables: -A OUTPUT -j DROP drops it".to_owned(),
                fixes: Vec::new(),
            }];
            seen.users[0].dials = vec![api, api];
            if let Some(service) = &mut seen.service {
                service.dialled = Dialled::stopped(Stop::Unanswered);
            }
        },
        &[
            "!the API server 192.168.88.11:6443 does not answer",
            "|from here to 192.168.88.11:6443: iptables: -A OUTPUT -j DROP drops it",
            "|kubelet has no answer to its SYN from the API",
            "|the kubernetes Service 10.96.0.1:443 does not answer",
        ],
    );
    // A Service that leads elsewhere is another fault.
    let found = faults(|seen| {
        seen.server = server(&[Dialled::stopped(Stop::Unanswered)]);
        if let Some(service) = &mut seen.service {
            service.endpoints = vec![address("192.168.88.9:6443")];
            service.dialled = Dialled::stopped(Stop::Refused);
        }
    });
    assert_eq!(found.lines().count(), 2, "{found}");
}

#[test]
fn the_service() {
    for (dialled, endpoints, words) in [
        (
            Dialled::stopped(Stop::Unanswered),
            true,
            &["!", "does not answer", "192.168.88.11:6443"][..],
        ),
        (
            Dialled::stopped(Stop::Refused),
            false,
            &["!", "refuses", "no endpoints"],
        ),
        (
            dialled(Trust::WrongName, (-DAY, 300 * DAY), Ok(None)),
            true,
            &["~", "10.96.0.1"],
        ),
        (
            dialled(Trust::UnknownIssuer, (-DAY, 300 * DAY), Ok(None)),
            true,
            &["!", "another CA"],
        ),
    ] {
        says(
            |seen| {
                let service = seen.service.as_mut().unwrap();
                service.dialled = dialled;
                if !endpoints {
                    service.endpoints.clear();
                }
            },
            words,
        );
    }
}
