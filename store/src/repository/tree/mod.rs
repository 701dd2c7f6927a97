//! The tree of an image: reading it, walking it, and making the next one from it.

pub mod edit;
pub mod nodes;

pub use edit::edit;
pub use nodes::{Nodes, Root};
