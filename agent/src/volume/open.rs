//! Opening a volume: the area's superblock, then the state that a predecessor may have left.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use event_listener::Event;
use tidemark_store::{
    area::{Layout, Superblock},
    cow::{Index, Layers},
    journal::{Placed, Recovered},
    state::{Fate, Identity, Lineage, State},
    units::{Epoch, Geometry, Id},
};

use super::{
    Clock, EventKind, FullPolicy, OpenError, Volume,
    claim::{claim_area, free},
    counters::LiveCounters,
    events::EventLog,
    gate::Gate,
    journal::{self, Journal},
    preserve::Buffers,
    random_id, random_u64,
    tracker::MapTracker,
};
use crate::disk::Disk;

/// How much later than a dead process's last sign of life its own writes may be dated.
const ALIVE_SLACK_US: u64 = 1_000_000;

/// How to open a volume.
pub struct Options<O, A, C> {
    /// The device or file under the volume.
    pub origin: O,
    /// The file or device that holds the snapshot store.
    pub area: A,
    /// Size and block size of the volume.
    pub geometry: Geometry,
    /// A directory on a memory file system: tracking state that outlives this process.
    pub state_dir: PathBuf,
    /// The volume's identity.
    pub volume_id: Id,
    /// What to do when the store fills.
    pub policy: FullPolicy,
    /// Where time comes from.
    pub clock: C,
    /// Whether what a dead process left can be gone on with.
    pub continuity: Continuity,
    /// Tracking is to outlive the host: the area is on a medium that does, and
    /// [`Volume::keep_journal`] runs.
    pub durable: bool,
    /// Snapshots are to outlive it too; without effect where tracking does not.
    pub durable_snapshots: bool,
    /// Why what the area's journal tells must not be believed.
    pub distrust: Option<String>,
    /// Most regions that count as changed whole if the host stops; `None` chooses 4,096, or a 16th
    /// of the volume where that is more.
    pub max_active_regions: Option<u64>,
}

/// Whether somebody else may have written to the origin since the last process died.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Continuity {
    /// When the origin was last modified, in microseconds since the UNIX epoch: trusted if that
    /// is not after the death.
    ModifiedAt(u64),
    /// Nobody did: the host's requests waited for this process.
    Unbroken,
    /// Somebody may have, for this reason. It is also why a volume without state has none.
    Broken(String),
}

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// Opens a volume; goes on where a dead process stopped when `state_dir` holds its state.
    pub async fn open(options: Options<O, A, C>) -> Result<Self, OpenError> {
        let superblock = claim_area(&options).await?;
        let identity = Identity {
            volume: options.volume_id,
            area: superblock.area,
            geometry: options.geometry,
            slots: superblock.slots,
        };
        let buffers = Buffers::default();
        let recovery = recover(&options, &superblock, identity, &buffers).await?;
        let found = find_state(&options, &superblock, identity).await?;
        let (state, past) = open_state(&options, found, identity, recovery.failure)?;
        let state = Arc::new(state);
        let layers = Layers::open(Arc::clone(&state));
        let index = Index::open(Arc::clone(&state), superblock.slots)
            .map_err(|source| state_error(&options.state_dir, source))?;
        let (tracker, reset) = open_tracker(&options, &state, &past)?;
        let stale = reset.is_some() || matches!(past, Past::None) || !options.durable;
        if stale && recovery.found.0 > 0 {
            // What it tells is of a lineage that ended, also if the host stops right now.
            let wiped = journal::wipe(&options.area, Layout::of(options.geometry)).await;
            wiped.map_err(OpenError::Stale)?;
        }
        let began = state.epoch();
        let volume = Self {
            geometry: options.geometry,
            discard_zeroes: options.origin.discard_zeroes(),
            origin: options.origin,
            area: options.area,
            clock: options.clock,
            policy: options.policy,
            superblock,
            journal: Journal::new(
                options.geometry,
                options.durable,
                superblock.table,
                options.max_active_regions,
                recovery.found,
                Arc::clone(&state),
            ),
            state,
            layers,
            index,
            tracker,
            gate: Gate::new(),
            recovered: recovery.epoch,
            began,
            hold: Mutex::default(),
            tokens: Mutex::default(),
            counters: LiveCounters::default(),
            events: EventLog::default(),
            buffers,
            diff_cache: Mutex::default(),
            space_freed: Event::new(),
            filling: AtomicBool::new(false),
            wants_sweep: AtomicBool::new(true),
        };
        volume.tell_of(&past, reset, recovery.message);
        if recovery.table_is_damaged {
            volume.journal.mend_table();
        }
        volume.housekeep();
        Ok(volume)
    }

    /// What an open found, for whoever reads the events; ends what did not outlive it.
    fn tell_of(&self, past: &Past, reset: Option<String>, recovered: Option<String>) {
        if let Past::Broken(cause) = past {
            // The journal tells of none of them any more: it was wiped.
            for (_, entry) in self.layers.all() {
                self.lose_untold(entry.id, cause);
            }
        }
        if let Some(cause) = reset {
            let message = format!("tracking started anew: {cause}");
            self.event(EventKind::TrackingReset, Id::NIL, message);
        }
        if let Some(message) = recovered {
            self.event(EventKind::TrackingRecovered, Id::NIL, message);
        }
    }

    /// Ends every live snapshot: other hands were on the origin, and views would show what they
    /// changed. When it returns neither a death nor a power cut brings one back.
    pub async fn lose_snapshots(&self, cause: &str) {
        for (_, entry) in self.layers.all() {
            self.end_snapshot(entry.id, Fate::Lost, cause);
        }
        self.ends_told().await;
    }

    /// Gives the area up, so that another volume may use it; the state is removed. The volume
    /// must no longer be served.
    pub async fn retire(&self, state_dir: &Path) -> Result<(), OpenError> {
        free(&self.area, self.superblock).await?;
        std::fs::remove_dir_all(state_dir).map_err(|source| state_error(state_dir, source))
    }
}

