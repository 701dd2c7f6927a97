//! Backups of images that no agent tracks: read whole, stored once.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek64},
};
use tidemark_proto::v1::RecoveryPoint;
use tidemark_store::{
    repository::{self, About, Backup, Change, Made, Source, Trust},
    units::{ByteRange, Epoch, Id},
};

use super::{
    Backups,
    job::{Job, blocking},
    volumes::{BackupArgs, finished, geometry, host},
};
use crate::{
    host::device::DeviceNumber,
    manager::{Error, ErrorReason},
};

/// Images have no unit of tracking of their own.
const BLOCK_BYTES: u32 = 4096;

impl Backups {
    /// Backs an image up.
    pub(super) async fn image(
        &self,
        job: &mut Job,
        args: &BackupArgs,
        path: &Path,
        name: &str,
    ) -> Result<RecoveryPoint, Error> {
        let path = path.to_owned();
        let image = blocking(move || Image::open(&path)).await?;
        let name = match name {
            "" => image.name(),
            given => given.to_owned(),
        };
        let repository = self.repository(&args.repository).await?;
        job.progress.set_total(image.capacity);
        let about = About {
            geometry: geometry(image.capacity, BLOCK_BYTES)?,
            created_us: self.manager.clock().now_us(),
            volume: Id::NIL,
            lineage: Id::NIL,
            epoch: Epoch(0),
            snapshot: Id::NIL,
            trust: Trust::Exact,
            host: host(),
            name,
            tags: args.tags.clone(),
        };
        let label = args.repository.clone();
        let work = move |progress: &repository::Progress| {
            let points = repository.points()?.points;
            let same = points.iter().rfind(|(_, point)| {
                let named = point.volume == Id::NIL && point.name == about.name;
                named && point.host == about.host && point.capacity <= image.capacity
            });
            let backup = Backup {
                repository: &repository,
                base: same.map(|(id, _)| *id),
                about,
                made: Made::Full("an image is read whole".to_owned()),
                progress,
            };
            Ok(backup.run(&image, &mut image.data()))
        };
        let made = job.run(&label, work).await?;
        finished(job, &label, made, None)
    }
}

struct Image {
    path: std::path::PathBuf,
    file: File,
    capacity: u64,
    /// When a file was changed last; a device is held against others instead.
    changed: Option<(i64, i64)>,
}

impl Image {
    fn open(path: &Path) -> Result<Self, Error> {
        let failed = |why: io::Error| unsuitable(path, &why);
        let file = OpenOptions::new()
            .read(true)
            // Without O_CREAT, O_EXCL concerns block devices only: not one that is mounted.
            .custom_flags(nix::libc::O_EXCL)
            .open(path)
            .map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let kind = metadata.file_type();
        let capacity = match (kind.is_file(), kind.is_block_device()) {
            (true, _) => metadata.len(),
            (_, true) => DeviceNumber::from_raw(metadata.rdev())
                .capacity()
                .unwrap_or(0),
            _ => {
                return Err(failed(io::Error::other(
                    "it is neither a file nor a block device",
                )));
            }
        };
        if capacity == 0 {
            return Err(failed(io::Error::other("it is empty")));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            capacity,
            changed: kind.is_file().then(|| changed_at(&metadata)),
        })
    }

    fn name(&self) -> String {
        let last = self.path.file_name().unwrap_or(self.path.as_os_str());
        last.to_string_lossy().into_owned()
    }

    /// What is no hole.
    fn data(&self) -> Data<'_> {
        Data { image: self, at: 0 }
    }

    /// What was read so far is of one moment only if nobody wrote meanwhile.
    fn refuse_changes(&self) -> io::Result<()> {
        let now = changed_at(&self.file.metadata()?);
        match self.changed {
            Some(before) if before != now => Err(io::Error::other(
                "it was written to meanwhile: back up what nobody writes to, or attach it as a volume",
            )),
            _ => Ok(()),
        }
    }
}

fn changed_at(metadata: &Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}

fn unsuitable(path: &Path, why: &io::Error) -> Error {
    let reason = match why.raw_os_error() {
        Some(nix::libc::EBUSY) => ErrorReason::OriginInUse,
        _ => ErrorReason::OriginUnsuitable,
    };
    Error::new(reason, format!("image {}: {why}", path.display())).with("path", path.display())
}

impl Source for Image {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)?;
        self.refuse_changes()
    }
}

struct Data<'a> {
    image: &'a Image,
    at: u64,
}

impl Data<'_> {
    /// The next extent, in whole blocks, but for the image's end.
    fn next_extent(&self) -> Option<ByteRange> {
        let end = self.image.capacity;
        let block = u64::from(BLOCK_BYTES);
        let seek = |from: u64, whence| {
            let offset = i64::try_from(from).ok()?;
            match lseek64(self.image.file.as_fd(), offset, whence) {
                Ok(found) => u64::try_from(found).ok(),
                Err(Errno::ENXIO) => Some(end),
                // What cannot tell is all data.
                Err(_) => None,
            }
        };
        let start = seek(self.at, Whence::SeekData).unwrap_or(self.at);
        let start = (start / block * block).max(self.at);
        if start >= end {
            return None;
        }
        let stop = seek(start.max(self.at) + 1, Whence::SeekHole).unwrap_or(end);
        let stop = stop.next_multiple_of(block).min(end);
        Some(ByteRange::new(start, stop - start))
    }
}

impl Iterator for Data<'_> {
    type Item = repository::Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.image.capacity {
            return None;
        }
        let range = self.next_extent()?;
        self.at = range.end();
        Some(Ok(Change {
            range,
            zeros: false,
        }))
    }
}
