//! What the host's kernel is asked for outside the data path.

pub mod freeze;
