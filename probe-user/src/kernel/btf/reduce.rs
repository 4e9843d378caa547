//! Smaller BTF files made of a large one.

use super::{Btf, MAGIC, TYPE_BYTES, kind};

impl Btf {
    /// A BTF file that has nothing but the typedefs of these tracepoints and these functions, at the ids they have in this
    /// one.
    ///
    /// aya needs one id for each, and reads the whole of a file for it: measured, 14 MB of memory.
    pub fn hooks(&self, tracepoints: &[&str], functions: &[&str]) -> Vec<u8> {
        let is_of = |names: &[&str], name: &[u8]| names.iter().any(|wanted| wanted.as_bytes() == name);
        let wanted = |(kind, name): &(u32, &[u8])| {
            if *kind == kind::FUNC {
                return is_of(functions, name);
            }
            name.strip_prefix(b"btf_trace_")
                .is_some_and(|name| is_of(tracepoints, name))
        };
        let typedef = |id| {
            self.type_(id)
                .filter(|t| t.kind == kind::TYPEDEF || t.kind == kind::FUNC)
                .map(|t| (t.kind, self.string(t.name)))
        };
        let last = (1..=self.types.len() as u32)
            .rev()
            .find(|id| typedef(*id).as_ref().is_some_and(wanted));
        let last = last.unwrap_or_default();
        let (mut types, mut strings) = (Vec::with_capacity(last as usize * TYPE_BYTES), vec![0_u8]);
        for id in 1..=last {
            let words = match typedef(id).filter(wanted) {
                Some((kind, name)) => {
                    let at = strings.len() as u32;
                    strings.extend(name);
                    strings.push(0);
                    [at, kind << 24, 0]
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
