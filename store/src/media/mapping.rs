//! A file mapped shared: memory that outlives the process.
//!
//! Every access goes through atomics, because the next process may map the file while this one
//! is still dying. On a memory file system a page costs memory only once it is written or read
//! through the mapping.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::atomic::{AtomicU32, AtomicU64},
};

use memmap2::{MmapOptions, MmapRaw};

/// A shared mapping seen as 64-bit or 32-bit atomic words.
#[derive(Debug)]
pub struct Mapping {
    raw: MmapRaw,
}

impl Mapping {
    /// Makes a file of `len` zero bytes, in place of one that may be there, and maps it.
    pub fn create(path: &Path, len: usize) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.set_len(len as u64)?;
        Self::map(&file)
    }

    /// Memory of `len` zero bytes that ends with the process; a page costs nothing before its
    /// first use.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        Ok(Self {
            raw: MmapOptions::new().len(len).map_anon()?.into(),
        })
    }

    /// Maps a whole existing file.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::map(&OpenOptions::new().read(true).write(true).open(path)?)
    }

    fn map(file: &File) -> io::Result<Self> {
        Ok(Self {
            raw: MmapRaw::map_raw(file)?,
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `count` words from the word `first` on. Panics when they leave the mapping: the caller
    /// has compared its layout with [`Mapping::len`].
    pub fn words(&self, first: usize, count: usize) -> &[AtomicU64] {
        assert!((first + count) * 8 <= self.len(), "words leave the mapping");
        // SAFETY: the range lies in the mapping (asserted), which lives as long as `self`; a
        // mapping is page-aligned, so a word's address is aligned; AtomicU64 has the layout of
        // u64, any bits are valid, and all access in every process is atomic.
        unsafe {
            std::slice::from_raw_parts(self.raw.as_ptr().cast::<AtomicU64>().add(first), count)
        }
    }

    /// `count` 32-bit words from the byte `offset` on, which is a multiple of 4.
    pub fn half_words(&self, offset: usize, count: usize) -> &[AtomicU32] {
        assert!(
            offset.is_multiple_of(4) && offset + count * 4 <= self.len(),
            "half words leave the mapping"
        );
        // SAFETY: as in `words`; the offset is a multiple of the alignment of AtomicU32.
        unsafe {
            std::slice::from_raw_parts(self.raw.as_ptr().add(offset).cast::<AtomicU32>(), count)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn a_second_mapping_sees_the_first_ones_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("words");
        let first = Mapping::create(&path, 8192).unwrap();
        first.words(3, 1)[0].store(7, Relaxed);
        let second = Mapping::open(&path).unwrap();
        assert_eq!(second.words(0, 4)[3].load(Relaxed), 7);
        assert_eq!(second.half_words(24, 2)[0].load(Relaxed), 7);
    }

    #[test]
    #[should_panic(expected = "leave the mapping")]
    fn words_past_the_end_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mapping = Mapping::create(&dir.path().join("words"), 4096).unwrap();
        mapping.words(512, 1);
    }
}
