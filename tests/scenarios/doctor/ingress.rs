//! What the node shows to clients without a server name.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use probe_lab::{Child, Family, Netns, Pair, shell};

use super::tls::{Authority, Files, WELL, any, doctor, says, serve};

const FAKE: &str = "/O=Acme Co/CN=Kubernetes Ingress Controller Fake Certificate";

/// Who comes to port 443 is seen of all network namespaces on the machine: one scenario at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A node with an address, and a certificate authority.
struct Lab {
    _alone: MutexGuard<'static, ()>,
    pair: Pair,
    files: Files,
    authority: Authority,
}

impl Lab {
    fn new() -> Self {
        let files = Files::new();
        files.write("/etc/kubernetes/kubelet.conf", "");
        Self {
            _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner),
            pair: Pair::new().unwrap(),
            files,
            authority: Authority::new(),
        }
    }

    fn node(&self) -> &Netns {
        &self.pair.client
    }

    fn address(&self, port: u16) -> SocketAddr {
        any(Pair::client_ip(Family::V4), port)
    }

    fn serve(&self, port: u16, pem: &super::tls::Pem) -> Child {
        serve(
            self.node(),
            any("0.0.0.0".parse().unwrap(), port),
            Some(pem),
            &WELL,
        )
    }

    /// Comes again and again, until dropped.
    fn client(&self, name: &str) -> Child {
        let line = format!(
            "while :; do openssl s_client {name} -connect {} </dev/null >/dev/null 2>&1; sleep 0.2; done",
            self.address(443)
        );
        Child::spawn(self.pair.server.command("sh").args(["-c", &line])).unwrap()
    }

    fn doctor(&self) -> serde_json::Value {
        doctor("ingress", self.node(), &self.files, None)
    }
}

#[test]
fn a_certificate_that_clients_trust() {
    let lab = Lab::new();
    let pem = lab
        .authority
        .sign("shop", "/CN=shop.example", "DNS:shop.example", 30);
    let _server = lab.serve(443, &pem);
    let answer = lab.doctor();
    says(&answer, "ok", &["shop.example until"]);
    // Nobody came.
    assert!(
        answer["unknown"][0]
            .as_str()
            .unwrap()
            .contains("without a server name"),
        "{answer:#}"
    );
}

#[test]
fn the_controllers_fake_certificate() {
    let lab = Lab::new();
    let _server = lab.serve(443, &lab.authority.self_signed("fake", FAKE));
    let address = lab.address(443).to_string();
    says(
        &lab.doctor(),
        "failed",
        &[
            "ingress-nginx's fake certificate",
            &address,
            "--default-ssl-certificate",
        ],
    );
}

#[test]
fn who_comes_without_a_name() {
    let lab = Lab::new();
    let _server = lab.serve(443, &lab.authority.self_signed("fake", FAKE));
    let client = lab.client("-noservername");
    let answer = lab.doctor();
    says(&answer, "failed", &["openssl (pid ", "sent no server name"]);
    drop(client);
    let _client = lab.client("-servername shop.example");
    let answer = lab.doctor();
    says(
        &answer,
        "warning",
        &[
            "fake certificate",
            "every client during the check sent a server name",
        ],
    );
}

#[test]
fn a_self_signed_certificate_at_a_service_of_type_nodeport() {
    let lab = Lab::new();
    let _server = lab.serve(30443, &lab.authority.self_signed("own", "/CN=shop.example"));
    says(&lab.doctor(), "not-applicable", &["no server on port 443"]);
    shell(
        lab.node(),
        "iptables -t nat -N KUBE-SERVICES; iptables -t nat -N KUBE-NODEPORTS; iptables -t nat -N KUBE-EXT-A; \
         iptables -t nat -A KUBE-SERVICES -d 10.96.7.7/32 -p tcp -m comment --comment 'web/ingress:tls cluster IP' \
         -m tcp --dport 443 -j KUBE-EXT-A; \
         iptables -t nat -A KUBE-NODEPORTS -p tcp -m comment --comment 'web/ingress:tls' -m tcp --dport 30443 -j KUBE-EXT-A",
    )
    .unwrap();
    let address = lab.address(30443).to_string();
    says(
        &lab.doctor(),
        "failed",
        &[
            "self-signed",
            "shop.example",
            &format!("{address} (node port of web/ingress:tls)"),
        ],
    );
}

#[test]
fn an_expired_certificate() {
    let lab = Lab::new();
    let pem = lab
        .authority
        .sign("shop", "/CN=shop.example", "DNS:shop.example", -3);
    let _server = lab.serve(443, &pem);
    says(&lab.doctor(), "failed", &["expired 3 days ago", "shop.example"]);
}

#[test]
fn what_speaks_no_tls_or_is_no_node_has_no_certificate() {
    let lab = Lab::new();
    let _server = serve(lab.node(), any("0.0.0.0".parse().unwrap(), 443), None, &WELL);
    says(&lab.doctor(), "ok", &["do not use TLS"]);
    let nothing = Files::new();
    says(
        &doctor("ingress", lab.node(), &nothing, None),
        "not-applicable",
        &["not a Kubernetes node"],
    );
}
