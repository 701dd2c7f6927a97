//! The control plane: volumes, snapshots, leases, operations.

mod error;
pub mod operations;
pub mod restores;
pub mod streams;

pub use error::{Error, ErrorReason, reason_name};
