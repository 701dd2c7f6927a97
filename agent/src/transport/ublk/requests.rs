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
        let len = u64::from(asked.nr_sectors) * SECTOR;
        let done = match self.role {
            Role::Live => self.serve(asked, len, pages).await,
            Role::View(id) => {
                let reading = asked.op_flags & 0xff == sys::UBLK_IO_OP_READ;
                match (reading, pages) {
                    (true, Pages::Copied(buffer)) => match part(buffer, len) {
                        Ok(into) => {
                            let offset = asked.start_sector * SECTOR;
                            self.backend.read_view(id, offset, into).await
                        }
                        Err(errno) => Err(errno),
                    },
                    _ if asked.op_flags & 0xff == sys::UBLK_IO_OP_FLUSH => Ok(()),
                    _ => Err(Errno(libc::EROFS)),
                }
            }
        };
        match done {
            Ok(()) => i32::try_from(len).unwrap_or(i32::MAX),
            Err(Errno(number)) => -number.max(1),
        }
    }

    async fn serve(
        &self,
        asked: sys::ublksrv_io_desc,
        len: u64,
        pages: Pages<'_>,
    ) -> Result<(), Errno> {
        let offset = asked.start_sector * SECTOR;
        let range = ByteRange::new(offset, len);
        let fua = asked.op_flags & sys::UBLK_IO_F_FUA != 0;
        let request = match (asked.op_flags & 0xff, pages) {
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
            (sys::UBLK_IO_OP_FLUSH, _) => Request::Flush,
            (sys::UBLK_IO_OP_DISCARD, _) => Request::Discard { range },
            (sys::UBLK_IO_OP_WRITE_ZEROES, _) => Request::WriteZeroes {
                range,
                fua,
                may_unmap: asked.op_flags & sys::UBLK_IO_F_NOUNMAP == 0,
            },
            // The driver sends none that its parameters do not offer.
            _ => return Err(Errno(libc::EOPNOTSUPP)),
        };
        self.backend.serve(request).await
    }
}

fn part(buffer: &mut [u8], len: u64) -> Result<&mut [u8], Errno> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    buffer.get_mut(..len).ok_or(Errno::EINVAL)
}

fn registered(index: u16, len: u64) -> Result<Registered, Errno> {
    let len = u32::try_from(len).map_err(|_| Errno::EINVAL)?;
    Ok(Registered { index, len })
}
