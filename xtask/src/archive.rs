//! Archives that are the same for the same content: no time but the one that is given, no user but root.

use std::io::Write;

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub path: String,
    pub mode: u32,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    File(Vec<u8>),
    /// What a symbolic link leads to.
    Link(String),
}

impl Entry {
    pub fn file(path: impl Into<String>, mode: u32, content: Vec<u8>) -> Self {
        Self {
            path: path.into(),
            mode,
            content: Content::File(content),
        }
    }

    pub fn link(path: impl Into<String>, to: &str) -> Self {
        Self {
            path: path.into(),
            mode: 0o777,
            content: Content::Link(to.to_owned()),
        }
    }
}

/// A tar of these, ordered by their paths; `time` in seconds since 1970.
pub fn tar(mut entries: Vec<Entry>, time: i64) -> Result<Vec<u8>> {
    entries.sort();
    let mut tar = tar::Builder::new(Vec::new());
    for entry in &entries {
        let mut header = Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(time.try_into().unwrap_or_default());
        match &entry.content {
            Content::File(content) => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, &entry.path, content.as_slice())?;
            }
            Content::Link(to) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, &entry.path, to)?;
            }
        }
    }
    Ok(tar.into_inner()?)
}

pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    // The header's time and system are left out, which would differ.
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    Ok(gzip.finish()?)
}
