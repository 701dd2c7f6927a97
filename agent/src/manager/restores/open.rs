//! Opening a restore's target so that nobody else writes to it meanwhile.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::target::{Target, create};
use crate::{
    host::{
        claim::{ClaimError, Claimed, Purpose, claim},
        device::Anchor,
        openers::openers,
    },
    manager::{Error, ErrorReason, LiveVolume},
};

/// A volume as a target: written through its live file, so that the changes are tracked, while
/// its block device, which a mount would need, is held exclusively.
pub(super) fn volume(name: &str, live: &LiveVolume, capacity: u64) -> Result<Target, Error> {
    check_capacity(name, live.capacity_bytes, capacity)?;
    if let Some(mount_point) = live.mount_points.first() {
        return Err(busy(
            name,
            format!(
                "it is mounted at {}: unmount it first",
                mount_point.display()
            ),
        ));
    }
    let device = match live.device_path.as_os_str().is_empty() {
        true => None,
        false => Some(hold_device(name, &live.device_path, live.server_pid)?),
    };
    let file = open_for_writing(&live.live_path).map_err(|error| {
        let why = format!("its live file {}: {error}", live.live_path.display());
        Error::unavailable(name, why)
    })?;
    let target = Target::new(&live.live_path, file, false);
    Ok(match device {
        Some(device) => target.beside(device),
        None => target,
    })
}

/// Opens a volume's block device so that it cannot be mounted, and empties its cache: nothing
/// that was written before may reach the volume later.
fn hold_device(name: &str, path: &Path, server_pid: i32) -> Result<File, Error> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_EXCL)
        .open(path);
    let device = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => busy(
            name,
            format!(
                "its device {} is mounted or held by another: let go of it first",
                path.display()
            ),
        ),
        _ => Error::internal(format!("opening {}: {error}", path.display())).on_volume(name),
    })?;
    let failed = |error: io::Error| {
        Error::internal(format!("flushing {}: {error}", path.display())).on_volume(name)
    };
    let anchor = Anchor::of(&device.metadata().map_err(failed)?);
    let server = u32::try_from(server_pid).ok();
    let mut others = openers(path, anchor).into_iter();
    if let Some(other) = others.find(|other| other.writes && Some(other.pid) != server) {
        let why = format!(
            "its device {} is open in {other}: stop that first",
            path.display()
        );
        return Err(busy(name, why));
    }
    device.sync_all().map_err(failed)?;
    Ok(device)
}

/// A file or device of the host as a target; made when `make` is set and there is none.
pub(super) fn path(path: &Path, capacity: u64, make: bool) -> Result<Target, Error> {
    if make {
        let made = create(path, capacity).map_err(|error| cannot_make(path, &error))?;
        if let Some(file) = made {
            return Ok(Target::new(path, file, true));
        }
    }
    let claimed = claim(path, Purpose::Target).map_err(|error| refused(path, make, error))?;
    let empty_file = claimed.capacity == 0 && !claimed.is_block_device();
    if empty_file && make {
        let grown = claimed.file.set_len(capacity);
        grown.map_err(|error| cannot_make(path, &error))?;
    } else {
        check_capacity(&path.display().to_string(), claimed.capacity, capacity)?;
    }
    let Claimed { file, path, .. } = claimed;
    Ok(Target::new(path, file, false))
}

fn open_for_writing(path: &PathBuf) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

fn check_capacity(what: &str, has: u64, asked: u64) -> Result<(), Error> {
    if has == asked {
        return Ok(());
    }
    Err(Error::invalid(
        "capacity_bytes",
        format!("{what} has {has} bytes, not {asked}"),
    ))
}

fn busy(volume: &str, why: String) -> Error {
    let message = format!("volume \"{volume}\" cannot be restored to: {why}");
    Error::new(ErrorReason::VolumeBusy, message).on_volume(volume)
}

fn cannot_make(path: &Path, error: &io::Error) -> Error {
    Error::new(
        ErrorReason::OriginUnsuitable,
        format!("{} cannot be made: {error}", path.display()),
    )
    .with("path", path.display())
}

fn refused(path: &Path, make: bool, error: ClaimError) -> Error {
    let reason = match &error {
        ClaimError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound && !make => {
            let why = format!("{error}; set create to make the file");
            return Error::invalid("path", why);
        }
        ClaimError::Io { .. }
        | ClaimError::WrongType { .. }
        | ClaimError::Empty { .. }
        | ClaimError::ReadOnly { .. } => ErrorReason::OriginUnsuitable,
        ClaimError::Mounted { .. }
        | ClaimError::Swap { .. }
        | ClaimError::Held { .. }
        | ClaimError::LoopBacking { .. }
        | ClaimError::Open { .. }
        | ClaimError::Busy { .. } => ErrorReason::OriginInUse,
    };
    Error::new(reason, format!("cannot restore: {error}")).with("path", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const CAPACITY: u64 = 1 << 20;

    fn reason(result: Result<Target, Error>) -> ErrorReason {
        result.err().expect("refused").reason
    }

    #[test]
    fn a_file_is_made_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        assert_eq!(
            reason(path(&image, CAPACITY, false)),
            ErrorReason::InvalidField
        );
        drop(path(&image, CAPACITY, true).unwrap());
        let made = std::fs::metadata(&image).unwrap();
        assert_eq!((made.len(), made.mode() & 0o777), (CAPACITY, 0o600));
        // There now: taken as it is, its size must agree.
        drop(path(&image, CAPACITY, true).unwrap());
        assert_eq!(
            reason(path(&image, CAPACITY + 1, true)),
            ErrorReason::InvalidField
        );
        std::fs::write(&image, b"").unwrap();
        assert_eq!(
            reason(path(&image, CAPACITY, false)),
            ErrorReason::InvalidField
        );
        drop(path(&image, CAPACITY, true).unwrap());
        assert_eq!(std::fs::metadata(&image).unwrap().len(), CAPACITY);
    }

    #[test]
    fn a_target_is_exclusive() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let first = path(&image, CAPACITY, true).unwrap();
        assert_eq!(
            reason(path(&image, CAPACITY, true)),
            ErrorReason::OriginInUse
        );
        drop(first);
        let again = path(&image, CAPACITY, false).unwrap();
        assert_eq!(
            reason(path(&image, CAPACITY, false)),
            ErrorReason::OriginInUse
        );
        drop(again);
        assert_eq!(
            reason(path(dir.path(), CAPACITY, false)),
            ErrorReason::OriginUnsuitable
        );
    }
}
