//! kubelet, its certificates, and the API server that it needs.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, process::Stdio, time::Duration};

use probe_lab::{Child, Family, Netns, Pair, shell, wait_until};
use serde_json::Value;

use super::tls::{Authority, Files, Pem, Says, WELL, any, doctor, says, serve};

const SUBJECT: &str = "/O=system:nodes/CN=system:node:alpha";
const LOG: &str = r#"{"__REALTIME_TIMESTAMP":"1795744062000123","MESSAGE":"E1127 \"Error getting node\" err=\"node \\\"alpha\\\" not found\"","_TRANSPORT":"stdout"}
{"__REALTIME_TIMESTAMP":"1795744052000123","MESSAGE":"all is well","_TRANSPORT":"stdout"}
{"__REALTIME_TIMESTAMP":"1795744042000123","MESSAGE":"E1127 node \"alpha\" not found","_TRANSPORT":"stdout"}
no JSON
"#;

/// Dials the server until it has a connection, and holds it.
const KUBELET: &str = "\
import socket, sys, time
open('/proc/self/comm', 'w').write('kubelet')
address = (sys.argv[1], int(sys.argv[2]))
while True:
    try:
        s = socket.create_connection(address)
        while s.recv(4096):
            pass
    except OSError:
        time.sleep(0.2)
";

/// A node (`client`) and the machine with the API server (`server`).
struct Lab {
    pair: Pair,
    files: Files,
    authority: Authority,
    api: SocketAddr,
}

impl Lab {
    /// With all that kubelet needs.
    fn new() -> Self {
        let lab = Self {
            pair: Pair::new().unwrap(),
            files: Files::new(),
            authority: Authority::new(),
            api: any(Pair::server_ip(Family::V4), 6443),
        };
        let client = lab.authority.sign("kubelet", SUBJECT, "DNS:alpha", 30);
        lab.files.kubelet(lab.api, &lab.authority.pem, &client);
        lab
    }

    fn node(&self) -> &Netns {
        &self.pair.client
    }

    fn certificate(&self) -> Pem {
        let names = format!("IP:{},IP:10.96.0.1", self.api.ip());
        self.authority.sign("apiserver", "/CN=kube-apiserver", &names, 30)
    }

    fn serve(&self, pem: &Pem) -> Child {
        self.serve_saying(pem, &WELL)
    }

    fn serve_saying(&self, pem: &Pem, says: &Says) -> Child {
        serve(&self.pair.server, self.api, Some(pem), says)
    }

    /// A process that is taken for kubelet.
    fn kubelet(&self, arguments: &[&str]) -> Child {
        let mut command = self.node().command("python3");
        command
            .args([
                "-c",
                KUBELET,
                &self.api.ip().to_string(),
                &self.api.port().to_string(),
            ])
            .args(arguments)
            .stdin(Stdio::null());
        let child = Child::spawn(&mut command).unwrap();
        let comm = format!("/proc/{}/comm", child.pid());
        wait_until("kubelet is called so", Duration::from_secs(20), || {
            (fs::read_to_string(&comm).ok()?.trim() == "kubelet").then_some(())
        })
        .unwrap();
        child
    }

    fn connected(&self) {
        let port = self.api.port();
        wait_until("kubelet is connected", Duration::from_secs(20), || {
            let sockets = self
                .node()
                .run(&format!("ss -Htn state established dport = :{port}"));
            (!sockets.unwrap().is_empty()).then_some(())
        })
        .unwrap();
    }

    /// The rules that kube-proxy makes of the kubernetes Service.
    fn service(&self, endpoint: &str) {
        self.node()
            .ip(&format!("route add default via {}", self.api.ip()))
            .unwrap();
        shell(
            self.node(),
            &format!(
                "for c in SERVICES SVC-API SEP-API; do iptables -t nat -N KUBE-$c; done; \
                 iptables -t nat -A OUTPUT -j KUBE-SERVICES; \
                 iptables -t nat -A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment 'default/kubernetes:https cluster IP' \
                 -m tcp --dport 443 -j KUBE-SVC-API; \
                 iptables -t nat -A KUBE-SVC-API -j KUBE-SEP-API; \
                 iptables -t nat -A KUBE-SEP-API -p tcp -m tcp -j DNAT --to-destination {endpoint}"
            ),
        )
        .unwrap();
    }

