//! Putting an interposer under a live device-mapper volume, and taking it away.
//!
//! ```text
//!   before            prepared                    inserted
//!   vol               vol     private origin      vol
//!    | table T         | T         | T             | linear
//!   disks             disks ------'               interposer (/dev/ublkbN)
//!                                                  | a server with the origin open
//!                                                 private origin
//!                                                  | T
//!                                                 disks
//! ```
//!
//! The volume keeps its name, number and identity, so whoever has it open or mounted notices
//! nothing but a short pause. [`Insertion`] goes through these states:
//!
//! ```text
//!   (nothing) --prepare--> Prepared --insert--> Inserted --remove--> (nothing)
//!                             ^                    |
//!                             '------ adopt -------'   after a bypass: another table was found
//! ```
//!
//! Rules:
//! - Before a step its intent is in the journal, after it its result. [`Site::recover`] compares
//!   both with the kernel's tables, which have the last word, and finishes or undoes.
//! - The volume is held only within one call of the kernel (`Control::swap`), so no death of ours
//!   leaves it held. What could allocate, log or wait is done before or after.
//! - The table T is nowhere but in the kernel, for it may have keys in it. Hence the private
//!   origin exists as long as the volume lies over us, and holds the disks open.
//! - LVM's lock of the volume group is held while we change a logical volume, and before each
//!   swap both of the volume's tables are compared with what we believe.
//!
//! [`Insertion::look`] is the guard: LVM and others put another table in the place of ours and
//! know nothing of us.

mod adopt;
mod check;
mod error;
mod journal;
mod ledger;
mod prepare;
mod recover;
mod refusal;
mod sight;
mod stacked;
mod step;
mod swap;
mod volume;

use std::path::{Path, PathBuf};

pub use adopt::Adopted;
pub use check::{Found, check};
pub use error::InsertionError;
#[doc(hidden)]
pub use journal::reread as reread_journal;
pub use journal::{JournalError, Stage};
pub use ledger::Ledger;
pub use recover::{Hint, Recovered};
pub use refusal::Refusal;
pub use sight::{Bypass, Sight};
pub use stacked::{origin_name, origin_uuid, volume_of_origin};
pub use step::Step;
pub use swap::Swap;
use tidemark_store::units::Id;
pub use volume::{DmVolume, SECTOR_BYTES};

use crate::host::{
    device::DeviceNumber,
    dm::{Address, Control, GroupLock, Info, Slot, Table},
};
use journal::{Journal, Record};

/// Where an insertion takes place: for which volume of ours, and with which journal.
pub struct Site {
    id: Id,
    journal: Journal,
    control: Control,
    on_step: Box<dyn FnMut(Step) + Send>,
}

impl Site {
    /// `journal` is a file in a directory in memory that is this volume's alone.
    pub fn new(id: Id, journal: &Path) -> Result<Self, InsertionError> {
        Ok(Self {
            id,
            journal: Journal::at(journal),
            control: Control::open()?,
            on_step: Box::new(|_| ()),
        })
    }

    /// Is called after each step; tests die in it.
    #[must_use]
    pub fn on_step(mut self, on_step: impl FnMut(Step) + Send + 'static) -> Self {
        self.on_step = Box::new(on_step);
        self
    }

    fn origin_uuid(&self) -> String {
        origin_uuid(self.id)
    }

    fn origin_name(&self) -> String {
        origin_name(self.id)
    }

    fn origin(&self) -> Result<Option<Info>, InsertionError> {
        let uuid = self.origin_uuid();
        Ok(self.control.info(Address::Uuid(&uuid))?)
    }

    /// LVM's lock of the volume's group, which may have another name than when we last looked.
    fn lock(&self, volume: &DmVolume) -> Result<Option<GroupLock>, InsertionError> {
        let now = volume.find(&self.control)?;
        let name = now.as_ref().map_or(&volume.name, |info| &info.name);
        Ok(GroupLock::of_device(name, &volume.uuid)?)
    }

    fn step(&mut self, step: Step) {
        (self.on_step)(step);
    }

    /// The volume as it is now, with its table.
    fn volume_now(&self, volume: &DmVolume) -> Result<(Info, Table), InsertionError> {
        let gone = || InsertionError::Gone {
            name: volume.name.clone(),
        };
        let info = volume.find(&self.control)?.ok_or_else(gone)?;
        match self.control.table(Address::Number(info.number), Slot::Live) {
            Err(error) if error.is_no_device() => Err(gone()),
            answer => Ok(answer?),
        }
    }
}

/// A volume with its private origin, and perhaps with the interposer under it.
///
/// Dropping it changes nothing.
pub struct Insertion {
    site: Site,
    record: Record,
}

impl Insertion {
    /// The node of the private origin, for the server to open with O_EXCL.
    ///
    /// It is the node by number: a link in /dev/mapper may be missing where udev does not run.
    pub fn origin(&self) -> Result<PathBuf, InsertionError> {
        let info = self.site.origin()?;
        let info = info.ok_or_else(|| InsertionError::OriginGone {
            name: self.site.origin_name(),
        })?;
        Ok(info.number.node())
    }

    /// The volume, as it was when it was last prepared, adopted or inserted.
    pub fn volume(&self) -> &DmVolume {
        &self.record.volume
    }

    /// The device that the volume lies over, or is to lie over.
    pub fn over(&self) -> Option<DeviceNumber> {
        self.record.over
    }

    /// How far we are, as the journal has it.
    pub fn stage(&self) -> Stage {
        self.record.stage
    }

    /// Notes how far we are, then tells so.
    fn note(&mut self, stage: Stage, step: Step) -> Result<(), InsertionError> {
        self.record.stage = stage;
        self.site.journal.write(&self.record)?;
        self.site.step(step);
        Ok(())
    }
}
