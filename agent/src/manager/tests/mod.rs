//! The control plane over fake volume servers.

mod bench;
mod cutting;
mod fake;
mod leasing;
mod restarting;
mod volumes;
mod watching;