    fn doctor(&self) -> Value {
        doctor("node", self.node(), &self.files, None)
    }
}

#[test]
fn a_node_that_is_well() {
    let lab = Lab::new();
    let _server = lab.serve(&lab.certificate());
    let _kubelet = lab.kubelet(&[]);
    lab.connected();
    lab.service(&lab.api.to_string());
    says(
        &lab.doctor(),
        "ok",
        &[
            "answers 200",
            "CN=system:node:alpha",
            "the clocks agree",
            "kubelet has 1 connection",
            "the kubernetes Service 10.96.0.1:443 answers",
        ],
    );
}

#[test]
fn kubelets_certificate_expired() {
    let lab = Lab::new();
    let client = lab.authority.sign("old", SUBJECT, "DNS:alpha", -3);
    lab.files.kubelet(lab.api, &lab.authority.pem, &client);
    let unauthorized = Says {
        status: 401,
        body: "",
        skew: 0,
    };
    let _server = lab.serve_saying(&lab.certificate(), &unauthorized);
    let _kubelet = lab.kubelet(&["--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf"]);
    lab.connected();
    says(
        &lab.doctor(),
        "failed",
        &[
            "kubelet's client certificate expired 3 days ago",
            "kubelet-client-current.pem",
            "can't request a new certificate",
            "401 Unauthorized",
            "--client-name system:node:alpha",
        ],
    );
}

#[test]
fn the_servers_certificate() {
    let lab = Lab::new();
    let _kubelet = lab.kubelet(&[]);
    let other = Authority::new();
    let names = format!("IP:{}", lab.api.ip());
    for (pem, words) in [
        (
            other.sign("a", "/CN=kube-apiserver", &names, 30),
            "signed by another CA than kubelet's",
        ),
        (
            lab.authority.sign("b", "/CN=kube-apiserver", "DNS:elsewhere", 30),
            "it is valid for elsewhere",
        ),
        (
            lab.authority.sign("c", "/CN=kube-apiserver", &names, -1),
            "expired 24 h ago",
        ),
    ] {
        let _server = lab.serve(&pem);
        says(&lab.doctor(), "failed", &[words]);
    }
}

#[test]
fn a_server_that_is_not_well() {
    let lab = Lab::new();
    let _kubelet = lab.kubelet(&[]);
    let certificate = lab.certificate();
    let sick = Says {
        status: 500,
        body: "[+]ping ok\n[-]etcd failed: reason withheld\n",
        skew: 0,
    };
    let server = lab.serve_saying(&certificate, &sick);
    says(
        &lab.doctor(),
        "failed",
        &["reports that it is not healthy: 500", "[-]etcd failed"],
    );
    drop(server);
    let late = Says { skew: -300, ..WELL };
    let _server = lab.serve_saying(&certificate, &late);
    lab.connected();
    says(&lab.doctor(), "warning", &["s ahead of the API server's"]);
}

#[test]
fn nobody_listens() {
    let lab = Lab::new();
    let _kubelet = lab.kubelet(&[]);
    says(
        &lab.doctor(),
        "failed",
        &[
            "the API server 10.77.0.2:6443 refuses connections",
            "kubelet's connections to the API failed during the check",
            "10.77.0.2:6443: refused",
        ],
    );
}

#[test]
fn nobody_answers() {
    let lab = Lab::new();
    let _server = lab.serve(&lab.certificate());
    Pair::iptables(
        &lab.pair.server,
        Family::V4,
        "-A INPUT -p tcp --dport 6443 -j DROP",
    )
    .unwrap();
    let _kubelet = lab.kubelet(&[]);
    says(
        &lab.doctor(),
        "failed",
        &[
            "the API server 10.77.0.2:6443 does not answer",
            "kubelet has no answer to its SYN from the API",
            "SYN sent, no answer yet",
        ],
    );
}

