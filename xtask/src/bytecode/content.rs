//! What of an object the kernel runs: everything but the numbers of the source lines it was compiled from.

use anyhow::{Context, Result};
use object::{Object, ObjectSection};
use sha2::{Digest, Sha256};

use super::hex;

/// Types of functions, source lines and CO-RE relocations of the programs; [format] by the kernel's documentation.
///
/// [format]: https://docs.kernel.org/bpf/btf.html#btf-ext-section
const BTF_EXT: &str = ".BTF.ext";

/// SHA-256 of the sections of an object by their names, without source lines: a comment above a kernel program moves its lines,
/// and what was proven of its instructions stays proven.
///
/// # Errors
/// If it is no ELF file, or its `.BTF.ext` is malformed.
pub fn hash(bytes: &[u8]) -> Result<String> {
    let file = object::File::parse(bytes).context("no object")?;
    let mut hash = Sha256::new();
    for section in file.sections() {
        let name = section.name()?;
        let data = section.data().with_context(|| format!("section {name}"))?;
        let kept = if name == BTF_EXT {
            without_lines(data).with_context(|| format!("section {name} is malformed"))?
        } else {
            vec![data]
        };
        for part in std::iter::once(name.as_bytes()).chain(kept) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(hex(&hash.finalize()))
}

/// The types of functions and the relocations of a `.BTF.ext`; [`None`] if it is too short for what its header says.
fn without_lines(data: &[u8]) -> Option<Vec<&[u8]>> {
    let field = |at: usize| -> Option<usize> {
        let bytes = data.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let header = field(4)?;
    let part = |offset: usize| -> Option<&[u8]> {
        let start = header.checked_add(field(offset)?)?;
        data.get(start..start.checked_add(field(offset + 4)?)?)
    };
    // Offset and length of the functions' types stand at 8, those of the lines at 16, those of the relocations at 24, which
    // the first version of the format does not have.
    let mut kept = vec![part(8)?];
    if header >= 32 {
        kept.push(part(24)?);
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `.BTF.ext` of these parts.
    fn section(functions: &[u8], lines: &[u8], relocations: &[u8]) -> Vec<u8> {
        let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
        let mut section = vec![0x9f, 0xeb, 1, 0];
        section.extend(number(32));
        let mut offset = 0;
        for part in [functions, lines, relocations] {
            section.extend(number(offset));
            section.extend(number(part.len()));
            offset += part.len();
        }
        section.extend([functions, lines, relocations].concat());
        section
    }

    #[test]
    fn lines_are_left_out() {
        let base = section(b"functions", b"lines", b"relocations");
        assert_eq!(
            without_lines(&base),
            Some(vec![&b"functions"[..], b"relocations"])
        );
        assert_eq!(
            without_lines(&base),
            without_lines(&section(b"functions", b"other and more lines", b"relocations"))
        );
        for other in [
            section(b"functionS", b"lines", b"relocations"),
            section(b"functions", b"lines", b"relocationS"),
        ] {
            assert_ne!(without_lines(&base), without_lines(&other));
        }
        for length in 0..base.len() {
            assert_eq!(without_lines(&base[..length]), None, "{length}");
        }
    }

    /// Of a real object: another line leaves the hash, another instruction does not.
    #[test]
    fn of_a_committed_object() {
        let path = super::super::directory().join("drops.o");
        let bytes = std::fs::read(path).unwrap();
        let file = object::File::parse(bytes.as_slice()).unwrap();
        let base = hash(&bytes).unwrap();
        let changed = |at: u64| {
            let mut bytes = bytes.clone();
            bytes[usize::try_from(at).unwrap()] ^= 1;
            hash(&bytes).unwrap()
        };
        let range = |name: &str| file.section_by_name(name).unwrap().file_range().unwrap();
        let (start, _) = range(BTF_EXT);
        let header = usize::try_from(start).unwrap();
        let lines = u32::from_le_bytes(bytes[header + 16..header + 20].try_into().unwrap());
        // The last four bytes of a line are its number: of the first, after its part's size, its section's name and count.
        assert_eq!(base, changed(start + 32 + u64::from(lines) + 4 + 8 + 12));
        let program = file
            .sections()
            .find(|section| section.name().is_ok_and(|name| name.contains("tp")) && section.size() > 0);
        let (start, _) = program.unwrap().file_range().unwrap();
        assert_ne!(base, changed(start));
    }
}
