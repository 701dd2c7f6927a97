//! The system calls of a disk that no safe wrapper offers: the only `unsafe` of this folder.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use libc::{c_int, c_void};

mod number {
    //! Argument-carrying requests of the block layer (linux/fs.h); `size_t` in the first is the
    //! header's historic mistake and part of the number.
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_read_bad!(blksszget, 0x1268, libc::c_int);
    nix::ioctl_read_bad!(blkroget, 0x125e, libc::c_int);
    nix::ioctl_write_ptr_bad!(blkdiscard, 0x1277, [u64; 2]);
}

/// Size of a block device in bytes.
pub(crate) fn block_device_size(file: &File) -> io::Result<u64> {
    let mut size = 0;
    // SAFETY: the kernel stores one u64 where `size` is.
    unsafe { number::blkgetsize64(file.as_raw_fd(), &raw mut size) }?;
    Ok(size)
}

/// The smallest request that a block device takes, in bytes.
pub(crate) fn logical_block_size(file: &File) -> io::Result<u64> {
    let mut size: c_int = 0;
    // SAFETY: the kernel stores one int where `size` is.
    unsafe { number::blksszget(file.as_raw_fd(), &raw mut size) }?;
    u64::try_from(size).map_err(io::Error::other)
}

/// Whether a block device refuses writes.
pub(crate) fn block_device_is_read_only(file: &File) -> io::Result<bool> {
    let mut flag: c_int = 0;
    // SAFETY: the kernel stores one int where `flag` is.
    unsafe { number::blkroget(file.as_raw_fd(), &raw mut flag) }?;
    Ok(flag != 0)
}

/// Discards bytes of a block device.
pub(crate) fn block_device_discard(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: the kernel reads two u64 where `range` is.
    unsafe { number::blkdiscard(file.as_raw_fd(), &raw const range) }?;
    Ok(())
}

/// One positioned write that is on the medium when it returns; may be short.
pub(crate) fn pwrite_dsync(fd: BorrowedFd<'_>, from: &[u8], offset: i64) -> io::Result<usize> {
    let piece = libc::iovec {
        iov_base: from.as_ptr().cast_mut().cast::<c_void>(),
        iov_len: from.len(),
    };
    // SAFETY: one iovec that points at `from`, which the kernel only reads.
    let written =
        unsafe { libc::pwritev2(fd.as_raw_fd(), &raw const piece, 1, offset, libc::RWF_DSYNC) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}
