//! Rules of the check `ingress`: what this node shows to clients that send no server name.

use std::{collections::BTreeMap, net::SocketAddr};

use jiff::Timestamp;

use super::{
    Check, Finding, Kind,
    certificate::{Certificate, Life, about},
    server::{Dialled, Stop},
};
use crate::finding::Fix;

const KIND: Kind = Kind::Doctor(Check::Ingress);

/// A certificate that expires sooner than this is reported.
const SOON_HOURS: i64 = 7 * 24;
/// Addresses and clients listed for one certificate.
const SHOWN: usize = 6;

/// Certificates that a controller makes for itself until it is given one, by their common names, and whose they are.
const FAKES: [(&str, &str); 4] = [
    ("Kubernetes Ingress Controller Fake Certificate", "ingress-nginx"),
    ("TRAEFIK DEFAULT CERT", "Traefik"),
    ("localhost", "haproxy-ingress or Kong"),
    ("NGINXIngressController", "NGINX Ingress Controller"),
];

/// What one address showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub address: SocketAddr,
    /// Why this port was dialled: `443`, or the Service that it is of.
    pub why: String,
    pub dialled: Dialled,
}

/// Clients that came without a server name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Nobody looked.
    Unseen,
    /// Who, and how often, while it was watched; none: all sent one.
    Came(Vec<(String, u64)>),
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    Fake(&'static str),
    SelfSigned,
    Over,
    NotYet,
    Soon,
}

/// What is well, in one line, and what is not.
pub fn judge(served: &[Served], clients: &Clients, now: Timestamp) -> (String, Vec<Finding>) {
    let mut wrong: BTreeMap<(Wrong, String), (&Certificate, Vec<&Served>)> = BTreeMap::new();
    for one in served {
        let Some(leaf) = &one.dialled.leaf else { continue };
        for of in wrongs(leaf, now) {
            let key = (of, format!("{} {}", leaf.title(), leaf.validity()));
            wrong.entry(key).or_insert((leaf, Vec::new())).1.push(one);
        }
    }
    let faults = wrong
        .iter()
        .map(|((wrong, _), (leaf, places))| fault(*wrong, leaf, places, clients, now))
        .collect();
    (summary(served), faults)
}

fn wrongs(leaf: &Certificate, now: Timestamp) -> Vec<Wrong> {
    let mut found = Vec::new();
    let fake = FAKES
        .iter()
        .find(|(name, _)| leaf.self_signed && leaf.common_name.as_deref() == Some(name));
    match fake {
        Some((_, whose)) => found.push(Wrong::Fake(whose)),
        None if leaf.self_signed => found.push(Wrong::SelfSigned),
        None => {}
    }
    match leaf.life(now) {
        Life::Over(_) => found.push(Wrong::Over),
        Life::NotYet(_) => found.push(Wrong::NotYet),
        // Nobody renews a fake: its end is not what is wrong with it.
        Life::Left(left) if left.as_hours() < SOON_HOURS && fake.is_none() => found.push(Wrong::Soon),
        Life::Left(_) => {}
    }
    found
}

