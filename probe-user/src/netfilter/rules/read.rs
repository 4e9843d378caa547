//! Reads the rules from the kernel, and by the tools what it doesn't tell.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    CandidateRule, Family, Tool,
    model::shown,
    netlink::{self, ATTEMPTS, ChainReader, DumpError, Printed},
    stage::Bridges,
    xtables::{self, LegacyRules},
};
use crate::{
    host::{
        child::{self, ChildEnd},
        tools::Tools,
    },
    model::network::Device,
    rtnetlink::Routing,
};

/// How long a tool may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How much a tool may print.
const OUTPUT: usize = 16 << 20;
/// How much memory a tool may use: nft takes some 30 MB for 1,000 Services as JSON.
const MEMORY: u64 = 256 << 20;

/// What the tools printed.
#[derive(Debug, Default)]
pub(in crate::netfilter) struct Outputs {
    pub(in crate::netfilter) saves: Vec<Save>,
    /// The ruleset in JSON.
    pub(in crate::netfilter) nft: Option<String>,
    /// The ruleset as people see it, with handles.
    pub(super) nft_text: Option<String>,
    pub(super) bridges: Bridges,
    /// What couldn't be read, in sentences.
    pub(super) unread: Vec<String>,
    /// Something of it may be read the next time.
    pub(super) failed: bool,
    /// Failures of the tools of nf_tables. The rules can be read from the kernel instead.
    pub(super) nf_tables: Vec<String>,
}

impl Outputs {
    fn fail(&mut self, error: String) {
        self.unread.push(error);
        self.failed = true;
    }

    /// Reports what was not read from the kernel either.
    fn fail_nf_tables(&mut self) {
        for error in std::mem::take(&mut self.nf_tables) {
            self.fail(error);
        }
    }
}

impl From<Printed> for Outputs {
    fn from(printed: Printed) -> Self {
        Self {
            saves: printed.saves,
            nft: Some(printed.nft),
            unread: printed.unread,
            ..Self::default()
        }
    }
}

/// What an iptables-save printed.
#[derive(Debug)]
pub(in crate::netfilter) struct Save {
    pub(in crate::netfilter) tool: Tool,
    pub(in crate::netfilter) family: Family,
    pub(in crate::netfilter) text: String,
}

/// The tools here, or, where there are none, those of the node that this container is on.
fn place() -> Tools {
    let here = Tools::here();
    let has_tools = |place: &Tools| {
        [
            "nft",
            "iptables-save",
            "iptables-nft-save",
            "iptables-legacy-save",
        ]
        .iter()
        .any(|name| place.find(name).is_some())
    };
    let node = (!has_tools(&here)).then(Tools::node).flatten();
    node.unwrap_or(here)
}

/// The rules, as they are read.
#[derive(Default)]
pub(super) struct Reading {
    /// All but those below.
    pub(super) outputs: Outputs,
    /// The rules of bridges, where nf_tables has some.
    pub(super) bridge: Option<Outputs>,
    pub(super) legacy: Vec<LegacyRules>,
    /// Reads nf_tables' rules in chains of type nat; `None`: none is read late.
    pub(super) reader: Option<ChainReader>,
}

/// The rules of the calling thread's network namespace, from the kernel: those of nf_tables chain by chain, but for those of type nat,
/// and the tables of iptables-legacy. No tool runs unless there are rules of bridges, or the kernel doesn't answer.
pub(super) fn rules() -> Reading {
    let mut reading = filters().unwrap_or_else(|| Reading {
        outputs: by_tools(&place(), &[Tool::IptablesNft]),
        ..Reading::default()
    });
    for family in [Family::Ip, Family::Ip6] {
        match xtables::read(family) {
            Ok(legacy) => reading.legacy.push(legacy),
            Err(error) => legacy_by_tool(family, error, &mut reading.outputs),
        }
    }
    bridge_rules(&mut reading.outputs);
    reading
}

