//! The kubelet's configuration file, and its command line, whose options go before it.

use std::net::IpAddr;

use serde::Deserialize;

use crate::model::host::{KubeletArguments, KubeletConfig};

/// Where it is, unless the command line names another.
pub const CONFIG: &str = "/var/lib/kubelet/config.yaml";

/// Names that kubelet's process has: its own, and those of what it is built into.
pub const PROCESSES: [&str; 5] = ["kubelet", "k3s-server", "k3s-agent", "kubelite", "k0s"];

/// Where kubelets have their configuration of the API: kubeadm, EKS, k3s, RKE2, k0s, MicroK8s.
pub const KUBECONFIGS: [&str; 6] = [
    "/etc/kubernetes/kubelet.conf",
    "/var/lib/kubelet/kubeconfig",
    "/var/lib/rancher/k3s/agent/kubelet.kubeconfig",
    "/var/lib/rancher/rke2/agent/kubelet.kubeconfig",
    "/var/lib/k0s/kubelet.conf",
    "/var/snap/microk8s/current/credentials/kubelet.config",
];

/// kubeadm's configuration for the first connection.
pub const BOOTSTRAP: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
/// Where kubelet keeps certificates that it asked for.
pub const PKI: &str = "/var/lib/kubelet/pki";
/// Its client certificate with the key, renewed by itself.
pub const CURRENT: &str = "kubelet-client-current.pem";

/// What of KubeletConfiguration is read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    #[serde(rename = "clusterDNS")]
    cluster_dns: Option<Vec<String>>,
    #[serde(rename = "clusterDomain")]
    cluster_domain: Option<String>,
    #[serde(rename = "resolvConf")]
    resolv_conf: Option<String>,
}

/// The file's text.
///
/// # Errors
/// What is wrong with it, in words.
pub fn config(text: &str) -> Result<KubeletConfig, String> {
    if text.trim().is_empty() {
        return Ok(KubeletConfig::default());
    }
    let file: File = serde_saphyr::from_str(text).map_err(|error| first_line(&error.to_string()))?;
    Ok(KubeletConfig {
        cluster_dns: addresses(file.cluster_dns.iter().flatten().map(String::as_str)),
        cluster_domain: file.cluster_domain,
        resolv_conf: file.resolv_conf,
    })
}

/// The command line of a kubelet, or of the `process` that it is built into, the program's name first.
pub fn arguments(process: &str, line: &[String]) -> KubeletArguments {
    let mut found = KubeletArguments::default();
    let own = process == "kubelet";
    let mut words = line.iter().skip(1).map(String::as_str).peekable();
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            continue;
        };
        let (name, value) = match name.split_once('=') {
            Some((_, "")) => continue,
            Some((name, value)) => (name, value),
            None => match words.next_if(|next| !next.starts_with("--")) {
                Some(value) => (name, value),
                None => continue,
            },
        };
        let value = value.to_owned();
        match name {
            // What a kubelet is built into means files of its own by these.
            "config" | "kubeconfig" | "bootstrap-kubeconfig" | "cert-dir" if !own => {}
            "config" => found.config = Some(value),
            "kubeconfig" => found.kubeconfig = Some(value),
            "bootstrap-kubeconfig" => found.bootstrap = Some(value),
            "cert-dir" => found.cert_dir = Some(value),
            "hostname-override" | "node-name" => found.node = Some(value),
            "cluster-dns" => found.cluster_dns.extend(addresses(value.split(','))),
            "cluster-domain" => found.cluster_domain = Some(value),
            "resolv-conf" => found.resolv_conf = Some(value),
            _ => {}
        }
    }
    found
}

fn addresses<'a>(words: impl Iterator<Item = &'a str>) -> Vec<IpAddr> {
    words.filter_map(|word| word.trim().parse().ok()).collect()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations() {
        let kubeadm = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nauthentication:\n  anonymous:\n    \
                       enabled: false\nclusterDNS:\n- 10.96.0.10\n- x\nclusterDomain: cluster.local\n\
                       resolvConf: /run/systemd/resolve/resolv.conf\nevictionHard: null\n";
        let read = config(kubeadm).unwrap();
        assert_eq!(read.cluster_dns, [IpAddr::from([10, 96, 0, 10])]);
        assert_eq!(
            read.resolv_conf.as_deref(),
            Some("/run/systemd/resolve/resolv.conf")
        );
        assert_eq!(
            config("kind: KubeletConfiguration\nclusterDNS: null\n"),
            Ok(KubeletConfig::default())
        );
        assert_eq!(config(""), Ok(KubeletConfig::default()));
        assert!(config("clusterDNS: 7: x").is_err());
        assert!(config("- a").is_err());
        // Not in the time, or the memory, that it asks for.
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                    d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nclusterDNS: *e\n";
        assert!(config(bomb).is_err());
    }

    #[test]
    fn command_lines() {
        let line = "/usr/bin/kubelet --config /a.yaml --kubeconfig=/b.conf --v --hostname-override alpha --fail --cluster-dns=10.96.0.10,x";
        let line: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let found = arguments("kubelet", &line);
        assert_eq!(found.config.as_deref(), Some("/a.yaml"));
        assert_eq!(found.kubeconfig.as_deref(), Some("/b.conf"));
        assert_eq!(found.node.as_deref(), Some("alpha"));
        assert_eq!(found.cluster_dns, [IpAddr::from([10, 96, 0, 10])]);
        assert_eq!(arguments("kubelet", &[]), KubeletArguments::default());
        // Options of its own beside those it gives to its kubelet.
        let k3s =
            "k3s server --config /etc/rancher/k3s/config.yaml --cluster-dns 10.43.0.10 --node-name beta";
        let k3s: Vec<_> = k3s.split(' ').map(str::to_owned).collect();
        assert_eq!(
            arguments("k3s-server", &k3s),
            KubeletArguments {
                node: Some("beta".to_owned()),
                cluster_dns: vec![IpAddr::from([10, 43, 0, 10])],
                ..KubeletArguments::default()
            }
        );
        for (line, kubeconfig, bootstrap, cert_dir) in [
            ("kubelet", None, None, None),
            (
                "kubelet --bootstrap-kubeconfig=/b --kubeconfig=/k --v 2",
                Some("/k"),
                Some("/b"),
                None,
            ),
            (
                "kubelet --kubeconfig /k -cert-dir /c",
                Some("/k"),
                None,
                Some("/c"),
            ),
            ("kubelet --kubeconfig /a --kubeconfig=/b", Some("/b"), None, None),
            ("kubelet --kubeconfig= --bootstrap-kubeconfig", None, None, None),
            ("--kubeconfig=/k", None, None, None),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let found = arguments("kubelet", &words);
            assert_eq!(
                (
                    found.kubeconfig.as_deref(),
                    found.bootstrap.as_deref(),
                    found.cert_dir.as_deref()
                ),
                (kubeconfig, bootstrap, cert_dir),
                "{line}"
            );
        }
    }
}
