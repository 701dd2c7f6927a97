//! Which blocks changed, epoch by epoch.
//!
//! The running epoch has a [`DenseMap`]: a bit a block, in memory that outlives the process. A
//! cut starts a new one; the old one is then sealed into a [`ChangeSet`], whose size follows the
//! changes. [`History`] keeps them as files and answers diffs.

mod dense;
mod history;
mod set;

pub use dense::DenseMap;
pub use history::{History, HistoryError};
pub use set::{ChangeSet, DecodeError};

/// What a block last became.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Any bytes.
    Data,
    /// Zeros, by a write-zeroes request that covered the block.
    Zero,
    /// Given back by a discard that covered the block and that reads as zeros.
    Discarded,
}