/// The rules of nf_tables but for those of type nat, and what reads these; `None`: they can't be read so.
fn filters() -> Option<Reading> {
    for _ in 0..ATTEMPTS {
        let Some(mut reader) = ChainReader::open().ok()? else {
            return Some(Reading::default());
        };
        match reader.filters() {
            Ok(printed) => {
                let bridge = reader
                    .has(Family::Bridge)
                    .then(|| nft_bridges(&place(), &mut reader));
                return Some(Reading {
                    outputs: printed.into(),
                    bridge,
                    legacy: Vec::new(),
                    reader: Some(reader),
                });
            }
            Err(DumpError::Changed) => {}
            Err(_) => return None,
        }
    }
    None
}

/// The rules of bridges in nf_tables: their matches are known to their tools.
fn nft_bridges(place: &Tools, reader: &mut ChainReader) -> Outputs {
    let mut outputs = Outputs::default();
    let nft = place.find("nft");
    let listed = nft.map(|nft| {
        run(place, &nft, &["--json", "--handle", "list", "ruleset", "bridge"]).map(|json| (nft, json))
    });
    match listed {
        Some(Ok((nft, json))) => {
            outputs.nft = Some(json);
            ebtables_nft(place, &mut outputs);
            outputs.nft_text = run(
                place,
                &nft,
                &["--stateless", "--handle", "list", "ruleset", "bridge"],
            )
            .ok();
        }
        Some(Err(_)) | None => match reader.bridges() {
            Ok(printed) => {
                outputs = printed.into();
                // Its tool may understand more the next time.
                outputs.failed = listed.is_some();
            }
            Err(error) => outputs.fail(format!("rules of bridges were not read: {error}")),
        },
    }
    outputs
}

/// Adds what ebtables-nft made. What its tool can't show is left to nft.
fn ebtables_nft(place: &Tools, outputs: &mut Outputs) {
    if let Some(save) = place.find("ebtables-nft-save")
        && let Ok(text) = run(place, &save, &["-c"])
    {
        outputs.saves.push(Save {
            tool: Tool::EbtablesNft,
            family: Family::Bridge,
            text,
        });
    }
}

/// All rules as the tools print them.
pub(super) fn all_by_tools() -> Outputs {
    let mut outputs = by_tools(&place(), &[Tool::IptablesLegacy, Tool::IptablesNft]);
    bridge_rules(&mut outputs);
    outputs
}

/// The rules as the tools print them, of iptables' kinds that are wanted, or all at once from the kernel where these are missing.
fn by_tools(place: &Tools, wanted: &[Tool]) -> Outputs {
    let mut programs = saves(place);
    programs.retain(|program| wanted.contains(&program.tool));
    let mut outputs = read(place, &programs);
    if outputs.nft.is_none() {
        complete(&mut outputs);
    }
    outputs.fail_nf_tables();
    outputs
}

/// Adds the bridges, and the rules that only ebtables-legacy shows.
fn bridge_rules(outputs: &mut Outputs) {
    match bridges() {
        Ok((bridges, _)) => {
            if !bridges.is_empty() {
                ebtables_legacy(outputs);
            }
            outputs.bridges = bridges;
        }
        Err(error) => outputs.fail(error),
    }
}

/// The bridges of the calling thread's network namespace, and all its devices.
pub(super) fn bridges() -> Result<(Bridges, Vec<Device>), String> {
    let devices = Routing::open().and_then(|mut routing| routing.devices());
    let devices = devices.map_err(|error| format!("bridges are unknown: {error}"))?;
    // Without its module there is no such file, and no bridge does it.
    let is_set = |name: &str| {
        let set = fs::read_to_string(Path::new("/proc/sys/net/bridge").join(name));
        set.is_ok_and(|set| set.trim() == "1")
    };
    let calls_ip = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"].map(is_set);
    Ok((Bridges::new(&devices, calls_ip), devices))
}

/// The tables of ebtables-legacy that are in use.
pub(super) fn ebtables_legacy_tables() -> Vec<&'static str> {
    let loaded = |table: &&str| Path::new("/sys/module").join(format!("ebtable_{table}")).exists();
    ["filter", "nat"].into_iter().filter(loaded).collect()
}