#[test]
fn a_rule_of_this_node_drops_it() {
    let lab = Lab::new();
    let _server = lab.serve(&lab.certificate());
    let _kubelet = lab.kubelet(&[]);
    lab.connected();
    lab.service(&lab.api.to_string());
    Pair::iptables(lab.node(), Family::V4, "-A OUTPUT -p tcp --dport 6443 -j DROP").unwrap();
    let answer = lab.doctor();
    says(
        &answer,
        "failed",
        &[
            "the API server 10.77.0.2:6443 does not answer",
            "from here to 10.77.0.2:6443",
            "-j DROP",
            "the kubernetes Service 10.96.0.1:443 does not answer",
        ],
    );
    assert_eq!(answer["findings"].as_array().unwrap().len(), 1, "{answer:#}");
}

#[test]
fn a_service_that_leads_nowhere() {
    let lab = Lab::new();
    let _server = lab.serve(&lab.certificate());
    let _kubelet = lab.kubelet(&[]);
    lab.connected();
    lab.service("10.77.0.2:6444");
    says(
        &lab.doctor(),
        "failed",
        &[
            "the kubernetes Service 10.96.0.1:443 refuses",
            "translate 10.96.0.1:443 to 10.77.0.2:6444",
        ],
    );
}

#[test]
fn a_node_that_has_not_joined() {
    let lab = Lab::new();
    let own = lab.files.root().join("etc/kubernetes/kubelet.conf");
    fs::remove_file(own).unwrap();
    let _kubelet = lab.kubelet(&["--kubeconfig=/etc/kubernetes/kubelet.conf"]);
    says(
        &lab.doctor(),
        "failed",
        &["/etc/kubernetes/kubelet.conf is missing"],
    );
    let _server = lab.serve(&lab.certificate());
    lab.connected();
    let bootstrap = "/etc/kubernetes/bootstrap-kubelet.conf";
    lab.files
        .kubeconfig(bootstrap, lab.api, "token: abcdef.0123456789abcdef");
    says(
        &lab.doctor(),
        "failed",
        &["has not joined", "kubectl get csr", "answers 200"],
    );
}

#[test]
fn no_kubelet_and_no_node() {
    let lab = Lab::new();
    let _server = lab.serve(&lab.certificate());
    let answer = lab.doctor();
    let text = answer.to_string();
    // In a container that does not see the node's processes, it is unknown.
    assert!(
        text.contains("kubelet does not run") != text.contains("the kubelet process"),
        "{answer:#}"
    );
    let answer = doctor("node", lab.node(), &Files::new(), None);
    says(&answer, "not-applicable", &["not a Kubernetes node"]);
}

#[test]
fn what_kubelets_log_says() {
    let lab = Lab::new();
    let _server = lab.serve(&lab.certificate());
    let _kubelet = lab.kubelet(&[]);
    lab.connected();
    let answer = lab.doctor();
    says(&answer, "ok", &["kubelet's log: no journal"]);
    lab.files.write("/var/log/journal/id/system.journal", "");
    let tool = lab.files.write(
        "/tools/journalctl",
        format!(
            "#!/bin/sh\necho \"$@\" >{}/asked\ncat <<'END'\n{LOG}END\n",
            lab.files.root().display()
        ),
    );
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let answer = doctor("node", lab.node(), &lab.files, tool.parent());
    says(
        &answer,
        "ok",
        &["in kubelet's log 2 times, last at 2026-11-27 01:47:42 UTC: E1127"],
    );
    let asked = fs::read_to_string(lab.files.root().join("asked")).unwrap();
    let place = lab.files.root().join("var/log/journal");
    assert!(
        asked.contains(&format!("--directory={}", place.display())),
        "{asked}"
    );
    // One that hangs is left.
    fs::write(&tool, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    let answer = doctor("node", lab.node(), &lab.files, tool.parent());
    says(&answer, "ok", &["kubelet's log: "]);
}
