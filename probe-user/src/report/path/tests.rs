use jiff::SignedDuration;
use pcap_file::pcapng::{
    Block, PcapNgReader,
    blocks::{
        enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
        interface_description::InterfaceDescriptionOption,
        section_header::SectionHeaderOption,
    },
};
use serde_json::{Value, json};

use super::{
    samples::{HOSTILE, told},
    *,
};
use crate::model::path::{
    Tracking, What,
    samples::{START, SYN, Walk, exchange, places, tcp},
};

/// What `PROBE_BLESS=1` writes anew, to be read before it is committed.
fn golden(name: &str, text: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/report/path/golden")
        .join(name);
    if std::env::var_os("PROBE_BLESS").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, expected, "{name}");
}

fn hostile_places(_: u32) -> String {
    HOSTILE.to_owned()
}

#[test]
fn tables() {
    for (name, exchange) in [
        ("delivered.txt", samples::delivered()),
        ("dropped.txt", samples::dropped_by_rule()),
        ("untracked.txt", samples::untracked()),
    ] {
        golden(name, &told(Format::Table, Some(100), &exchange, &places));
    }
    golden(
        "hostile.txt",
        &told(Format::Table, Some(100), &samples::hostile(), &hostile_places),
    );
}

/// Where a terminal has room.
#[test]
fn side_by_side() {
    golden(
        "beside.txt",
        &told(Format::Table, Some(160), &samples::delivered(), &places),
    );
    // Files are searched line by line.
    assert_eq!(
        told(Format::Table, None, &samples::delivered(), &places)
            .matches("↑ reply")
            .count(),
        0
    );
}

#[test]
fn wide() {
    for (name, exchange) in [
        ("delivered.wide.txt", samples::delivered()),
        ("dropped.wide.txt", samples::dropped_by_rule()),
    ] {
        golden(name, &told(Format::Wide, Some(100), &exchange, &places));
    }
}

/// Colour changes no word, and nothing but colours gets to the terminal.
#[test]
fn colours() {
    for exchange in [
        samples::delivered(),
        samples::dropped_by_rule(),
        samples::untracked(),
        samples::hostile(),
    ] {
        let plain = told(Format::Table, Some(100), &exchange, &hostile_places);
        let mut out = Vec::new();
        let mut reporter = Reporter::new(Format::Table, Some(100), true, &mut out).time_zone(TimeZone::UTC);
        let told = Told {
            time: samples::time(),
            exchange: &exchange,
            places: &hostile_places,
        };
        reporter.exchange(&told).unwrap();
        let coloured = String::from_utf8(out).unwrap();
        assert!(coloured.contains("\x1b[1m\x1b[3"), "{coloured}");
        let mut parts = coloured.split('\x1b');
        let mut stripped = parts.next().unwrap().to_owned();
        for part in parts {
            let (sequence, rest) = part.split_once('m').unwrap();
            assert!(
                sequence
                    .strip_prefix('[')
                    .unwrap()
                    .bytes()
                    .all(|byte| byte.is_ascii_digit()),
                "{part}"
            );
            stripped.push_str(rest);
        }
        assert_eq!(stripped, plain);
        assert!(
            !plain
                .chars()
                .any(|c| c != '\n' && c.is_control() || c == '\u{202e}')
        );
    }
}

#[test]
fn nothing_is_wider_than_the_terminal_but_what_is_to_be_copied() {
    use unicode_width::UnicodeWidthStr as _;

    for exchange in [
        samples::delivered(),
        samples::dropped_by_rule(),
        samples::untracked(),
    ] {
        for width in [80, 100, 160] {
            for line in told(Format::Table, Some(width), &exchange, &places).lines() {
                assert!(line.width() <= width || line.contains("do: "), "{line}");
            }
        }
    }
}

/// What is sent again and dropped elsewhere is told hop by hop.
#[test]
fn each_drop_of_its_own_is_told_in_full() {
    let mut exchange = samples::dropped_by_rule();
    let alike = told(Format::Table, None, &exchange, &places);
    assert_eq!(alike.matches("to be forwarded").count(), 1, "{alike}");
    let last = exchange.journeys.last_mut().unwrap().hops.last_mut().unwrap();
    last.event.netns = 2;
    let other = told(Format::Table, None, &exchange, &places);
    assert_eq!(other.matches("to be forwarded").count(), 2, "{other}");
}