/// Adds the tables of ebtables-legacy that are in use: to list another would put it in use.
fn ebtables_legacy(outputs: &mut Outputs) {
    let tables = ebtables_legacy_tables();
    if tables.is_empty() {
        return;
    }
    let place = place();
    let is_legacy = |program: &PathBuf| {
        let version = run(&place, program, &["--version"]).unwrap_or_default();
        kind(&version) == Tool::IptablesLegacy
    };
    let program = place
        .find("ebtables-legacy")
        .or_else(|| place.find("ebtables").filter(is_legacy));
    let Some(program) = program else {
        outputs.unread.push(format!(
            "only ebtables-legacy can show the tables that the kernel keeps for it ({}), and it isn't on this machine",
            tables.join(", ")
        ));
        return;
    };
    for table in tables {
        match run(&place, &program, &["-t", table, "-L", "--Lc"]) {
            Ok(text) => outputs.saves.push(Save {
                tool: Tool::EbtablesLegacy,
                family: Family::Bridge,
                text,
            }),
            Err(error) => outputs.fail(error),
        }
    }
}

/// Adds what nft would have shown, from the kernel.
fn complete(outputs: &mut Outputs) {
    let known = |family, name: &str| {
        let mut saves = outputs.saves.iter();
        saves.any(|save| {
            (save.tool, save.family) == (Tool::IptablesNft, family)
                && save.text.lines().any(|line| line.strip_prefix('*') == Some(name))
        })
    };
    match netlink::read(known) {
        Ok(Some(printed)) => {
            outputs.saves.extend(printed.saves);
            outputs.nft = Some(printed.nft);
            // The tools print matches that are not understood here, so they are tried again.
            outputs.failed |= !printed.unread.is_empty() || !outputs.nf_tables.is_empty();
            outputs.nf_tables.clear();
            outputs.unread.extend(printed.unread);
        }
        Ok(None) => {}
        Err(error) => outputs.fail(error),
    }
}

/// Adds the tables of iptables-legacy as its tool prints them, where the kernel doesn't tell them.
fn legacy_by_tool(family: Family, error: String, outputs: &mut Outputs) {
    let place = place();
    let tool = Tool::IptablesLegacy;
    let programs = saves_of(&place, family_name(family)).into_iter();
    let Some((_, path)) = programs.into_iter().find(|(kind, _)| *kind == tool) else {
        outputs.fail(format!(
            "{error}, and {}-save isn't on this machine",
            tool.name(family)
        ));
        return;
    };
    save(&place, tool, family, &path, outputs);
}

fn read(place: &Tools, programs: &[Program]) -> Outputs {
    let mut outputs = Outputs::default();
    for Program { tool, family, path } in programs {
        save(place, *tool, *family, path, &mut outputs);
    }
    if let Some(nft) = place.find("nft") {
        match run(place, &nft, &["--json", "--handle", "list", "ruleset"]) {
            Ok(text) => outputs.nft = Some(text),
            Err(error) => outputs.nf_tables.push(error),
        }
        // nft shows its matches by name alone.
        let has_bridge = outputs
            .nft
            .as_deref()
            .is_some_and(|json| json.contains("\"bridge\""));
        if has_bridge {
            ebtables_nft(place, &mut outputs);
        }
        // Only for the rules' texts, which can be written without.
        if outputs
            .nft
            .as_deref()
            .is_some_and(|json| json.contains("\"rule\""))
        {
            outputs.nft_text = run(place, &nft, &["--stateless", "--handle", "list", "ruleset"]).ok();
        }
    }
    outputs
}

/// Adds what a program saves.
fn save(place: &Tools, tool: Tool, family: Family, path: &Path, outputs: &mut Outputs) {
    match run(place, path, &["-c"]) {
        Ok(text) => outputs.saves.push(Save { tool, family, text }),
        Err(error) if tool == Tool::IptablesNft => outputs.nf_tables.push(error),
        Err(error) => outputs.fail(error),
    }
}

