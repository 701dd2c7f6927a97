//! Virtual machines with Debian's kernels, for what the host's own kernel cannot show.
//!
//! ```text
//! packages   which kernel packages there are, and fetching them      (apt, a private state)
//! kernel     a family ("6.12") to an image and its modules            (dpkg, depmod, xz)
//! borrowed   programs of the host with their libraries                (ldd)
//! archive    the kernel's initramfs format                            (cpio newc)
//! initramfs  a base for each kernel, kept; our programs over it, made anew for each boot
//! accel      KVM where it boots a stock kernel, else emulation
//! machine    one boot: disks, files, a script; lines as they come; killed or finished
//! outcome    what a boot left: status, console, kernel log, files
//! warnings   what a kernel log must not hold
//! story      tests that run in a guest: finding them, running them one by one
//! telling    stories told in guests, one after the other, each judged for itself
//! debian     a whole Debian with systemd on a disk, over several boots
//! ```
//!
//! What is fetched and made is kept below `target/vm` and survives; `TIDEMARK_VM_CACHE` names
//! another place. A second process waits for the first one's download and then uses it.

pub mod accel;
pub mod archive;
pub mod borrowed;
pub mod cache;
pub mod debian;
pub mod disk;
pub mod initramfs;
pub mod kernel;
pub mod machine;
pub mod outcome;
pub mod packages;
pub mod story;
pub mod telling;
pub mod warnings;

pub use disk::Disk;
pub use kernel::{Family, Kernel};
pub use machine::{Guest, Machine};
pub use outcome::{Ended, Outcome};
