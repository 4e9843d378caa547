//! What is wrong, the evidence for it, and how to fix it: one type for every command and event.

use std::{
    fmt::{self, Display, Formatter},
    net::IpAddr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{bypass, doctor::Check, owner::Name, vxlan};

#[cfg(test)]
mod shapes;

/// What kind of fault it is. Its name is the same in JSON, tables, metrics and alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Vxlan(vxlan::finding::Fault),
    Bypass(bypass::finding::Fault),
    /// What a doctor's check finds itself; the check's name.
    Doctor(Check),
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan(fault) => fault.name(),
            Self::Bypass(fault) => fault.name(),
            Self::Doctor(check) => check.name(),
        }
    }

    /// The command that finds it.
    pub const fn feature(self) -> &'static str {
        match self {
            Self::Vxlan(_) => "vxlan",
            Self::Bypass(_) => "bypass",
            Self::Doctor(_) => "doctor",
        }
    }

    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        let vxlan = vxlan::finding::Fault::ALL.into_iter().map(Self::Vxlan);
        let bypass = bypass::finding::Fault::ALL.into_iter().map(Self::Bypass);
        vxlan
            .chain(bypass)
            .chain(Check::ALL.into_iter().map(Self::Doctor))
    }

    fn of(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.name() == name)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Kind {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Kind".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        crate::names::schema(Self::all().map(Self::name))
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::of(&name).ok_or_else(|| D::Error::custom(format!("no kind of finding is called {name:?}")))
    }
}

crate::names! {
    /// How bad it is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Severity {
        /// It works, and may not for long, or it is not certain to be broken.
        Warning = "warning",
        /// It is broken now.
        Failed = "failed",
    }
}

/// How to fix it. probe never does it itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fix {
    /// A command that runs as printed.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
        /// What it does, or what to do besides; printed behind `#`.
        why: String,
    },
    /// What no command does.
    Text(String),
}

impl Fix {
    /// A command of these words. They may have anything in them, as names of devices and comments of rules do: what a terminal
    /// would not print as it is could not be pasted, and is no command.
    pub fn run<I: IntoIterator<Item = S>, S: Into<String>>(argv: I, why: impl Into<String>) -> Self {
        let argv: Vec<String> = argv.into_iter().map(Into::into).collect();
        let why = why.into();
        #[cfg(test)]
        assert!(shapes::is_known(&argv), "no program parses {argv:?}");
        if argv.iter().all(|word| word.chars().all(prints_itself)) {
            return Self::Command { argv, why };
        }
        let program = argv.first().filter(|program| program.chars().all(prints_itself));
        let program = program.map_or("the tool", String::as_str);
        Self::Text(format!(
            "Change it with {program}. No command is printed: a name or comment in it has unprintable \
             characters."
        ))
    }

    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// Whether a terminal shows a character as it is: printable ASCII, and letters and digits that take columns of their own. A
/// combining or filling character does not, nor does one that stands for another.
pub fn prints_itself(character: char) -> bool {
    matches!(character, ' '..='~')
        || character.is_alphanumeric()
            && matches!(character,
                '\u{a1}'..='\u{2ff}' | '\u{370}'..='\u{52f}' | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}'
                | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
}

/// As it is printed, to be pasted.
impl Display for Fix {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Command { argv, why } => {
                f.write_str(&shell(argv))?;
                if why.is_empty() {
                    Ok(())
                } else {
                    write!(f, "  # {}", harmless(why))
                }
            }
        }
    }
}

/// A comment that does nothing in a shell either that takes `#` for a word, as zsh does by default.
fn harmless(why: &str) -> String {
    let plain = |c: char| {
        if c.is_control() || "`$;|&<>(){}*?!'\"\\~#[]".contains(c) {
            ' '
        } else {
            c
        }
    };
    why.chars().map(plain).collect()
}

