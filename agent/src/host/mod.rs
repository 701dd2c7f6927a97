//! What the host's kernel is asked for outside the data path: which devices there are and who
//! has them, loop devices, freezing, memory file systems.

pub mod candidates;
pub(crate) mod child;
pub mod claim;
pub mod clock;
pub mod device;
pub mod dm;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod freeze;
pub mod freezer;
pub mod hook;
pub mod identity;
mod ioctl;
pub mod loopdev;
pub mod lvm;
pub mod memory_dir;
pub mod mounts;
pub mod openers;
pub mod patience;
pub mod probe;
pub mod shutdown;
pub mod socket;
pub mod stack;

/// Exit status by which a process of ours wants another in its place; EX_TEMPFAIL of sysexits.h.
pub const RESTART: i32 = 75;
/// Exit status of a volume server that could not start and left nothing behind that waits for
/// another; EX_CONFIG of sysexits.h.
pub const NOT_STARTED: i32 = 78;
