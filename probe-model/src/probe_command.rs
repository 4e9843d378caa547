//! Fixes that are commands of probe itself. They are made here, so that one test can have each parsed by probe's own rules.

use std::net::SocketAddr;

use crate::{doctor::Check, finding::Fix};

/// Follows packets to a server, or of the DNS protocol with `udp_port`.
pub fn path(to: Option<SocketAddr>, udp_port: Option<u16>, why: &str) -> Fix {
    let mut argv = vec!["probe".to_owned(), "path".to_owned()];
    if let Some(to) = to {
        argv.extend(["--to".to_owned(), to.ip().to_string()]);
    }
    if let Some(port) = udp_port.or(to.map(|to| to.port())) {
        argv.extend(["--port".to_owned(), port.to_string()]);
    }
    if udp_port.is_some() {
        argv.extend(["--proto".to_owned(), "udp".to_owned()]);
    }
    Fix::run(argv, why)
}

/// Shows connections to these ports as they end; `client`: only those of this node's clients.
pub fn watch(ports: &[u16], client: bool, why: &str) -> Fix {
    let mut argv = vec!["probe".to_owned(), "watch".to_owned()];
    for port in ports {
        argv.extend(["--port".to_owned(), port.to_string()]);
    }
    if client {
        argv.extend(["--role", "client"].map(str::to_owned));
    }
    Fix::run(argv, why)
}

pub fn bypass(why: &str) -> Fix {
    Fix::run(["probe", "bypass"], why)
}

pub fn vxlan(why: &str) -> Fix {
    Fix::run(["probe", "vxlan"], why)
}

pub fn doctor(check: Check, why: &str) -> Fix {
    Fix::run(["probe", "doctor", "--check", check.name()], why)
}

/// Names the clients in a log of etcd, which it reads from its input.
pub fn etcd_log(why: &str) -> Fix {
    Fix::run(["probe", "etcd-log", "--cluster", "-"], why)
}

/// One of each, for a test that has them parsed.
pub fn examples() -> Vec<Fix> {
    let server = SocketAddr::from(([10, 96, 0, 1], 443));
    let mut all = vec![
        path(Some(server), None, ""),
        path(Some(SocketAddr::from(([0; 16], 443))), None, ""),
        path(Some(server), Some(53), ""),
        path(None, Some(53), ""),
        watch(&[2379], false, ""),
        watch(&[443, 6443], true, ""),
        bypass(""),
        vxlan(""),
        etcd_log(""),
    ];
    all.extend(Check::ALL.into_iter().map(|check| doctor(check, "")));
    all
}
