//! Making snapshots: one moment for all volumes of a call.
//!
//! ```text
//! check, record news   catalog may write
//! before-freeze        hooks bring applications to rest, or refuse
//! ---- quiet ----------------------------------------------------------------
//! freeze               mounted file systems, all or none; a watchdog thaws them whatever comes
//! hold all             at once; no volume is opened again before all are held,
//! cut all              or a write that followed another could be in while that is out
//! thaw
//! ---- quiet ends -----------------------------------------------------------
//! after-thaw           hooks wake them, whatever happened
//! record, tell         or, when a step failed: let all go, release what was cut, say why
//! ```
//!
//! Between freeze and thaw nothing is logged and the catalog is not touched: either may lie on a
//! file system that is frozen. The work runs to its end also when the caller goes away.

use std::{iter::repeat, path::PathBuf, sync::Arc, time::Duration};

use tidemark_proto::{
    private::CutReply,
    v1::{EventKind, FreezeMode, Severity},
};
use tidemark_store::{
    catalog::{Consistency, SnapshotRecord, SnapshotState},
    units::{Epoch, Id},
};
use tokio::{sync::OwnedMutexGuard, task::JoinSet};

use super::{
    Arguments, Begun, CreateArgs, Error, ErrorReason, Frozen, Happening, Manager, Snapshot, Thawed,
    Ticket, clock::micros, link::LinkError, registry::Entry, validate,
};

/// The longest that file systems stay frozen unless asked otherwise.
const DEFAULT_MAX_FREEZE: Duration = Duration::from_secs(10);
/// The longest that writers are held: in-flight writes drain within it, or the cut fails.
const MAX_HOLD: Duration = Duration::from_secs(5);

/// One volume of a cut.
struct Part {
    entry: Arc<Entry>,
    snapshot: Id,
    capacity_bytes: u64,
    block_bytes: u32,
    /// What is mounted on it, to be frozen.
    file_systems: Vec<PathBuf>,
    _work: OwnedMutexGuard<()>,
}

/// What the moment gave.
struct Moment {
    cuts: Vec<CutReply>,
    thawed: Option<Thawed>,
    /// Why nothing was frozen although something is mounted.
    unfrozen: Option<String>,
}

impl Manager {
    /// Cuts one or more volumes at one moment.
    pub async fn create_snapshots(
        self: &Arc<Self>,
        args: CreateArgs,
    ) -> Result<Vec<Snapshot>, Error> {
        validate_create(&args)?;
        let manager = Arc::clone(self);
        self.to_its_end(async move { manager.create_once(args).await })
            .await
    }

    async fn create_once(&self, args: CreateArgs) -> Result<Vec<Snapshot>, Error> {
        let begun = self
            .begin_request(&args.request_id, "CreateSnapshot", create_arguments(&args))
            .await?;
        let ticket = match begun {
            Begun::Replayed(ids) => return self.again(ids).await,
            Begun::New(ticket) => ticket,
        };
        let parts = self.parts(&args).await?;
        let names = parts.iter().map(|part| part.entry.name());
        let owed = self.before_freeze(&args, names).await?;
        let moment = match self.moment(&args, &parts).await {
            Ok(moment) => moment,
            Err(error) => {
                self.after_thaw(&args, owed, "failed").await;
                return Err(error);
            }
        };
        let records = self.records(&args, &parts, &moment);
        // An application is not to rest for what the catalog takes, nor a snapshot to wait for a hook.
        let (recorded, ()) = tokio::join!(
            self.record(&records, &ticket),
            self.after_thaw(&args, owed, "succeeded")
        );
        if let Err(error) = recorded {
            undo(&parts, &moment.cuts).await;
            return Err(error);
        }
        self.tell(&parts, &records, &moment).await;
        self.leases.wake();
        let snapshots = records.into_iter().zip(moment.cuts);
        Ok(snapshots.map(|(record, cut)| fresh(record, cut)).collect())
    }

    async fn again(&self, ids: Vec<String>) -> Result<Vec<Snapshot>, Error> {
        let mut snapshots = Vec::with_capacity(ids.len());
        for id in ids {
            snapshots.push(self.snapshot(&id).await?);
        }
        Ok(snapshots)
    }

