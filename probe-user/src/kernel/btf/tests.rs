use std::fs;

use super::*;

/// A BTF blob by hand: what the resolver must look through, and nothing else.
struct Blob {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Types so far.
    count: u32,
}

impl Blob {
    fn new() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
            count: 0,
        }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(name.bytes().chain([0]));
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types
            .extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }

    fn add(&mut self, kind: u32, name: &str, refers: u32, members: &[(&str, u32, u32)]) {
        let name = self.name(name);
        self.words(&[name, kind << 24 | members.len() as u32, refers]);
        for (member, a, b) in members {
            let member = self.name(member);
            match kind & 0x7f {
                kind::ENUM => self.words(&[member, *a]),
                _ => self.words(&[member, *a, *b]),
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        reduce::file(&self.types, &self.strings)
    }
}

fn sample() -> Blob {
    let mut blob = Blob::new();
    blob.add(kind::STRUCT, "inner", 8, &[("a", 9, 0), ("b", 9, 32)]); // 1
    blob.add(kind::STRUCT, "", 8, &[("hidden", 9, 32)]); // 2: anonymous
    blob.add(kind::CONST, "", 1, &[]); // 3: const struct inner
    blob.add(
        kind::STRUCT,
        "outer",
        32,
        &[("first", 9, 0), ("", 2, 64), ("nested", 3, 128)],
    ); // 4
    blob.add(kind::ENUM, "colour", 4, &[("RED", 3, 0), ("BLUE", 7, 0)]); // 5
    blob.add(kind::TYPEDEF, "btf_trace_ready", 7, &[]); // 6
    blob.add(kind::PTR, "", 8, &[]); // 7
    blob.words(&[0, kind::FUNC_PROTO << 24 | 3, 0, 0, 0, 0, 4, 0, 4]); // 8: of void *, outer, outer
    blob
}

fn parse(bytes: Vec<u8>) -> Result<Btf, BtfError> {
    let names = [
        Name::Members("outer"),
        Name::Members("colour"),
        Name::Members("ready"),
        Name::Tracepoint("ready"),
        Name::Tracepoint("absent"),
        Name::Function("absent"),
    ];
    Btf::parse(Path::new("sample"), Contents::Read(bytes), names)
}

#[test]
fn members_through_anonymous_structs_qualifiers_and_paths() {
    let btf = parse(sample().bytes()).unwrap();
    let outer = btf.ids[&Name::Members("outer")];
    for (path, expected) in [
        ("first", Some(0)),
        ("hidden", Some(12)),
        ("nested", Some(16)),
        ("nested.b", Some(20)),
        ("nested.c", None),
        ("b", None),
    ] {
        assert_eq!(btf.member_path(outer, path), expected, "{path}");
    }
}

#[test]
fn names_of_an_enumeration() {
    let btf = parse(sample().bytes()).unwrap();
    let expected = |red: &str, blue: &str| HashMap::from([(3, red.to_owned()), (7, blue.to_owned())]);
    assert_eq!(btf.names("colour", ""), expected("RED", "BLUE"));
    assert_eq!(btf.names("colour", "BL"), expected("RED", "UE"));
    assert_eq!(btf.names("outer", ""), HashMap::new(), "a struct");
    assert_eq!(btf.names("nested", ""), HashMap::new(), "not looked for");
}

#[test]
fn tracepoints_keep_their_ids() {
    let reduced = parse(parse(sample().bytes()).unwrap().hooks()).unwrap();
    assert_eq!(reduced.types.len(), 6, "what follows the last is left out");
    for id in 1..=6 {
        let t = reduced.type_(id).unwrap();
        let expected: &[u8] = if id == 6 { b"btf_trace_ready" } else { b"" };
        assert_eq!(reduced.string(t.name), expected, "type {id}");
    }
}

#[test]
fn the_first_type_of_a_name_counts() {
    let mut blob = sample();
    blob.add(kind::STRUCT, "outer", 0, &[("other", 1, 0)]);
    blob.add(kind::TYPEDEF, "btf_trace_ready", 1, &[]);
    let btf = parse(blob.bytes()).unwrap();
    assert_eq!(btf.ids[&Name::Members("outer")], 4);
    assert_eq!(btf.ids[&Name::Tracepoint("ready")], 6);
    assert_eq!(
        btf.ids.get(&Name::Members("ready")),
        None,
        "a name of another kind"
    );
}

#[test]
fn arguments_of_tracepoints() {
    let btf = parse(sample().bytes()).unwrap();
    assert_eq!(btf.arguments("ready"), Some(2));
    assert_eq!(btf.arguments("absent"), None);
}

#[test]
fn a_missing_required_field_is_named() {
    let error = parse(sample().bytes())
        .unwrap()
        .offsets()
        .unwrap_err()
        .to_string();
    assert!(error.contains("struct sock_common.skc_family"), "{error}");
}

/// Cut anywhere, or with any byte changed, it answers or fails; it never panics or hangs.
#[test]
fn hostile_files() {
    let whole = sample().bytes();
    for end in 0..whole.len() {
        if let Ok(btf) = parse(whole[..end].to_vec()) {
            let _ = btf.offsets();
        }
    }
    for at in 0..whole.len() {
        for value in [0, 1, 4, 0x7f, 0xff] {
            let mut changed = whole.clone();
            changed[at] = value;
            if let Ok(btf) = parse(changed) {
                let _ = btf.offsets();
                let _ = btf.names("colour", "");
                let _ = btf.arguments("ready");
                btf.hooks();
            }
        }
    }
}

/// An extract of a kernel's BTF: the types that probe's table goes through, whole, other members' types left out.
struct Extract<'a> {
    from: &'a Btf,
    blob: Blob,
    /// Ids there and here.
    ids: HashMap<u32, u32>,
}

