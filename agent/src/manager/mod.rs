//! The control plane: volumes, snapshots, leases, operations.

mod error;

pub use error::{Error, ErrorReason, reason_name};
