//! Any bytes as each of the node's files; the first byte says which. Nothing panics, and what is found is of the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use probe_user::host::{cni, kubelet, reservations, resolv, subnet_env};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match kind % 6 {
        0 => {
            let env = subnet_env::parse(&text);
            assert!(env.subnets.len() + env.networks.len() <= text.len());
        }
        1 => {
            if let Ok(network) = cni::parse(&text) {
                assert!(network.main().is_some());
            }
        }
        2 => assert!(resolv::parse(&text).servers.len() <= 3),
        3 => {
            if let Ok(config) = kubelet::config(&text) {
                // An alias is shorter than what it stands for, but not without end.
                assert!(config.cluster_dns.len() <= 1 << 20);
            }
        }
        4 => {
            let line: Vec<String> = text.split('\0').map(str::to_owned).collect();
            let name = line.first().map_or("", String::as_str);
            let found = kubelet::arguments(name, &line);
            assert!(found.cluster_dns.len() <= text.len());
        }
        _ => {
            let (name, text) = text.split_once('\n').unwrap_or((&text, ""));
            if let Some(found) = reservations::parse(name, text) {
                assert!(!found.container.is_empty());
            }
        }
    }
});
