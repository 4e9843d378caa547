//! The generated files, and everything that the samples of other tests print, held against the schemas.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::tz::TimeZone;

use super::{
    super::{
        Format, Reporter, clock::Clock, doctor, etcd_log, events::Lines, json_line, lines, path, samples,
        snapshot::Snapshot,
    },
    validation::check,
    *,
};
use crate::model::{
    self, Finding,
    bypass::{
        self,
        rule::{Intended, NotrackRule},
        stream::{Server, UntrackedCount, UntrackedStream},
        view::{JudgedStream, SeenBy, Sender},
    },
    cause::causes::Counted,
    check::{CheckedHook, Command, Fact, KernelCheck, Program},
    doctor::{Answer, Check},
    etcd_log::{
        ServerKind,
        earlier::{EarlierEvidence, Likely},
        summary::Total,
    },
    finding::{Affected, Fix, Kind},
    flow::{Flows, LineKey},
    history::{Alive, Gap, HistoryEnd},
    network::{Device, Mac, Vxlan},
    owner::Name,
    part::{AgentStatus, State},
    rule::{Action, CandidateRule, Family, RulePosition, Tool},
    vxlan::{
        Fault,
        finding::Diagnosed,
        overlay::{Overlay, Peer, PeerEntry, PeerSource, Underlay},
        traffic::{
            self, DropCount, ErrorCount, FlowCount, IcmpError, IcmpErrorKind, InnerFlow, Layer, Traffic,
            VxlanCount, VxlanDrop, VxlanStream,
        },
        view::View,
    },
};

/// A rule without an owner that exempts packets from conntrack.
fn notrack(packets: Option<u64>) -> CandidateRule {
    CandidateRule {
        tool: Tool::IptablesNft,
        family: Family::Ip,
        table: "raw".to_owned(),
        chain: "PREROUTING".to_owned(),
        place: RulePosition::Position(1),
        text: "-A PREROUTING -j NOTRACK".to_owned(),
        words: None,
        action: Action::NoTrack,
        certain: true,
        reached: true,
        packets,
        owner: None,
    }
}

fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name)
}

/// Writes what is generated where that is asked for, and holds the file against it.
fn generated(name: &str, text: &str) {
    let file = docs(name);
    if std::env::var_os("PROBE_WRITE_DOCS").is_some() {
        fs::write(&file, text).unwrap();
    }
    let is = fs::read_to_string(&file).unwrap();
    assert!(
        is == text,
        "docs/{name} is not of the types: run `cargo xtask docs --write`"
    );
}

#[test]
fn the_documentation_is_of_these_types() {
    let all = types::all();
    generated("schema.json", &types::file(&all));
    let file = fs::read_to_string(docs("json.md")).unwrap();
    generated("json.md", &documentation::written(&file, &all).unwrap());
}

/// Every field of `line` is described, and is as it is described.
fn holds(event: JsonEvent, line: &str) {
    let all = types::all();
    let schema = of(&all, event);
    let value: Value = serde_json::from_str(line).unwrap();
    if let Err(error) = check(
        &all,
        &schema["$defs"][&schema["$ref"].as_str().unwrap()[REFERENCE.len()..]],
        &value,
    ) {
        panic!("{}: {error}\n{line}", event.name());
    }
}

