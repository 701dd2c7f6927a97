//! The volume of the fake daemon: bytes, change maps, snapshots.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidemark_proto::v1::{
    Checkpoint, Compression, Consistency, DataBatch, DataExtent, DataTrailer, ErrorReason,
    ExtentKind, Snapshot, SnapshotState, Volume, VolumeState,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::vault::Vault;
use crate::{digest::StreamDigest, exit::reason_name};

/// Unit of tracking.
pub(crate) const BLOCK: usize = 4096;
/// Extents of a batch: small, so that a small volume has many.
const BATCH: usize = 4;

/// What goes wrong with the next data stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Injected {
    /// Nothing.
    Fine,
    /// It breaks after so many batches.
    Cut(usize),
    /// It ends, as if well, without its trailer.
    Truncate(usize),
    /// After so many batches nothing more comes.
    Stall(usize),
    /// A byte of the first data extent of that batch is another.
    Corrupt(usize),
    /// The trailer's digest is another.
    WrongDigest,
}

/// A snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Snap {
    pub(crate) lineage: String,
    pub(crate) epoch: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) readable: bool,
    pub(crate) leased: bool,
}

/// A data stream that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    pub(crate) snapshot_id: String,
    pub(crate) since: Option<u64>,
    pub(crate) start: u64,
}

/// What was pushed.
#[derive(Clone, Default, Debug)]
pub(crate) struct Pushed {
    pub(crate) data: Vec<u8>,
    pub(crate) digest: StreamDigest,
    pub(crate) sealed: Option<bool>,
    pub(crate) aborted: bool,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) live: Vec<u8>,
    pub(crate) lineage: String,
    pub(crate) cause: String,
    pub(crate) epoch: u64,
    pub(crate) changed: BTreeMap<u64, BTreeSet<usize>>,
    pub(crate) checkpoints: BTreeSet<u64>,
    pub(crate) snapshots: BTreeMap<String, Snap>,
    pub(crate) faults: VecDeque<Injected>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) wrong_hashes: bool,
    pub(crate) pushed: Pushed,
    pub(crate) vault: Vault,
    discarded: BTreeSet<usize>,
}

