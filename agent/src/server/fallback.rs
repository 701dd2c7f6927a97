//! The last resort when the servers of a volume die again and again: the host gets its volume back.
//!
//! ```text
//! tracking ends   what an earlier server left is removed first, and the area given up: a death from here on
//!                 cannot go unnoticed
//! serve           the device is taken up with nothing behind it but the origin, so that what waits can end
//! swap out        the volume gets its own table back
//! clean up        devices, views, the area's owner; a note says that the volume is not tracked, and why
//! ```
//!
//! Neither engine nor area nor state is needed: one of them may be what kills the servers.

use std::{fs, path::Path, sync::Arc};

use futures_lite::future::block_on;
use tidemark_store::units::Id;

use super::{
    VolumeArgs,
    area::AreaFile,
    origin::JOURNAL,
    start::{self, log_unless_gone},
    start_error::StartError,
};
use crate::{
    disk::{self, Disk, Run, file::FileDisk, ring::RingDisk},
    host::{
        claim::{Purpose, claim},
        memory_dir,
    },
    insertion::{DmVolume, Hint, Insertion, InsertionError, Recovered, Site},
    paths::VolumePaths,
    request::{Errno, Request},
    transport::{
        Backend, View,
        ublk::{self, Limits, Ublk},
    },
    volume,
};

/// Gives the volume its own table back. May be called again after it died at any point.
pub(super) fn fall_back(args: &VolumeArgs, cause: &str) -> Result<(), StartError> {
    let paths = start::volume_paths(args)?;
    let _lock = start::lock(args, &paths)?;
    let state_dir = memory_dir::create(&start::agent_paths(args), &args.name)?;
    ublk::probe().map_err(|why| StartError::NoUblk { why })?;
    let journal = state_dir.join(JOURNAL);
    let left = Ublk::left_behind(args.volume_id);
    let hint = Hint {
        volume: DmVolume::of_path(&args.origin).map_err(InsertionError::from)?,
        over: left,
    };
    match Site::new(args.volume_id, &journal)?.recover(&hint)? {
        Recovered::Inserted {
            insertion, over, ..
        } => {
            if left != Some(over) {
                return Err(StartError::ForeignInterposer { over: over.node() });
            }
            forget(&state_dir, &journal)?;
            // From here on the host writes untracked.
            if let Err(error) = free_area(args) {
                tracing::warn!(%error, "the area still tells of earlier tracking");
            }
            swap_out(args, insertion)?;
        }
        Recovered::Nothing if left.is_some() => {
            return Err(StartError::NothingToFallBackTo {
                path: args.origin.clone(),
            });
        }
        Recovered::Nothing | Recovered::Undone => {}
        Recovered::Bypassed(mut insertion) | Recovered::Gone(mut insertion) => {
            insertion.abandon()?
        }
    }
    clean_up(args, &paths, &state_dir)?;
    note(&paths, cause)
}

/// Removes what was tracked. The journal is needed until the volume has its table.
fn forget(state_dir: &Path, journal: &Path) -> Result<(), StartError> {
    let failed = || StartError::io("clearing", state_dir);
    for entry in fs::read_dir(state_dir).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path != journal {
            fs::remove_file(&path).map_err(StartError::io("removing", &path))?;
        }
    }
    Ok(())
}

fn swap_out(args: &VolumeArgs, mut insertion: Insertion) -> Result<(), StartError> {
    let origin = insertion.origin()?;
    let claimed = claim(&origin, Purpose::Origin)?;
    let limits = start::limits_of(&claimed).map_err(StartError::io("looking at", &origin))?;
    let opened = claimed.into_disk().and_then(RingDisk::direct);
    let disk = opened.map_err(StartError::io("opening", &origin))?;
    let device = Ublk::present(Arc::new(Through { disk }), &options(args, limits))?;
    match insertion.remove() {
        Ok(swap) => tracing::warn!(
            held_us = swap.held.as_micros(),
            "the volume has its own table again and is not tracked"
        ),
        // The volume has its own table, which is what was wanted.
        Err(InsertionError::Unfinished { source, .. }) => {
            tracing::warn!(error = %source, "the private origin is left over");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(device.delete()?)
}

fn options(args: &VolumeArgs, limits: Limits) -> ublk::Options {
    ublk::Options {
        volume: args.volume_id,
        queues: 1,
        limits,
        zero_copy: false,
    }
}

/// What cannot be removed is only left over: the host is served by its own device again.
fn clean_up(args: &VolumeArgs, paths: &VolumePaths, state_dir: &Path) -> Result<(), StartError> {
    Ublk::delete_left_behind(args.volume_id)?;
    ublk::abandon_views(args.volume_id, &paths.views());
    for link in [paths.live(), paths.device_link(), paths.control_socket()] {
        log_unless_gone(&link, fs::remove_file(&link));
    }
    log_unless_gone(state_dir, fs::remove_dir_all(state_dir));
    if let Err(error) = free_area(args) {
        tracing::warn!(%error, "the area still names this volume: remove its file before it is used for another");
    }
    Ok(())
}

fn free_area(args: &VolumeArgs) -> Result<(), StartError> {
    if !args.area.exists() {
        return Ok(());
    }
    let area = AreaFile::open(&args.area, args.area_size)?;
    let disk = area.file().and_then(FileDisk::from_file);
    let disk = disk.map_err(StartError::io("opening", &args.area))?;
    Ok(block_on(volume::free_area(&disk, args.volume_id))?)
}

/// Tells every later control plane of this boot.
fn note(paths: &VolumePaths, cause: &str) -> Result<(), StartError> {
    let path = paths.fallen_back();
    fs::write(&path, cause).map_err(StartError::io("writing", &path))
}

/// An origin and nothing else.
struct Through {
    disk: RingDisk,
}

impl Backend for Through {
    fn capacity(&self) -> u64 {
        self.disk.capacity()
    }

    fn discard_zeroes(&self) -> bool {
        self.disk.discard_zeroes()
    }

    async fn serve(&self, mut request: Request<'_>) -> Result<(), Errno> {
        disk::forward(&self.disk, &mut request).await
    }

    fn views(&self) -> Vec<View> {
        Vec::new()
    }

    async fn read_view(&self, _: Id, _: u64, _: &mut [u8]) -> Result<(), Errno> {
        Err(Errno(libc::ESTALE))
    }

    async fn view_run(&self, _: Id, _: u64) -> Result<Run, Errno> {
        Err(Errno(libc::ESTALE))
    }
}
