//! Areas on logical volumes that attach makes, and detach removes.
//!
//! ```text
//! attach   choose a name and a size -> record the volume -> make its area -> start its server
//! start    an area that is not active is activated; one that was recorded and never made is made
//! detach   stop the server -> forget the volume, and note its area in the same transaction ->
//!          remove the area -> forget the note
//! ```
//!
//! The catalog comes first in both directions, so that nothing that was made is ever forgotten: the
//! agent takes up the notes when it starts and before each attach. A tag with the volume's identity
//! tells an area from everything else; one without it is never removed.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidemark_proto::private::Description;
use tidemark_store::{
    area::Layout,
    catalog::UnwantedArea,
    units::{Geometry, Id},
};
use tokio::task::spawn_blocking;

use super::{
    AreaChoice, AttachArgs, Error, ErrorReason, LogicalVolumes, Manager, registry::Entry, validate,
    volumes::runs_already,
};
use crate::host::{
    device::DeviceNumber,
    lvm::{Group, LvmError, Name, Wanted},
};

/// On every area that we made, for people and their scripts.
const TAG: &str = "tidemark.area";
/// The default size of an area: this part of its volume, and no less than that.
const PART: u64 = 10;
const LEAST_BYTES: u64 = 256 << 20;
/// After the name of the origin.
const SUFFIX: &str = "-tidemark";

/// Where a new volume's area is, or will be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Site {
    pub(super) path: PathBuf,
    /// Size to make it with; 0 keeps the size it has.
    pub(super) size_bytes: u64,
    /// It is a logical volume of ours.
    pub(super) made: bool,
}

impl Manager {
    /// Where the area of a new volume will be; changes nothing. `running`: a server that is taken
    /// over has one already.
    pub(super) async fn area_site(
        &self,
        args: &AttachArgs,
        running: Option<&Description>,
    ) -> Result<Site, Error> {
        let wish = match &args.area {
            AreaChoice::At(path) => {
                return Ok(Site {
                    path: path.clone(),
                    size_bytes: args.area_size_bytes,
                    made: false,
                });
            }
            AreaChoice::LogicalVolume(name) => name.clone(),
        };
        if let Some(told) = running {
            return self.site_of(&args.name, told).await;
        }
        let origin = args.origin_path.clone();
        let group = self.ask_lvm(move |lvm| lvm.group_of(&origin)).await?;
        let others = self.registry.all();
        let areas = others.iter().map(|other| other.record.area_path.as_path());
        let name = name_for(&wish, &group, areas.collect())?;
        let size = size_for(args, &group)?;
        let extents = group.extents_for(size).map_err(told)?;
        Ok(Site {
            path: name.path(),
            size_bytes: extents.saturating_mul(group.extent_bytes),
            made: true,
        })
    }

    /// The area of a server that runs, if it is a logical volume that was made for it.
    async fn site_of(&self, volume: &str, told: &Description) -> Result<Site, Error> {
        let path = PathBuf::from(&told.area_path);
        let name = Name::of_path(&path);
        let (Some(name), Some(id)) = (name, Id::from_slice(&told.volume_id)) else {
            return Err(runs_already(volume, told));
        };
        let wanted = name.clone();
        let found = self
            .ask_lvm(move |lvm| lvm.find(wanted.group(), &tag_of(id)))
            .await?;
        match found {
            Some(found) if found.name == name => Ok(Site {
                path,
                size_bytes: found.bytes,
                made: true,
            }),
            _ => Err(runs_already(volume, told)),
        }
    }

    /// Sees to it that an area of ours is there before its volume's server looks for it.
    pub(super) async fn ready_area(&self, entry: &Entry) -> Result<(), Error> {
        let record = &entry.record;
        // The host may be waiting for this server: LVM is asked only when it must be.
        if !record.area_made || is_block_device(&record.area_path) {
            return Ok(());
        }
        let name = name_at(&record.area_path)?;
        let own_tag = tag_of(record.id);
        let wanted = Wanted {
            name: name.clone(),
            bytes: record.area_size_bytes,
            tags: vec![TAG.to_owned(), own_tag.clone()],
        };
        let volume = entry.name().to_owned();
        let ready = self
            .ask_lvm(move |lvm| ready(lvm, &volume, &wanted, &own_tag))
            .await;
        let found = ready.map_err(|error| error.on_volume(entry.name()))?;
        if found == name {
            return Ok(());
        }
        let (now, was) = (found.path(), name.path());
        let why = format!(
            "the area of volume \"{}\" was {} and is called {} now: give it its name back \
             (lvrename), or detach the volume",
            entry.name(),
            was.display(),
            now.display()
        );
        Err(Error::internal(why).on_volume(entry.name()))
    }

    /// Removes the areas of volumes that are no more. What cannot be removed is noted still, and
    /// tried again with the next attach, detach or start of the agent.
    pub(super) async fn remove_unwanted_areas(&self) {
        let unwanted = match self.ledger.run(|catalog| catalog.unwanted_areas()).await {
            Ok(unwanted) => unwanted,
            Err(error) => return tracing::warn!(%error, "areas to be removed are not known"),
        };
        for area in unwanted {
            let path = area.path.clone();
            if let Err(error) = self.remove_area(area).await {
                tracing::warn!(area = %path.display(), %error, "an area is left over for now");
            }
        }
    }

