use super::*;
use crate::{
    model::etcd_log::{Line, Reader},
    report::samples,
};

fn said(flows: &Flows, unmatched: Unmatched, time: &str) -> String {
    let line = format!(
        r#"{{"level":"warn","ts":"{time}","msg":"rejected connection","remote-addr":"192.168.88.12:62134","server-name":"","error":"EOF"}}"#
    );
    let Line::Rejected(rejected) = Reader::new(TimeZone::UTC, samples::time()).read(&line) else {
        panic!("no rejected connection")
    };
    let mut out = Vec::new();
    let mut report = Report::new(false, TimeZone::UTC).of(flows);
    report.rejected(&mut out, &rejected, &Err(unmatched)).unwrap();
    String::from_utf8(out).unwrap()
}

/// From 09:10:14.145 to 09:10:15.145.
fn storm() -> Flows {
    let mut flows = Flows::default();
    flows.add_unlisted(samples::unlisted());
    flows
}

#[test]
fn a_line_of_a_time_without_all_records() {
    let missing = "it may be one that is not in the recordings: then 48000 connections were counted by source only (--max-rate), 3 \
                   connections have no record (the ring was full)";
    let at = |seconds: &str| format!("2026-11-23T09:10:{seconds}Z");
    let far = Unmatched::TooFar(Duration::from_secs(60));
    for (flows, unmatched, seconds, expected) in [
        (storm(), Unmatched::NotRecorded, "14.500", true),
        (storm(), Unmatched::ServerOnly, "14.500", true),
        (storm(), far, "14.500", true),
        // Its clock may be another's.
        (storm(), Unmatched::NotRecorded, "13.500", true),
        (storm(), Unmatched::NotRecorded, "12.500", false),
        (storm(), Unmatched::NotRecorded, "17.000", false),
        // What is missing does not explain these.
        (storm(), Unmatched::NodeUnknown, "14.500", false),
        (Flows::default(), Unmatched::NotRecorded, "14.500", false),
    ] {
        let what = format!("{unmatched:?} at {seconds}");
        let said = said(&flows, unmatched, &at(seconds));
        assert_eq!(said.contains(missing), expected, "{what}: {said}");
    }
}

#[test]
fn an_address_without_a_record() {
    let address = samples::incident().source;
    let says = |flows: &Flows| Report::new(false, TimeZone::UTC).of(flows).not_recorded(address);
    assert!(!says(&Flows::default()).contains("counted"));
    let said = says(&storm());
    let expected = "; from 09:10:14.145 to 09:10:15.145 48000 connections were counted by source only (--max-rate), 3 connections";
    assert!(said.contains(expected), "{said}");
}
