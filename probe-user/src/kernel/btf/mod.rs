//! Field offsets and enumerators from the running kernel's type information (BTF).
//!
//! One pass over the file keeps where each type starts, and the ids of the names that are wanted. The crates that read
//! members build every type of the kernel: measured on a 5.5 MB file, 140 to 290 ms and 57 to 85 MB, where this takes 5 ms
//! and, where the file can't be mapped, 6 MB.

mod file;
mod reduce;

use std::{
    collections::HashMap,
    ffi::CStr,
    io,
    path::{Path, PathBuf},
};

use self::file::Contents;

use probe_ebpf::contract::offsets::{ABSENT, Field, Kind, Lost, Offsets};

/// Anonymous structs inside structs: the kernel nests three deep.
const MAX_DEPTH: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    #[error(
        "its type information {path} is missing. Boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (the default of \
         Debian, Ubuntu, Fedora, RHEL and Amazon kernels since 5.10), or name a file that has it: --btf FILE",
        path = path.display()
    )]
    Missing { path: PathBuf },
    #[error("reading the kernel's type information {path} failed: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the kernel's type information {path} is malformed: {what} at byte {at}", path = path.display())]
    Malformed {
        path: PathBuf,
        what: &'static str,
        at: usize,
    },
    #[error("its type information has no {what}: {reason}")]
    Unresolved { what: String, reason: &'static str },
}

/// A field that this kernel does not have, and what that takes from probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// The member of [`Offsets`].
    pub field: &'static str,
    /// `struct css_set.dfl_cgrp`
    pub what: String,
    pub lost: &'static str,
}

/// A name that is looked for. Structs, tracepoints and functions may have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Name<S> {
    /// Of a struct, union or enumeration with members.
    Members(S),
    Tracepoint(S),
    Function(S),
}

/// Type information, as far as probe asks of it.
pub struct Btf {
    path: PathBuf,
    data: Contents,
    strings: usize,
    /// Where each type starts, by type id less one.
    types: Vec<u32>,
    /// The first type of each wanted name.
    ids: HashMap<Name<&'static str>, u32>,
}

/// The numbers of `include/uapi/linux/btf.h`.
mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

const MAGIC: u16 = 0xeb9f;
const TYPE_BYTES: usize = 12;

#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    /// Members, enumerators or parameters.
    count: usize,
    /// Of struct and union: an offset is split into bit size and bit offset.
    bitfields: bool,
    /// Size, or the type referred to.
    refers: u32,
    /// Where the members start.
    body: usize,
}

