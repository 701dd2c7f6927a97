//! This host as seen without the daemon.

pub(crate) mod command;
pub(crate) mod program;
pub(crate) mod served;
