//! A whole Debian with systemd in a guest, over several boots of the same disks.
//!
//! ```text
//! root      the image that all start from: mmdebstrap's tree as an ext4 file system, kept
//! initrd    mounts it, puts what a boot brings along into /run, hands over to systemd
//! system    one machine: its disks from boot to boot, each boot judged
//! journal   what a journal must not tell
//! ```
//!
//! A boot's script is run by `story.service` when multi-user.target is there; `words.sh` has what
//! scripts say. Its lines come by the second serial line, the journal's by the third as they are
//! written, so that neither a shutdown's last ones nor those before a power cut are missing.

mod initrd;
pub mod journal;
mod root;
mod system;

pub(super) use initrd::assemble;
pub use system::{Boot, System};

/// What each boot of it has on the kernel's command line besides.
///
/// No security module and no audit: their words are many, and each costs under emulation. No
/// colours in what is read by a harness. Units may take longer to start than elsewhere: an emulated
/// processor on a busy host is slow, not hung.
pub(super) const COMMAND_LINE: &str = "audit=0 lsm=capability,landlock,yama,bpf TERM=dumb \
    systemd.show_status=0 systemd.default_timeout_start_sec=300 systemd.default_device_timeout_sec=300";
