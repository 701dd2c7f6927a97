//! What keeps a repository in order: which points to keep, deleting what nothing needs, finding and
//! mending damage, copying.

mod check;
mod copy;
mod marks;
mod prune;
mod repair;
pub mod retention;
mod stats;

pub use check::{Checked, Finding, ReadData};
pub use prune::{PruneOptions, Pruned};
pub use repair::Repaired;
pub use stats::Stats;
