//! Where objects are. Seven calls, that a directory, an object service and a test can all answer.

mod append_only;
pub mod contract;
mod directory;
mod memory;

use std::io;

pub use append_only::AppendOnly;
pub use directory::Directory;
pub use memory::{Death, Memory};

/// A moment by the storage's own clock, in microseconds. Compared only with others of the same storage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct StorageTime(pub u64);

impl StorageTime {
    /// Whole seconds from `earlier` to this; none if it is later.
    pub const fn seconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }
}

/// An object that the storage has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// When it came to be.
    pub created: StorageTime,
}

/// The storage of a repository. Objects are created whole and never change.
///
/// Every call may block and may be called by many threads at a time. Temporary failures are the
/// implementation's to retry; an error that comes out is final.
pub trait Backend: Send + Sync {
    /// Where it is, for people; never with a secret in it.
    fn location(&self) -> String;

    /// Creates an object. When it returns, all bytes are there and stay there. `AlreadyExists`: the
    /// name is taken, and what has it is left as it is. After another error the object is there whole
    /// or not at all.
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// All bytes of an object; `InvalidData`, without reading them, when they are more than `max`.
    fn read(&self, name: &str, max: u64) -> io::Result<Vec<u8>>;

    /// Exactly `into.len()` bytes of an object from `offset`; `UnexpectedEof` where it is shorter.
    fn read_range(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// All objects whose names begin with `prefix`, which ends with `/`, in no order. Whatever was
    /// created before the call and not deleted is among them.
    fn list(&self, prefix: &str) -> io::Result<Vec<Listed>>;

    /// One object, as [`Backend::list`] has it.
    fn stat(&self, name: &str) -> io::Result<Listed>;

    /// Deletes an object; one that is not there is no error.
    fn delete(&self, name: &str) -> io::Result<()>;

    /// Makes sure that objects stay which a listing showed: their creator may have died, or be about to,
    /// before they were durable. Whoever did not create them calls this before relying on them. What is gone
    /// meanwhile is no error.
    fn hold(&self, _names: &[String]) -> io::Result<()> {
        Ok(())
    }

    /// The clock that stamps what is created.
    fn now(&self) -> io::Result<StorageTime>;

    /// Clears what dead writers left that is no object, if it is older than a day.
    fn sweep(&self) -> io::Result<()> {
        Ok(())
    }
}