#[test]
fn what_was_left_out_is_told() {
    let mut exchange = samples::untracked();
    exchange.left_out = 5;
    exchange.journeys[0].left_out = 7;
    let text = told(Format::Table, None, &exchange, &places);
    assert!(
        text.contains("\n  … and 7 more points of it\n  … and 5 points of packets beyond these\n"),
        "{text}"
    );
    let value: Value = serde_json::from_str(&told(Format::Json, None, &exchange, &places)).unwrap();
    assert_eq!(
        (&value["left_out"], &value["packets"][0]["left_out"]),
        (&json!(5), &json!(7))
    );
}

#[test]
fn totals_for_people() {
    let mut out = Vec::new();
    let mut reporter = Reporter::new(Format::Table, None, false, &mut out).time_zone(TimeZone::UTC);
    let mut totals = samples::totals();
    reporter.last(&totals).unwrap();
    totals.lost = Lost::default();
    totals.exchanges = 1;
    totals.packets = 1;
    totals.watched = "everything".to_owned();
    totals.outcomes.clear();
    reporter.last(&totals).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "3 exchanges of 17 packets, 2026-11-23 09:10:14 to 2026-11-23 09:11:02, from \
         a\\nb\\x1b[2Jc\\u{202e}d\\x07\n  2 delivered\n  1 dropped\nLost:\n  4 points of packets beyond the limit per second\n\n1 exchange of 1 packet, 2026-11-23 09:10:14 to 2026-11-23 09:11:02, everything\n"
    );
}

#[test]
fn totals_as_json() {
    let mut out = Vec::new();
    let mut reporter = Reporter::new(Format::Json, None, false, &mut out).node("beta".to_owned());
    reporter.last(&samples::totals()).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.is_ascii() && text.ends_with("}\n"), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        value,
        json!({
            "event": "summary",
            "started": "2026-11-23T09:10:14.145123Z",
            "ended": "2026-11-23T09:11:02.000000Z",
            "watched": format!("from {HOSTILE}"),
            "node": "beta",
            "exchanges": 3,
            "packets": 17,
            "outcomes": {"delivered": 2, "refused": 0, "dropped": 1},
            "lost": {"ring": 0, "budget": 4, "flows": 0, "skipped": 0, "malformed": 0},
        })
    );
}

fn as_json(exchange: &Exchange) -> Value {
    let text = told(Format::Json, None, exchange, &places);
    assert_eq!(text.matches('\n').count(), 1);
    assert!(
        !text.trim_end().chars().any(|c| c.is_control() || c == '\u{202e}'),
        "{text}"
    );
    let value = serde_json::from_str(&text).unwrap();
    no_nulls(&value);
    value
}

fn no_nulls(value: &Value) {
    match value {
        Value::Null => panic!("null"),
        Value::Array(values) => values.iter().for_each(no_nulls),
        Value::Object(map) => map.values().for_each(no_nulls),
        _ => {}
    }
}

