//! Making recovery points.
//!
//! One thread, the caller's, reads the source and drafts leaves ([`draft`], [`plan`], [`gather`]); others name,
//! compress, verify and store chunks ([`sink`]). Drafts become leaves in order as their chunks are done,
//! leaves become a tree ([`super::tree::edit`]), and the point is put when all it relies on is sure to
//! stay ([`settle`]).

mod backup;
mod compare;
mod draft;
mod gather;
mod packer;
mod plan;
mod repeats;
pub(super) mod settle;
pub(super) mod sink;

pub use backup::{About, Backup, Change, Progress, Source};
