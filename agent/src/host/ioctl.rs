//! The kernel calls of `host` that no safe wrapper offers: the only `unsafe` of this folder.

use std::{fs::File, io, os::fd::AsRawFd};

use libc::c_int;

mod number {
    //! Request numbers of linux/fs.h and linux/loop.h.
    nix::ioctl_readwrite!(fifreeze, b'X', 119, libc::c_int);
    nix::ioctl_readwrite!(fithaw, b'X', 120, libc::c_int);
    nix::ioctl_none_bad!(loop_ctl_get_free, 0x4c82);
    nix::ioctl_none_bad!(loop_clr_fd, 0x4c01);
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4c0a, super::LoopConfig);
    nix::ioctl_write_ptr_bad!(loop_set_status64, 0x4c04, super::LoopInfo);
    nix::ioctl_read_bad!(loop_get_status64, 0x4c05, super::LoopInfo);
}

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct LoopInfo {
    /// Device number of the file system that the backing file is on.
    pub(super) device: u64,
    /// The backing file's inode number.
    pub(super) inode: u64,
    /// The backing device's own number when it is one.
    pub(super) rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    /// `LO_FLAGS_*`.
    pub(super) flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const _: () = assert!(size_of::<LoopInfo>() == 232);

impl LoopInfo {
    fn zeroed() -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
pub(super) struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopConfig>() == 304);

/// The device refuses writes.
pub(super) const LO_FLAGS_READ_ONLY: u32 = 1;
/// The device lets go of its file when it is closed for the last time.
pub(super) const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// The device reads and writes its file past the page cache.
pub(super) const LO_FLAGS_DIRECT_IO: u32 = 16;

/// Stops writes to the file system that `file` is on, once all that was written is on its
/// device. EBUSY when it is frozen already.
pub(super) fn freeze(file: &File) -> io::Result<()> {
    let mut unused: c_int = 0;
    // SAFETY: the kernel ignores the argument.
    unsafe { number::fifreeze(file.as_raw_fd(), &raw mut unused) }?;
    Ok(())
}

/// Lets writes to the file system that `file` is on go on. EINVAL when it is not frozen.
pub(super) fn thaw(file: &File) -> io::Result<()> {
    let mut unused: c_int = 0;
    // SAFETY: the kernel ignores the argument.
    unsafe { number::fithaw(file.as_raw_fd(), &raw mut unused) }?;
    Ok(())
}

/// The number of a loop device that has no file; another process may be faster to take it.
pub(super) fn loop_free_number(control: &File) -> io::Result<u32> {
    // SAFETY: the request takes no argument.
    let number = unsafe { number::loop_ctl_get_free(control.as_raw_fd()) }?;
    u32::try_from(number).map_err(io::Error::other)
}

/// Gives a loop device its file. EBUSY when it has one.
pub(super) fn loop_configure(
    device: &File,
    backing: &File,
    block_size: u32,
    flags: u32,
) -> io::Result<()> {
    let config = LoopConfig {
        fd: u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?,
        block_size,
        info: LoopInfo {
            flags,
            ..LoopInfo::zeroed()
        },
        reserved: [0; 8],
    };
    // SAFETY: the kernel reads one `loop_config`, whose layout is asserted above.
    unsafe { number::loop_configure(device.as_raw_fd(), &raw const config) }?;
    Ok(())
}

/// Takes a loop device's file away, now or when the device is closed for the last time.
pub(super) fn loop_clear(device: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    unsafe { number::loop_clr_fd(device.as_raw_fd()) }?;
    Ok(())
}

/// What a loop device tells of itself. ENXIO when it has no file.
pub(super) fn loop_status(device: &File) -> io::Result<LoopInfo> {
    let mut info = LoopInfo::zeroed();
    // SAFETY: the kernel stores one `loop_info64`, whose layout is asserted above.
    unsafe { number::loop_get_status64(device.as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

/// Changes a loop device's flags; `info` is what [`loop_status`] gave, changed.
pub(super) fn loop_set_status(device: &File, info: &LoopInfo) -> io::Result<()> {
    // SAFETY: the kernel reads one `loop_info64`, whose layout is asserted above.
    unsafe { number::loop_set_status64(device.as_raw_fd(), &raw const *info) }?;
    Ok(())
}

/// Takes a write lease and gives it back at once: EAGAIN when anyone else, the kernel's own
/// users included, has the file open.
pub(super) fn try_write_lease(file: &File) -> io::Result<()> {
    take_write_lease(file)?;
    set(file, libc::F_SETLEASE, libc::F_UNLCK)
}

fn take_write_lease(file: &File) -> io::Result<()> {
    // Whoever opens the file meanwhile waits for us and we get a signal. That is SIGIO unless
    // said otherwise, which ends a process; SIGURG does not.
    set(file, F_SETSIG, libc::SIGURG)?;
    set(file, libc::F_SETLEASE, libc::F_WRLCK)
}

/// linux/fcntl.h.
const F_SETSIG: c_int = 10;

fn set(file: &File, command: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: both commands in use here take an int.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, value) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn opening_a_leased_file_ends_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        take_write_lease(&file).unwrap();
        let mut reader = File::options();
        reader.read(true).custom_flags(libc::O_NONBLOCK);
        let answer = reader.open(&path).unwrap_err();
        assert_eq!(answer.raw_os_error(), Some(libc::EAGAIN));
        set(&file, libc::F_SETLEASE, libc::F_UNLCK).unwrap();
        reader.open(&path).unwrap();
    }
}
