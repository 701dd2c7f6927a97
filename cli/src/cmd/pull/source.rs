//! What is pulled: a volume, of which a snapshot is made and kept alive, or a given snapshot.

use std::{collections::HashMap, time::Duration};

use tidemark_proto::v1::{
    Checkpoint, CreateSnapshotRequest, DeleteCheckpointRequest, ErrorReason, FreezeMode,
    GetSnapshotRequest, ReleaseSnapshotRequest, RenewLeaseRequest, Snapshot, SnapshotState, Volume,
};
use tokio::task::JoinHandle;
use tonic::Code;
use uuid::Uuid;

use super::state::{Phase, Point, State};
use crate::{
    client::Client,
    cmd::{snapshot::Freeze, volume},
    exit::{Exit, Fault, reason_of},
    select::{self, malformed},
    units,
};

/// A pull that is killed gives its store back after this time.
const LEASE: Duration = Duration::from_secs(60);
/// Three chances within a lease.
const RENEW_EVERY: Duration = Duration::from_secs(20);
/// Who made a snapshot, for whoever lists them.
const LABEL: (&str, &str) = ("made-by", "tidemark pull");

/// What was named on the command line.
#[derive(Debug)]
pub(crate) struct Source {
    /// The volume.
    pub(crate) volume: Volume,
    /// The snapshot, when one was named.
    pub(crate) snapshot: Option<Snapshot>,
}

impl Source {
    /// Finds it: a volume's name first, then a snapshot.
    pub(crate) async fn find(client: &Client, name: &str) -> anyhow::Result<Self> {
        match volume::get(client, name).await {
            Ok(volume) => {
                return Ok(Self {
                    volume,
                    snapshot: None,
                });
            }
            Err(error) if !is_no_volume(&error) => return Err(error),
            Err(_) => {}
        }
        let snapshot = select::snapshot(client, name, "")
            .await
            .map_err(|error| neither(name, error))?;
        let volume = volume::get(client, &snapshot.volume).await?;
        Ok(Self {
            volume,
            snapshot: Some(snapshot),
        })
    }
}

/// Names of snapshots (`latest:vol`, hex prefixes) may not even be valid names of volumes.
fn is_no_volume(error: &anyhow::Error) -> bool {
    error.downcast_ref::<tonic::Status>().is_some_and(|status| {
        matches!(
            reason_of(status),
            Some(ErrorReason::VolumeNotFound | ErrorReason::InvalidField)
        ) || status.code() == Code::NotFound
    })
}

fn neither(name: &str, error: anyhow::Error) -> anyhow::Error {
    let gone = error
        .downcast_ref::<tonic::Status>()
        .and_then(reason_of)
        .is_some_and(|reason| {
            matches!(
                reason,
                ErrorReason::SnapshotNotFound | ErrorReason::InvalidField
            )
        });
    if !gone {
        return error;
    }
    Fault::new(
        Exit::Failed,
        format!("no volume and no snapshot is named {name}"),
    )
    .advise("see `tidemark volume list` and `tidemark snapshot list`")
    .into()
}

/// A snapshot that is read, and kept alive when it is ours.
#[derive(Debug)]
pub(crate) struct Held {
    /// The snapshot.
    pub(crate) snapshot: Snapshot,
    /// Its point.
    pub(crate) point: Point,
    /// Whether it goes when the pull is done.
    ours: bool,
    renewal: Option<JoinHandle<()>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(task) = &self.renewal {
            task.abort();
        }
    }
}

/// How to make a snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Making {
    /// What to do about mounted file systems.
    pub(crate) freeze: Freeze,
    /// Keep it after the pull.
    pub(crate) keep: bool,
}

