//! The bytes of a file of types: mapped where the kernel allows it, which neither copies nor occupies memory.

use std::{
    fs::File,
    io::{self, Read as _},
    num::NonZeroUsize,
    ops::Deref,
    path::Path,
    ptr::NonNull,
    slice,
};

use nix::{
    libc::c_void,
    sys::{
        mman::{MapFlags, ProtFlags, mmap, munmap},
        statfs::{SYSFS_MAGIC, fstatfs},
    },
};

pub enum Contents {
    Mapped(Mapping),
    Read(Vec<u8>),
}

impl Contents {
    /// # Errors
    /// When it can't be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        // Before 6.16 sysfs maps nothing.
        if let Some(mapping) = Mapping::of(&file, length) {
            return Ok(Self::Mapped(mapping));
        }
        let mut bytes = Vec::with_capacity(length);
        file.read_to_end(&mut bytes)?;
        Ok(Self::Read(bytes))
    }
}

impl Deref for Contents {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => mapping.bytes(),
            Self::Read(bytes) => bytes,
        }
    }
}

/// A file of sysfs, mapped.
pub struct Mapping {
    at: NonNull<c_void>,
    length: NonZeroUsize,
}

impl Mapping {
    /// `None` where it is no file of sysfs, or this kernel does not map it. Another file could be cut while it is read.
    fn of(file: &File, length: usize) -> Option<Self> {
        let length = NonZeroUsize::new(length)?;
        if fstatfs(file).ok()?.filesystem_type() != SYSFS_MAGIC {
            return None;
        }
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file, 0) };
        Some(Self { at: at.ok()?, length })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for as long as this lives, with this length; sysfs shows the kernel's own image, which nothing
        // changes.
        unsafe { slice::from_raw_parts(self.at.as_ptr().cast_const().cast(), self.length.get()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and no slice of it outlives this.
        let _ = unsafe { munmap(self.at, self.length.get()) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_ordinary_file_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["", "types"] {
            fs::write(file.path(), text).unwrap();
            let contents = Contents::of(file.path()).unwrap();
            assert!(matches!(contents, Contents::Read(_)));
            assert_eq!(&*contents, text.as_bytes());
        }
        let missing = file.path().join("missing");
        assert!(Contents::of(&missing).is_err());
    }

    /// Where this kernel has types, and whether it maps them or not.
    #[test]
    fn types_of_this_kernel_are_whole() {
        let path = Path::new(crate::model::settings::VMLINUX);
        if let Ok(expected) = fs::read(path) {
            assert!(*Contents::of(path).unwrap() == *expected);
        }
    }
}
