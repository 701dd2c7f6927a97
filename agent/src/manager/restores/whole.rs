//! A target for all of an image at once, without a session.

use std::{
    ffi::OsString,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{Destination, open, target::Target};
use crate::manager::{Error, Manager, validate};

/// Behind the name of a file that is not all there yet.
const PARTIAL: &str = ".partial";

/// An open target that nobody else writes to.
pub struct WholeTarget {
    target: Target,
    empty: bool,
    /// The name that a new file gets when all of it is there.
    becomes: Option<PathBuf>,
}

impl WholeTarget {
    /// Opens and claims a volume that is not mounted, or a file or device that nobody has. Its size must
    /// be `capacity`. A file that is not there is made when `create` is set; until [`Self::finish`] it has
    /// `.partial` behind its name, and one that an earlier attempt left there is gone on with.
    pub async fn open(
        manager: &Manager,
        destination: Destination,
        capacity: u64,
        create: bool,
    ) -> Result<Self, Error> {
        let opening: Box<dyn FnOnce() -> Result<Self, Error> + Send> = match destination {
            Destination::Volume(name) => {
                let live = manager.volume(&name).await?.live;
                let live = live.map_err(|not| Error::unavailable(&name, not.why))?;
                Box::new(move || {
                    let target = open::volume(&name, &live, capacity)?;
                    Ok(Self {
                        target,
                        empty: false,
                        becomes: None,
                    })
                })
            }
            Destination::Path(path) => {
                validate::path("path", &path)?;
                Box::new(move || {
                    let becomes = (create && is_free(&path)).then(|| path.clone());
                    let path = becomes.as_deref().map_or(path.clone(), partial);
                    let target = open::path(&path, capacity, create)?;
                    Ok(Self {
                        empty: target.is_created(),
                        target,
                        becomes,
                    })
                })
            }
        };
        super::blocking(opening).await?
    }

    /// Whether all of it reads as zeros.
    pub fn is_empty(&self) -> bool {
        self.empty
    }

    /// Puts `bytes` at `offset`.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.target.write(offset, bytes)
    }

    /// Fills `into` from `offset`.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        self.target.read(offset, into)
    }

    /// Makes all that was written durable, and gives a new file its name.
    pub fn finish(&self) -> Result<(), Error> {
        self.target.flush()?;
        match &self.becomes {
            Some(name) => self.target.rename(name),
            None => Ok(()),
        }
    }
}

fn is_free(path: &Path) -> bool {
    let there = path.symlink_metadata();
    there.is_err_and(|why| why.kind() == ErrorKind::NotFound)
}

fn partial(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(PARTIAL);
    name.into()
}