#[test]
fn json_of_a_drop() {
    let value = as_json(&samples::dropped_by_rule());
    let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys.iter().filter(|key| **key != "packets").count(),
        8,
        "{keys:?}"
    );
    assert_eq!(
        (&value["event"], &value["node"], &value["flow"]),
        (&json!("path"), &json!("beta"), &json!(9))
    );
    assert_eq!(
        (&value["time"], &value["outcome"]),
        (&json!("2026-11-23T09:10:14.145123Z"), &json!("dropped"))
    );
    let accept =
        "iptables-nft -t filter -I FORWARD -p tcp -s 10.244.1.5 -d 10.244.2.9 --dport 8443 -j ACCEPT";
    let fix = &value["fixes"][0];
    let argv: Vec<_> = accept.split(' ').collect();
    assert_eq!(
        fix,
        &json!({"shell": format!("{accept}  # accept these packets only"), "argv": argv, "why": "accept these packets only"})
    );
    let packets = &value["packets"];
    let hops = &packets[0]["hops"];
    assert_eq!(
        hops[0],
        json!({
            "after_ns": 0,
            "point": "sent",
            "function": "net_dev_start_xmit",
            "netns": 101,
            "place": "pod shop/cart",
            "device": "eth0",
            "what": "sent",
            "source": {"address": "10.244.1.5", "port": 41234},
            "destination": {"address": "10.244.2.9", "port": 8443},
        })
    );
    assert_eq!(hops[3]["icmp"], json!({"type": 3, "code": 13}));
    assert_eq!(
        (&hops[4]["hook"], &hops[4]["verdict"]),
        (&json!("FORWARD"), &json!("dropped"))
    );
    let drop = &hops[5];
    assert_eq!(
        (&drop["point"], &drop["reason"], &drop["at"], &drop["tracking"]),
        (
            &json!("dropped"),
            &json!("NETFILTER_DROP"),
            &json!("nf_hook_slow"),
            &json!("new")
        )
    );
    assert_eq!(drop["rule"]["certain"], true);
    // The error has no ports, and says what it is.
    let error = &packets[1];
    assert_eq!(
        (
            &error["direction"],
            &error["about"],
            &error["end"],
            &error["protocol"]
        ),
        (&json!("reply"), &json!(true), &json!("arrived"), &json!(1))
    );
    assert_eq!(error["hops"][0]["source"], json!({"address": "10.244.1.1"}));
    assert_eq!(
        (&packets[2]["again"], &packets[2]["duration_ns"]),
        (&json!(true), &json!(50000))
    );
}

#[test]
fn json_of_a_delivery() {
    let value = as_json(&samples::delivered());
    assert_eq!(
        (&value["outcome"], &value["listener"]),
        (&json!("delivered"), &json!({"process": "etcd (pid 812)"}))
    );
    assert!(value.get("fixes").is_none() && value.get("untracked").is_none());
    let hops = value["packets"][0]["hops"].as_array().unwrap();
    let sent = hops.iter().find(|hop| hop.get("tunnel").is_some()).unwrap();
    assert_eq!(
        sent["tunnel"],
        json!({
            "vni": 1,
            "source": {"address": "192.168.0.1"},
            "destination": {"address": "192.168.0.2", "port": 4789},
        })
    );
    assert_eq!(hops[2]["mark"], 0x4000);
    assert!(hops[2]["what"].as_str().unwrap().contains("(DNAT)"));
    let last = value["packets"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["title"], &last["hops"][0]["segments"]),
        (&json!("2800 bytes"), &json!(2))
    );
}

#[test]
fn json_of_what_is_untracked_and_of_a_route() {
    let value = as_json(&samples::untracked());
    assert_eq!(
        value["untracked"],
        json!({
            "service": "Service shop/web:https (10.96.7.7:443)",
            "rule": {
                "text": "iptables-nft: raw PREROUTING rule 1: -A PREROUTING -p tcp -j NOTRACK",
                "fixes": [{
                    "shell": "iptables-nft -t raw -D PREROUTING -p tcp -j NOTRACK  # or narrow the rule, and find what adds it",
                    "argv": ["iptables-nft", "-t", "raw", "-D", "PREROUTING", "-p", "tcp", "-j", "NOTRACK"],
                    "why": "or narrow the rule, and find what adds it",
                }],
                "certain": false,
            },
        })
    );
    assert_eq!(value["packets"][0]["hops"][2]["tracking"], "untracked");
    let walk = Walk::request(tcp("10.0.0.1:5", "10.0.0.2:6", SYN), 0)
        .at(0, "")
        .meets(What::Route { found: false });
    let hop = &as_json(&exchange([walk]))["packets"][0]["hops"][0];
    assert_eq!(
        (&hop["found"], hop.get("netns"), hop.get("device")),
        (&json!(false), None, None)
    );
    as_json(&samples::hostile());
}

struct Read {
    applications: Vec<String>,
    interfaces: Vec<String>,
    packets: Vec<EnhancedPacketBlock<'static>>,
}

