//! What happened, counted: a simulator that never did something has tested nothing of it.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Something that is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// Requests served, and everything else that somebody asks of the engine.
    Operations,
    /// Worlds lived through.
    Worlds,
    /// Polls.
    Steps,
    /// Requests of the host by kind.
    Reads,
    /// As above.
    Writes,
    /// As above.
    FuaWrites,
    /// As above.
    Flushes,
    /// As above.
    Discards,
    /// As above.
    Zeroes,
    /// Requests outside the volume.
    Refused,
    /// Requests that the origin failed.
    Failed,
    /// Requests that a driver issued again.
    Replays,
    /// Process deaths.
    Deaths,
    /// Deaths while a volume was being opened.
    DeathsInOpen,
    /// Power cuts.
    PowerCuts,
    /// Unflushed sectors that a power cut lost.
    SectorsLost,
    /// Unflushed sectors that it left.
    SectorsKept,
    /// Writes of which it left a part.
    Torn,
    /// Sectors that it damaged.
    Damaged,
    /// Errors of the origin.
    OriginErrors,
    /// Errors of the area.
    AreaErrors,
    /// Times for which the origin failed.
    OriginDown,
    /// Times for which the area failed.
    AreaDown,
    /// Times for which the area answered nothing.
    AreaStalls,
    /// Bytes of the area that rotted.
    Rotten,
    /// Jumps of the clock forward.
    ClockForward,
    /// Jumps of the clock back.
    ClockBack,
    /// Times that somebody else wrote to the origin.
    OtherHands,
    /// Holds whose owner died.
    LostHolds,
    /// Polls that nothing asked for.
    Spurious,
    /// Cuts.
    Cuts,
    /// Cuts of two volumes together.
    GroupCuts,
    /// Holds given back without a cut.
    Unheld,
    /// Cuts that were refused or came too late.
    CutsRefused,
    /// Snapshots released.
    Releases,
    /// Checkpoints forgotten.
    Forgets,
    /// New lineages on request.
    Resets,
    /// New lineages that an open began.
    NewLineages,
    /// Lineages that went on after a power cut.
    Recoveries,
    /// Snapshots that outlived a power cut.
    SnapshotsKept,
    /// Diffs that say how much they may tell too much.
    OverReports,
    /// Times that tracking was found not to outlive the host, though it should.
    Suspensions,
    /// Housekeeping.
    Housekeeps,
    /// Snapshots dropped by a full store.
    Overflowed,
    /// Snapshots lost.
    Lost,
    /// Reads of views compared.
    ViewsChecked,
    /// Typed errors of views.
    ViewsRefused,
    /// Listings compared.
    Listings,
    /// Diffs compared.
    DiffsChecked,
    /// Diffs refused.
    DiffsRefused,
    /// First overwrites whose old data was compared.
    Preserved,
    /// Blocks compared, by whatever checker.
    BlocksCompared,
}

/// All of them, and what a reader calls them.
const NAMES: [(Count, &str); 51] = [
    (Count::Operations, "operations"),
    (Count::Worlds, "worlds"),
    (Count::Steps, "steps"),
    (Count::Reads, "reads"),
    (Count::Writes, "writes"),
    (Count::FuaWrites, "FUA writes"),
    (Count::Flushes, "flushes"),
    (Count::Discards, "discards"),
    (Count::Zeroes, "write-zeroes"),
    (Count::Refused, "requests outside the volume"),
    (Count::Failed, "requests the origin failed"),
    (Count::Replays, "replayed requests"),
    (Count::Deaths, "process deaths"),
    (Count::DeathsInOpen, "of them in an open"),
    (Count::PowerCuts, "power cuts"),
    (Count::SectorsLost, "sectors lost"),
    (Count::SectorsKept, "sectors kept"),
    (Count::Torn, "writes torn"),
    (Count::Damaged, "sectors damaged"),
    (Count::OriginErrors, "origin errors"),
    (Count::AreaErrors, "area errors"),
    (Count::OriginDown, "origin down"),
    (Count::AreaDown, "area down"),
    (Count::AreaStalls, "area stalls"),
    (Count::Rotten, "rotten bytes"),
    (Count::ClockForward, "clock jumps forward"),
    (Count::ClockBack, "clock jumps back"),
    (Count::OtherHands, "writes of other hands"),
    (Count::LostHolds, "holds whose owner died"),
    (Count::Spurious, "spurious polls"),
    (Count::Cuts, "cuts"),
    (Count::GroupCuts, "cuts of a group"),
    (Count::Unheld, "holds given back"),
    (Count::CutsRefused, "cuts refused"),
    (Count::Releases, "releases"),
    (Count::Forgets, "checkpoints forgotten"),
    (Count::Resets, "resets of tracking"),
    (Count::NewLineages, "new lineages at an open"),
    (Count::Recoveries, "lineages kept over a power cut"),
    (Count::SnapshotsKept, "snapshots kept"),
    (Count::OverReports, "diffs with a bound"),
    (Count::Suspensions, "journals found suspended"),
    (Count::Housekeeps, "housekeeping"),
    (Count::Overflowed, "snapshots overflowed"),
    (Count::Lost, "snapshots lost"),
    (Count::ViewsChecked, "view reads checked"),
    (Count::ViewsRefused, "view reads refused"),
    (Count::Listings, "listings checked"),
    (Count::DiffsChecked, "diffs checked"),
    (Count::DiffsRefused, "diffs refused"),
    (Count::Preserved, "first overwrites checked"),
];

/// Sums over worlds.
#[derive(Debug)]
pub struct Tally([AtomicU64; Count::BlocksCompared as usize + 1]);

impl Default for Tally {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Tally {
    /// One more.
    pub fn add(&self, what: Count) {
        self.add_many(what, 1);
    }

    /// So many more.
    pub fn add_many(&self, what: Count, count: u64) {
        self.0[what as usize].fetch_add(count, Relaxed);
    }

    /// How many.
    pub fn of(&self, what: Count) -> u64 {
        self.0[what as usize].load(Relaxed)
    }

    /// Adds another world's.
    pub fn absorb(&self, other: &Self) {
        for (sum, more) in self.0.iter().zip(&other.0) {
            sum.fetch_add(more.load(Relaxed), Relaxed);
        }
    }

    /// Deaths and power cuts.
    pub fn crashes(&self) -> u64 {
        self.of(Count::Deaths) + self.of(Count::PowerCuts)
    }

    /// What never happened.
    pub fn missing(&self) -> Vec<&'static str> {
        let never = NAMES.iter().filter(|(what, _)| self.of(*what) == 0);
        never.map(|(_, name)| *name).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in NAMES.chunks(3) {
            let cells = line
                .iter()
                .map(|(what, name)| format!("{:>12} {name:<28}", self.of(*what)));
            writeln!(f, "{}", cells.collect::<String>().trim_end())?;
        }
        let compared = self.of(Count::BlocksCompared);
        write!(f, "{compared:>12} blocks compared")
    }
}
