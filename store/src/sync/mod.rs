//! The words and locks that threads share.
//!
//! They are the standard library's, except under `--cfg loom`: there loom explores what threads
//! can do with them, and the checks in tests/concurrency say what they must not.

#[cfg(loom)]
mod modelled;

#[cfg(loom)]
pub use modelled::{
    AtomicU32, AtomicU64, AtomicUsize, Lock, LockGuard, Mistake, Mutex, MutexGuard, RwLock,
    RwLockReadGuard, with_mistake,
};

#[cfg(not(loom))]
pub use std::sync::{
    Mutex, MutexGuard, RwLock, RwLockReadGuard,
    atomic::{AtomicU32, AtomicU64, AtomicUsize},
};

/// A lock over what is not in it, such as words of a mapping.
#[cfg(not(loom))]
pub type Lock = Mutex<()>;

/// A [`Lock`] that is held.
#[cfg(not(loom))]
pub type LockGuard<'a> = MutexGuard<'a, ()>;