    async fn remove_area(&self, area: UnwantedArea) -> Result<(), Error> {
        let name = name_at(&area.path)?;
        let tag = tag_of(area.volume);
        self.ask_lvm(move |lvm| lvm.remove(name.group(), &tag))
            .await?;
        self.ledger
            .run(move |catalog| catalog.forget_unwanted_area(area.volume))
            .await
    }

    /// Whether an area that is to be removed is there still.
    pub(super) async fn is_unwanted(&self, volume: Id) -> bool {
        let unwanted = self.ledger.run(|catalog| catalog.unwanted_areas()).await;
        unwanted.is_ok_and(|unwanted| unwanted.iter().any(|area| area.volume == volume))
    }

    /// Has LVM do something, off the runtime and while nothing is held. Runs to its end.
    async fn ask_lvm<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn LogicalVolumes) -> Result<T, LvmError> + Send + 'static,
    ) -> Result<T, Error> {
        let calm = Arc::clone(&self.calm).lock_owned().await;
        let lvm = self.config.host.logical_volumes();
        let done = spawn_blocking(move || {
            let _calm = calm;
            work(&*lvm)
        });
        done.await.map_err(super::ended)?.map_err(told)
    }
}

/// Activates the area, which is the volume with this tag, or makes it; gives its name.
fn ready(
    lvm: &dyn LogicalVolumes,
    volume: &str,
    wanted: &Wanted,
    tag: &str,
) -> Result<Name, LvmError> {
    if let Some(found) = lvm.find(wanted.name.group(), tag)? {
        lvm.activate(&found.name)?;
        return Ok(found.name);
    }
    let area = wanted.name.path();
    tracing::info!(volume, area = %area.display(), bytes = wanted.bytes, "making the area");
    lvm.create(wanted)?;
    Ok(wanted.name.clone())
}

/// What tells the area of this volume from any other logical volume.
fn tag_of(volume: Id) -> String {
    format!("tidemark.volume.{volume}")
}

fn name_at(path: &Path) -> Result<Name, Error> {
    Name::of_path(path).ok_or_else(|| {
        let path = path.display();
        Error::internal(format!("{path} is no name of a logical volume"))
    })
}

fn is_block_device(path: &Path) -> bool {
    matches!(DeviceNumber::of_block_device(path), Ok(Some(_)))
}

/// The name that was asked for, or the first that is free.
fn name_for(wish: &str, group: &Group, areas: Vec<&Path>) -> Result<Name, Error> {
    let named = |volume: &str| {
        Name::new(&group.name, volume).ok_or_else(|| {
            let why = format!("\"{volume}\" is no name of a logical volume: choose another");
            Error::invalid("store.logical_volume.name", why)
        })
    };
    // An area that is recorded and inactive, or lost, has its name still.
    let is_taken = |name: &Name| {
        group.taken.iter().any(|taken| taken == name.volume())
            || areas.contains(&name.path().as_path())
    };
    if !wish.is_empty() {
        let name = named(wish)?;
        if is_taken(&name) {
            let why = format!(
                "{} exists already: choose another name, or name its path as the area if it is \
                 meant",
                name.path().display()
            );
            let error = Error::new(ErrorReason::AreaInUse, why);
            return Err(error.with("path", name.path().display()));
        }
        return Ok(name);
    }
    let base = format!("{}{SUFFIX}", group.volume);
    let mut name = named(&base)?;
    let mut number = 2_u64;
    while is_taken(&name) {
        name = named(&format!("{base}-{number}"))?;
        number += 1;
    }
    Ok(name)
}

/// The size that was asked for, or the default.
fn size_for(args: &AttachArgs, group: &Group) -> Result<u64, Error> {
    let default = (group.volume_bytes / PART).clamp(LEAST_BYTES, validate::MAX_AREA_BYTES);
    let size = match args.area_size_bytes {
        0 => default,
        asked => asked,
    };
    let block_bytes = validate::block_bytes(args.block_bytes)?;
    let least = Geometry::new(group.volume_bytes, block_bytes).map_or(0, |geometry| {
        Layout::of(geometry).min_capacity(args.durable_snapshots)
    });
    if size < least {
        let why = format!(
            "an area of {size} bytes is too small for a volume of {}: at least {least} are needed",
            group.volume_bytes
        );
        let error = Error::new(ErrorReason::AreaNoSpace, why);
        return Err(error.with("needed_bytes", least));
    }
    Ok(size)
}

fn told(error: LvmError) -> Error {
    let message = error.to_string();
    let reason = match &error {
        LvmError::NoProgram => ErrorReason::Unsupported,
        LvmError::NotLogical { .. } => ErrorReason::OriginUnsuitable,
        LvmError::NoSpace { .. } => ErrorReason::AreaNoSpace,
        LvmError::Late { .. } => ErrorReason::VolumeBusy,
        LvmError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            ErrorReason::OriginUnsuitable
        }
        LvmError::Io { .. }
        | LvmError::NoNode { .. }
        | LvmError::Failed { .. }
        | LvmError::Start { .. }
        | LvmError::Answer { .. }
        | LvmError::Dm(_) => ErrorReason::Internal,
    };
    let told = Error::new(reason, message);
    match error {
        LvmError::NoSpace {
            group,
            free_bytes,
            needed_bytes,
        } => told
            .with("volume_group", group)
            .with("free_bytes", free_bytes)
            .with("needed_bytes", needed_bytes),
        _ => told,
    }
}