/// What became of looking into the area's journal.
#[derive(Default)]
struct Recovery {
    /// The highest generation of an image, and the half of the one to be left alone.
    found: (u64, u64),
    /// Why nothing could be taken up from it, when it was looked at.
    failure: Option<String>,
    /// What to tell when something was.
    message: Option<String>,
    /// The epoch that was running then.
    epoch: Option<Epoch>,
    /// The slot table is to be written anew.
    table_is_damaged: bool,
}

/// Where the state is gone and the journal tells what it was: writes it anew.
async fn recover<O: Disk, A: Disk, C: Clock>(
    options: &Options<O, A, C>,
    superblock: &Superblock,
    identity: Identity,
    buffers: &Buffers,
) -> Result<Recovery, OpenError> {
    let images = journal::images(&options.area, superblock).await;
    let found = match &images {
        Ok(images) => {
            let kept = journal::half_to_keep(&options.area, superblock, images).await;
            let newest = images.first().map_or(0, |(header, _)| header.generation);
            (newest, kept)
        }
        // It may be readable again later, and must then be wiped by now.
        Err(_) => (1, 0),
    };
    let mut recovery = Recovery {
        found,
        ..Recovery::default()
    };
    if options.state_dir.join("state").exists() || !options.durable {
        return Ok(recovery);
    }
    // An image that is attached for the first time has none.
    let known = match images {
        Ok(images)
            if images.is_empty() && matches!(options.continuity, Continuity::ModifiedAt(_)) =>
        {
            return Ok(recovery);
        }
        Ok(images) => known(options, superblock, &images, buffers).await,
        Err(why) => Err(why),
    };
    match known {
        Ok((known, half)) => {
            recovery.found.1 = half;
            let dir = &options.state_dir;
            let table = journal::Table::new(&options.area, superblock);
            let table = superblock
                .table
                .then_some((table, &options.origin, buffers));
            let restored = journal::restore(dir, identity, &known, random_u64(), table).await;
            let copies = restored.map_err(|source| state_error(dir, source))?;
            recovery.message = Some(recovered(&known, superblock.table, &copies));
            recovery.table_is_damaged = copies.is_err();
            recovery.epoch = Some(known.running.last);
        }
        Err(why) => recovery.failure = Some(why),
    }
    Ok(recovery)
}

/// What the journal tells, if it is to be believed.
async fn known<O: Disk, A: Disk, C: Clock>(
    options: &Options<O, A, C>,
    superblock: &Superblock,
    images: &journal::Images,
    buffers: &Buffers,
) -> Result<(Recovered, u64), String> {
    if let Some(why) = &options.distrust {
        return Err(why.clone());
    }
    if let Continuity::Broken(why) = &options.continuity {
        return Err(why.clone());
    }
    let (known, half) = journal::recover(&options.area, superblock, images).await?;
    let stopped_us = known.written_us.saturating_add(ALIVE_SLACK_US);
    if matches!(options.continuity, Continuity::ModifiedAt(at) if at > stopped_us) {
        return Err("the origin was modified after its tracking stopped".to_owned());
    }
    journal::compare(&known.origin, &options.origin, buffers).await?;
    Ok((known, half))
}