/// A chain as its own tool lists it: iptables-nft's rules in their order, or nft's list with handles; `None` where the tool is
/// missing or fails.
pub(super) fn list_chain(rule: &CandidateRule) -> Option<String> {
    let place = place();
    let (table, chain) = (rule.table.as_str(), rule.chain.as_str());
    match rule.tool {
        Tool::IptablesNft | Tool::IptablesLegacy => {
            let (ip, kind) = (family_name(rule.family), rule.tool);
            let is_it = |program: &PathBuf| {
                let version = run(&place, program, &["--version"]).unwrap_or_default();
                self::kind(&version) == kind
            };
            let named = match kind {
                Tool::IptablesLegacy => place.find(&format!("{ip}-legacy")),
                _ => place.find(&format!("{ip}-nft")),
            };
            let named = named.or_else(|| place.find(ip).filter(is_it))?;
            run(&place, &named, &["-t", table, "-S", chain]).ok()
        }
        Tool::Nft => {
            let list = [
                "--stateless",
                "--handle",
                "list",
                "chain",
                rule.family.name(),
                table,
                chain,
            ];
            run(&place, &place.find("nft")?, &list).ok()
        }
        Tool::EbtablesLegacy | Tool::EbtablesNft => None,
    }
}

/// What programs of iptables for that family are called.
const fn family_name(family: Family) -> &'static str {
    match family {
        Family::Ip6 => "ip6tables",
        Family::Ip | Family::Inet | Family::Netdev | Family::Bridge => "iptables",
    }
}

/// An iptables-save.
#[derive(Debug)]
struct Program {
    tool: Tool,
    family: Family,
    path: PathBuf,
}

/// The programs that save tables of iptables.
fn saves(place: &Tools) -> Vec<Program> {
    [Family::Ip, Family::Ip6]
        .into_iter()
        .flat_map(|family| {
            let found = saves_of(place, family_name(family)).into_iter();
            found.map(move |(tool, path)| Program { tool, family, path })
        })
        .collect()
}

/// Those of one family. Which kind the plain one is, it says itself.
fn saves_of(place: &Tools, ip: &str) -> Vec<(Tool, PathBuf)> {
    let kinds = [(Tool::IptablesLegacy, "legacy"), (Tool::IptablesNft, "nft")];
    let named: Vec<_> = kinds
        .into_iter()
        .filter_map(|(tool, kind)| Some((tool, place.find(&format!("{ip}-{kind}-save"))?)))
        .collect();
    if !named.is_empty() {
        return named;
    }
    let plain = place.find(&format!("{ip}-save")).map(|program| {
        let version = run(place, &program, &["--version"]).unwrap_or_default();
        (kind(&version), program)
    });
    plain.into_iter().collect()
}

/// Of versions that don't say, there was one kind only.
fn kind(version: &str) -> Tool {
    if version.contains("(nf_tables)") {
        Tool::IptablesNft
    } else {
        Tool::IptablesLegacy
    }
}