fn captured(exchanges: &[Exchange], places: Places<'_>) -> Read {
    let mut out = Vec::new();
    let mut writer = PcapWriter::new(&mut out, "x86_64", "Linux 6.1.0\n\x1b[2J").unwrap();
    for exchange in exchanges {
        let time = samples::time();
        let told = Told {
            time,
            exchange,
            places,
        };
        let of_day = |ns: u64| time + SignedDuration::from_nanos(i64::try_from(ns - START).unwrap());
        writer.exchange(&told, of_day).unwrap();
    }
    let mut reader = PcapNgReader::new(out.as_slice()).unwrap();
    let section = reader.section().options.iter().map(|option| match option {
        SectionHeaderOption::Hardware(text)
        | SectionHeaderOption::OS(text)
        | SectionHeaderOption::UserApplication(text) => text.to_string(),
        other => panic!("{other:?}"),
    });
    let mut read = Read {
        applications: section.collect(),
        interfaces: Vec::new(),
        packets: Vec::new(),
    };
    while let Some(block) = reader.next_block() {
        match block.unwrap().into_owned() {
            Block::InterfaceDescription(block) => {
                assert_eq!(block.linktype, pcap_file::DataLink::ETHERNET);
                match block.options.as_slice() {
                    [
                        InterfaceDescriptionOption::IfName(name),
                        InterfaceDescriptionOption::IfTsResol(9),
                    ] => {
                        read.interfaces.push(name.to_string());
                    }
                    other => panic!("{other:?}"),
                }
            }
            Block::EnhancedPacket(block) => read.packets.push(block),
            other => panic!("{other:?}"),
        }
    }
    read
}

fn comment(packet: &EnhancedPacketBlock<'_>) -> String {
    match packet.options.as_slice() {
        [EnhancedPacketOption::Comment(text)] => text.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_capture_is_read_back() {
    let exchange = samples::delivered();
    let read = captured(&[exchange.clone(), exchange], &places);
    assert_eq!(
        read.applications,
        [
            "x86_64",
            "Linux 6.1.0\\n\\x1b[2J",
            concat!("probe ", env!("CARGO_PKG_VERSION"))
        ]
    );
    assert_eq!(
        read.interfaces,
        [
            "pod shop/cart eth0",
            "alpha vethcart",
            "alpha flannel.1",
            "alpha eth0",
            "beta eth0",
            "beta flannel.1",
            "beta vethweb",
            "pod shop/web eth0"
        ]
    );
    // The socket's hop has no bytes; nor has any other packet.
    assert_eq!(read.packets.len(), 2 * 11);
    let first = &read.packets[0];
    assert_eq!(
        (first.interface_id, first.original_len, comment(first).as_str()),
        (0, 74, "sent")
    );
    assert_eq!(
        &first.data[..],
        [&[0; 12][..], &[0x08, 0x00, 0x45, 0, 0, 60]].concat()
    );
    let second = &read.packets[1];
    assert_eq!(
        second.timestamp.checked_sub(first.timestamp).unwrap(),
        std::time::Duration::from_micros(10)
    );
    let since_1970 = samples::time().as_duration();
    assert_eq!(SignedDuration::try_from(first.timestamp).unwrap(), since_1970);
    assert!(comment(&read.packets[10]).starts_with("for this host → SYN delivered to etcd"));
    assert!(
        read.packets[..10]
            .iter()
            .all(|packet| !comment(packet).contains('→'))
    );
}

#[test]
fn a_capture_holds_no_tricks() {
    let read = captured(&[samples::hostile()], &hostile_places);
    let texts = read.packets.iter().map(comment).chain(read.interfaces);
    for text in texts.chain(read.applications) {
        assert!(
            !text.chars().any(|c| c.is_control() || c == '\u{202e}'),
            "{text:?}"
        );
    }
}

/// The type is that of the bytes, not of the inner packet, and so is the length.
#[test]
fn frames_of_tunnels() {
    let mut outer = vec![0x60, 0, 0, 0, 0, 130, 17, 64];
    outer.resize(160, 1);
    let walk = Walk::request(tcp("10.0.0.1:5", "10.0.0.2:6", SYN), 0)
        .at(1, "eth0")
        .with(|event| event.bytes = outer)
        .tracked(Tracking::New)
        .meets(What::Sent)
        .at(1, "")
        .with(|event| event.bytes = vec![0x60])
        .meets(What::Output);
    let read = captured(&[exchange([walk])], &places);
    assert_eq!(
        (&read.packets[0].data[12..14], read.packets[0].original_len),
        (&[0x86, 0xdd][..], 184)
    );
    assert_eq!(
        (read.packets[1].original_len, read.interfaces[1].as_str()),
        (74, "alpha")
    );
}
