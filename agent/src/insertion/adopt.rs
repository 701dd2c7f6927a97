//! Following a volume that was given another table.

use super::{DmVolume, Insertion, InsertionError, Stage, Step};

/// The private origin has the volume's table now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Adopted {
    /// The volume's size in sectors of 512 bytes.
    pub sectors: u64,
    /// Whether that is another than before: the interposer's device must be made anew.
    pub resized: bool,
}

impl Insertion {
    /// After a bypass: gives the private origin a copy of the table that the volume has now,
    /// which may have other extents, another size or a snapshot below it. Then
    /// [`Insertion::insert`] can follow, over a device of the size that is told.
    ///
    /// The server must not have requests in flight, nor keep anything that it read: what the
    /// origin maps may be elsewhere now.
    ///
    /// # Errors
    ///
    /// As for [`super::Site::prepare`]; also [`InsertionError::Stacked`] when another volume's
    /// interposer is on the private origin, which would go on serving the old table.
    pub fn adopt(&mut self) -> Result<Adopted, InsertionError> {
        let volume = &self.record.volume;
        let _lock = self.site.lock(volume)?;
        let (info, table) = self.site.volume_now(volume)?;
        self.site.refuse(&info, &table)?;
        if self.site.origin()?.is_none() {
            return Err(InsertionError::OriginGone {
                name: self.site.origin_name(),
            });
        }
        self.site.fit_origin(&table)?;
        self.site.step(Step::Adopted);
        let sectors = table.sectors();
        let resized = sectors != self.record.volume.sectors;
        self.record.volume = DmVolume::of(&info);
        self.record.over = None;
        self.record.baseline = None;
        self.note(Stage::Prepared, Step::Prepared)?;
        Ok(Adopted { sectors, resized })
    }
}