/// What the program prints. It runs in the calling thread's network namespace, as children do.
fn run(place: &Tools, program: &Path, arguments: &[&str]) -> Result<String, String> {
    let name = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut command = place.command(program);
    command.args(arguments).env("LC_ALL", "C");
    child::limit_memory(&mut command, MEMORY);
    let output = child::run(command, Instant::now() + TIMEOUT, OUTPUT)
        .map_err(|error| format!("{name} can't be run: {error}"))?;
    match output.end {
        ChildEnd::Exited(status) if status.success() => {}
        ChildEnd::Exited(status) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let first = stderr
                .lines()
                .find(|line| !line.trim().is_empty())
                .unwrap_or_default();
            let failed = shown(&format!(
                "failed ({status}, with at most {} MB of memory): {first}",
                MEMORY >> 20
            ));
            return Err(format!("{name} {failed}"));
        }
        ChildEnd::TimedOut => return Err(format!("{name} timed out after {} s", TIMEOUT.as_secs())),
        ChildEnd::TooMuch => return Err(format!("{name} prints more than {} MB", OUTPUT >> 20)),
        ChildEnd::Lost(error) => return Err(format!("{name} can't be read from: {error}")),
    }
    // A comment may be in any encoding.
    Ok(String::from_utf8(output.stdout)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use std::{fs, io, os::unix::fs::OpenOptionsExt};

    use super::*;

    fn program(folder: &Path, name: &str, script: &str) {
        let mut options = fs::OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(folder.join(name))
            .unwrap();
        io::Write::write_all(&mut { file }, format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    }

    fn with(programs: &[(&str, &str)]) -> Outputs {
        let folder = tempfile::tempdir().unwrap();
        for (name, script) in programs {
            program(folder.path(), name, script);
        }
        let place = Tools::of(folder.path());
        let mut outputs = read(&place, &saves(&place));
        outputs.fail_nf_tables();
        outputs
    }

    #[test]
    fn the_plain_tool_says_its_kind() {
        for (version, tool) in [
            ("iptables-save v1.8.9 (nf_tables)", Tool::IptablesNft),
            ("iptables-save v1.8.9 (legacy)", Tool::IptablesLegacy),
            ("iptables-save v1.6.1", Tool::IptablesLegacy),
        ] {
            let outputs = with(&[(
                "ip6tables-save",
                &format!("[ $1 = -c ] && echo '*raw' || echo '{version}'"),
            )]);
            let [save] = outputs.saves.as_slice() else {
                panic!("{outputs:?}")
            };
            assert_eq!(
                (save.tool, save.family, save.text.as_str()),
                (tool, Family::Ip6, "*raw\n")
            );
        }
    }

    #[test]
    fn the_plain_tool_is_left_alone_if_its_kinds_are_there() {
        let outputs = with(&[
            ("iptables-save", "echo plain"),
            ("iptables-nft-save", "echo nft"),
            ("iptables-legacy-save", "echo legacy; echo $LC_ALL"),
        ]);
        let texts: Vec<_> = outputs
            .saves
            .iter()
            .map(|save| (save.tool, save.text.as_str()))
            .collect();
        assert_eq!(
            texts,
            [
                (Tool::IptablesLegacy, "legacy\nC\n"),
                (Tool::IptablesNft, "nft\n")
            ]
        );
    }

    #[test]
    fn a_failure_is_a_sentence() {
        let outputs = with(&[
            ("iptables-legacy-save", "echo \"it's\x1b[1m bad\" >&2; exit 3"),
            ("iptables-nft-save", "echo fine"),
        ]);
        assert_eq!(outputs.saves.len(), 1);
        assert_eq!(
            outputs.unread,
            [
                "iptables-legacy-save failed (exit status: 3, with at most 256 MB of memory): it's\u{fffd}[1m bad"
            ]
        );
    }

    #[test]
    fn a_tool_that_hangs_is_ended() {
        let begun = Instant::now();
        let outputs = with(&[("nft", "echo a; exec sleep 100")]);
        assert_eq!(outputs.unread, ["nft timed out after 3 s"]);
        assert!(begun.elapsed() < TIMEOUT * 2);
        // Not even if it has closed its output, or left it to a child of its own.
        for script in ["exec >&- 2>&-; exec sleep 100", "sleep 5 & wait"] {
            assert_eq!(
                with(&[("nft", script)]).unread,
                ["nft timed out after 3 s"],
                "{script}"
            );
        }
    }

    #[test]
    fn a_tool_that_prints_without_end_is_ended() {
        assert_eq!(
            with(&[("nft", "exec yes")]).unread,
            ["nft prints more than 16 MB"]
        );
    }

    #[test]
    fn a_long_stderr_stops_nothing() {
        let outputs = with(&[("nft", "head -c 1000000 /dev/zero >&2 || exit 7; echo '{}'")]);
        assert_eq!((outputs.nft.as_deref(), outputs.unread.len()), (Some("{}\n"), 0));
    }
}
