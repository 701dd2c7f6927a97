//! The control plane over fake volume servers.

mod areas;
pub(crate) mod bench;
mod cutting;
pub(crate) mod fake;
mod hooks;
mod leasing;
mod restarting;
mod volumes;
mod watching;