    /// The volumes, claimed in the order of their names so that two calls never wait for each
    /// other, and known to answer.
    async fn parts(&self, args: &CreateArgs) -> Result<Vec<Part>, Error> {
        let volumes = if args.group.is_empty() {
            args.volumes.clone()
        } else {
            self.group(&args.group).await?.volumes
        };
        let mut order: Vec<usize> = (0..volumes.len()).collect();
        order.sort_by_key(|index| volumes.get(*index));
        let mut parts = Vec::with_capacity(volumes.len());
        for index in order {
            if let Some(name) = volumes.get(index) {
                parts.push((index, self.part(name, args.freeze).await?));
            }
        }
        parts.sort_by_key(|(index, _)| *index);
        Ok(parts.into_iter().map(|(_, part)| part).collect())
    }

    async fn part(&self, name: &str, freeze: FreezeMode) -> Result<Part, Error> {
        let (entry, work) = self.claim(name).await?;
        let told = self.refresh(&entry).await?;
        let file_systems = match freeze {
            FreezeMode::None => Vec::new(),
            _ => self.mounts(told.device_path.as_ref())?.file_systems,
        };
        if freeze == FreezeMode::Require && file_systems.is_empty() {
            let why = format!(
                "volume \"{name}\" is not mounted, so there is no file system to freeze; mount \
                 it, or ask for a crash-consistent snapshot"
            );
            return Err(Error::new(ErrorReason::FreezeFailed, why).on_volume(name));
        }
        Ok(Part {
            entry,
            snapshot: super::new_id(),
            capacity_bytes: told.capacity_bytes,
            block_bytes: told.block_bytes,
            file_systems,
            _work: work,
        })
    }

    /// Freeze, hold, cut, thaw: see the head of this file.
    async fn moment(&self, args: &CreateArgs, parts: &[Part]) -> Result<Moment, Error> {
        let calm = self.calm.lock().await;
        let quiet = self.ledger.quiet().await;
        let (frozen, unfrozen) = match self.freeze(args, parts).await {
            Ok(frozen) => (frozen, None),
            Err(why) if args.freeze == FreezeMode::Require => {
                return Err(Error::new(ErrorReason::FreezeFailed, why));
            }
            Err(why) => (None, Some(why)),
        };
        let cut = cut_all(parts).await;
        let thawed = match frozen {
            Some(frozen) => Some(frozen.thaw().await),
            None => None,
        };
        drop((quiet, calm));
        if cut.is_ok() {
            present_views(parts).await;
        }
        let cuts = match cut {
            Ok(cuts) => cuts,
            Err(error) => {
                release_all(parts).await;
                self.tell_timeout(parts, thawed.as_ref()).await;
                return Err(error);
            }
        };
        self.tell_timeout(parts, thawed.as_ref()).await;
        let broken = thawed.as_ref().is_some_and(|thawed| !thawed.held);
        if broken && args.freeze == FreezeMode::Require {
            undo(parts, &cuts).await;
            let why = "the file systems were thawed by the watchdog before the cut was known to \
                       be complete; allow a longer freeze";
            return Err(Error::new(ErrorReason::FreezeFailed, why));
        }
        Ok(Moment {
            cuts,
            thawed,
            unfrozen,
        })
    }

    /// `None` when nothing is to be frozen.
    async fn freeze(
        &self,
        args: &CreateArgs,
        parts: &[Part],
    ) -> Result<Option<Box<dyn Frozen>>, String> {
        let mounts: Vec<PathBuf> = parts
            .iter()
            .flat_map(|part| part.file_systems.iter().cloned())
            .collect();
        if mounts.is_empty() {
            return Ok(None);
        }
        let deadline = args.max_freeze.unwrap_or(DEFAULT_MAX_FREEZE);
        match self.config.host.freeze(mounts, deadline).await {
            Ok(frozen) => Ok(Some(frozen)),
            Err(failed) => Err(failed.0),
        }
    }

