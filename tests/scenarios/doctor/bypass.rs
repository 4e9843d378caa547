//! What `probe bypass` finds.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use probe_lab::{Shop, shell};

use crate::{all, doctor, fault};

#[test]
fn bypass() {
    let shop = Shop::new("iptables-legacy").unwrap();
    let node = shop.node();
    let answer = doctor(node, "bypass", &[]);
    assert_eq!(answer["verdict"], "ok", "{answer:#}");

    let rule = "PREROUTING -p tcp -m multiport --dports 80,443 -j NOTRACK";
    shell(node, &format!("iptables-legacy -w -t raw -A {rule}")).unwrap();
    // Nothing has met it.
    let answer = doctor(node, "bypass", &[]);
    assert_eq!(answer["verdict"], "warning", "{answer:#}");
    assert!(
        all(&answer["findings"][0]["evidence"]).contains(rule),
        "{answer:#}"
    );

    let done = AtomicBool::new(false);
    let answer = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert!(!shop.dials_service().unwrap(), "the Service works");
            }
        });
        let answer = doctor(node, "bypass", &[]);
        done.store(true, Ordering::Relaxed);
        answer
    });
    assert_eq!(answer["verdict"], "failed", "{answer:#}");
    let found = fault(&answer, Shop::NAME);
    assert!(
        all(&found["fixes"]).contains(&format!("iptables-legacy -t raw -D {rule}")),
        "{answer:#}"
    );
}