/// Together, the lines have each field that is described: none is without an example.
fn has_every_field(event: JsonEvent, lines: &[&str]) {
    let schema = of(&types::all(), event);
    let definition = &schema["$defs"][&schema["$ref"].as_str().unwrap()[REFERENCE.len()..]];
    let values: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for field in definition["properties"].as_object().unwrap().keys() {
        let has = |value: &Value| value.get(field).is_some();
        assert!(values.iter().any(has), "{}: no example has {field}", event.name());
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn connections() {
    let mut reporter = Reporter::new(Format::Json, None, false, Vec::new()).node("beta".to_owned());
    let all = samples::every_field();
    for connection in &all {
        reporter.connection(connection).unwrap();
    }
    let mut summary = samples::summary();
    summary.causes = vec![Counted {
        cause: samples::cause(),
        connections: 7,
    }];
    reporter.summary(&summary).unwrap();
    let out = text(reporter.into_inner());
    let lines: Vec<_> = out.lines().collect();
    let (last, lines) = lines.split_last().unwrap();
    assert_eq!(lines.len(), all.len());
    has_every_field(JsonEvent::Connection, lines);
    lines.iter().for_each(|line| holds(JsonEvent::Connection, line));
    holds(JsonEvent::WatchSummary, last);
}

#[test]
fn a_value_that_is_not_as_described() {
    let mut line = Vec::new();
    json_line(&mut line, "beta", &samples::failed()).unwrap();
    let line = text(line);
    let all = types::all();
    let says = |from: &str, to: &str| {
        assert!(line.contains(from), "{from} in {line}");
        let value = serde_json::from_str(&line.replacen(from, to, 1)).unwrap();
        check(&all, &all["$defs"]["Connection"], &value).unwrap_err()
    };
    for (from, to, error) in [
        (r#""role":"client","#, "", "/role is missing"),
        (
            r#""role":"client""#,
            r#""role":"both""#,
            "/role: \"both\" is not as",
        ),
        (
            r#""duration_us":412"#,
            r#""duration_us":-1"#,
            "/duration_us: -1 is not as",
        ),
        (
            r#""duration_us":412"#,
            r#""duration_us":"412""#,
            "/duration_us: \"412\" is not as",
        ),
        ("2026-11-23T", "23.11.2026 ", "/time: \"23.11.2026 09"),
        ("{", r#"{"colour":1,"#, "/colour is not described"),
        (
            r#""pid""#,
            r#""colour":1,"pid""#,
            "/process/colour is not described",
        ),
        (r#""node":"beta""#, r#""node":null"#, "/node: null is not as"),
        ("10.244.2.2", "ten", "/source/address: \"ten\" is not as"),
    ] {
        let said = says(from, to);
        assert!(said.starts_with(error), "{said}, not {error}");
    }
}

#[test]
fn doctor_and_check() {
    let kind = Kind::Doctor(Check::Bridge);
    let fault = Finding {
        felt_by: vec![Affected::new([10, 244, 1, 5].into(), None)],
        peer: Some([192, 168, 88, 12].into()),
        rules: vec!["rule".to_owned()],
        service: Some("shop/web:http".to_owned()),
        device: Some("flannel.1".to_owned()),
        packets: Some(3),
        since_ms: Some(4),
        ..Finding::failed(kind, "cni0 has an address of another subnet")
            .seen("cni0: 10.244.7.1/24")
            .fix(Fix::run(["ip", "link", "del", "cni0"], "it is made anew"))
            .advise("Look at it.")
    };
    let mut answer =
        Answer::of(Check::Bridge, "sum", vec![fault.clone()]).without(vec!["podCIDR".to_owned()]);
    answer.log.push("a line".to_owned());
    holds(JsonEvent::Doctor, &doctor::json(&answer, "alpha").unwrap());
    holds(JsonEvent::DoctorEnd, &doctor::end("alpha").unwrap());

    let program = |name, refused: Option<&str>| Program {
        name,
        tracepoint: "sock/inet_sock_set_state",
        refused: refused.map(str::to_owned),
    };
    let hook = |refused: Option<&'static str>| CheckedHook {
        gives: "connections",
        required: false,
        programs: vec![program("typed", Some("R1 invalid")), program("raw", refused)],
    };
    let command = |hooks, fault: Option<&str>| Command {
        name: "watch",
        hooks,
        absent: Vec::new(),
        fault: fault.map(str::to_owned),
    };
    let facts = [
        "btf",
        "lockdown",
        "tracefs",
        "control_groups",
        "conntrack",
        "capabilities",
    ];
    let kernel = KernelCheck {
        kernel: "6.1.0".to_owned(),
        facts: facts
            .map(|name| Fact {
                name,
                title: name,
                value: "present".to_owned(),
            })
            .to_vec(),
        commands: vec![
            command(vec![hook(None)], None),
            command(vec![hook(Some("no such tracepoint"))], None),
            command(Vec::new(), Some("no BTF")),
        ],
    };
    holds(JsonEvent::Check, &super::super::check::json(&kernel).unwrap());

    let mut lines = Lines::new("beta".to_owned());
    holds(JsonEvent::Finding, &text(lines.finding(&fault, true)));
    let end = HistoryEnd {
        scope: Some(model::recording_scope::RecordingScope::unnamed(false)),
        held: 1,
        oldest: Some(samples::time()),
        forgotten: 2,
        lost: 3,
        unlisted: vec![samples::unlisted()],
    };
    holds(JsonEvent::HistoryEnd, &text(lines.event("end", end)));
    holds(
        JsonEvent::HistoryEnd,
        &text(lines.event("end", HistoryEnd::default())),
    );
    holds(JsonEvent::Alive, &text(lines.event("alive", Alive {})));
    holds(JsonEvent::Gap, &text(lines.event("gap", Gap { lost: 1 })));
    let states = [
        State::Off,
        State::Runs {
            lacks: vec!["a hook".to_owned()],
        },
        State::Failed("no BTF".to_owned()),
    ];
    let status = AgentStatus {
        node: "beta",
        version: "0.1.0",
        kernel: "6.1.0",
        parts: ["watch", "vxlan", "bypass"]
            .into_iter()
            .zip(states.iter().map(Into::into))
            .collect(),
    };
    holds(JsonEvent::AgentStatus, &lines::to_string(&status).unwrap());
}

#[test]
fn recordings() {
    let mut flows = Flows::default();
    let mut line = Vec::new();
    json_line(&mut line, "beta", &samples::incident()).unwrap();
    flows.add(crate::recording::read::line(&line).unwrap().unwrap());
    let source = samples::incident().source;
    let near = flows.near(source, Some(samples::time()));
    let mut report = etcd_log::Report::new(true, TimeZone::UTC);
    let mut out = Vec::new();
    report.who(&mut out, None, source, &near[0]).unwrap();
    holds(JsonEvent::Who, &text(out));

    let line = r#"{"level":"warn","ts":"2026-11-23T09:10:14.145Z","msg":"rejected connection on client endpoint","remote-addr":"10.244.2.2:41234","server-name":"","error":"EOF"}"#;
    let model::etcd_log::Line::Rejected(mut rejected) =
        model::etcd_log::Reader::new(TimeZone::UTC, samples::time()).read(line)
    else {
        panic!("no rejected connection")
    };
    let mut total = Total::default();
    for peer in [source, "10.9.9.9:1".parse().unwrap()] {
        rejected.peer = peer;
        let found = flows.find(&LineKey::of_client(peer), rejected.time, Duration::from_secs(10));
        let mut out = Vec::new();
        report.rejected(&mut out, &rejected, &found).unwrap();
        holds(JsonEvent::EtcdLog, &text(out));
        total.seen(&rejected, &found);
    }
    let since = samples::time();
    for evidence in [
        EarlierEvidence::Interval {
            every: Duration::from_millis(60_013),
            beats: 120,
            spread: Duration::from_millis(4),
            since,
            is_process: true,
        },
        EarlierEvidence::PodAddress { since },
    ] {
        let likely = Likely {
            client: near[0].client.clone(),
            evidence,
        };
        let mut out = Vec::new();
        report.earlier(&mut out, &rejected, &Ok(likely.clone())).unwrap();
        let line = text(out);
        assert!(line.contains(r#""certainty":"likely""#), "{line}");
        holds(JsonEvent::EtcdLog, &line);
        let mut out = Vec::new();
        let mut table = etcd_log::Report::new(false, TimeZone::UTC);
        table.earlier(&mut out, &rejected, &Ok(likely.clone())).unwrap();
        let line = text(out);
        let says = match evidence {
            EarlierEvidence::Interval { .. } => {
                "120 lines at its interval of 60.0 s within 4.0 ms, process since 2026-11-23 09:10:14  EOF"
            }
            EarlierEvidence::PodAddress { .. } => {
                "the pod has had this address since 2026-11-23 09:10:14  EOF"
            }
        };
        assert!(
            line.contains("likely monitoring/sdp-monitor-z8989 (python3.11) on beta, ")
                && line.contains(says),
            "{line}"
        );
        total.seen_earlier(&rejected, &likely);
    }
    let groups = total.groups(&flows, Duration::from_secs(10));
    assert_eq!(groups.len(), 3);
    let mut out = Vec::new();
    report
        .summary(&mut out, ServerKind::Etcd, &total, &groups, (None, None))
        .unwrap();
    holds(JsonEvent::EtcdLogSummary, &text(out));
}

#[test]
fn ways() {
    use super::super::path::samples;
    use crate::model::path::samples::places;
    let exchanges = [
        samples::delivered(),
        samples::dropped_by_rule(),
        samples::untracked(),
        samples::hostile(),
    ];
    for exchange in &exchanges {
        holds(
            JsonEvent::Path,
            &samples::told(Format::Json, None, exchange, &places),
        );
    }
    let mut reporter = path::Reporter::new(Format::Json, None, false, Vec::new()).node("beta".to_owned());
    reporter.last(&samples::totals()).unwrap();
    holds(JsonEvent::PathSummary, &text(reporter.into_inner()));
}

fn snapshot(event: JsonEvent, view: &impl Snapshot) {
    let mut clock = Clock::new(TimeZone::UTC);
    for name in event.values() {
        holds(event, &text(view.json(name, "beta", &mut clock).unwrap()));
    }
}

const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 88, 11));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 88, 12));
const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 1, 5));