impl Held {
    /// The named snapshot; else the one that an interrupted pull was reading, while it can be
    /// read; else a new one.
    pub(crate) async fn obtain(
        client: &Client,
        source: &Source,
        state: Option<&State>,
        making: Making,
    ) -> anyhow::Result<Self> {
        if let Some(snapshot) = &source.snapshot {
            return Self::new(snapshot.clone(), false, None);
        }
        // One with a lease cannot be kept: a snapshot that is to stay is made anew.
        if !making.keep
            && let Some(held) = Self::from_interrupted(client, source, state).await?
        {
            return Ok(held);
        }
        let request = CreateSnapshotRequest {
            volumes: vec![source.volume.name.clone()],
            group: String::new(),
            freeze: FreezeMode::from(making.freeze).into(),
            lease: (!making.keep).then(|| units::to_proto(LEASE)),
            labels: HashMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())]),
            request_id: Uuid::new_v4().to_string(),
            max_freeze: None,
        };
        let reply = client.snapshots().create_snapshot(request).await?;
        let snapshot = reply.into_inner().snapshots.pop();
        let snapshot = snapshot.ok_or_else(|| malformed("CreateSnapshot", "snapshots"))?;
        let renewal = (!making.keep).then(|| keep_alive(client.clone(), snapshot.id.clone()));
        Self::new(snapshot, !making.keep, renewal)
    }

    async fn from_interrupted(
        client: &Client,
        source: &Source,
        state: Option<&State>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(State {
            phase:
                Phase::InProgress {
                    snapshot_id,
                    target,
                    ..
                },
            volume_id,
            ..
        }) = state
        else {
            return Ok(None);
        };
        if *volume_id != source.volume.id {
            return Ok(None);
        }
        let request = GetSnapshotRequest {
            id: snapshot_id.clone(),
        };
        let snapshot = match client.snapshots().get_snapshot(request).await {
            Ok(reply) => reply.into_inner().snapshot,
            Err(status) if reason_of(&status) == Some(ErrorReason::SnapshotNotFound) => None,
            Err(status) => return Err(status.into()),
        };
        let Some(snapshot) = snapshot.filter(|found| found.state == SnapshotState::Ready as i32)
        else {
            return Ok(None);
        };
        // Without a lease of its own it was kept on purpose and outlives this pull.
        let ours = target.ours && snapshot.lease_expires_at.is_some();
        if ours && renew(client, snapshot_id).await.is_err() {
            return Ok(None);
        }
        let renewal = ours.then(|| keep_alive(client.clone(), snapshot_id.clone()));
        Self::new(snapshot, ours, renewal).map(Some)
    }

    fn new(
        snapshot: Snapshot,
        ours: bool,
        renewal: Option<JoinHandle<()>>,
    ) -> anyhow::Result<Self> {
        let point = match &snapshot.checkpoint {
            Some(checkpoint) => Point::new(checkpoint, ours),
            None => return Err(malformed("CreateSnapshot", "checkpoint")),
        };
        Ok(Self {
            snapshot,
            point,
            ours,
            renewal,
        })
    }

    /// Gives the data back when the snapshot is ours; the checkpoint stays. A lease that runs
    /// out does the same later, so a failure is only worth a remark.
    pub(crate) async fn release(self, client: &Client) -> Result<(), tonic::Status> {
        if !self.ours {
            return Ok(());
        }
        let request = ReleaseSnapshotRequest {
            id: self.snapshot.id.clone(),
        };
        client.snapshots().release_snapshot(request).await.map(drop)
    }
}

async fn renew(client: &Client, id: &str) -> Result<(), tonic::Status> {
    let request = RenewLeaseRequest {
        id: id.to_owned(),
        lease: Some(units::to_proto(LEASE)),
    };
    client.snapshots().renew_lease(request).await.map(drop)
}

/// Renews until aborted. Errors are left to the stream, which meets the same ones and tells.
fn keep_alive(client: Client, id: String) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            let _ = renew(&client, &id).await;
        }
    })
}

/// Forgets a checkpoint that only an earlier pull needed. Best effort: one that stays costs a
/// change map, and the agent forgets the oldest by itself when there are too many.
pub(crate) async fn forget(client: &Client, volume: &str, checkpoint: Checkpoint) {
    let request = DeleteCheckpointRequest {
        volume: volume.to_owned(),
        checkpoint: Some(checkpoint),
    };
    let _ = client.checkpoints().delete_checkpoint(request).await;
}
