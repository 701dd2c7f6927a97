//! Putting the volume over the interposer, and giving it its own table back.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{
    DmVolume, Insertion, InsertionError, Refusal, Stage, Step,
    check::refuse_state,
    ledger::{Baseline, Kernel},
    stacked::{Mapped, interposer_under, origin_maps},
};
use crate::host::{
    device::DeviceNumber,
    dm::{Address, DmError, Info, Sectors, Slot, Table},
};

/// How often a swap that a signal interrupted is tried again.
const TRIES: u32 = 5;

/// A table was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Swap {
    /// For how long requests to the volume were held, at most.
    pub held: Duration,
}

impl Insertion {
    /// Puts the volume over `over`, a block device of the same size that serves the private
    /// origin and that nobody uses yet.
    ///
    /// # Errors
    ///
    /// Nothing is changed when the volume's table is not the one that the private origin has
    /// ([`InsertionError::TableMoved`]: [`Insertion::adopt`] it first), when an interposer is
    /// there already, when the sizes differ, or when another program is at work on the volume.
    pub fn insert(&mut self, over: DeviceNumber) -> Result<Swap, InsertionError> {
        let volume = &self.record.volume;
        let _lock = self.site.lock(volume)?;
        let (info, live) = self.site.volume_now(volume)?;
        self.assert_insertable(&info, &live, over)?;
        let served_before = Sectors::of(over);
        self.record.volume = DmVolume::of(&info);
        self.record.over = Some(over);
        self.record.baseline = None;
        self.note(Stage::Inserting, Step::Inserting)?;
        let table = Table::over(over, live.sectors());
        let swapped = self.change(&info, &live, &table, Step::InsertLoaded);
        let swap = match swapped {
            Ok(swap) => swap,
            Err(error) => {
                self.record.over = None;
                self.note(Stage::Prepared, Step::Prepared)?;
                return Err(error);
            }
        };
        self.site.step(Step::InsertSwapped);
        self.settle(served_before);
        // Recovery tells from the tables that the intent was carried out.
        if let Err(error) = self.note(Stage::Inserted, Step::Inserted) {
            warn!("inserted, but {error}");
        }
        Ok(swap)
    }

    /// Gives the volume the private origin's table, and lets the origin go when its server
    /// closes it. Only with a live server: requests in flight must end.
    ///
    /// # Errors
    ///
    /// [`InsertionError::Unfinished`] when the volume has its own table again, but the private
    /// origin could not go: [`Insertion::abandon`] finishes that.
    ///
    /// Nothing is changed when the volume does not lie over us ([`InsertionError::NotInserted`]),
    /// when another volume's interposer is on the private origin ([`InsertionError::Stacked`]), or
    /// when another program is at work on the volume.
    pub fn remove(&mut self) -> Result<Swap, InsertionError> {
        let volume = &self.record.volume;
        let _lock = self.site.lock(volume)?;
        let (info, live) = self.site.volume_now(volume)?;
        if self.record.over.is_none() || live.lies_over() != self.record.over {
            return Err(not_inserted(&info, &live));
        }
        refuse_state(&info.number.node(), &info)?;
        let own = self.own_table()?;
        if own.sectors() != live.sectors() {
            return Err(InsertionError::SizeDiffers {
                over: self.origin()?,
                has: own.sectors(),
                name: info.name,
                needs: live.sectors(),
            });
        }
        self.note(Stage::Removing, Step::Removing)?;
        let swapped = self.change(&info, &live, &own, Step::RemoveLoaded);
        let swap = match swapped {
            Ok(swap) => swap,
            Err(error) => {
                self.note(Stage::Inserted, Step::Inserted)?;
                return Err(error);
            }
        };
        drop(own);
        self.site.step(Step::RemoveSwapped);
        self.finish_removal()
            .map_err(|source| InsertionError::Unfinished {
                name: info.name,
                source: Box::new(source),
            })?;
        Ok(swap)
    }

    /// Lets the private origin go and forgets everything, where the volume does not lie over us:
    /// it was never inserted, another program took it away, or it is gone.
    pub fn abandon(&mut self) -> Result<(), InsertionError> {
        let volume = &self.record.volume;
        let _lock = self.site.lock(volume)?;
        match self.site.volume_now(volume) {
            Err(InsertionError::Gone { .. }) => (),
            Err(error) => return Err(error),
            Ok((info, live)) => {
                if let Some(over) = self.record.over
                    && live.lies_over() == Some(over)
                {
                    return Err(InsertionError::Refused(Refusal::AlreadyInterposed {
                        path: info.number.node(),
                        over: over.node(),
                    }));
                }
            }
        }
        self.finish_removal()
    }

