//! loom's words and locks, and mistakes that can be seeded into all of them at once: a check that
//! does not see a mistake proves nothing.

use std::{cell::Cell, sync::PoisonError, sync::atomic::Ordering};

use loom::sync::atomic;
pub use loom::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

/// What is done wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// Nothing is ordered: every access of a word is relaxed.
    Relaxed,
    /// A word is changed by a load and a store.
    Torn,
    /// A [`Lock`] keeps nobody out.
    Open,
}

std::thread_local! {
    // loom runs all threads of a model on one.
    static SEEDED: Cell<Option<Mistake>> = const { Cell::new(None) };
}

/// Does `run` with a mistake in all words and locks of this thread and of the models that it runs.
pub fn with_mistake<T>(mistake: Mistake, run: impl FnOnce() -> T) -> T {
    SEEDED.set(Some(mistake));
    let outcome = run();
    SEEDED.set(None);
    outcome
}

fn seeded(mistake: Mistake) -> bool {
    SEEDED.get() == Some(mistake)
}

fn order(asked: Ordering) -> Ordering {
    if seeded(Mistake::Relaxed) {
        Ordering::Relaxed
    } else {
        asked
    }
}

macro_rules! word {
    ($name:ident, $value:ty) => {
        #[doc = concat!("As the standard library's `", stringify!($name), "`.")]
        #[derive(Debug, Default)]
        pub struct $name(atomic::$name);

        impl $name {
            /// A word that holds `value`.
            pub fn new(value: $value) -> Self {
                Self(atomic::$name::new(value))
            }

            /// Reads it.
            pub fn load(&self, ordering: Ordering) -> $value {
                self.0.load(order(ordering))
            }

            /// Writes it.
            pub fn store(&self, value: $value, ordering: Ordering) {
                self.0.store(value, order(ordering));
            }

            /// Sets bits; the word before.
            pub fn fetch_or(&self, bits: $value, ordering: Ordering) -> $value {
                self.change(
                    |old| old | bits,
                    |word| word.fetch_or(bits, order(ordering)),
                )
            }

            /// Keeps bits; the word before.
            pub fn fetch_and(&self, bits: $value, ordering: Ordering) -> $value {
                self.change(
                    |old| old & bits,
                    |word| word.fetch_and(bits, order(ordering)),
                )
            }

            /// Adds; the word before.
            pub fn fetch_add(&self, more: $value, ordering: Ordering) -> $value {
                self.change(
                    |old| old.wrapping_add(more),
                    |word| word.fetch_add(more, order(ordering)),
                )
            }

            /// Subtracts; the word before.
            pub fn fetch_sub(&self, less: $value, ordering: Ordering) -> $value {
                self.change(
                    |old| old.wrapping_sub(less),
                    |word| word.fetch_sub(less, order(ordering)),
                )
            }

            /// Sets it if it is `old`; what it was.
            pub fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.0
                    .compare_exchange(old, new, order(success), order(failure))
            }

            fn change(
                &self,
                new: impl Fn($value) -> $value,
                whole: impl Fn(&atomic::$name) -> $value,
            ) -> $value {
                if !seeded(Mistake::Torn) {
                    return whole(&self.0);
                }
                let old = self.0.load(Ordering::Relaxed);
                self.0.store(new(old), Ordering::Relaxed);
                old
            }
        }
    };
}

word!(AtomicU32, u32);
word!(AtomicU64, u64);
word!(AtomicUsize, usize);

/// A lock over what is not in it, such as words of a mapping.
#[derive(Debug, Default)]
pub struct Lock(Mutex<()>);

/// A [`Lock`] that is held; nothing under [`Mistake::Open`].
#[derive(Debug)]
pub struct LockGuard<'a>(#[expect(dead_code, reason = "held")] Option<MutexGuard<'a, ()>>);

impl Lock {
    /// Waits for it.
    pub fn lock(&self) -> Result<LockGuard<'_>, PoisonError<LockGuard<'_>>> {
        if seeded(Mistake::Open) {
            return Ok(LockGuard(None));
        }
        match self.0.lock() {
            Ok(guard) => Ok(LockGuard(Some(guard))),
            Err(poisoned) => Err(PoisonError::new(LockGuard(Some(poisoned.into_inner())))),
        }
    }
}
