//! The control plane: volumes, snapshots, leases, operations.
