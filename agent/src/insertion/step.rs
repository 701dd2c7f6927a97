//! The points between which a process can die.

use crate::host::dm::Made;

/// What has just been done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// The journal has the intent to prepare.
    Preparing,
    /// The private origin is there, without a table.
    OriginCreated,
    /// Its table is loaded, but not in use.
    OriginLoaded,
    /// Its table is in use.
    OriginReady,
    /// The journal has that it is prepared.
    Prepared,
    /// The journal has the intent to insert.
    Inserting,
    /// The volume's table over the interposer is loaded, but not in use.
    InsertLoaded,
    /// The volume lies over the interposer.
    InsertSwapped,
    /// The journal has that it is inserted, and the counters' baseline.
    Inserted,
    /// The journal has the intent to remove.
    Removing,
    /// The volume's own table is loaded, but not in use.
    RemoveLoaded,
    /// The volume has its own table.
    RemoveSwapped,
    /// The private origin is gone, or goes when it is closed.
    OriginRemoved,
    /// The journal is gone.
    Removed,
    /// The private origin has the table that was found on the volume.
    Adopted,
}

impl Step {
    /// The steps from nothing to inserted and back, in order.
    pub const ALL: [Self; 14] = [
        Self::Preparing,
        Self::OriginCreated,
        Self::OriginLoaded,
        Self::OriginReady,
        Self::Prepared,
        Self::Inserting,
        Self::InsertLoaded,
        Self::InsertSwapped,
        Self::Inserted,
        Self::Removing,
        Self::RemoveLoaded,
        Self::RemoveSwapped,
        Self::OriginRemoved,
        Self::Removed,
    ];
}

impl From<Made> for Step {
    fn from(made: Made) -> Self {
        match made {
            Made::Created => Self::OriginCreated,
            Made::Loaded => Self::OriginLoaded,
        }
    }
}
