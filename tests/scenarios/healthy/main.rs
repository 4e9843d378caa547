//! Networks that work, as plugins and firewalls build them: `vxlan`, `bypass` and `doctor` have no finding on any.
//!
//! `PROBE_LAB_HEALTHY=300` watches each for 300 s; with `--test-threads 12` all of them at the same time.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

mod host;
mod plugins;
mod traffic;
mod tunnel;

use std::{process::Output, thread};

use probe_lab::{Chatter, Files, Netns, Pod, Probe, finish};
use serde_json::{Value, json};

use crate::{host::Host, traffic::Client, tunnel::Tunnel};

/// A network with traffic.
struct Network {
    clients: Vec<Client>,
    _chatter: Option<Chatter>,
    _tunnels: Vec<Tunnel>,
    /// Of containers and nodes that only have to be there.
    _others: Vec<Netns>,
    _pods: Vec<Pod>,
    hosts: [Host; 2],
    /// The plugin's name in the CNI configuration.
    plugin: &'static str,
}

/// The VXLAN devices of a network.
enum Overlay {
    /// Each has packets both ways with some peer.
    Devices(&'static [&'static str]),
    None,
}

impl Network {
    /// The traffic of any cluster: pods to pods of the other node, to a Service and to nodes; nodes to pods.
    fn new(hosts: [Host; 2], pods: [Pod; 2], plugin: &'static str) -> Self {
        let [alpha, beta] = &hosts;
        for host in &hosts {
            host.rules(include_str!("rules/kube-proxy.rules"));
            traffic::serve(&host.netns, "0.0.0.0:10250");
        }
        let chatter = Chatter::between(&pods[0], &pods[1]).unwrap();
        let (kubelet, pod) = (
            format!("{}:10250", beta.address()),
            format!("{}:8080", pods[1].address),
        );
        // What comes first resolves addresses.
        let clients = [
            (&pods[0].netns, pod.as_str()),
            (&pods[0].netns, "10.96.7.7:80"),
            (&pods[0].netns, &kubelet),
            (&alpha.netns, &pod),
            (&alpha.netns, "10.96.7.7:80"),
            (&alpha.netns, &kubelet),
        ]
        .map(|(from, to)| Client::connects(from, to));
        Self {
            clients: clients.into(),
            _chatter: Some(chatter),
            _tunnels: Vec::new(),
            _others: Vec::new(),
            _pods: pods.into(),
            hosts,
            plugin,
        }
    }

    /// Watches both nodes with all commands at the same time.
    fn is_healthy(&self, overlay: &Overlay) {
        let seconds = std::env::var("PROBE_LAB_HEALTHY").ok();
        let seconds: u64 = seconds.map_or(4, |text| text.parse().unwrap());
        thread::scope(|scope| {
            let runs: Vec<_> = self
                .hosts
                .iter()
                .flat_map(|host| {
                    let watches: [fn(&Self, &Host, u64, &Overlay); 3] =
                        [Self::vxlan, Self::bypass, Self::doctor];
                    watches.map(|watch| scope.spawn(move || watch(self, host, seconds, overlay)))
                })
                .collect();
            for run in runs {
                run.join().unwrap();
            }
        });
        let through: u64 = self.clients.iter().map(Client::got_through).sum();
        println!("{through} connections and queries in {seconds} s");
    }
}

fn probe(host: &Host, seconds: u64, arguments: &[&str]) -> Output {
    let netns = format!("/run/netns/{}", host.netns.name());
    let duration = format!("{seconds}s");
    let mut command = Probe::command(arguments).unwrap();
    command.args(["-o", "json", "--netns", &netns, "--duration", &duration]);
    finish(&mut command).unwrap()
}

/// Some 60 snapshots of a long run: all networks are watched at the same time, by six processes each.
fn interval(seconds: u64) -> String {
    format!("{}s", (seconds / 60).max(1))
}

/// All that it printed; exit code 0.
fn records(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let records: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}{:#?}", records.last());
    assert!(!records.is_empty(), "{errors}");
    for record in &records {
        let findings = record["findings"].as_array().unwrap();
        assert!(
            findings.is_empty() && record["healthy"] != false,
            "{errors}{record:#}"
        );
    }
    records
}

impl Network {
    fn vxlan(&self, host: &Host, seconds: u64, overlay: &Overlay) {
        let records = records(&probe(
            host,
            seconds,
            &["vxlan", "--interval", &interval(seconds)],
        ));
        let last = &records[records.len() - 1];
        let Overlay::Devices(devices) = overlay else {
            assert_eq!(last["devices"], json!([]), "{last:#}");
            return;
        };
        for device in *devices {
            let talks = |peer: &Value| {
                let count = |way: &str| peer[way]["packets"].as_u64().unwrap();
                peer["device"] == *device && count("sent") > 0 && count("received") > 0
            };
            assert!(
                last["peers"].as_array().unwrap().iter().any(talks),
                "{device}: {last:#}"
            );
        }
    }

    fn bypass(&self, host: &Host, seconds: u64, _: &Overlay) {
        let interval = interval(seconds);
        let arguments = ["bypass", "--cri", "none", "--interval", &interval];
        records(&probe(host, seconds, &arguments));
    }

    /// The checks of the network. The others need a kubelet; the machine's clock is not the network's affair.
    fn doctor(&self, host: &Host, seconds: u64, overlay: &Overlay) {
        let files = self.files(host);
        let root = files.path("").display().to_string();
        for check in ["vxlan", "bypass", "dns", "settings", "bridge"] {
            let arguments = ["doctor", "--cri", "none", "--root", &root, "--check", check];
            let output = probe(host, seconds / 5 + 3, &arguments);
            let text = String::from_utf8_lossy(&output.stdout);
            let answer: Value = serde_json::from_str(text.trim()).unwrap();
            let findings = answer["findings"].as_array().unwrap().iter();
            let found: Vec<_> = findings
                .filter(|finding| {
                    !finding["what"]
                        .as_str()
                        .unwrap()
                        .contains("clock is not synchronized")
                })
                .collect();
            assert!(found.is_empty(), "{answer:#}");
            assert_eq!(output.status.code(), Some(0), "{answer:#}");
            // On a machine that is too busy a check times out, and says that it knows nothing.
            if answer["summary"] == "not checked" {
                println!("{check} of {}: {}", host.netns.name(), answer["unknown"]);
            } else if check == "vxlan" && matches!(overlay, Overlay::Devices(_)) {
                assert_eq!(answer["verdict"], "ok", "{answer:#}");
            }
        }
    }

    /// What the plugin's installer puts on a node.
    fn files(&self, host: &Host) -> Files {
        let files = Files::new().unwrap();
        let plugin = match self.plugin {
            "flannel" => {
                r#"{"type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}}"#.to_owned()
            }
            plugin => format!(r#"{{"type":"{plugin}"}}"#),
        };
        let configuration = format!(
            r#"{{"name":"{}","cniVersion":"0.3.1","plugins":[{plugin},{{"type":"portmap","capabilities":{{"portMappings":true}}}}]}}"#,
            if self.plugin == "flannel" {
                "cbr0"
            } else {
                self.plugin
            }
        );
        files
            .write(
                &format!("/etc/cni/net.d/10-{}.conflist", self.plugin),
                &configuration,
            )
            .unwrap();
        if self.plugin == "flannel" {
            let number = host.number;
            let environment = format!(
                "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.{number}.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
            );
            files.write("/run/flannel/subnet.env", &environment).unwrap();
        }
        files
    }
}