impl Model {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            live: vec![0; capacity],
            lineage: "1".repeat(32),
            cause: String::new(),
            epoch: 1,
            changed: BTreeMap::new(),
            checkpoints: BTreeSet::new(),
            snapshots: BTreeMap::new(),
            faults: VecDeque::new(),
            asked: Vec::new(),
            wrong_hashes: false,
            pushed: Pushed::default(),
            vault: Vault::default(),
            discarded: BTreeSet::new(),
        }
    }

    /// Writes to the volume.
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) {
        self.live[offset..offset + data.len()].copy_from_slice(data);
        for block in offset / BLOCK..(offset + data.len()).div_ceil(BLOCK) {
            self.discarded.remove(&block);
            self.changed.entry(self.epoch).or_default().insert(block);
        }
    }

    /// Discards whole blocks.
    pub(crate) fn discard(&mut self, blocks: std::ops::Range<usize>) {
        for block in blocks {
            let end = ((block + 1) * BLOCK).min(self.live.len());
            self.write(block * BLOCK, &vec![0; end - block * BLOCK]);
            self.discarded.insert(block);
        }
    }

    /// Fills every `step`th block with bytes that differ from block to block.
    pub(crate) fn scribble(&mut self, seed: u8, step: usize) {
        for block in (0..self.live.len() / BLOCK).step_by(step) {
            let byte = u8::try_from(block % 251).unwrap().wrapping_add(seed) | 1;
            self.write(block * BLOCK, &vec![byte; BLOCK]);
        }
    }

    /// Starts a new lineage.
    pub(crate) fn reset(&mut self, cause: &str) {
        self.lineage = if self.lineage.starts_with('1') {
            "2"
        } else {
            "1"
        }
        .repeat(32);
        self.cause = cause.to_owned();
        self.checkpoints.clear();
        self.changed.clear();
    }

    pub(crate) fn cut(&mut self, leased: bool) -> Snapshot {
        let id = format!("{:032x}", self.snapshots.len() + 1);
        let snap = Snap {
            lineage: self.lineage.clone(),
            epoch: self.epoch,
            data: self.live.clone(),
            readable: true,
            leased,
        };
        self.checkpoints.insert(self.epoch);
        self.epoch += 1;
        self.snapshots.insert(id.clone(), snap);
        self.describe(&id).unwrap()
    }

    pub(super) fn describe(&self, id: &str) -> Result<Snapshot, Status> {
        let snap = self.snap(id)?;
        let state = if snap.readable {
            SnapshotState::Ready
        } else {
            SnapshotState::Released
        };
        Ok(Snapshot {
            id: id.to_owned(),
            volume: "vol".to_owned(),
            checkpoint: Some(Checkpoint {
                lineage: snap.lineage.clone(),
                epoch: snap.epoch,
            }),
            state: state.into(),
            consistency: Consistency::Crash.into(),
            capacity_bytes: snap.data.len() as u64,
            block_bytes: 4096,
            lease_expires_at: snap.leased.then(prost_types::Timestamp::default),
            ..Default::default()
        })
    }

    pub(super) fn snap(&self, id: &str) -> Result<&Snap, Status> {
        self.snapshots
            .get(id)
            .ok_or_else(|| refuse(ErrorReason::SnapshotNotFound, "no such snapshot"))
    }

    pub(super) fn volume(&self) -> Volume {
        Volume {
            name: "vol".to_owned(),
            id: "9".repeat(32),
            capacity_bytes: self.live.len() as u64,
            block_bytes: 4096,
            state: VolumeState::Attached.into(),
            lineage: self.lineage.clone(),
            current_epoch: self.epoch,
            ..Default::default()
        }
    }

    /// The blocks of a stream: all that hold something, or what changed.
    pub(super) fn blocks(
        &self,
        id: &str,
        since: Option<&Checkpoint>,
    ) -> Result<Vec<usize>, Status> {
        let snap = self.snap(id)?;
        if !snap.readable {
            return Err(refuse(ErrorReason::SnapshotReleased, "its data is gone"));
        }
        let Some(since) = since else {
            let all = 0..snap.data.len().div_ceil(BLOCK);
            return Ok(all
                .filter(|block| !is_zero(piece(&snap.data, *block)))
                .collect());
        };
        if since.lineage != snap.lineage || snap.lineage != self.lineage {
            return Err(refuse(ErrorReason::TrackingReset, &self.cause));
        }
        if !self.checkpoints.contains(&since.epoch) {
            return Err(refuse(ErrorReason::CheckpointGone, "no such checkpoint"));
        }
        let epochs = self.changed.range(since.epoch + 1..=snap.epoch);
        let union: BTreeSet<usize> = epochs.flat_map(|(_, blocks)| blocks).copied().collect();
        Ok(union.into_iter().collect())
    }

    /// Batches and the trailer of a stream from `start` on.
    pub(super) fn stream(
        &self,
        id: &str,
        blocks: &[usize],
        start: u64,
        zstd: bool,
    ) -> (Vec<DataBatch>, DataTrailer) {
        let data = &self.snapshots[id].data;
        let mut trailer = DataTrailer::default();
        let mut digest = StreamDigest::default();
        let mut batches = Vec::new();
        let wanted: Vec<usize> = blocks
            .iter()
            .copied()
            .filter(|block| (block * BLOCK) as u64 >= start)
            .collect();
        for group in wanted.chunks(BATCH) {
            let extents: Vec<DataExtent> = group
                .iter()
                .map(|block| self.extent(data, *block, zstd))
                .collect();
            for extent in &extents {
                count(&mut trailer, &mut digest, extent);
            }
            let end = extents
                .last()
                .map(|extent| extent.offset_bytes + extent.length_bytes);
            batches.push(DataBatch {
                extents,
                resume_offset_bytes: end.unwrap_or(start),
            });
        }
        trailer.digest = digest.finish().as_bytes().to_vec().into();
        (batches, trailer)
    }

    fn extent(&self, data: &[u8], block: usize, zstd: bool) -> DataExtent {
        let plain = piece(data, block);
        let mut extent = DataExtent {
            offset_bytes: (block * BLOCK) as u64,
            length_bytes: plain.len() as u64,
            ..Default::default()
        };
        if is_zero(plain) {
            let kind = if self.discarded.contains(&block) {
                ExtentKind::Discarded
            } else {
                ExtentKind::Zero
            };
            extent.kind = kind.into();
            return extent;
        }
        extent.kind = ExtentKind::Data.into();
        extent.blake3 = blake3::hash(plain).as_bytes().to_vec().into();
        extent.compression = if zstd {
            Compression::Zstd
        } else {
            Compression::None
        }
        .into();
        extent.data = if zstd {
            zstd::bulk::compress(plain, 1).unwrap()
        } else {
            plain.to_vec()
        }
        .into();
        extent
    }
}

fn count(trailer: &mut DataTrailer, digest: &mut StreamDigest, extent: &DataExtent) {
    let kind = extent.kind();
    trailer.extents += 1;
    trailer.sent_bytes += extent.data.len() as u64;
    match kind {
        ExtentKind::Data => trailer.data_bytes += extent.length_bytes,
        ExtentKind::Discarded => trailer.discarded_bytes += extent.length_bytes,
        ExtentKind::Zero | ExtentKind::Unspecified => trailer.zero_bytes += extent.length_bytes,
    }
    let hash: Option<[u8; 32]> = extent.blake3.as_ref().try_into().ok();
    digest.add(
        extent.offset_bytes,
        extent.length_bytes,
        kind,
        hash.map(blake3::Hash::from).as_ref(),
    );
}

fn piece(data: &[u8], block: usize) -> &[u8] {
    &data[block * BLOCK..((block + 1) * BLOCK).min(data.len())]
}

fn is_zero(data: &[u8]) -> bool {
    data.iter().all(|byte| *byte == 0)
}

/// A failure with the agent's reason.
pub(super) fn refuse(reason: ErrorReason, message: &str) -> Status {
    let metadata = std::collections::HashMap::from([("cause".to_owned(), message.to_owned())]);
    let details = ErrorDetails::with_error_info(reason_name(reason), "tidemark", metadata);
    Status::with_error_details(Code::FailedPrecondition, message, details)
}
