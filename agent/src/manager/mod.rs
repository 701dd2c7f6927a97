//! The control plane: volumes, snapshots, leases, operations.

pub mod operations;