impl Extract<'_> {
    fn of(from: &Btf) -> Vec<u8> {
        let mut extract = Extract {
            from,
            blob: Blob::new(),
            ids: HashMap::new(),
        };
        let mut ids: Vec<u32> = from.ids.values().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let name = String::from_utf8_lossy(from.string(from.type_(id).unwrap().name)).into_owned();
            let steps: Vec<&str> = Offsets::TABLE
                .iter()
                .filter_map(|field| match field.kind {
                    Kind::Member { of, paths } if of == name => Some(paths),
                    _ => None,
                })
                .flatten()
                .flat_map(|path| path.split('.'))
                .collect();
            extract.add(id, &steps);
        }
        extract.blob.bytes()
    }

    /// Copies a type and those of its members that are nameless or named in `follow`; gives back its id here.
    fn add(&mut self, id: u32, follow: &[&str]) -> u32 {
        if let Some(id) = self.ids.get(&id) {
            return *id;
        }
        let from = self.from;
        let Some(t) = from.resolved(id) else { return 0 };
        let word = |at| from.u32(at).unwrap();
        let name = |at| String::from_utf8_lossy(from.string(at)).into_owned();
        let (step, words) = match t.kind {
            kind::STRUCT | kind::UNION => (12, 2),
            kind::ENUM => (8, 1),
            _ => return 0,
        };
        let mut members = Vec::new();
        for index in 0..t.count {
            let at = t.body + index * step;
            let member = name(word(at));
            let (mut a, b) = (word(at + 4), if words == 2 { word(at + 8) } else { 0 });
            if step == 12 {
                a = if member.is_empty() || follow.contains(&member.as_str()) {
                    self.add(a, follow)
                } else {
                    0
                };
            }
            members.push((member, a, b));
        }
        let members: Vec<(&str, u32, u32)> = members
            .iter()
            .map(|(name, a, b)| (name.as_str(), *a, *b))
            .collect();
        let bitfields = u32::from(t.bitfields) << 7;
        self.blob
            .add(t.kind | bitfields, &name(t.name), t.refers, &members);
        self.blob.count += 1;
        self.ids.insert(id, self.blob.count);
        self.blob.count
    }
}

/// Writes a fixture: `PROBE_BTF=vmlinux.btf PROBE_FIXTURE=src/kernel/btf/fixtures/NAME.btf cargo test -p probe-user --lib
/// write_fixture -- --ignored`, and beside it what the whole file resolves to. An extract has all members of its structs, so for
/// a member of one of these it is its own source: `PROBE_BTF` names the fixture, too.
#[test]
#[ignore = "writes the fixtures"]
fn write_fixture() {
    let path = |name| PathBuf::from(std::env::var_os(name).unwrap());
    let btf = Btf::read(&path("PROBE_BTF"), [Name::Members("cgroup_subsys_id")]).unwrap();
    let fixture = path("PROBE_FIXTURE");
    fs::write(fixture.with_extension("btf"), Extract::of(&btf)).unwrap();
    fs::write(fixture.with_extension("txt"), table(&btf)).unwrap();
}

/// Every field and its number.
fn table(btf: &Btf) -> String {
    let (offsets, _) = btf.offsets().unwrap();
    let numbers: &[u32] = bytemuck::cast_slice(bytemuck::bytes_of(&offsets));
    Offsets::TABLE
        .iter()
        .zip(numbers)
        .map(|(field, number)| match *number {
            ABSENT => format!("{} absent\n", field.name),
            number => format!("{} {number}\n", field.name),
        })
        .collect()
}

/// Extracts of real kernels, 5.10 with the old names and 7.3 with the new; the numbers are those of the whole files.
#[test]
fn offsets_of_real_kernels() {
    for (extract, expected) in [
        (
            include_bytes!("fixtures/debian-5.10.btf").as_slice(),
            include_str!("fixtures/debian-5.10.txt"),
        ),
        (
            include_bytes!("fixtures/debian-7.3.btf").as_slice(),
            include_str!("fixtures/debian-7.3.txt"),
        ),
    ] {
        assert_eq!(table(&parse(extract.to_vec()).unwrap()), expected);
    }
}

/// The same kernel with one field renamed: gone where probe can't do without, told where it can.
#[test]
fn a_field_that_a_kernel_does_not_have() {
    let without = |name: &str| {
        let mut bytes = include_bytes!("fixtures/debian-5.10.btf").to_vec();
        let from = format!("\0{name}\0").into_bytes();
        let at = bytes
            .windows(from.len())
            .position(|window| window == from)
            .unwrap();
        bytes[at + 1] = b'?';
        parse(bytes).unwrap().offsets()
    };
    let error = without("bytes_retrans").unwrap_err().to_string();
    assert!(error.contains("struct tcp_sock.bytes_retrans"), "{error}");
    let (offsets, absent) = without("dfl_cgrp").unwrap();
    assert_eq!(offsets.css_set_v2, ABSENT);
    // The second came with 5.17.
    let told: Vec<_> = absent
        .iter()
        .map(|absent| (absent.what.as_str(), absent.lost))
        .collect();
    assert_eq!(
        told,
        [
            ("struct css_set.dfl_cgrp", "names of containers and pods"),
            (
                "enum skb_drop_reason, SKB_DROP_REASON_NO_SOCKET",
                "server-side refused connections"
            )
        ]
    );
}
