//! Repositories: many recovery points of many volumes, deduplicated, compressed, checkable, and
//! encrypted on request. FORMAT.md, "Repository, version 1", is the contract.
//!
//! Imports go one way: limits, ids and bytes; [`crypto`]; [`format`], which is pure; [`backend`], the
//! storage; the index of what is stored; the tree of an image; writers and readers; and above them what
//! keeps a repository in order.

pub mod backend;
mod bytes;
pub mod care;
pub mod crypto;
pub mod error;
pub mod format;
pub mod id;
pub mod index;
pub mod limits;
mod open;
mod points;
mod reader;
#[cfg(test)]
mod tests;
pub mod tree;
mod writer;

pub use error::{Damage, Error, Result};
pub use format::point::{Made, Point, Trust, Work};
pub use id::{Blob, Digest};
pub use open::{KeyInfo, Repository};
pub use points::Points;
pub use reader::{Image, Onto, Restored, Target};
pub use writer::{About, Backup, Change, Progress, Source};
