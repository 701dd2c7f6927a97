//! Making the private origin.

use std::{thread::sleep, time::Duration};

use super::{
    DmVolume, Insertion, InsertionError, Refusal, Site, Stage, Step,
    check::{refuse_state, refuse_targets},
    journal::Record,
    stacked::{Mapped, interposer_under, origin_maps},
};
use crate::host::dm::{Address, DmError, Info, Removal, Slot, Table};

/// A private origin whose last user has closed it goes a moment later; for how long it is waited
/// for: 2 s.
const GOING_TRIES: u32 = 40;
const GOING_PAUSE: Duration = Duration::from_millis(50);

impl Site {
    /// Makes the private origin: a device with the table that `volume` has now. The volume
    /// itself is not touched.
    ///
    /// May be called again after a failure, and when the origin is there already.
    ///
    /// # Errors
    ///
    /// [`InsertionError::Refused`] as [`super::check`] would; [`InsertionError::OriginBusy`]
    /// when an earlier server still has the origin open.
    pub fn prepare(mut self, volume: &DmVolume) -> Result<Insertion, InsertionError> {
        let _lock = self.lock(volume)?;
        let (info, table) = self.volume_now(volume)?;
        self.refuse(&info, &table)?;
        let record = Record {
            stage: Stage::Preparing,
            id: self.id,
            volume: DmVolume::of(&info),
            over: None,
            baseline: None,
        };
        self.journal.write(&record)?;
        self.step(Step::Preparing);
        self.make_origin(&table)?;
        self.step(Step::OriginReady);
        let mut insertion = Insertion { site: self, record };
        insertion.note(Stage::Prepared, Step::Prepared)?;
        Ok(insertion)
    }

    /// Refuses a volume that cannot be interposed with the table that it has now.
    pub(super) fn refuse(&self, info: &Info, table: &Table) -> Result<(), InsertionError> {
        let path = info.number.node();
        refuse_state(&path, info)?;
        refuse_targets(&path, &info.name, table)?;
        match interposer_under(&self.control, table)? {
            None => Ok(()),
            Some(over) => Err(InsertionError::Refused(Refusal::AlreadyInterposed {
                path,
                over: over.node(),
            })),
        }
    }

    fn make_origin(&mut self, table: &Table) -> Result<(), InsertionError> {
        let (name, uuid) = (self.origin_name(), self.origin_uuid());
        let on_step = &mut self.on_step;
        let mut tell = |made| on_step(Step::from(made));
        let mut found = self.control.info(Address::Uuid(&uuid))?;
        for _ in 0..GOING_TRIES {
            if !found.as_ref().is_some_and(|info| info.going) {
                break;
            }
            sleep(GOING_PAUSE);
            found = self.control.info(Address::Uuid(&uuid))?;
        }
        match found {
            None => {
                let made = self.control.create_private(&name, &uuid, table, &mut tell);
                made?;
            }
            Some(info) if info.going => return Err(InsertionError::OriginBusy { name }),
            Some(info) if !info.active => {
                let made = self.control.finish_private(&uuid, table, &mut tell);
                made?;
            }
            Some(_) => self.fit_origin(table)?,
        }
        Ok(())
    }

    /// Gives the private origin, which has a table, another one where needed.
    pub(super) fn fit_origin(&self, table: &Table) -> Result<(), InsertionError> {
        match origin_maps(&self.control, self.id, table)? {
            Mapped::Yes => return Ok(()),
            Mapped::No => (),
            Mapped::NoAndStacked => {
                return Err(InsertionError::Stacked {
                    name: self.origin_name(),
                });
            }
        }
        let uuid = self.origin_uuid();
        let origin = Address::Uuid(&uuid);
        self.control.load(origin, table)?;
        match self.control.swap(origin) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.back_out(origin, &self.origin_name(), error)),
        }
    }

    /// After a swap that failed: drops the pending table and makes sure that the device is not
    /// held. Gives the error to answer with.
    pub(super) fn back_out(
        &self,
        device: Address<'_>,
        name: &str,
        swap: DmError,
    ) -> InsertionError {
        match self.control.release(device) {
            Ok(()) => InsertionError::Dm(swap),
            Err(release) => InsertionError::Held {
                name: name.to_owned(),
                swap: Box::new(swap),
                release: Box::new(release),
            },
        }
    }

    /// Removes the private origin, or has the kernel do so when its last user closes it. Refuses
    /// when another volume's interposer is on it.
    pub(super) fn remove_origin(&self) -> Result<(), InsertionError> {
        let uuid = self.origin_uuid();
        let name = self.origin_name();
        let Some(info) = self.origin()? else {
            return Ok(());
        };
        if info.active {
            let (_, table) = self.control.table(Address::Uuid(&uuid), Slot::Live)?;
            if interposer_under(&self.control, &table)?.is_some() {
                return Err(InsertionError::Stacked { name });
            }
        }
        self.control.remove(&uuid, Removal::WhenClosed)?;
        Ok(())
    }
}