    fn records(&self, args: &CreateArgs, parts: &[Part], moment: &Moment) -> Vec<SnapshotRecord> {
        let set_id = super::new_id();
        let now_us = self.config.clock.now_us();
        let lease_us = args.lease.map_or(0, micros);
        let expires_us = (lease_us > 0).then(|| now_us.saturating_add(lease_us));
        // All were held from the last cut on, so that its time is the moment of each.
        let created_us = moment.cuts.iter().map(|cut| cut.created_us).max();
        let was_frozen = moment.thawed.as_ref().filter(|thawed| thawed.held);
        let record = |(part, cut): (&Part, &CutReply)| {
            let frozen = was_frozen.filter(|_| !part.file_systems.is_empty());
            SnapshotRecord {
                id: part.snapshot,
                set_id,
                volume: part.entry.name().to_owned(),
                volume_id: part.entry.record.id,
                lineage: Id::from_slice(&cut.lineage).unwrap_or(Id::NIL),
                epoch: Epoch(cut.epoch),
                state: SnapshotState::Ready,
                state_reason: String::new(),
                lease_ended: false,
                consistency: frozen.map_or(Consistency::Crash, |_| Consistency::FileSystem),
                created_us: created_us.unwrap_or(now_us),
                lease_us,
                lease_expires_us: expires_us,
                held_us: cut.held_us,
                frozen_us: frozen.map(|thawed| micros(thawed.frozen)),
                capacity_bytes: part.capacity_bytes,
                block_bytes: part.block_bytes,
                labels: args.labels.clone(),
            }
        };
        parts.iter().zip(&moment.cuts).map(record).collect()
    }

    async fn record(&self, records: &[SnapshotRecord], ticket: &Ticket) -> Result<(), Error> {
        let records = records.to_vec();
        let request = ticket.made(records.iter().map(|one| one.id.to_string()).collect());
        self.ledger
            .run(move |catalog| {
                let request = request.as_ref().map(|(id, request)| (id.as_str(), request));
                catalog.insert_snapshots(&records, request)
            })
            .await
    }

    async fn tell(&self, parts: &[Part], records: &[SnapshotRecord], moment: &Moment) {
        for (part, record) in parts.iter().zip(records) {
            let mut message = format!(
                "snapshot {} of volume \"{}\" was made; writers were held for {} us",
                record.id, record.volume, record.held_us
            );
            let unfrozen = moment
                .unfrozen
                .as_ref()
                .filter(|_| !part.file_systems.is_empty());
            let severity = match unfrozen {
                Some(why) => {
                    message.push_str("; it is only crash-consistent: ");
                    message.push_str(why);
                    Severity::Warning
                }
                None => Severity::Info,
            };
            let happening = Happening::new(EventKind::SnapshotCreated, severity, message)
                .on_volume(&record.volume)
                .on_snapshot(record.id);
            self.events.record(happening).await;
        }
    }

    async fn tell_timeout(&self, parts: &[Part], thawed: Option<&Thawed>) {
        let Some(thawed) = thawed.filter(|thawed| !thawed.held) else {
            return;
        };
        for part in parts.iter().filter(|part| !part.file_systems.is_empty()) {
            let name = part.entry.name();
            let (severity, message) = match &thawed.trouble {
                Some(trouble) => (
                    Severity::Error,
                    format!("the file system of volume \"{name}\" may still be frozen: {trouble}"),
                ),
                None => (
                    Severity::Warning,
                    format!(
                        "the file system of volume \"{name}\" was thawed by the watchdog: the cut \
                         took too long, and is not taken for file-system consistent"
                    ),
                ),
            };
            let happening = Happening::new(EventKind::FreezeTimeout, severity, message);
            self.events.record(happening.on_volume(name)).await;
        }
    }
}

