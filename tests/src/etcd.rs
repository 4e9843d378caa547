//! The real etcd, with TLS and client certificates.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{
    cgroup::Cgroup,
    netns::Netns,
    process::{Child, output, run},
    wait::wait_until,
};

/// A running etcd; dropping it stops it and removes its data.
#[derive(Debug)]
pub struct Etcd {
    child: Child,
    dir: TempDir,
    pub address: SocketAddr,
}

/// One `rejected connection` line of etcd's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub peer: SocketAddr,
    pub error: String,
    /// As etcd printed it.
    pub line: String,
}

impl Etcd {
    /// Starts it in a node's namespace and waits until it serves.
    pub fn start(netns: &Netns, ip: Ipv4Addr, port: u16) -> Result<Self> {
        Self::start_in(netns, ip, port, None)
    }

    /// The same in a pod's control group.
    pub fn start_in(netns: &Netns, ip: Ipv4Addr, port: u16, cgroup: Option<&Cgroup>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        certificates(dir.path(), ip)?;
        let path = |name: &str| dir.path().join(name).display().to_string();
        let log = fs::File::create(path("log"))?;
        let (url, peer) = (
            format!("https://{ip}:{port}"),
            format!("https://127.0.0.1:{}", port + 1),
        );
        let mut command = netns.command("etcd");
        command
            .args(["--name", "lab", "--data-dir", &path("data")])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("lab={peer}")])
            .args([
                "--cert-file",
                &path("server.crt"),
                "--key-file",
                &path("server.key"),
            ])
            .args([
                "--peer-cert-file",
                &path("server.crt"),
                "--peer-key-file",
                &path("server.key"),
            ])
            .args(["--trusted-ca-file", &path("ca.crt"), "--client-cert-auth"])
            .args([
                "--peer-trusted-ca-file",
                &path("ca.crt"),
                "--peer-client-cert-auth",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(cgroup) = cgroup {
            cgroup.place(&mut command);
        }
        let etcd = Self {
            child: Child::spawn(&mut command)?,
            dir,
            address: SocketAddr::new(ip.into(), port),
        };
        wait_until("etcd serves", Duration::from_secs(30), || {
            etcd.log().contains("ready to serve").then_some(())
        })
        .with_context(|| format!("etcd's log:\n{}", etcd.log()))?;
        Ok(etcd)
    }

    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// All it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The connections it says that it rejected.
    pub fn rejected(&self) -> Vec<Rejected> {
        self.log().lines().filter_map(rejected).collect()
    }

    /// A request as a client should make it, from `netns`: with a certificate, answered. Its peer is not rejected.
    pub fn request(&self, netns: &Netns) -> Result<String> {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let script = "import ssl,sys,socket\n\
            c=ssl.create_default_context(cafile=sys.argv[3]); c.load_cert_chain(sys.argv[4],sys.argv[5])\n\
            s=c.wrap_socket(socket.create_connection((sys.argv[1],int(sys.argv[2]))),server_hostname=sys.argv[1])\n\
            s.sendall(b'GET /version HTTP/1.0\\r\\n\\r\\n'); print(s.recv(4096).decode())";
        output(
            netns
                .command("python3")
                .args([
                    "-c",
                    script,
                    &self.address.ip().to_string(),
                    &self.address.port().to_string(),
                ])
                .args([path("ca.crt"), path("client.crt"), path("client.key")]),
        )
    }
}

fn rejected(line: &str) -> Option<Rejected> {
    let (_, rest) = line.split_once("rejected connection from \"")?;
    let (peer, rest) = rest.split_once('"')?;
    let (_, rest) = rest.split_once("(error \"")?;
    let (error, _) = rest.split_once("\", ServerName")?;
    Some(Rejected {
        peer: peer.parse().ok()?,
        error: error.to_owned(),
        line: line.to_owned(),
    })
}

fn certificates(dir: &Path, ip: Ipv4Addr) -> Result<()> {
    let path = |name: &str| dir.join(name).display().to_string();
    run(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=lab -keyout {} -out {}",
        path("ca.key"),
        path("ca.crt")
    ))?;
    for (name, extensions) in [
        (
            "server",
            format!("subjectAltName=IP:127.0.0.1,IP:{ip}\nextendedKeyUsage=serverAuth,clientAuth\n"),
        ),
        ("client", "extendedKeyUsage=clientAuth\n".to_owned()),
    ] {
        let file = |ending: &str| path(&format!("{name}.{ending}"));
        fs::write(file("ext"), extensions)?;
        run(&format!(
            "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {} -out {}",
            file("key"),
            file("csr")
        ))?;
        run(&format!(
            "openssl x509 -req -in {} -CA {} -CAkey {} -CAcreateserial -days 2 -out {} -extfile {}",
            file("csr"),
            path("ca.crt"),
            path("ca.key"),
            file("crt"),
            file("ext")
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::rejected;

    #[test]
    fn rejected_lines() {
        let line = r#"2026-11-23 08:27:43.808481 I | embed: rejected connection from "10.244.1.2:41234" (error "EOF", ServerName "")"#;
        let found = rejected(line).unwrap();
        assert_eq!(
            (found.peer.to_string().as_str(), found.error.as_str()),
            ("10.244.1.2:41234", "EOF")
        );
        assert_eq!(
            rejected("2026-11-23 08:27:43.808481 I | embed: ready to serve client requests"),
            None
        );
    }
}
