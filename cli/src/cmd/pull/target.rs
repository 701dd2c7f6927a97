//! Where a pull goes to: the image, its state file, and whether it may be overwritten.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tidemark_proto::v1::Volume;

use super::state::{Loaded, State, StateFile};
use crate::{
    exit::{Exit, Fault},
    image::{Identity, Image},
};

/// An image that is ours to write to.
#[derive(Debug)]
pub(crate) struct Target {
    /// The image.
    pub(crate) image: Image,
    /// The image as it was found; none when it was made just now.
    pub(crate) found: Option<Identity>,
    /// Where its state is kept.
    pub(crate) file: StateFile,
    /// The state.
    pub(crate) state: Loaded,
}

impl Target {
    /// Opens and locks the image, reads its state. Makes an empty file when there is none.
    pub(crate) fn open(path: &Path, state: Option<&Path>) -> anyhow::Result<Self> {
        let path = resolve(path)?;
        let (image, made) = Image::open_target(&path)?;
        let file = match state {
            Some(state) => StateFile::at(state),
            None if image.is_device() => {
                return Err(Fault::new(
                    Exit::Usage,
                    format!(
                        "{} is a device: there is no place beside it for a state file",
                        path.display()
                    ),
                )
                .advise("name one with --state FILE, and use the same one each time")
                .into());
            }
            None => StateFile::beside(&path),
        };
        let found = (!made).then(|| image.identity()).transpose()?;
        let state = file.load()?;
        Ok(Self {
            image,
            found,
            file,
            state,
        })
    }

    /// The state, when there is one that can be read.
    pub(crate) fn known(&self) -> Option<&State> {
        match &self.state {
            Loaded::Found(state) => Some(state),
            Loaded::Missing | Loaded::Unreadable(_) => None,
        }
    }

    /// Refuses to overwrite what no earlier pull of this volume made.
    pub(crate) fn check_overwrite(&self, volume: &Volume, overwrite: bool) -> anyhow::Result<()> {
        let name = self.image.path().display();
        let foreign = match (&self.found, &self.state) {
            _ if overwrite => return Ok(()),
            (None, _) => return Ok(()),
            (Some(found), Loaded::Missing)
                if !self.image.is_device() && found.size_bytes() == 0 =>
            {
                return Ok(());
            }
            (Some(_), Loaded::Found(state)) if state.volume == volume.name => return Ok(()),
            (Some(_), Loaded::Found(state)) => {
                format!("{name} is an image of volume {}", state.volume)
            }
            (Some(_), Loaded::Missing) => format!("{name} was not made by `tidemark pull`"),
            (Some(_), Loaded::Unreadable(error)) => {
                format!("{} cannot be read: {error}", self.file.path().display())
            }
        };
        Err(Fault::new(Exit::Failed, foreign)
            .advise("choose another target, or give --overwrite to lose what it holds")
            .into())
    }

    /// Refuses an image that some volume is made of.
    pub(crate) fn check_origins(&self, volumes: &[Volume]) -> anyhow::Result<()> {
        let own = self.image.path();
        let taken = volumes.iter().find(|volume| {
            let areas = volume.store.as_ref().map(|store| store.area_path.as_str());
            [
                Some(volume.origin_path.as_str()),
                Some(volume.device_path.as_str()),
                areas,
            ]
            .into_iter()
            .flatten()
            .filter(|path| !path.is_empty())
            .any(|path| std::fs::canonicalize(path).is_ok_and(|path| path == own))
        });
        match taken {
            None => Ok(()),
            Some(volume) => Err(Fault::new(
                Exit::Busy,
                format!("{} belongs to volume {}", own.display(), volume.name),
            )
            .advise("choose another target")
            .into()),
        }
    }

    /// Takes away a file that was made just now and holds nothing.
    pub(crate) fn undo_making(&self) {
        if self.found.is_none() && matches!(self.image.size(), Ok(0)) {
            // It is empty and ours; when it stays, the next pull accepts it.
            let _ = std::fs::remove_file(self.image.path());
        }
    }
}

/// The target without symbolic links, so that it has one state file whatever it is called.
fn resolve(path: &Path) -> anyhow::Result<PathBuf> {
    if let Ok(whole) = std::fs::canonicalize(path) {
        return Ok(whole);
    }
    let whole = std::path::absolute(path)?;
    let (Some(dir), Some(name)) = (whole.parent(), whole.file_name()) else {
        return Err(Fault::new(Exit::Usage, format!("{} names no file", path.display())).into());
    };
    let dir = std::fs::canonicalize(dir).with_context(|| dir.display().to_string())?;
    Ok(dir.join(name))
}
