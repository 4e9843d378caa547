//! Smaller BTF files made of a large one.

use super::{Btf, MAGIC, Name, TRACEPOINT, TYPE_BYTES, kind};

impl Btf {
    /// A BTF file that has nothing but the typedefs of tracepoints and the functions that were looked for, at the ids they have
    /// in this one.
    ///
    /// aya needs one id for each, and reads the whole of a file for it: measured, 14 MB of memory.
    pub fn hooks(&self) -> Vec<u8> {
        let mut hooks: Vec<(u32, u32, Vec<u8>)> = self
            .ids
            .iter()
            .filter_map(|(name, id)| match name {
                Name::Members(_) => None,
                Name::Tracepoint(name) => Some((*id, kind::TYPEDEF, [TRACEPOINT, name.as_bytes()].concat())),
                Name::Function(name) => Some((*id, kind::FUNC, name.as_bytes().to_vec())),
            })
            .collect();
        hooks.sort_unstable();
        let last = hooks.last().map_or(0, |(id, ..)| *id) as usize;
        let (mut types, mut strings) = (Vec::with_capacity(last * TYPE_BYTES), vec![0_u8]);
        let mut add = |words: [u32; 3]| types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        let mut next = 1;
        for (id, kind, name) in hooks {
            for _ in next..id {
                // A pointer to void: the smallest there is, and nameless.
                add([0, kind::PTR << 24, 0]);
            }
            add([strings.len() as u32, kind << 24, 0]);
            strings.extend(name);
            strings.push(0);
            next = id + 1;
        }
        file(&types, &strings)
    }
}

/// A BTF file with these types and strings.
pub(super) fn file(types: &[u8], strings: &[u8]) -> Vec<u8> {
    let (types_length, strings_length) = (types.len() as u32, strings.len() as u32);
    let mut file: Vec<u8> = MAGIC.to_ne_bytes().into_iter().chain([1, 0]).collect();
    file.extend(
        [24, 0, types_length, types_length, strings_length]
            .iter()
            .flat_map(|word: &u32| word.to_ne_bytes()),
    );
    file.extend(types);
    file.extend(strings);
    file
}
