//! Snapshots as read-only block devices.
//!
//! Each live snapshot has a device of its own, found by a symbolic link that bears the snapshot's
//! name. A device that somebody still uses when its snapshot ends stays, and every read of it
//! fails; it goes when nobody uses it any more.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tidemark_store::units::Id;

use super::{
    Options, Role, UblkError,
    device::{self, Served},
    identity,
};
use crate::{
    host::{device::DeviceNumber, loopdev},
    transport::Backend,
};

/// The views of one volume.
#[derive(Debug)]
pub struct Views<B> {
    backend: Arc<B>,
    options: Options,
    /// Where the links are.
    folder: PathBuf,
    served: Mutex<BTreeMap<Id, Served>>,
}

impl<B: Backend> Views<B> {
    /// No views yet; `options` are the live device's.
    pub fn new(backend: Arc<B>, options: &Options, folder: &Path) -> Self {
        let options = Options {
            limits: options.limits.for_reading(),
            ..options.clone()
        };
        Self {
            backend,
            options,
            folder: folder.to_owned(),
            served: Mutex::default(),
        }
    }

    /// Makes a device for every snapshot that has none, and deletes those of snapshots that have
    /// ended. Called after every cut and release, and now and then.
    pub fn settle(&self) -> Result<(), UblkError> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let live: Vec<Id> = self.backend.views().iter().map(|view| view.id).collect();
        let ended: Vec<Id> = served
            .keys()
            .filter(|id| !live.contains(id))
            .copied()
            .collect();
        for id in ended {
            if served.get(&id).is_some_and(|view| is_used(view.path())) {
                continue;
            }
            self.unlink(id);
            if let Some(view) = served.remove(&id) {
                view.delete()?;
            }
        }
        for id in live {
            if served.contains_key(&id) {
                continue;
            }
            let view = Served::start(Arc::clone(&self.backend), Role::View(id), &self.options)?;
            self.link(id, view.path());
            served.insert(id, view);
        }
        Ok(())
    }

    /// Deletes the devices that a dead server left of snapshots that have ended since.
    pub fn sweep(&self, ended: impl IntoIterator<Item = Id>) {
        for id in ended {
            let Some(device) = device::find(identity::of(self.options.volume, Role::View(id)))
            else {
                continue;
            };
            if is_used(&device::block_path(device)) {
                continue;
            }
            self.unlink(id);
            if let Err(error) = device::delete(device) {
                tracing::warn!(%error, snapshot = %id, "a view's device is left over");
            }
        }
    }

    /// What uses a view, if anything does.
    pub fn used(&self) -> Option<PathBuf> {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let mut paths = served.values().map(Served::path);
        paths.find(|path| is_used(path)).map(Path::to_owned)
    }

    /// Deletes all.
    pub fn delete(&self) -> Result<(), UblkError> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((id, view)) = served.pop_first() {
            self.unlink(id);
            view.delete()?;
        }
        Ok(())
    }

    fn link_of(&self, id: Id) -> PathBuf {
        self.folder.join(id.to_string())
    }

    fn link(&self, id: Id, to: &Path) {
        let link = self.link_of(id);
        self.unlink(id);
        if let Err(error) = symlink(to, &link) {
            tracing::error!(link = %link.display(), %error, "a view has no name");
        }
    }

    fn unlink(&self, id: Id) {
        let link = self.link_of(id);
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(link = %link.display(), %error, "a view's name is left over");
            }
            _ => {}
        }
    }
}

/// Ends the views that the servers of a volume left, and takes their names away.
pub fn abandon_views(volume: Id, folder: &Path) {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    for link in names {
        let id = link.file_name().to_str().and_then(Id::parse);
        let device = id.and_then(|id| device::find(identity::of(volume, Role::View(id))));
        if let Some(Err(error)) = device.map(device::abandon) {
            tracing::warn!(%error, "a view's device is left over");
        }
        if let Err(error) = fs::remove_file(link.path()) {
            tracing::warn!(link = %link.path().display(), %error, "a view's name is left over");
        }
    }
}

fn is_used(path: &Path) -> bool {
    let number = DeviceNumber::of_block_device(path).ok().flatten();
    number.is_some_and(|number| loopdev::user_of(number).is_some())
}
