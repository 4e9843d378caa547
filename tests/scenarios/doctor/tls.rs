//! Certificates, servers that show them, and what the doctor says of a node laid out in a directory.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use probe_lab::{Child, Netns, Probe, finish, run, wait_until};
use serde_json::Value;
use tempfile::TempDir;

/// A certificate and its key.
#[derive(Clone)]
pub struct Pem {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Who signs certificates.
pub struct Authority {
    directory: TempDir,
    pub pem: Pem,
}

const CONFIG: &str = "\
[ca]
default_ca = lab
[lab]
database = DIR/index
new_certs_dir = DIR
default_md = sha256
rand_serial = yes
policy = any
preserve = yes
unique_subject = no
[any]
commonName = optional
organizationName = optional
";
const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

impl Authority {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pem = own(directory.path(), "ca", "/CN=kubernetes", 30);
        Self { directory, pem }
    }

    /// A certificate that ends in so many days; less than none: it has ended.
    pub fn sign(&self, name: &str, subject: &str, names: &str, days: i32) -> Pem {
        let path = |ending: &str| self.directory.path().join(format!("{name}.{ending}"));
        let pem = Pem {
            certificate: path("crt"),
            key: path("key"),
        };
        let (csr, ext) = (path("csr"), path("ext"));
        fs::write(
            &ext,
            format!("subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n"),
        )
        .unwrap();
        run(&format!(
            "openssl req {KEY} -subj {subject} -keyout {} -out {}",
            pem.key.display(),
            csr.display()
        ))
        .unwrap();
        // `openssl ca`, for it alone takes any dates.
        let config = path("cnf");
        fs::write(
            &config,
            CONFIG.replace("DIR", &self.directory.path().display().to_string()),
        )
        .unwrap();
        fs::write(self.directory.path().join("index"), "").unwrap();
        let date = |days: i32| run(&format!("date -u -d {days}days +%Y%m%d%H%M%SZ")).unwrap();
        run(&format!(
            "openssl ca -batch -notext -config {} -in {} -cert {} -keyfile {} -extfile {} -out {} -startdate {} -enddate {}",
            config.display(),
            csr.display(),
            self.pem.certificate.display(),
            self.pem.key.display(),
            ext.display(),
            pem.certificate.display(),
            date(-30).trim(),
            date(days).trim(),
        ))
        .unwrap();
        pem
    }

    /// One that nobody else signed.
    pub fn self_signed(&self, name: &str, subject: &str) -> Pem {
        own(self.directory.path(), name, subject, 30)
    }
}

fn own(directory: &Path, name: &str, subject: &str, days: i32) -> Pem {
    let pem = Pem {
        certificate: directory.join(format!("{name}.crt")),
        key: directory.join(format!("{name}.key")),
    };
    let mut command = std::process::Command::new("openssl");
    command
        .args(["req", "-x509"])
        .args(KEY.split(' '))
        .args(["-days", &days.to_string(), "-subj", subject])
        .arg("-keyout")
        .arg(&pem.key)
        .arg("-out")
        .arg(&pem.certificate);
    assert!(finish(&mut command).unwrap().status.success());
    pem
}

const SERVER: &str = "\
import http.server, socket, ssl, sys, time
from email.utils import formatdate
address, port, cert, key, status, body, skew = sys.argv[1:8]
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ':' in address else socket.AF_INET
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(status)); self.end_headers(); self.wfile.write(body.encode())
    def date_time_string(self, timestamp=None):
        return formatdate(time.time() + float(skew), usegmt=True)
    def log_message(self, *a):
        pass
server = Server((address, int(port)), Handler)
if cert:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(cert, key)
    # The handshake is the thread's, so that one who says nothing holds up nobody else.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
";

/// What a server answers.
pub struct Says {
    pub status: u16,
    pub body: &'static str,
    /// Seconds that its clock is ahead.
    pub skew: i32,
}

pub const WELL: Says = Says {
    status: 200,
    body: "ok",
    skew: 0,
};

/// A server; without a certificate it speaks plain HTTP. Dropping it ends it.
pub fn serve(netns: &Netns, address: SocketAddr, pem: Option<&Pem>, says: &Says) -> Child {
    let path = |path: Option<&PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
    let mut command = netns.command("python3");
    command
        .args([
            "-c",
            SERVER,
            &address.ip().to_string(),
            &address.port().to_string(),
        ])
        .args([
            path(pem.map(|pem| &pem.certificate)),
            path(pem.map(|pem| &pem.key)),
        ])
        .args([&says.status.to_string(), says.body, &says.skew.to_string()])
        .stdin(Stdio::null());
    let child = Child::spawn(&mut command).unwrap();
    wait_until("the server listens", Duration::from_secs(20), || {
        let port = address.port();
        let sockets = netns.run(&format!("ss -Hltn sport = :{port}")).unwrap();
        (!sockets.is_empty()).then_some(())
    })
    .unwrap();
    child
}

/// A node's files.
pub struct Files {
    root: TempDir,
}

impl Files {
    pub fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// `/etc/kubernetes/kubelet.conf` as kubeadm writes it: the certificate is the one that kubelet renews by itself.
    pub fn kubelet(&self, server: SocketAddr, authority: &Pem, client: &Pem) {
        const CURRENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
        let (certificate, key) = (
            fs::read(&client.certificate).unwrap(),
            fs::read(&client.key).unwrap(),
        );
        self.write(
            "/var/lib/kubelet/pki/kubelet-client-2026.pem",
            [certificate, key].concat(),
        );
        let link = self.root.path().join(CURRENT.trim_start_matches('/'));
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink("/var/lib/kubelet/pki/kubelet-client-2026.pem", link).unwrap();
        self.write(
            "/etc/kubernetes/pki/ca.crt",
            fs::read(&authority.certificate).unwrap(),
        );
        self.kubeconfig(
            "/etc/kubernetes/kubelet.conf",
            server,
            &format!("client-certificate: {CURRENT}, client-key: {CURRENT}"),
        );
    }

    pub fn kubeconfig(&self, path: &str, server: SocketAddr, user: &str) {
        self.write(
            path,
            format!(
                "apiVersion: v1\nkind: Config\n\
                 clusters: [{{name: lab, cluster: {{server: \"https://{server}\", certificate-authority: pki/ca.crt}}}}]\n\
                 contexts: [{{name: lab, context: {{cluster: lab, user: me}}}}]\ncurrent-context: lab\n\
                 users: [{{name: me, user: {{{user}}}}}]\n"
            ),
        );
    }
}

/// What a check says of a node.
pub fn doctor(check: &str, netns: &Netns, files: &Files, path: Option<&Path>) -> Value {
    let mut command =
        Probe::command(&["doctor", "-o", "json", "--duration", "2s", "--check", check]).unwrap();
    command
        .arg("--root")
        .arg(files.root())
        .arg("--netns")
        .arg(format!("/run/netns/{}", netns.name()));
    if let Some(path) = path {
        let paths = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{paths}", path.display()));
    }
    let output = finish(&mut command).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {text}{errors}");
    });
    assert_eq!(
        output.status.success(),
        answer["verdict"] != "failed",
        "{answer:#}"
    );
    answer
}

/// That it came to this, and tells all these words.
#[track_caller]
pub fn says(answer: &Value, verdict: &str, words: &[&str]) {
    assert_eq!(answer["verdict"], verdict, "{answer:#}");
    let text = answer.to_string();
    for word in words {
        assert!(text.contains(word), "{word}: {answer:#}");
    }
}

/// Any address of this family and a port.
pub fn any(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}