impl Btf {
    /// Reads the running kernel's, or another file: what the table of [`Offsets`] needs, and these names.
    ///
    /// # Errors
    /// When the file is missing, unreadable or malformed.
    pub fn read(path: &Path, names: impl IntoIterator<Item = Name<&'static str>>) -> Result<Self, BtfError> {
        let data = Contents::of(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BtfError::Missing {
                path: path.to_owned(),
            },
            _ => BtfError::Read {
                path: path.to_owned(),
                source,
            },
        })?;
        Self::parse(path, data, names)
    }

    fn parse(
        path: &Path,
        data: Contents,
        names: impl IntoIterator<Item = Name<&'static str>>,
    ) -> Result<Self, BtfError> {
        let mut btf = Self {
            path: path.to_owned(),
            data,
            strings: 0,
            types: Vec::new(),
            ids: HashMap::new(),
        };
        if btf.u16(0)? != MAGIC {
            return Err(btf.malformed("not BTF of this byte order", 0));
        }
        let header = btf.u32(4)? as usize;
        let types = header.saturating_add(btf.u32(8)? as usize);
        let end = types.saturating_add(btf.u32(12)? as usize);
        btf.strings = header.saturating_add(btf.u32(16)? as usize);
        if end > btf.data.len() || btf.strings > btf.data.len() {
            return Err(btf.malformed("sections beyond its end", end));
        }
        let fields = Offsets::TABLE.iter().map(|field| match field.kind {
            Kind::Member { of, .. } | Kind::Enumerator { of, .. } => Name::Members(of),
        });
        let wanted = Wanted::new(names.into_iter().chain(fields));
        let mut at = types;
        while at < end {
            btf.types.push(at as u32);
            let t = btf.type_at(at)?;
            at = t.body
                + match t.kind {
                    kind::INT | kind::VAR | kind::DECL_TAG => 4,
                    kind::ARRAY => 12,
                    kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => t.count * 12,
                    kind::ENUM | kind::FUNC_PROTO => t.count * 8,
                    0..=19 => 0,
                    _ => return Err(btf.malformed("a kind of type this probe does not know", at)),
                };
            if let Some(name) = wanted.find(&t, btf.strings_from(t.name)) {
                let id = btf.types.len() as u32;
                btf.ids.entry(name).or_insert(id);
            }
        }
        Ok(btf)
    }

    /// Resolves the whole table of [`Offsets`], and returns the optional fields that are missing.
    ///
    /// # Errors
    /// When a field is not there that probe can't do without.
    pub fn offsets(&self) -> Result<(Offsets, Vec<Absent>), BtfError> {
        let (mut numbers, mut absent) = (Vec::with_capacity(Offsets::TABLE.len()), Vec::new());
        for field in Offsets::TABLE {
            numbers.push(match (self.field(field), field.lost) {
                (Ok(number), _) => number,
                (Err(BtfError::Unresolved { .. }), Lost::Nothing) => ABSENT,
                (Err(BtfError::Unresolved { what, .. }), Lost::Part(lost)) => {
                    absent.push(Absent {
                        field: field.name,
                        what,
                        lost,
                    });
                    ABSENT
                }
                (Err(error), _) => return Err(error),
            });
        }
        Ok((*bytemuck::from_bytes(bytemuck::cast_slice(&numbers)), absent))
    }

    /// Names of an enumeration's values, one each, without `prefix`; none where it was not looked for.
    pub fn names(&self, of: &'static str, prefix: &str) -> HashMap<u32, String> {
        let mut names = HashMap::new();
        let id = self.ids.get(&Name::Members(of));
        let Some((t, size)) = id.and_then(|id| self.enumeration(*id)) else {
            return names;
        };
        for index in 0..t.count {
            let at = t.body + index * size;
            if let (Ok(name), Ok(value)) = (self.u32(at), self.u32(at + 4)) {
                let name = String::from_utf8_lossy(self.string(name));
                let name = name.strip_prefix(prefix).unwrap_or(&name).to_owned();
                names.entry(value).or_insert(name);
            }
        }
        names
    }

    /// How many arguments a tracepoint hands to a BTF or raw program; `None` when it is not in this kernel, or was not looked
    /// for.
    pub fn arguments(&self, tracepoint: &'static str) -> Option<u32> {
        let typedef = self.type_(*self.ids.get(&Name::Tracepoint(tracepoint))?)?;
        let pointer = self.type_(typedef.refers)?;
        let prototype = self.type_(pointer.refers)?;
        // The first is the tracepoint's own.
        (prototype.kind == kind::FUNC_PROTO).then(|| (prototype.count as u32).saturating_sub(1))
    }

    fn field(&self, field: &Field) -> Result<u32, BtfError> {
        let unresolved = |what: String, reason| BtfError::Unresolved { what, reason };
        match field.kind {
            Kind::Member { of, paths } => {
                let what = || format!("struct {of}.{}", paths.join(" or "));
                let id = *self
                    .ids
                    .get(&Name::Members(of))
                    .ok_or_else(|| unresolved(what(), "there is no such struct"))?;
                paths
                    .iter()
                    .find_map(|path| self.member_path(id, path))
                    .ok_or_else(|| unresolved(what(), "the struct has no such member"))
            }
            Kind::Enumerator { of, name } => self
                .ids
                .get(&Name::Members(of))
                .and_then(|id| self.enumerator_of(*id, name))
                .ok_or_else(|| unresolved(format!("enum {of}, {name}"), "there is no such enumerator")),
        }
    }

    /// Byte offset of a dotted member path.
    fn member_path(&self, id: u32, path: &str) -> Option<u32> {
        let (mut id, mut bits) = (id, 0);
        for name in path.split('.') {
            let (member_type, offset) = self.member(id, name.as_bytes(), 0)?;
            id = member_type;
            bits += offset;
        }
        // A bit field has no byte offset.
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// Type and bit offset of a member, looking through anonymous structs and unions.
    fn member(&self, id: u32, wanted: &[u8], depth: usize) -> Option<(u32, u32)> {
        let t = self.resolved(id)?;
        if !matches!(t.kind, kind::STRUCT | kind::UNION) || depth > MAX_DEPTH {
            return None;
        }
        for index in 0..t.count {
            let at = t.body + index * 12;
            let name = self.u32(at).ok()?;
            let member_type = self.u32(at + 4).ok()?;
            let offset = self.u32(at + 8).ok()?;
            let bits = if t.bitfields { offset & 0x00ff_ffff } else { offset };
            let name = self.string(name);
            if name == wanted {
                return Some((member_type, bits));
            }
            if name.is_empty()
                && let Some((found, inner)) = self.member(member_type, wanted, depth + 1)
            {
                return Some((found, bits + inner));
            }
        }
        None
    }

    fn enumerator_of(&self, id: u32, wanted: &str) -> Option<u32> {
        let (t, size) = self.enumeration(id)?;
        (0..t.count).find_map(|index| {
            let at = t.body + index * size;
            (self.string(self.u32(at).ok()?) == wanted.as_bytes()).then(|| self.u32(at + 4).ok())?
        })
    }

    /// An enumeration, and how many bytes each of its values takes.
    fn enumeration(&self, id: u32) -> Option<(Type, usize)> {
        let t = self.type_(id)?;
        match t.kind {
            kind::ENUM => Some((t, 8)),
            kind::ENUM64 => Some((t, 12)),
            _ => None,
        }
    }

    /// The type behind typedefs and qualifiers.
    fn resolved(&self, id: u32) -> Option<Type> {
        let mut t = self.type_(id)?;
        for _ in 0..MAX_DEPTH {
            match t.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    t = self.type_(t.refers)?;
                }
                _ => return Some(t),
            }
        }
        None
    }

    fn type_(&self, id: u32) -> Option<Type> {
        let at = *self.types.get((id as usize).checked_sub(1)?)? as usize;
        self.type_at(at).ok()
    }

    fn type_at(&self, at: usize) -> Result<Type, BtfError> {
        let info = self.u32(at + 4)?;
        Ok(Type {
            name: self.u32(at)?,
            kind: info >> 24 & 0x1f,
            count: (info & 0xffff) as usize,
            bitfields: info >> 31 != 0,
            refers: self.u32(at + 8)?,
            body: at + TYPE_BYTES,
        })
    }

    fn string(&self, offset: u32) -> &[u8] {
        until_nul(self.strings_from(offset))
    }

    fn strings_from(&self, offset: u32) -> &[u8] {
        let from = self.strings.saturating_add(offset as usize);
        self.data.get(from..).unwrap_or_default()
    }

    fn u16(&self, at: usize) -> Result<u16, BtfError> {
        self.bytes(at).map(u16::from_ne_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32, BtfError> {
        self.bytes(at).map(u32::from_ne_bytes)
    }

    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], BtfError> {
        self.data
            .get(at..)
            .and_then(<[u8]>::first_chunk)
            .copied()
            .ok_or_else(|| self.malformed("cut short", at))
    }

    fn malformed(&self, what: &'static str, at: usize) -> BtfError {
        BtfError::Malformed {
            path: self.path.clone(),
            what,
            at,
        }
    }
}