fn fault(wrong: Wrong, leaf: &Certificate, places: &[&Served], clients: &Clients, now: Timestamp) -> Finding {
    let title = leaf.common_name.as_deref().unwrap_or(leaf.title());
    let says = match (wrong, leaf.life(now)) {
        (Wrong::Fake(whose), _) => format!(
            "clients without a server name get {whose}'s fake certificate, which no client trusts: {title}"
        ),
        (Wrong::SelfSigned, _) => {
            format!("clients without a server name get a self-signed certificate: {title}")
        }
        (Wrong::Over, Life::Over(ago)) => format!(
            "clients without a server name get a certificate that expired {} ago: {title}",
            about(ago)
        ),
        (Wrong::NotYet, Life::NotYet(until)) => format!(
            "clients without a server name get a certificate that is valid only in {}: {title}",
            about(until)
        ),
        (Wrong::Soon | Wrong::Over | Wrong::NotYet, life) => {
            let (Life::Left(time) | Life::Over(time) | Life::NotYet(time)) = life;
            format!(
                "clients without a server name get a certificate that expires in {}: {title}",
                about(time)
            )
        }
    };
    // If all clients send a server name, no client gets this certificate.
    let nobody = matches!(clients, Clients::Came(came) if came.is_empty());
    let mut fault = if nobody || wrong == Wrong::Soon {
        Finding::warning(KIND, says)
    } else {
        Finding::failed(KIND, says)
    };
    for place in places.iter().take(SHOWN) {
        fault = fault.seen(format!("{} ({})", place.address, place.why));
    }
    if places.len() > SHOWN {
        fault = fault.seen(format!("and {} more addresses", places.len() - SHOWN));
    }
    let names = match leaf.names.as_slice() {
        [] => "no name".to_owned(),
        names => names.join(", "),
    };
    fault = fault.seen(format!(
        "subject {}, issuer {}, for {names}, {}",
        leaf.title(),
        leaf.issuer,
        leaf.validity()
    ));
    if let Clients::Came(came) = clients {
        fault = match came.as_slice() {
            [] => fault.seen("every client during the check sent a server name"),
            came => came.iter().take(SHOWN).fold(fault, |fault, (who, times)| {
                fault.seen(format!("{who} sent no server name, {times} times"))
            }),
        };
    }
    let check = places.first().map(|place| {
        Fix::run(
            [
                "openssl",
                "s_client",
                "-noservername",
                "-connect",
                &place.address.to_string(),
            ],
            "shows the certificate, stop it with Ctrl-C",
        )
    });
    let fault = remedies(fault, wrong);
    match check {
        Some(check) => fault.fix(check),
        None => fault,
    }
}

fn remedies(fault: Finding, wrong: Wrong) -> Finding {
    const NAME: &str = "Or let the clients connect by host name, so that they send it; old clients and \
                        health checks often send none.";
    match wrong {
        Wrong::Fake("Traefik") => fault
            .advise("Give Traefik a default certificate: a TLSStore named default with spec.defaultCertificate.secretName.")
            .advise(NAME),
        Wrong::Fake("ingress-nginx") => fault
            .advise("Give the controller a default certificate, by its option --default-ssl-certificate.")
            .advise("Check the secret that the Ingress names: if it is missing or malformed, the controller \
                     serves its fake certificate.")
            .advise(NAME),
        Wrong::Fake(_) | Wrong::SelfSigned => fault
            .advise("Give the ingress controller a default certificate that its clients trust.")
            .advise(NAME),
        Wrong::Over | Wrong::Soon => fault
            .advise("Renew it, and store the new one in the secret that the controller uses.")
            .run(["kubectl", "get", "certificate", "-A"], "with cert-manager: shows whether it is being \
                   renewed"),
        Wrong::NotYet => fault.run(["timedatectl"], "the clock of this node or of the issuer is wrong"),
    }
}