fn names() -> HashMap<IpAddr, Name> {
    let name = Name {
        namespace: "shop".to_owned(),
        pod: "web-0".to_owned(),
    };
    [(POD, name)].into()
}

#[test]
fn tunnels() {
    let vxlan = Vxlan {
        vni: 1,
        port: 8472,
        local: Some(NODE),
        ..Vxlan::default()
    };
    let device = Device {
        index: 2,
        name: "flannel.1".to_owned(),
        up: true,
        ethernet: true,
        mtu: 1450,
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        controller: None,
        bridge: false,
        received: 1,
        sent: 2,
        send_failures: 0,
        vxlan: Some(vxlan.clone()),
        xdp: None,
    };
    let known = Peer {
        vtep: Some(PEER),
        mac: Some(Mac([2, 0, 0, 0, 0, 2])),
        gateway: Some([10, 244, 2, 0].into()),
        routes: vec!["10.244.2.0/24".parse().unwrap()],
        ..Peer::default()
    };
    let lacking = Peer {
        lacks: PeerEntry::ALL.to_vec(),
        ..Peer::default()
    };
    let overlay = Overlay {
        device,
        vxlan,
        underlay: Some(Underlay {
            index: 1,
            name: "eth0".to_owned(),
            mtu: 1500,
            ethernet: true,
        }),
        other_underlays: Vec::new(),
        kind: PeerSource::Entries,
        peers: vec![known, lacking],
        conflict: None,
        is_port_shared: false,
        lacks_address: false,
        underlay_down: None,
        overlaps: Vec::new(),
        subnet_length: None,
    };
    let stream = VxlanStream {
        local: NODE,
        peer: PEER,
        vni: 1,
        port: 8472,
        underlay: 1,
        direction: traffic::Direction::In,
    };
    let dropped = |place| VxlanDrop {
        place,
        reason: Some("NO_SOCKET".to_owned()),
        device: 2,
        source: PEER,
        destination: NODE,
        vni: 1,
        port: 8472,
        ethertype: 0x0800,
    };
    let flow = InnerFlow {
        source: (POD, 1).into(),
        destination: (PEER, 2).into(),
        protocol: 6,
        vni: 1,
        direction: traffic::Direction::Out,
    };
    let errors = IcmpErrorKind::ALL.map(|kind| {
        let error = IcmpError {
            reporter: PEER,
            source: NODE,
            destination: PEER,
            port: 8472,
            kind,
            direction: traffic::Direction::In,
        };
        let count = ErrorCount {
            packets: 1,
            last_ns: 1,
            mtu: 1400,
        };
        (error, count)
    });
    let traffic = Traffic {
        now_ns: 10_000_000,
        streams: vec![(stream, VxlanCount::default())],
        errors: errors.to_vec(),
        drops: [Layer::Outer, Layer::Inner]
            .map(|place| (dropped(place), DropCount::default()))
            .to_vec(),
        flows: vec![(flow, FlowCount::default())],
        losses: vec![("packets", 1), ("skipped", 0)],
        ..Traffic::default()
    };
    let fault = Diagnosed::new(Fault::NoAnswer, "flannel.1", Some(PEER), "no answer".to_owned());
    let view = View {
        time: samples::time(),
        overlays: vec![overlay],
        devices: [(1, "eth0".to_owned()), (2, "flannel.1".to_owned())].into(),
        names: names(),
        traffic,
        findings: vec![fault],
        unread: vec!["nft is missing".to_owned()],
    };
    snapshot(JsonEvent::Vxlan, &view);
}

