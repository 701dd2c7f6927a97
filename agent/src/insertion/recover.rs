//! What a process finds that was left by one that died.
//!
//! The kernel's tables decide; the journal tells what was meant:
//!
//! | the volume | meant | then |
//! |---|---|---|
//! | lies over us | anything | it is inserted: serve the interposer again (and remove it, if that was meant) |
//! | has another table | inserted | it was bypassed: adopt, then insert |
//! | has another table | anything else | nothing was done, or all but the clean-up: clean up |
//! | is gone | inserted | wait until it returns |
//! | is gone | anything else | clean up |
//!
//! Without a journal, an interposer under the volume means inserted, and anything else is
//! cleaned up.

use super::{
    DmVolume, Insertion, InsertionError, JournalError, Site, Stage, journal::Record,
    stacked::interposer_under,
};
use crate::host::{
    device::DeviceNumber,
    dm::{Address, Info, Slot, Table},
};

/// What the caller knows, should the journal be lost.
#[derive(Clone, Default, Debug)]
pub struct Hint {
    /// The volume.
    pub volume: Option<DmVolume>,
    /// The interposer's device.
    pub over: Option<DeviceNumber>,
}

/// What was found, and made of it.
pub enum Recovered {
    /// No trace.
    Nothing,
    /// Something half-done was undone, or cleaned up: the volume has its own table.
    Undone,
    /// The volume lies over the interposer, whose requests wait for a server.
    Inserted {
        /// To go on with.
        insertion: Insertion,
        /// The interposer's device.
        over: DeviceNumber,
        /// It was being removed: call [`Insertion::remove`] once it is served again.
        removing: bool,
    },
    /// It was inserted, and has another table now: adopt, then insert.
    Bypassed(Insertion),
    /// It was inserted, and is gone: nothing can be written to it.
    Gone(Insertion),
}

impl Site {
    /// Looks for what an earlier process left, and finishes or undoes it. May be called at any
    /// time, also when there is nothing.
    ///
    /// # Errors
    ///
    /// [`InsertionError::Stacked`] when the private origin would go but carries another volume's
    /// interposer; [`InsertionError::Ambiguous`] when, without a journal, the hint is needed.
    pub fn recover(self, hint: &Hint) -> Result<Recovered, InsertionError> {
        let record = match self.journal.read(self.id) {
            // The tables tell enough.
            Err(JournalError::Damaged { .. }) => None,
            answer => answer?,
        };
        let origin = self.origin()?;
        if record.is_none() && origin.is_none() {
            self.journal.delete()?;
            return Ok(Recovered::Nothing);
        }
        let volume = match &record {
            Some(record) => Some(record.volume.clone()),
            None => match &hint.volume {
                Some(volume) => Some(volume.clone()),
                None => self.volume_over(origin.as_ref())?,
            },
        };
        let Some(volume) = volume else {
            return self.clean_up();
        };
        let _lock = self.lock(&volume)?;
        let (info, live) = match self.volume_now(&volume) {
            Err(InsertionError::Gone { .. }) => return self.without_volume(record),
            answer => answer?,
        };
        let expected = record.as_ref().and_then(|record| record.over).or(hint.over);
        if let Some(over) = self.lies_over_us(&live, expected)? {
            return self.inserted(record, &info, &live, over);
        }
        match record {
            Some(record) if record.stage == Stage::Inserted => {
                Ok(Recovered::Bypassed(Insertion { site: self, record }))
            }
            _ => {
                self.drop_pending(&info, expected)?;
                self.clean_up()
            }
        }
    }

    fn lies_over_us(
        &self,
        live: &Table,
        expected: Option<DeviceNumber>,
    ) -> Result<Option<DeviceNumber>, InsertionError> {
        match expected {
            Some(_) if live.lies_over() == expected => Ok(expected),
            Some(_) => Ok(None),
            None => Ok(interposer_under(&self.control, live)?),
        }
    }

