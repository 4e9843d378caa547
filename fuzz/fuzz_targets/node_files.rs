//! Any bytes as what a node has or a server sends: certificates, kubeconfigs, lists of sockets, answers of HTTP. Nothing
//! panics, and what is kept is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use probe_user::{
    host::{certificate, hosts, kubeconfig, sockets},
    tls::http,
};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    match kind % 5 {
        0 => {
            if let Ok(found) = certificate::parse(bytes) {
                assert!(found.names.len() <= 12 && found.subject.chars().count() <= 201);
                let _ = (found.validity(), found.life(found.begins), found.used(found.ends));
            }
            let _ = certificate::chain(bytes);
        }
        1 => drop(kubeconfig::parse(&text)),
        2 => drop(sockets::parse(&text)),
        3 => {
            if let Some(found) = http::response(bytes) {
                assert!(found.body.chars().count() <= 4096);
            }
        }
        _ => assert!(hosts::addresses(&text, "api").len() <= 8),
    }
});