fn recovered<E: std::fmt::Display>(
    known: &Recovered,
    keeps_snapshots: bool,
    copies: &Result<(), E>,
) -> String {
    let regions = known.active.len();
    let live = |placed: &&Placed| placed.snapshot.fate == Fate::Live;
    let live = known.snapshots.iter().filter(live).count();
    let snapshots = match copies {
        _ if !keeps_snapshots => "snapshots are gone".to_owned(),
        Ok(()) => format!("so do {live} snapshots"),
        Err(why) => format!("{live} snapshots are lost: {why}"),
    };
    format!(
        "tracking goes on where the host stopped; {regions} MiB that were being changed then count \
         as changed whole, and {snapshots}"
    )
}

/// The state that a predecessor left, or that was recovered.
async fn find_state<O: Disk, A: Disk, C: Clock>(
    options: &Options<O, A, C>,
    superblock: &Superblock,
    identity: Identity,
) -> Result<Option<State>, OpenError> {
    let path = options.state_dir.join("state");
    let found = State::open(&path, identity);
    let found = found.map_err(|source| state_error(&path, source))?;
    if found.is_none() && superblock.table {
        forget_copies(options, superblock).await?;
    }
    Ok(found)
}

/// Before a state is begun that knows of no copies: the slot table must not tell of any when the host
/// stops, and the journal of no snapshot that needs them.
async fn forget_copies<O: Disk, A: Disk, C: Clock>(
    options: &Options<O, A, C>,
    superblock: &Superblock,
) -> Result<(), OpenError> {
    let layout = Layout::of(options.geometry);
    let wiped = journal::wipe(&options.area, layout).await;
    wiped.map_err(OpenError::Stale)?;
    let table = journal::Table::new(&options.area, superblock);
    table.clear().await.map_err(OpenError::Area)
}

/// What a predecessor left.
enum Past {
    /// Nothing.
    None,
    /// State that still describes the origin.
    Trusted,
    /// State, but the origin may have changed since; with the reason.
    Broken(String),
}

/// The state to go on with.
fn open_state<O, A, C: Clock>(
    options: &Options<O, A, C>,
    found: Option<State>,
    identity: Identity,
    not_recovered: Option<String>,
) -> Result<(State, Past), OpenError> {
    let path = options.state_dir.join("state");
    let Some(state) = found else {
        let cause = match (&options.continuity, &not_recovered) {
            (Continuity::Broken(cause), _) => cause,
            (Continuity::Unbroken | Continuity::ModifiedAt(_), Some(why)) => why,
            (Continuity::ModifiedAt(_), None) => "attached",
            (Continuity::Unbroken, None) => "what an earlier server had tracked is gone",
        };
        let lineage = new_lineage(cause, &options.clock);
        let state = State::create(&path, identity, &lineage, Epoch::FIRST);
        return Ok((
            state.map_err(|source| state_error(&path, source))?,
            Past::None,
        ));
    };
    let died_us = state.alive_us().saturating_add(ALIVE_SLACK_US);
    let past = match &options.continuity {
        Continuity::Unbroken => Past::Trusted,
        Continuity::ModifiedAt(modified_us) if *modified_us <= died_us => Past::Trusted,
        Continuity::ModifiedAt(_) => {
            Past::Broken("the origin was modified after the volume server died".to_owned())
        }
        Continuity::Broken(why) => Past::Broken(why.clone()),
    };
    Ok((state, past))
}

/// The tracker of the state's lineage, or of a new one and then with its cause.
fn open_tracker<O, A, C: Clock>(
    options: &Options<O, A, C>,
    state: &Arc<State>,
    past: &Past,
) -> Result<(MapTracker, Option<String>), OpenError> {
    let blocks = options.geometry.blocks();
    let create = || {
        MapTracker::create(Arc::clone(state), &options.state_dir, blocks)
            .map_err(|error| state_error(&options.state_dir, std::io::Error::other(error)))
    };
    let cause = match past {
        Past::None => return Ok((create()?, None)),
        Past::Broken(cause) => cause.clone(),
        Past::Trusted => match MapTracker::open(Arc::clone(state), &options.state_dir, blocks) {
            Ok(tracker) => return Ok((tracker, None)),
            Err(error) => format!("the change maps cannot be taken up: {error}"),
        },
    };
    for entry in state.checkpoints() {
        state.remove_checkpoint(entry.epoch);
    }
    state.commit_lineage(&new_lineage(&cause, &options.clock), state.epoch().next());
    Ok((create()?, Some(cause)))
}

fn new_lineage(cause: &str, clock: &impl Clock) -> Lineage {
    Lineage {
        id: random_id(),
        cause: cause.to_owned(),
        since_us: clock.now_us(),
    }
}

fn state_error(path: &Path, source: std::io::Error) -> OpenError {
    OpenError::State {
        path: path.to_owned(),
        source,
    }
}
