//! What stands for a mapped file where loom explores threads: words that end with the model.

use std::{io, path::Path};

use crate::sync::{AtomicU32, AtomicU64};

/// A shared mapping seen as 64-bit or 32-bit atomic words.
///
/// A word is modelled by one width only: whoever asks for the same bytes by both finds two.
#[derive(Debug)]
pub struct Mapping {
    len: usize,
    words: Box<[AtomicU64]>,
    half_words: Box<[AtomicU32]>,
}

impl Mapping {
    /// `len` zero bytes; nothing is made at the path.
    pub fn create(_: &Path, len: usize) -> io::Result<Self> {
        Self::anonymous(len)
    }

    /// `len` zero bytes.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        Ok(Self {
            len,
            words: (0..len / 8).map(|_| AtomicU64::default()).collect(),
            half_words: (0..len / 4).map(|_| AtomicU32::default()).collect(),
        })
    }

    /// No file outlives a model.
    pub fn open(_: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::NotFound.into())
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `count` words from the word `first` on.
    pub fn words(&self, first: usize, count: usize) -> &[AtomicU64] {
        &self.words[first..first + count]
    }

    /// `count` 32-bit words from the byte `offset` on, which is a multiple of 4.
    pub fn half_words(&self, offset: usize, count: usize) -> &[AtomicU32] {
        &self.half_words[offset / 4..offset / 4 + count]
    }
}