/// Words as a shell takes them. A word with a NUL can't be an argument: it is left out.
fn shell(argv: &[String]) -> String {
    // shlex quotes more than a shell needs: addresses and lists of ports read better without.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte);
    let quoted = argv.iter().filter_map(|word| {
        if !word.is_empty() && word.bytes().all(is_plain) {
            return Some(word.into());
        }
        shlex::try_quote(word).ok()
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum FixJson {
    /// A command.
    Command {
        /// The command as it is printed, to be pasted.
        shell: String,
        /// The words that it runs.
        argv: Vec<String>,
        /// What it does, or what to do besides.
        why: String,
    },
    /// Anything else.
    Text {
        /// What to do.
        text: String,
    },
}

impl Serialize for Fix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = match self {
            Self::Command { argv, why } => FixJson::Command {
                shell: self.to_string(),
                argv: argv.clone(),
                why: why.clone(),
            },
            Self::Text(text) => FixJson::Text { text: text.clone() },
        };
        json.serialize(serializer)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Fix {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Fix".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        FixJson::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for Fix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match FixJson::deserialize(deserializer)? {
            FixJson::Command { argv, why, .. } => Self::run(argv, why),
            FixJson::Text { text } => Self::Text(text),
        })
    }
}

/// How long ago that was, milliseconds, both `CLOCK_MONOTONIC` nanoseconds; `None` for 0, never.
pub fn ago_ms(now_ns: u64, at_ns: u64) -> Option<u64> {
    let ago = Duration::from_nanos(now_ns.saturating_sub(at_ns));
    (at_ns != 0).then_some(ago.as_millis() as u64)
}

/// An address that a fault affects, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Affected {
    /// The address.
    pub address: IpAddr,
    /// The pod that has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pod: Option<String>,
    /// The pod's namespace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub namespace: Option<String>,
}

impl Affected {
    pub fn new(address: IpAddr, name: Option<&Name>) -> Self {
        Self {
            address,
            pod: name.map(|name| name.pod.clone()),
            namespace: name.map(|name| name.namespace.clone()),
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// The kind of fault: [vxlan.md](vxlan.md), [bypass.md](bypass.md), or the name of a doctor's check.
    pub kind: Kind,
    /// `failed`: broken now; `warning`: works, and may not for long.
    pub severity: Severity,
    /// What is wrong, one sentence.
    pub what: String,
    /// What was measured: a list of sentences.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// How to fix it, in this order. probe never runs one.
    #[serde(default)]
    pub fixes: Vec<Fix>,
    /// The evidence is about this very thing; else it is inferred.
    pub certain: bool,
    /// The rules that cause it, such as `iptables-nft: raw PREROUTING rule 1: -A PREROUTING -j NOTRACK`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub rules: Vec<String>,
    /// The Service: `namespace/name:port`, or the address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<String>,
    /// The VXLAN device.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<String>,
    /// The peer's address on the underlay.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peer: Option<IpAddr>,
    /// Who is affected.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub felt_by: Vec<Affected>,
    /// Packets of it since probe began.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub packets: Option<u64>,
    /// Since when it is known, milliseconds ago.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since_ms: Option<u64>,
}

impl Finding {
    /// A certain fault.
    pub fn failed(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            severity: Severity::Failed,
            what: what.into(),
            evidence: Vec::new(),
            fixes: Vec::new(),
            certain: true,
            rules: Vec::new(),
            service: None,
            device: None,
            peer: None,
            felt_by: Vec::new(),
            packets: None,
            since_ms: None,
        }
    }

    /// What works, and may not for long.
    pub fn warning(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::failed(kind, what)
        }
    }

    /// All fixes as one sentence.
    pub fn fixes_in_one_line(&self) -> String {
        let fixes: Vec<_> = self.fixes.iter().map(ToString::to_string).collect();
        fixes.join("; ")
    }

    #[must_use]
    pub fn seen(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }

    #[must_use]
    pub fn fix(mut self, fix: Fix) -> Self {
        self.fixes.push(fix);
        self
    }

    /// A command that fixes it, or shows more.
    #[must_use]
    pub fn run<const N: usize>(self, argv: [&str; N], why: impl Into<String>) -> Self {
        self.fix(Fix::run(argv, why))
    }

    #[must_use]
    pub fn fixed_by(mut self, fixes: impl IntoIterator<Item = Fix>) -> Self {
        self.fixes.extend(fixes);
        self
    }

    /// What to do, in words; a command in it would be none that can be pasted.
    #[must_use]
    pub fn advise(self, text: impl Into<String>) -> Self {
        self.fix(Fix::text(text))
    }

