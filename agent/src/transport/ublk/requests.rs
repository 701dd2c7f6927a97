//! From the driver's description of a request to the backend's answer to it.

use std::sync::Arc;

use libublk::sys;
use tidemark_store::units::ByteRange;

use super::Role;
use crate::{
    request::{Errno, Registered, Request},
    transport::Backend,
};

/// Bytes of a sector, the driver's unit.
const SECTOR: u64 = 512;

/// Where a request's bytes are.
pub(super) enum Pages<'a> {
    /// In a buffer of ours, as large as the largest request.
    Copied(&'a mut [u8]),
    /// In the host's own pages, registered with the ring at this place.
    Registered(u16),
}

/// What stands behind a device.
pub(super) struct Answerer<B> {
    backend: Arc<B>,
    role: Role,
}

impl<B: Backend> Answerer<B> {
    pub(super) fn new(backend: Arc<B>, role: Role) -> Self {
        Self { backend, role }
    }

    /// Serves one request and gives what the driver is told: the bytes done, or minus the errno.
    pub(super) async fn answer(&self, asked: sys::ublksrv_io_desc, pages: Pages<'_>) -> i32 {
        let operation = asked.op_flags & 0xff;
        let done = match operation {
            // It has no range: what the description holds there means nothing.
            sys::UBLK_IO_OP_FLUSH => self.flush().await.map(|()| 0),
            _ => match range_of(asked) {
                Ok(range) => self.serve(operation, asked.op_flags, range, pages).await,
                Err(errno) => Err(errno),
            },
        };
        match done {
            Ok(bytes) => i32::try_from(bytes).unwrap_or(i32::MAX),
            Err(Errno(number)) => -number.max(1),
        }
    }

    async fn flush(&self) -> Result<(), Errno> {
        match self.role {
            Role::Live => self.backend.serve(Request::Flush).await,
            Role::View(_) => Ok(()),
        }
    }

    /// Gives the bytes done.
    async fn serve(
        &self,
        operation: u32,
        flags: u32,
        range: ByteRange,
        pages: Pages<'_>,
    ) -> Result<u64, Errno> {
        match (self.role, operation, pages) {
            (Role::Live, _, pages) => {
                let request = request(operation, flags, range, pages)?;
                self.backend.serve(request).await?;
            }
            (Role::View(id), sys::UBLK_IO_OP_READ, Pages::Copied(buffer)) => {
                let into = part(buffer, range.len)?;
                self.backend.read_view(id, range.offset, into).await?;
            }
            (Role::View(_), _, _) => return Err(Errno(libc::EROFS)),
        }
        Ok(range.len)
    }
}

fn range_of(asked: sys::ublksrv_io_desc) -> Result<ByteRange, Errno> {
    let offset = asked.start_sector.checked_mul(SECTOR);
    let range = offset.map(|offset| ByteRange::new(offset, u64::from(asked.nr_sectors) * SECTOR));
    range.ok_or(Errno::EINVAL)
}

fn request(
    operation: u32,
    flags: u32,
    range: ByteRange,
    pages: Pages<'_>,
) -> Result<Request<'_>, Errno> {
    let ByteRange { offset, len } = range;
    let fua = flags & sys::UBLK_IO_F_FUA != 0;
    Ok(match (operation, pages) {
        (sys::UBLK_IO_OP_READ, Pages::Copied(buffer)) => Request::Read {
            offset,
            into: part(buffer, len)?,
        },
        (sys::UBLK_IO_OP_WRITE, Pages::Copied(buffer)) => Request::Write {
            offset,
            from: part(buffer, len)?,
            fua,
        },
        (sys::UBLK_IO_OP_READ, Pages::Registered(index)) => Request::ReadRegistered {
            offset,
            into: registered(index, len)?,
        },
        (sys::UBLK_IO_OP_WRITE, Pages::Registered(index)) => Request::WriteRegistered {
            offset,
            from: registered(index, len)?,
            fua,
        },
        (sys::UBLK_IO_OP_DISCARD, _) => Request::Discard { range },
        (sys::UBLK_IO_OP_WRITE_ZEROES, _) => Request::WriteZeroes {
            range,
            fua,
            may_unmap: flags & sys::UBLK_IO_F_NOUNMAP == 0,
        },
        // The driver sends none that its parameters do not offer.
        _ => return Err(Errno(libc::EOPNOTSUPP)),
    })
}

fn part(buffer: &mut [u8], len: u64) -> Result<&mut [u8], Errno> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    buffer.get_mut(..len).ok_or(Errno::EINVAL)
}

fn registered(index: u16, len: u64) -> Result<Registered, Errno> {
    let len = u32::try_from(len).map_err(|_| Errno::EINVAL)?;
    Ok(Registered { index, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_arrive_with_their_requests() {
        let mut buffer = vec![0; 8192];
        let range = ByteRange::new(4096, 8192);
        let write = request(
            sys::UBLK_IO_OP_WRITE,
            sys::UBLK_IO_F_FUA,
            range,
            Pages::Copied(&mut buffer),
        );
        assert!(matches!(
            write,
            Ok(Request::Write { offset: 4096, from, fua: true }) if from.len() == 8192
        ));
        let zeroes = |flags| {
            let made = request(
                sys::UBLK_IO_OP_WRITE_ZEROES,
                flags,
                range,
                Pages::Registered(3),
            );
            matches!(
                made,
                Ok(Request::WriteZeroes {
                    may_unmap: true,
                    fua: false,
                    ..
                })
            )
        };
        assert!(zeroes(0) && !zeroes(sys::UBLK_IO_F_NOUNMAP));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut small = [0; 512];
        let range = ByteRange::new(0, 4096);
        let made = request(sys::UBLK_IO_OP_READ, 0, range, Pages::Copied(&mut small));
        assert_eq!(made.err(), Some(Errno::EINVAL));
        let made = request(sys::UBLK_IO_OP_ZONE_OPEN, 0, range, Pages::Registered(0));
        assert_eq!(made.err(), Some(Errno(libc::EOPNOTSUPP)));
        let wild = sys::ublksrv_io_desc {
            start_sector: u64::MAX,
            ..Default::default()
        };
        assert_eq!(range_of(wild), Err(Errno::EINVAL));
    }
}
