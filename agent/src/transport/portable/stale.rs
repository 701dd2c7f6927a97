//! What a killed server leaves behind: a FUSE mount that answers ENOTCONN, and a loop device over
//! a file that nobody serves any more. The next server of the same mount point clears both.

use std::{io, path::Path};

use nix::mount::{MntFlags, umount2};

use super::{FS_NAME, nodes::LIVE_NAME};
use crate::host::{
    device::block_devices,
    loopdev::{Backing, LoopDevice},
    mounts::{Mount, MountTable},
};

/// Takes dead mounts of ours away from `mount_point`, with the loop devices over them. A loop
/// device that is still mounted goes with its last user; until then it fails every request and
/// reaches no server.
pub(super) fn clear(mount_point: &Path) -> io::Result<()> {
    let mounts = MountTable::read()?;
    for _ in mounts.iter().filter(|mount| is_ours(mount, mount_point)) {
        // Before the unmount: after it the kernel no longer knows the file by this path.
        detach_devices(&mount_point.join(LIVE_NAME))?;
        umount2(mount_point, MntFlags::MNT_DETACH)?;
        tracing::warn!(mount_point = %mount_point.display(), "cleared the mount of a server that died");
    }
    Ok(())
}

/// Whether a mount is one of ours, and at `mount_point`.
fn is_ours(mount: &Mount, mount_point: &Path) -> bool {
    mount.mount_point == mount_point
        && mount.fs_type == "fuse"
        && mount.source == Path::new(FS_NAME)
}

/// By name, as the kernel tells it: asking about the dead file itself would fail.
fn detach_devices(live: &Path) -> io::Result<()> {
    let backings = block_devices()?.into_iter().filter_map(Backing::of);
    for dead in backings.filter(|backing| backing.path == live) {
        let device = dead.number.node();
        match LoopDevice::adopt(&device).and_then(LoopDevice::detach) {
            Ok(()) => {
                tracing::warn!(device = %device.display(), "detached the loop device of a server that died")
            }
            Err(error) => {
                tracing::warn!(%error, "the loop device of a server that died is left to its last user: unmount it")
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_mounts_at_the_mount_point_count() {
        let table = MountTable::parse(
            b"22 1 0:21 / /proc rw - proc proc rw\n\
            40 1 0:40 / /run/a\\040b/fs rw shared:7 - fuse tidemark rw,user_id=0\n\
            41 40 0:41 / /run/a\\040b/fs rw - fuse tidemark rw\n\
            42 1 0:42 / /run/other rw - fuse sshfs rw\n",
        );
        let count = |at: &str| {
            table
                .iter()
                .filter(|mount| is_ours(mount, Path::new(at)))
                .count()
        };
        assert_eq!(count("/run/a b/fs"), 2);
        assert_eq!(count("/run/other"), 0);
        assert_eq!(count("/proc"), 0);
    }
}