    /// What distinguishes it from others from one snapshot to the next: numbers in its sentences change.
    pub fn identity(&self) -> String {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        format!(
            "{}\0{}\0{}\0{}\0{}\0{}",
            self.kind.feature(),
            self.kind.name(),
            part(&self.device),
            self.peer.map(|peer| peer.to_string()).unwrap_or_default(),
            part(&self.service),
            match self.kind {
                Kind::Bypass(_) => self.rules.join("\0"),
                // A rule that is found later does not make it another one.
                Kind::Vxlan(_) | Kind::Doctor(_) => String::new(),
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn kinds_have_names_of_their_own() {
        let names: HashSet<_> = Kind::all().map(Kind::name).collect();
        // A check that repeats another command's findings has that command's name.
        assert_eq!(names.len(), Kind::all().count());
        for kind in Kind::all() {
            assert_eq!(Kind::of(kind.name()), Some(kind));
        }
        assert_eq!(Kind::of("moon"), None);
    }

    #[test]
    fn fixes_run_as_printed() {
        for (fix, printed, words) in [
            (
                Fix::run(["ip", "link", "set", "flannel.1", "up"], "flanneld did not"),
                "ip link set flannel.1 up  # flanneld did not",
                vec!["ip", "link", "set", "flannel.1", "up"],
            ),
            (
                Fix::run(["ip", "link", "delete", "a b;reboot"], ""),
                "ip link delete 'a b;reboot'",
                vec!["ip", "link", "delete", "a b;reboot"],
            ),
            (
                Fix::run(["ip", "link", "delete", "a b"], "why $(reboot); `id`"),
                "ip link delete 'a b'  # why   reboot    id ",
                vec!["ip", "link", "delete", "a b"],
            ),
            (
                Fix::run(
                    [
                        "bridge",
                        "fdb",
                        "del",
                        "02:00:00:00:88:02",
                        "dev",
                        "",
                        "dst",
                        "fd00::1,80",
                    ],
                    "",
                ),
                "bridge fdb del 02:00:00:00:88:02 dev '' dst fd00::1,80",
                vec![
                    "bridge",
                    "fdb",
                    "del",
                    "02:00:00:00:88:02",
                    "dev",
                    "",
                    "dst",
                    "fd00::1,80",
                ],
            ),
            (
                Fix::run(["ping", "-c1", "conntrack -L | sort"], "first\nsecond"),
                "ping -c1 'conntrack -L | sort'  # first second",
                vec!["ping", "-c1", "conntrack -L | sort"],
            ),
            (
                Fix::run(["ip", "link", "delete", "$(reboot); `id`"], ""),
                "ip link delete '$(reboot); `id`'",
                vec!["ip", "link", "delete", "$(reboot); `id`"],
            ),
        ] {
            assert_eq!(fix.to_string(), printed);
            let Fix::Command { argv, .. } = &fix else {
                panic!("{fix:?}");
            };
            assert_eq!(*argv, words);
            let json = serde_json::to_value(&fix).unwrap();
            assert_eq!((&json["shell"], &json["argv"]), (&printed.into(), &words.into()));
            assert_eq!(serde_json::from_value::<Fix>(json).unwrap(), fix);
        }
        let text = Fix::text("Allow UDP port 8472.");
        let json = serde_json::to_string(&text).unwrap();
        assert_eq!(json, r#"{"text":"Allow UDP port 8472."}"#);
        assert_eq!(serde_json::from_str::<Fix>(&json).unwrap(), text);
        // What can't be pasted is no command, from an agent either.
        let hostile = r#"{"shell":"ip","argv":["ip","link","delete","a\u001b[2J"],"why":""}"#;
        for fix in [
            Fix::run(["ip", "link", "delete", "a\u{202e}"], ""),
            Fix::run(["ip", "link", "delete", "a\nb"], ""),
            Fix::run(["ip", "link", "delete", "a\u{fffd}"], ""),
            Fix::run(["ip", "link", "delete", "a\0"], ""),
            serde_json::from_str(hostile).unwrap(),
        ] {
            assert!(
                matches!(&fix, Fix::Text(text) if text.starts_with("Change it with ip. ")),
                "{fix:?}"
            );
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let address = IpAddr::from([10, 244, 1, 5]);
        let finding = Finding {
            peer: Some(address),
            felt_by: vec![Affected::new(address, None)],
            since_ms: Some(7),
            ..Finding::warning(Kind::Doctor(Check::Dns), "a \"b\"\u{1b}")
                .seen("c")
                .advise("d")
                .run(["timedatectl"], "f")
        };
        let json = serde_json::to_string(&finding).unwrap();
        assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
        assert!(!json.contains("\"rules\""), "{json}");
        assert!(serde_json::from_str::<Finding>(&json.replace("\"dns\"", "\"moon\"")).is_err());
    }
}
