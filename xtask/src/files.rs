//! Files of the workspace, and the hash by which a record names them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::bytecode;

/// A file, or all files of a folder, by their paths below `root`.
///
/// # Errors
/// If one can't be read.
pub fn read(root: &Path, path: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![PathBuf::from(path)];
    while let Some(path) = left.pop() {
        let full = root.join(&path);
        let read = || format!("can't read {}", full.display());
        if full.is_dir() {
            for entry in fs::read_dir(&full).with_context(read)? {
                left.push(path.join(entry?.file_name()));
            }
        } else {
            let bytes = fs::read(&full).with_context(read)?;
            found.insert(path.display().to_string(), bytes);
        }
    }
    Ok(found)
}

/// One hash of files: of each its path, its length and its bytes.
pub fn digest(files: &BTreeMap<String, Vec<u8>>) -> String {
    let mut hash = Sha256::new();
    for (path, bytes) in files {
        hash.update(path.as_bytes());
        hash.update([0]);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    bytecode::hex(&hash.finalize())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Files of these paths and texts.
    pub fn folder(files: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        let files = files.iter();
        files
            .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn hash_changes_with_paths_and_bytes_only() {
        let base = digest(&folder(&[("a", "1"), ("b", "2")]));
        for (files, same) in [
            (&[("b", "2"), ("a", "1")][..], true),
            (&[("a", "1"), ("b", "3")], false),
            (&[("a", "1"), ("c", "2")], false),
            (&[("a", "1")], false),
            (&[("a", "1"), ("b", "2"), ("c", "")], false),
            (&[("a", "1b"), ("", "2")], false),
            (&[], false),
        ] {
            assert_eq!(digest(&folder(files)) == base, same, "{files:?}");
        }
        // As it stands in committed records.
        assert_eq!(
            digest(&folder(&[])),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