fn until_nul(from: &[u8]) -> &[u8] {
    CStr::from_bytes_until_nul(from).map_or(from, CStr::to_bytes)
}

/// Names that are looked for, as they stand in the file.
struct Wanted {
    names: HashMap<Name<&'static [u8]>, Name<&'static str>>,
    /// Which bytes they begin with: of most other names, only that byte is read.
    first: [bool; 256],
}

/// A tracepoint's typedef is named after it.
const TRACEPOINT: &[u8] = b"btf_trace_";

impl Wanted {
    fn new(names: impl Iterator<Item = Name<&'static str>>) -> Self {
        let mut wanted = Self {
            names: HashMap::new(),
            first: [false; 256],
        };
        for name in names {
            let bytes = match name {
                Name::Members(name) => Name::Members(name.as_bytes()),
                Name::Tracepoint(name) => Name::Tracepoint(name.as_bytes()),
                Name::Function(name) => Name::Function(name.as_bytes()),
            };
            let (Name::Members(text) | Name::Tracepoint(text) | Name::Function(text)) = bytes;
            if let Some(first) = text.first() {
                wanted.first[usize::from(*first)] = true;
            }
            wanted.names.insert(bytes, name);
        }
        wanted
    }

    /// The wanted name that this type has. `strings`: from its name on.
    fn find(&self, t: &Type, strings: &[u8]) -> Option<Name<&'static str>> {
        let (name, strings): (fn(_) -> _, _) = match t.kind {
            kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 if t.count > 0 => (Name::Members, strings),
            kind::TYPEDEF => (Name::Tracepoint, strings.strip_prefix(TRACEPOINT)?),
            kind::FUNC => (Name::Function, strings),
            _ => return None,
        };
        let first = strings.first().copied().map(usize::from)?;
        if !*self.first.get(first)? {
            return None;
        }
        self.names.get(&name(until_nul(strings))).copied()
    }
}

#[cfg(test)]
mod tests;