#[test]
fn untracked_packets() {
    let stream = |server, sender: bool| JudgedStream {
        stream: UntrackedStream {
            source: POD,
            destination: NODE,
            protocol: 6,
            port: 443,
            server,
            direction: bypass::stream::Direction::Outgoing,
            input: None,
            output: Some(1),
        },
        count: UntrackedCount::default(),
        rules: vec![notrack(None)],
        intended: sender.then_some(Intended::Cilium),
        fault: bypass::finding::Fault::ALL[0],
        service: sender.then(|| "shop/web:https".to_owned()),
        translated: None,
        dialled: None,
        in_ipvs: bypass::virtual_server::InTable::default(),
        sender: sender.then(|| Sender {
            cgroup: "kubepods/pod1".to_owned(),
            owner: samples::incident().owner,
            others: true,
        }),
    };
    let rule = |packets: Option<u64>| NotrackRule {
        rule: notrack(packets),
        since: packets,
        moved_ns: 0,
        first_moved_ns: 0,
        intended: packets.map(|_| Intended::NodeLocalDns),
    };
    let view = bypass::View {
        time: samples::time(),
        now_ns: 1,
        streams: vec![stream(Server::Destination, true), stream(Server::Neither, false)],
        rules: vec![rule(None), rule(Some(3))],
        findings: vec![Finding::failed(
            Kind::Bypass(bypass::finding::Fault::ALL[0]),
            "untracked",
        )],
        services: 7,
        devices: [(1, "eth0".to_owned())].into(),
        names: names(),
        rest: 0,
        seen_by: vec![SeenBy {
            gives: "outgoing packets",
            hook: "net_dev_start_xmit",
            program: "sent",
        }],
        unseen: vec!["delivered packets"],
        unread: vec!["nft is missing".to_owned()],
    };
    snapshot(JsonEvent::Bypass, &view);
}