fn summary(served: &[Served]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut by: BTreeMap<String, usize> = BTreeMap::new();
    for one in served {
        let what = match (&one.dialled.leaf, &one.dialled.reply) {
            (Some(leaf), _) => format!(
                "serve {} until {}",
                leaf.common_name.as_deref().unwrap_or(leaf.title()),
                leaf.ends.strftime("%F")
            ),
            (None, Err(Stop::Alert(_))) => "refuse clients without a server name".to_owned(),
            (None, Err(Stop::NoTls(_))) => "do not use TLS".to_owned(),
            (None, Err(Stop::Closed)) => "close the connection".to_owned(),
            (None, _) => "do not answer".to_owned(),
        };
        *by.entry(what).or_default() += 1;
    }
    for (what, addresses) in by {
        parts.push(format!("{addresses} {what}"));
    }
    format!("of this node's addresses, {}", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        certificate::samples::{certificate, now},
        server::Trust,
    };
    use crate::finding::Severity;

    const YEAR: i64 = 365 * 24;

    fn served(last: u8, subject: &str, self_signed: bool, to: i64) -> Served {
        let mut leaf = certificate(subject, -240, to);
        leaf.self_signed = self_signed;
        Served {
            address: SocketAddr::from(([192, 168, 88, last], 443)),
            why: "443".to_owned(),
            dialled: Dialled {
                leaf: Some(leaf),
                trust: Trust::Unchecked,
                reply: Ok(None),
            },
        }
    }

    fn faults(served: &[Served], clients: &Clients) -> Vec<(bool, String)> {
        let (_, faults) = judge(served, clients, now());
        let one = |fault: &Finding| {
            assert!(fault.fixes.len() > 1, "{fault:?}");
            (
                fault.severity == Severity::Failed,
                format!("{}|{}", fault.what, fault.evidence.join("|")),
            )
        };
        faults.iter().map(one).collect()
    }

    #[test]
    fn certificates() {
        for (subject, self_signed, to, failed, words) in [
            (FAKES[0].0, true, YEAR, true, &["ingress-nginx's fake"][..]),
            (FAKES[0].0, true, 24, true, &["ingress-nginx's fake"]),
            (FAKES[1].0, true, YEAR, true, &["Traefik's fake"]),
            (
                "shop.example",
                true,
                YEAR,
                true,
                &["self-signed", "shop.example", "192.168.88.7:443 (443)"],
            ),
            ("shop.example", false, -48, true, &["expired 2 days ago"]),
            ("shop.example", false, 100, false, &["expires in 4 days"]),
        ] {
            let found = faults(&[served(7, subject, self_signed, to)], &Clients::Unseen);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, failed, "{found:?}");
            for word in words {
                assert!(found[0].1.contains(word), "{word}: {found:?}");
            }
        }
        // A common name alone makes no fake: somebody's authority may sign any.
        for subject in ["shop.example", FAKES[0].0] {
            assert_eq!(faults(&[served(7, subject, false, YEAR)], &Clients::Unseen), []);
        }
    }

    #[test]
    fn one_fault_a_certificate() {
        let all: Vec<_> = (1..=9).map(|last| served(last, FAKES[0].0, true, YEAR)).collect();
        let found = faults(&all, &Clients::Unseen);
        assert_eq!(found.len(), 1);
        assert!(found[0].1.contains("192.168.88.6:443") && found[0].1.contains("and 3 more addresses"));
        let (summary, _) = judge(&all, &Clients::Unseen, now());
        assert_eq!(
            summary,
            format!(
                "of this node's addresses, 9 serve {} until 2027-11-27",
                FAKES[0].0
            )
        );
    }

    #[test]
    fn who_came_without_a_name() {
        let fake = [served(7, FAKES[0].0, true, YEAR)];
        let found = faults(&fake, &Clients::Came(Vec::new()));
        assert!(!found[0].0 && found[0].1.contains("every client"), "{found:?}");
        let found = faults(&fake, &Clients::Came(vec![("shop/old-client".to_owned(), 3)]));
        assert!(
            found[0].0
                && found[0]
                    .1
                    .contains("shop/old-client sent no server name, 3 times"),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_no_certificate_is_no_fault() {
        for (stop, says) in [
            (
                Stop::Alert("UnrecognisedName".to_owned()),
                "1 refuse clients without",
            ),
            (Stop::NoTls("x".to_owned()), "1 do not use TLS"),
            (Stop::Silent, "1 do not answer"),
            (Stop::Closed, "1 close the connection"),
        ] {
            let mut one = served(7, "a", false, YEAR);
            one.dialled = Dialled::stopped(stop);
            let (summary, faults) = judge(&[one], &Clients::Unseen, now());
            assert!(summary.contains(says) && faults.is_empty(), "{summary}");
        }
    }
}