    pub(super) fn finish_removal(&mut self) -> Result<(), InsertionError> {
        self.site.remove_origin()?;
        self.site.step(Step::OriginRemoved);
        self.site.journal.delete()?;
        self.site.step(Step::Removed);
        self.record.stage = Stage::Preparing;
        self.record.over = None;
        Ok(())
    }

    /// Finds the counters' baseline, which goes into the journal with the next note.
    pub(super) fn settle(&mut self, served_before: Option<Sectors>) {
        self.record.baseline = match (self.record.over, served_before) {
            (Some(over), Some(before)) => {
                let volume = self.record.volume.number;
                Baseline::settle(&mut Kernel { volume, over }, before)
            }
            _ => None,
        };
    }

    fn assert_insertable(
        &self,
        info: &Info,
        live: &Table,
        over: DeviceNumber,
    ) -> Result<(), InsertionError> {
        self.site.refuse(info, live)?;
        if self.site.origin()?.is_none() {
            return Err(InsertionError::OriginGone {
                name: self.site.origin_name(),
            });
        }
        if origin_maps(&self.site.control, self.site.id, live)? != Mapped::Yes {
            return Err(table_moved(info, live));
        }
        let has = over.capacity().unwrap_or(0) / super::SECTOR_BYTES;
        if has != live.sectors() {
            return Err(InsertionError::SizeDiffers {
                over: over.node(),
                has,
                name: info.name.clone(),
                needs: live.sectors(),
            });
        }
        Ok(())
    }

    /// The table that the volume is to get back.
    fn own_table(&self) -> Result<Table, InsertionError> {
        let name = self.site.origin_name();
        let uuid = self.site.origin_uuid();
        let control = &self.site.control;
        let table = match control.table(Address::Uuid(&uuid), Slot::Live) {
            Err(error) if error.is_no_device() => return Err(InsertionError::OriginGone { name }),
            answer => answer?.1,
        };
        match interposer_under(control, &table)? {
            None => Ok(table),
            Some(_) => Err(InsertionError::Stacked { name }),
        }
    }

    /// Changes the volume's table from `from`, which it had when we looked, to `to`.
    ///
    /// LVM is kept away by its lock. Against others, both tables are compared once more between
    /// the load and the swap, and the outcome after it: what wins is told.
    fn change(
        &mut self,
        info: &Info,
        from: &Table,
        to: &Table,
        loaded: Step,
    ) -> Result<Swap, InsertionError> {
        let device = Address::Number(info.number);
        self.site.control.load(device, to)?;
        self.site.step(loaded);
        let control = &self.site.control;
        let (now, live) = control.table(device, Slot::Live)?;
        let (_, pending) = control.table(device, Slot::Pending)?;
        let moved = now.event != info.event || now.uuid != info.uuid || live != *from;
        if moved || now.suspended || pending != *to {
            // What is pending may be another's; then it is left to him.
            if pending == *to {
                control.clear(device)?;
            }
            return Err(table_moved(&now, &live));
        }
        let begun = Instant::now();
        let held = match self.swap(device) {
            Ok(held) => held,
            // The tables may have changed places all the same: then going back would be wrong.
            Err(_) if matches!(control.table(device, Slot::Live), Ok((_, live)) if live == *to) => {
                control.release(device)?;
                begun.elapsed()
            }
            Err(error) => return Err(self.site.back_out(device, &info.name, error)),
        };
        let (now, live) = control.table(device, Slot::Live)?;
        match live == *to {
            true => Ok(Swap { held }),
            false => Err(table_moved(&now, &live)),
        }
    }

    /// A signal may end the wait for requests in flight; nothing has happened then.
    fn swap(&self, device: Address<'_>) -> Result<Duration, DmError> {
        let control = &self.site.control;
        let mut tries = 1;
        loop {
            match control.swap(device) {
                Err(error) if error.errno() == Some(libc::EINTR) && tries < TRIES => {
                    // Older kernels drop the pending table; then there is nothing to try.
                    if !control.info(device)?.is_some_and(|info| info.pending) {
                        return Err(error);
                    }
                    tries += 1;
                }
                answer => return answer,
            }
        }
    }
}

fn table_moved(info: &Info, table: &Table) -> InsertionError {
    InsertionError::TableMoved {
        name: info.name.clone(),
        table: table.to_string(),
    }
}

fn not_inserted(info: &Info, table: &Table) -> InsertionError {
    InsertionError::NotInserted {
        name: info.name.clone(),
        table: table.to_string(),
    }
}