#[test]
fn one_event_has_the_definitions_that_it_uses() {
    for event in JsonEvent::ALL {
        let schema: Value = serde_json::from_str(&super::text(Some(event)).unwrap()).unwrap();
        let mut names = Vec::new();
        references(&schema, &mut names);
        assert!(!names.is_empty(), "{}", event.name());
        let definitions = schema["$defs"].as_object().unwrap();
        for name in &names {
            assert!(definitions.contains_key(*name), "{name} of {}", event.name());
        }
        assert!(
            definitions.keys().all(|name| names.contains(&name.as_str())),
            "{}",
            event.name()
        );
    }
    let all: Value = serde_json::from_str(&super::text(None).unwrap()).unwrap();
    assert!(all == types::all(), "what is embedded is not of the types");
}

/// Passes on what an agent said, which is described where the agent says it.
const PASSES_ON: &str = "report/node.rs";

/// A type that JSON is made of and that no schema describes would be a hole in all of this.
#[test]
fn what_is_serialised_is_described() {
    fn files(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for crate_ in ["probe-user/src", "probe-model/src"] {
        files(&docs("..").join(crate_), &mut found);
    }
    let mut described = 0;
    for file in found.into_iter().filter(|file| !file.ends_with(PASSES_ON)) {
        let source = fs::read_to_string(&file).unwrap();
        for (at, line) in source.lines().enumerate() {
            let derives = line.trim_start().strip_prefix("#[derive(");
            if !derives.is_some_and(|derives| derives.split([',', ')', ' ']).any(|name| name == "Serialize"))
            {
                continue;
            }
            let next = source
                .lines()
                .skip(at + 1)
                .take(6)
                .take_while(|line| !line.ends_with('{'));
            let has = next.into_iter().any(|line| line.contains("schemars::JsonSchema"));
            assert!(
                has,
                "{}:{}: derives Serialize and no JsonSchema",
                file.display(),
                at + 1
            );
            described += 1;
        }
    }
    assert!(described > 50, "{described}");
}