/// Holds all volumes, then cuts all. A hold that is not cut is let go.
async fn cut_all(parts: &[Part]) -> Result<Vec<CutReply>, Error> {
    let held = on_all(parts, repeat(()), |entry, _, ()| async move {
        entry.link.hold(MAX_HOLD).await
    });
    let (holds, failure) = split(parts, held.await);
    if let Some(failure) = failure {
        on_all(parts, holds, |_, _, held| held.unhold()).await;
        return Err(failure);
    }
    let cut = on_all(parts, holds, |_, snapshot, held| held.cut(snapshot));
    match split(parts, cut.await) {
        (cuts, None) => Ok(cuts),
        (_, Some(failure)) => Err(failure),
    }
}

/// One call for every volume, all at once, each with an input of its own. The results are in the
/// order of the volumes.
async fn on_all<I, T, F>(
    parts: &[Part],
    inputs: impl IntoIterator<Item = I>,
    call: impl Fn(Arc<Entry>, Id, I) -> F,
) -> Vec<Result<T, LinkError>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, LinkError>> + Send + 'static,
{
    let mut calls = JoinSet::new();
    for (index, (part, input)) in parts.iter().zip(inputs).enumerate() {
        let call = call(Arc::clone(&part.entry), part.snapshot, input);
        calls.spawn(async move { (index, call.await) });
    }
    let mut results = calls.join_all().await;
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// What went well, and the first failure.
fn split<T>(parts: &[Part], results: Vec<Result<T, LinkError>>) -> (Vec<T>, Option<Error>) {
    let (mut good, mut failure) = (Vec::with_capacity(parts.len()), None);
    for (part, result) in parts.iter().zip(results) {
        match result {
            Ok(value) => good.push(value),
            Err(error) => {
                failure.get_or_insert_with(|| error.on_volume(part.entry.name()));
            }
        }
    }
    (good, failure)
}

/// Releases whatever of the set may have been cut, also by a call whose answer was lost.
async fn release_all(parts: &[Part]) {
    on_all(parts, repeat(()), |entry, snapshot, ()| async move {
        entry.link.release(snapshot).await
    })
    .await;
}

/// Takes a whole cut back: data and checkpoints.
/// The snapshots are made and nobody waits any more: now their views may take their time. One
/// that fails is tried again by its server, and readers are told that it is not there.
async fn present_views(parts: &[Part]) {
    for part in parts {
        if let Err(error) = part.entry.link.present_views().await {
            tracing::warn!(volume = part.entry.name(), %error, "a view is not presented yet");
        }
    }
}

async fn undo(parts: &[Part], cuts: &[CutReply]) {
    release_all(parts).await;
    let epochs = cuts.iter().map(|cut| Epoch(cut.epoch));
    on_all(parts, epochs, |entry, _, epoch| async move {
        entry.link.forget(epoch).await
    })
    .await;
}

fn fresh(record: SnapshotRecord, cut: CutReply) -> Snapshot {
    Snapshot {
        record,
        view_path: (!cut.view_path.is_empty()).then(|| cut.view_path.into()),
        preserved_bytes: 0,
    }
}

fn validate_create(args: &CreateArgs) -> Result<(), Error> {
    match (args.volumes.is_empty(), args.group.is_empty()) {
        (false, false) => return Err(Error::invalid("group", "name volumes or a group, not both")),
        (true, true) => {
            return Err(Error::invalid(
                "volumes",
                "name at least one volume, or a group",
            ));
        }
        (false, true) => validate::set("volumes", &args.volumes)?,
        (true, false) => validate::name("group", &args.group)?,
    }
    for name in &args.volumes {
        validate::name("volumes", name)?;
    }
    if let Some(lease) = args.lease {
        validate::lease(lease)?;
    }
    if let Some(time) = args.max_freeze {
        validate::max_freeze(time)?;
    }
    validate::labels(&args.labels)
}

fn create_arguments(args: &CreateArgs) -> Arguments {
    let mut arguments = Arguments::of("CreateSnapshot")
        .and(&args.group)
        .and(args.freeze.as_str_name())
        .and(format!("{:?} {:?}", args.lease, args.max_freeze))
        .and(args.volumes.len().to_le_bytes());
    for volume in &args.volumes {
        arguments = arguments.and(volume);
    }
    for (key, value) in &args.labels {
        arguments = arguments.and(key).and(value);
    }
    arguments
}
