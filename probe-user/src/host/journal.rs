//! The node's journal, as `journalctl -o json` prints it: a line an entry.

use jiff::Timestamp;
use serde_json::Value;

use crate::model::doctor::journal::LogEntry;

/// Where journals are: the one that outlives a start of the node, and the other.
pub const PLACES: [&str; 2] = ["/var/log/journal", "/run/log/journal"];
/// Units that kubelet's log is in: its own, and those of what it is built into.
const UNITS: [&str; 7] = [
    "kubelet.service",
    "k3s.service",
    "k3s-agent.service",
    "rke2-server.service",
    "rke2-agent.service",
    "k0sworker.service",
    "snap.microk8s.daemon-kubelite.service",
];
/// Entries that are asked for.
const ENTRIES: usize = 5000;
/// Characters of a message that are kept.
const LETTERS: usize = 2048;

/// What journalctl is asked: an hour of kubelet's log and the kernel's, the newest first.
pub fn arguments(directory: &str) -> Vec<String> {
    let fixed = [
        "--no-pager",
        "--quiet",
        "--reverse",
        "--output=json",
        "--output-fields=MESSAGE,_TRANSPORT",
        "--since=-1h",
    ];
    let mut all: Vec<String> = fixed.map(str::to_owned).to_vec();
    all.push(format!("--lines={ENTRIES}"));
    all.push(format!("--directory={directory}"));
    all.extend(UNITS.map(|unit| format!("_SYSTEMD_UNIT={unit}")));
    all.extend(["+".to_owned(), "_TRANSPORT=kernel".to_owned()]);
    all
}

/// One line; `None`: it is no entry, or one without a message.
pub fn parse(line: &[u8]) -> Option<LogEntry> {
    let found: Value = serde_json::from_slice(line).ok()?;
    let micros = found.get("__REALTIME_TIMESTAMP")?.as_str()?.parse().ok()?;
    Some(LogEntry {
        time: Timestamp::from_microsecond(micros).ok()?,
        message: message(found.get("MESSAGE")?)?,
        kernel: found.get("_TRANSPORT").and_then(Value::as_str) == Some("kernel"),
    })
}

/// A text, or its bytes where it is no UTF-8 or has control characters.
fn message(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.chars().take(LETTERS).collect()),
        Value::Array(bytes) => {
            let bytes = bytes.iter().take(LETTERS);
            let bytes: Option<Vec<u8>> = bytes.map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            Some(String::from_utf8_lossy(&bytes?).into_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line = r#"{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1795744062000123","_TRANSPORT":"stdout","MESSAGE":"E1127 \"cni0\"","_BOOT_ID":"0"}"#;
        let entry = parse(line.as_bytes()).unwrap();
        assert_eq!(entry.message, "E1127 \"cni0\"");
        assert_eq!(entry.time.as_microsecond(), 1_795_744_062_000_123);
        assert!(!entry.kernel);
        let bytes = r#"{"__REALTIME_TIMESTAMP":"1","_TRANSPORT":"kernel","MESSAGE":[110,102,255]}"#;
        let entry = parse(bytes.as_bytes()).unwrap();
        assert_eq!((entry.message.as_str(), entry.kernel), ("nf\u{fffd}", true));
        for nonsense in [
            "",
            "{}",
            "[]",
            "{\"__REALTIME_TIMESTAMP\":\"1\"}",
            "{\"__REALTIME_TIMESTAMP\":\"1\",\"MESSAGE\":null}",
            "{\"__REALTIME_TIMESTAMP\":\"1\",\"MESSAGE\":[300]}",
            "{\"__REALTIME_TIMESTAMP\":\"-x\",\"MESSAGE\":\"a\"}",
            "{\"__REALTIME_TIMESTAMP\":\"99999999999999999999\",\"MESSAGE\":\"a\"}",
        ] {
            assert_eq!(parse(nonsense.as_bytes()), None, "{nonsense}");
        }
    }
}
