//! Smaller BTF files made of a large one.

use super::{Btf, MAGIC, TYPE_BYTES, kind};

impl Btf {
    /// A BTF file that has nothing but the typedefs of these tracepoints, at the ids they have in this one.
    ///
    /// aya needs one id for each BTF tracepoint, and reads the whole of a file for it: measured, 14 MB of memory.
    pub fn tracepoints(&self, names: &[&str]) -> Vec<u8> {
        let wanted = |name: &&[u8]| {
            name.strip_prefix(b"btf_trace_")
                .is_some_and(|name| names.iter().any(|wanted| wanted.as_bytes() == name))
        };
        let typedef = |id| {
            self.type_(id)
                .filter(|t| t.kind == kind::TYPEDEF)
                .map(|t| self.string(t.name))
        };
        let last = (1..=self.types.len() as u32)
            .rev()
            .find(|id| typedef(*id).as_ref().is_some_and(wanted));
        let last = last.unwrap_or_default();
        let (mut types, mut strings) = (Vec::with_capacity(last as usize * TYPE_BYTES), vec![0_u8]);
        for id in 1..=last {
            let words = match typedef(id).filter(wanted) {
                Some(name) => {
                    let at = strings.len() as u32;
                    strings.extend(name);
                    strings.push(0);
                    [at, kind::TYPEDEF << 24, 0]
                }
                // A pointer to void: the smallest there is, and nameless.
                None => [0, kind::PTR << 24, 0],
            };
            types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
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
