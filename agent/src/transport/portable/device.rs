//! From file operations to requests: what a read, a write, a hole or a seek asks of the backend.

use std::cell::RefCell;

use futures_lite::future::block_on;
use tidemark_store::units::{ByteRange, Id};

use crate::{
    request::{Errno, Request},
    transport::Backend,
};

/// Largest read or write that the kernel sends, in bytes: 256 pages of 4 KiB, the most that
/// `fs.fuse.max_pages_limit` allows by default.
pub(super) const MAX_REQUEST_BYTES: u32 = 1 << 20;

const SYNC_FLAGS: i32 = libc::O_SYNC | libc::O_DSYNC;

thread_local! {
    // One for each serving thread, grown once and kept: reads allocate nothing.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A file whose bytes are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Live,
    View(Id),
}

/// Reads at most `size` bytes from `offset` and hands them to `then`. Short at the end, empty
/// after it.
pub(super) fn read<B: Backend, T>(
    backend: &B,
    source: Source,
    offset: u64,
    size: u32,
    then: impl FnOnce(Result<&[u8], Errno>) -> T,
) -> T {
    let left = backend.capacity().saturating_sub(offset);
    let size = u64::from(size.min(MAX_REQUEST_BYTES)).min(left);
    let Ok(size) = usize::try_from(size) else {
        return then(Err(Errno::EINVAL));
    };
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        let Some(into) = buffer.get_mut(..size) else {
            return then(Err(Errno::EIO));
        };
        if into.is_empty() {
            return then(Ok(into));
        }
        let done = match source {
            Source::Live => block_on(backend.serve(Request::Read {
                offset,
                into: &mut *into,
            })),
            Source::View(id) => block_on(backend.read_view(id, offset, into)),
        };
        then(done.map(|()| &*into))
    })
}

/// Writes `from` at `offset`, as much as fits; `ENOSPC` when nothing does, as a block device
/// answers.
pub(super) fn write<B: Backend>(
    backend: &B,
    offset: u64,
    from: &[u8],
    open_flags: i32,
) -> Result<usize, Errno> {
    if from.is_empty() {
        return Ok(0);
    }
    let left = backend.capacity().saturating_sub(offset);
    let fits = usize::try_from(left).unwrap_or(usize::MAX).min(from.len());
    let from = from.get(..fits).unwrap_or_default();
    if from.is_empty() {
        return Err(Errno::ENOSPC);
    }
    // The kernel passes RWF_DSYNC and IOCB_SYNC of a single write in the same bits.
    let fua = open_flags & SYNC_FLAGS != 0;
    block_on(backend.serve(Request::Write { offset, from, fua }))?;
    Ok(from.len())
}

/// Makes everything written so far durable.
pub(super) fn flush<B: Backend>(backend: &B) -> Result<(), Errno> {
    block_on(backend.serve(Request::Flush))
}

/// Punches a hole or zeroes a range; every other mode of fallocate is `EOPNOTSUPP`.
pub(super) fn allocate<B: Backend>(
    backend: &B,
    mode: i32,
    offset: u64,
    length: u64,
) -> Result<(), Errno> {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_WITHIN: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    let may_unmap = match mode {
        PUNCH => true,
        ZERO | ZERO_WITHIN => false,
        _ => return Err(Errno(libc::EOPNOTSUPP)),
    };
    if length == 0 {
        return Err(Errno::EINVAL);
    }
    let left = backend.capacity().saturating_sub(offset);
    if mode == ZERO && length > left {
        return Err(Errno::ENOSPC);
    }
    let range = ByteRange::new(offset, length.min(left));
    if range.is_empty() {
        return Ok(());
    }
    // A punched hole reads as zeros: the loop driver turns its own write-zeroes into one.
    let request = if may_unmap && backend.discard_zeroes() {
        Request::Discard { range }
    } else {
        Request::WriteZeroes {
            range,
            fua: false,
            may_unmap,
        }
    };
    block_on(backend.serve(request))
}

/// Where the next data or hole begins. The live volume counts as data throughout: whatever its
/// origin said would be old by the time the caller reads.
pub(super) fn seek<B: Backend>(
    backend: &B,
    source: Source,
    offset: i64,
    whence: i32,
) -> Result<i64, Errno> {
    const NO_MORE: Errno = Errno(libc::ENXIO);
    let wants_hole = match whence {
        libc::SEEK_DATA => false,
        libc::SEEK_HOLE => true,
        _ => return Err(Errno::EINVAL),
    };
    let capacity = backend.capacity();
    let mut at = u64::try_from(offset).map_err(|_| NO_MORE)?;
    if at >= capacity {
        return Err(NO_MORE);
    }
    while at < capacity {
        let (end, hole) = match source {
            Source::Live => (capacity, false),
            Source::View(id) => {
                let run = block_on(backend.view_run(id, at))?;
                (run.end, run.hole)
            }
        };
        if hole == wants_hole {
            break;
        }
        if end <= at {
            return Err(Errno::EIO);
        }
        at = end.min(capacity);
    }
    if at >= capacity && !wants_hole {
        return Err(NO_MORE);
    }
    i64::try_from(at).map_err(|_| Errno(libc::EOVERFLOW))
}
