//! The guard: whether the volume still lies over us, and whether anything went around us.

use super::{
    DmVolume, Insertion, InsertionError, Stage, Step,
    ledger::{Kernel, Ledger},
};
use crate::host::dm::{Sectors, Table};

/// What the volume is found to be.
#[derive(Debug)]
pub enum Sight {
    /// Over us, and all that was written passed us. `None`: the kernel does not count
    /// (queue/iostats is off), so only the tables say so.
    Interposed(Option<Ledger>),
    /// Requests go, or went, around us: tracking is broken.
    Bypassed(Bypass),
    /// Around us, and with another size.
    Resized {
        /// The new size in sectors of 512 bytes.
        sectors: u64,
        /// What the volume has now.
        table: Table,
    },
    /// Over us, but another program holds its requests; look again when it has ended.
    Suspended,
    /// It is not there (`lvchange -an`): nothing can be written to it.
    Gone,
    /// It was gone and is there again, without us.
    Returned(DmVolume),
}

/// How requests went around us.
#[derive(Debug)]
pub enum Bypass {
    /// The volume has this table: [`Insertion::adopt`] it, then insert again.
    Table(Table),
    /// The table is ours, but was not all the time: so much was written to the volume and not to
    /// us. [`Insertion::rebase`] once that is dealt with.
    Around(Sectors),
}

impl Insertion {
    /// Looks once. To be called before a diff is answered, when [`crate::host::dm::Watch`]
    /// wakes, and from time to time.
    ///
    /// # Errors
    ///
    /// [`InsertionError::NotInserted`] when it was never inserted.
    pub fn look(&self) -> Result<Sight, InsertionError> {
        let record = &self.record;
        let (Stage::Inserted | Stage::Removing, Some(over)) = (record.stage, record.over) else {
            return Err(InsertionError::NotInserted {
                name: record.volume.name.clone(),
                table: "its own table".to_owned(),
            });
        };
        let (info, live) = match self.site.volume_now(&record.volume) {
            Err(InsertionError::Gone { .. }) => return Ok(Sight::Gone),
            answer => answer?,
        };
        if live.lies_over() != Some(over) {
            if !record.volume.is_same_device(&info) {
                return Ok(Sight::Returned(DmVolume::of(&info)));
            }
            if info.active && live.sectors() != record.volume.sectors {
                let sectors = live.sectors();
                return Ok(Sight::Resized {
                    sectors,
                    table: live,
                });
            }
            return Ok(Sight::Bypassed(Bypass::Table(live)));
        }
        let volume = info.number;
        let ledger = record
            .baseline
            .and_then(|baseline| baseline.ledger(&mut Kernel { volume, over }));
        match ledger.map(Ledger::around) {
            Some(around) if around.total() > 0 => Ok(Sight::Bypassed(Bypass::Around(around))),
            _ if info.suspended => Ok(Sight::Suspended),
            _ => Ok(Sight::Interposed(ledger)),
        }
    }

    /// Starts counting anew, after writes that went around us were dealt with.
    pub fn rebase(&mut self) -> Result<(), InsertionError> {
        // What is in flight now counts as served on both sides.
        let served = self.record.over.and_then(Sectors::of);
        self.settle(served);
        self.note(self.record.stage, Step::Inserted)
    }
}
