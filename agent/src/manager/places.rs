//! Where origins and areas really are, whatever they are called: no two volumes share one.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use tidemark_store::catalog::VolumeRecord;

use super::{Error, ErrorReason};

/// Where an origin and an area really are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) origin: Place,
    /// `None` for one that we make: LVM sees to it that it is another's neither.
    pub(super) area: Option<Place>,
}

/// What tells a file from every other, whatever it is called: a block device's number, or a
/// file's device and inode; a file that is to be made is its directory's and its name's digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Device(u64),
    File(u64, u64),
    New(u64, u64, [u8; 32]),
}

impl Place {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(found) if found.file_type().is_block_device() => Ok(Self::Device(found.rdev())),
            Ok(found) => Ok(Self::File(found.dev(), found.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = path.file_name().ok_or(error)?;
                let dir = fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
                let name = blake3::hash(name.as_encoded_bytes());
                Ok(Self::New(dir.dev(), dir.ino(), *name.as_bytes()))
            }
            Err(error) => Err(error),
        }
    }
}

impl Places {
    pub(super) fn check_against(self, other: &VolumeRecord) -> Result<(), Error> {
        for path in [&other.origin_path, &other.area_path] {
            // What is not there any more is not in use.
            let Ok(taken) = Place::of(path) else {
                continue;
            };
            let reason = match taken {
                _ if taken == self.origin => ErrorReason::OriginInUse,
                _ if Some(taken) == self.area => ErrorReason::AreaInUse,
                _ => continue,
            };
            let why = format!("{} is in use by volume \"{}\"", path.display(), other.name);
            return Err(Error::new(reason, why).with("path", path.display()));
        }
        Ok(())
    }
}

pub(super) fn origin_place(path: &Path) -> Result<Place, Error> {
    let unsuitable =
        |why: String| Error::new(ErrorReason::OriginUnsuitable, why).with("path", path.display());
    let found = fs::metadata(path)
        .map_err(|error| unsuitable(format!("origin {}: {error}", path.display())))?;
    let kind = found.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let why = format!(
            "{} is neither an image file nor a block device",
            path.display()
        );
        return Err(unsuitable(why));
    }
    Place::of(path).map_err(|error| unsuitable(format!("origin {}: {error}", path.display())))
}

pub(super) fn no_area(path: &Path, error: &io::Error) -> Error {
    let why = format!("{}: {error}; its directory must exist", path.display());
    Error::invalid("store.area_path", why)
}