    /// The volume lies over the interposer, whatever step we died at.
    fn inserted(
        self,
        record: Option<Record>,
        info: &Info,
        live: &Table,
        over: DeviceNumber,
    ) -> Result<Recovered, InsertionError> {
        let Some(origin) = self.origin()? else {
            return Err(InsertionError::OriginGone {
                name: self.origin_name(),
            });
        };
        let stage = record
            .as_ref()
            .map_or(Stage::Inserting, |record| record.stage);
        if stage != Stage::Inserted && (info.pending || info.suspended) {
            // Ours: we died between a load and its swap.
            self.control.release(Address::Number(info.number))?;
        }
        if origin.pending {
            self.control.clear(Address::Number(origin.number))?;
        }
        let removing = stage == Stage::Removing;
        let baseline = record.as_ref().and_then(|record| record.baseline);
        let mut volume = DmVolume::of(info);
        volume.sectors = live.sectors();
        let mut insertion = Insertion {
            record: Record {
                stage,
                id: self.id,
                volume,
                over: Some(over),
                baseline,
            },
            site: self,
        };
        insertion.record.stage = if removing {
            Stage::Removing
        } else {
            Stage::Inserted
        };
        if stage == Stage::Inserting {
            // Died before the counters were compared.
            insertion.rebase()?;
        } else {
            insertion.site.journal.write(&insertion.record)?;
        }
        Ok(Recovered::Inserted {
            insertion,
            over,
            removing,
        })
    }

    fn without_volume(self, record: Option<Record>) -> Result<Recovered, InsertionError> {
        match record {
            Some(record) if record.stage == Stage::Inserted && self.origin()?.is_some() => {
                Ok(Recovered::Gone(Insertion { site: self, record }))
            }
            _ => self.clean_up(),
        }
    }

    /// Drops a table of ours that was loaded and not put in use. Another's is left alone.
    fn drop_pending(
        &self,
        info: &Info,
        expected: Option<DeviceNumber>,
    ) -> Result<(), InsertionError> {
        let device = Address::Number(info.number);
        if !info.pending {
            return Ok(());
        }
        let (_, pending) = self.control.table(device, Slot::Pending)?;
        if self.lies_over_us(&pending, expected)?.is_some() {
            self.control.release(device)?;
        }
        Ok(())
    }

    fn clean_up(self) -> Result<Recovered, InsertionError> {
        self.remove_origin()?;
        self.journal.delete()?;
        Ok(Recovered::Undone)
    }

    /// Without a journal or a hint: the device that lies over an interposer of the origin's size,
    /// or is about to.
    fn volume_over(&self, origin: Option<&Info>) -> Result<Option<DmVolume>, InsertionError> {
        let Some(origin) = origin else {
            return Ok(None);
        };
        let mut found = Vec::new();
        for (number, _) in self.control.devices()? {
            let same_size = number.capacity() == origin.number.capacity();
            if number == origin.number || !same_size {
                continue;
            }
            match self.is_over_interposer(number) {
                Err(InsertionError::Dm(error)) if error.is_no_device() => (),
                Err(error) => return Err(error),
                Ok(None) => (),
                Ok(Some(info)) => found.push(DmVolume::of(&info)),
            }
        }
        if found.len() > 1 {
            let names: Vec<_> = found.iter().map(|volume| volume.name.as_str()).collect();
            return Err(InsertionError::Ambiguous {
                name: self.origin_name(),
                candidates: names.join(", "),
            });
        }
        Ok(found.pop())
    }

    fn is_over_interposer(&self, number: DeviceNumber) -> Result<Option<Info>, InsertionError> {
        let device = Address::Number(number);
        let (info, live) = self.control.table(device, Slot::Live)?;
        let mut over = interposer_under(&self.control, &live)?;
        if over.is_none() && info.pending {
            let (_, pending) = self.control.table(device, Slot::Pending)?;
            over = interposer_under(&self.control, &pending)?;
        }
        Ok(over.map(|_| info))
    }
}
