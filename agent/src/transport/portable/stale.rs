//! What a killed server leaves behind: a FUSE mount that answers ENOTCONN, and a loop device over
//! a file that nobody serves any more. The next server of the same mount point clears both.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, umount2};

use super::{FS_NAME, nodes::LIVE_NAME};
use crate::host::loopdev;

/// Takes dead mounts of ours away from `mount_point`, with the loop devices over them. A loop
/// device that is still mounted goes with its last user; until then it fails every request and
/// reaches no server.
pub(super) fn clear(mount_point: &Path) -> io::Result<()> {
    let mountinfo = fs::read("/proc/self/mountinfo")?;
    for _ in 0..mounts_of_ours(&mountinfo, mount_point) {
        // Before the unmount: after it the kernel no longer knows the file by this path.
        for device in loopdev::attached_to(&mount_point.join(LIVE_NAME))? {
            match loopdev::detach(&device) {
                Ok(()) => tracing::warn!(device = %device.display(), "detached the loop device of a server that died"),
                Err(error) => tracing::warn!(device = %device.display(), %error, "the loop device of a server that died is still in use: unmount it"),
            }
        }
        umount2(mount_point, MntFlags::MNT_DETACH)?;
        tracing::warn!(mount_point = %mount_point.display(), "cleared the mount of a server that died");
    }
    Ok(())
}

/// How often a FUSE mount of ours is stacked on `mount_point`.
fn mounts_of_ours(mountinfo: &[u8], mount_point: &Path) -> usize {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter(|line| is_ours(line, mount_point).unwrap_or(false))
        .count()
}

/// One line: `id parent dev root MOUNT-POINT options [tag...] - TYPE SOURCE super-options`.
fn is_ours(line: &[u8], mount_point: &Path) -> Option<bool> {
    let mut fields = line.split(|byte| *byte == b' ');
    let at = unescape(fields.nth(4)?);
    let kind = fields.by_ref().skip_while(|field| *field != b"-").nth(1)?;
    let source = fields.next()?;
    Some(at == mount_point && kind == b"fuse" && source == FS_NAME.as_bytes())
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 0:21 / /proc rw - proc proc rw\n\
        40 1 0:40 / /run/a\\040b/fs rw,nosuid shared:7 master:3 - fuse tidemark rw,user_id=0\n\
        41 40 0:41 / /run/a\\040b/fs rw - fuse tidemark rw\n\
        42 1 0:42 / /run/other rw - fuse sshfs rw\n\
        garbage\n";

    #[test]
    fn only_our_mounts_at_the_mount_point_count() {
        assert_eq!(mounts_of_ours(TABLE, Path::new("/run/a b/fs")), 2);
        assert_eq!(mounts_of_ours(TABLE, Path::new("/run/other")), 0);
        assert_eq!(mounts_of_ours(TABLE, Path::new("/proc")), 0);
    }

    #[test]
    fn escapes_are_undone_and_nonsense_is_kept() {
        assert_eq!(unescape(b"/a\\134b"), Path::new("/a\\b"));
        assert_eq!(unescape(b"/a\\99"), Path::new("/a\\99"));
        assert_eq!(unescape(b"/a\\"), Path::new("/a\\"));
    }
}
