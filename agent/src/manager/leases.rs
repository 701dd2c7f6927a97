//! Leases: an orchestrator that disappears frees its store.
//!
//! A lease is kept in the catalog as wall time, so a restart enforces it too. A data stream holds
//! its snapshot's lease through a [`LeaseGuard`]: while one is there the lease cannot end, and
//! the catalog's copy is moved on in time, so that a client can resume after this process died;
//! when the last is dropped, the lease has its full length again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tidemark_store::{catalog::SnapshotRecord, units::Id};
use tokio::{runtime::Handle, sync::Notify, time::timeout};

use super::{Error, Manager, clock::micros, validate};

/// The task looks at least this often: wall time may be set forward.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// After a failure to release, the next attempt comes after this.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Who holds leases now.
#[derive(Default)]
pub(super) struct Leases {
    claims: Mutex<HashMap<Id, Claim>>,
    wake: Notify,
}

/// What is done with a snapshot's lease at the moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// So many guards hold it.
    Held(usize),
    /// It is being ended.
    Ending,
}

impl Leases {
    /// Something changed: look again when the next lease ends.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<Id, Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `false` when the lease is being ended.
    fn hold(&self, id: Id) -> bool {
        match self.claims().entry(id).or_insert(Claim::Held(0)) {
            Claim::Held(count) => {
                *count += 1;
                true
            }
            Claim::Ending => false,
        }
    }

    fn let_go(&self, id: Id) {
        let mut claims = self.claims();
        match claims.get_mut(&id) {
            Some(Claim::Held(count)) if *count > 1 => *count -= 1,
            Some(Claim::Held(_)) => drop(claims.remove(&id)),
            Some(Claim::Ending) | None => {}
        }
    }

    /// `false` when somebody holds the lease.
    fn begin_ending(&self, id: Id) -> bool {
        let mut claims = self.claims();
        let free = !claims.contains_key(&id);
        if free {
            claims.insert(id, Claim::Ending);
        }
        free
    }

    fn ended(&self, id: Id) {
        self.claims().remove(&id);
    }

    /// Whether any lease is being ended at the moment.
    #[cfg(test)]
    pub(super) fn is_ending(&self) -> bool {
        self.claims().values().any(|claim| *claim == Claim::Ending)
    }

    pub(super) fn is_held(&self, id: Id) -> bool {
        matches!(self.claims().get(&id), Some(Claim::Held(_)))
    }
}

/// While it lives, a snapshot's lease does not end.
pub struct LeaseGuard {
    manager: Arc<Manager>,
    runtime: Handle,
    id: Id,
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        let (manager, id) = (Arc::clone(&self.manager), self.id);
        // The hold goes only when the lease has its full length again.
        self.runtime.spawn(async move {
            if let Err(error) = manager.extend(id).await {
                tracing::warn!(%error, snapshot = %id, "a lease could not be moved on");
            }
            manager.leases.let_go(id);
            manager.leases.wake();
        });
    }
}

impl Manager {
    /// Keeps a snapshot's lease from ending. Fails when it has no data any more. Call it within
    /// the runtime.
    pub async fn hold_lease(self: &Arc<Self>, id: Id) -> Result<LeaseGuard, Error> {
        if !self.leases.hold(id) {
            return Err(Error::lease_expired(id));
        }
        let guard = LeaseGuard {
            manager: Arc::clone(self),
            runtime: Handle::current(),
            id,
        };
        let record = self.record_of(id).await?;
        self.check_ready(&record)?;
        Ok(guard)
    }

    /// Moves the end of a lease to so long from now; zero takes the lease away. Gives the end.
    pub async fn renew_lease(&self, id: &str, lease: Duration) -> Result<Option<u64>, Error> {
        validate::lease(lease)?;
        let id = self.resolve(id).await?;
        let lease_us = micros(lease);
        let expires_us =
            (lease_us > 0).then(|| self.config.clock.now_us().saturating_add(lease_us));
        let set = self
            .ledger
            .run(move |catalog| catalog.set_lease(id, lease_us, expires_us))
            .await?;
        if !set {
            self.check_ready(&self.record_of(id).await?)?;
        }
        self.leases.wake();
        Ok(expires_us)
    }

    /// The lease is at least its length from now.
    async fn extend(&self, id: Id) -> Result<(), Error> {
        let record = self.record_of(id).await?;
        let full = self.config.clock.now_us().saturating_add(record.lease_us);
        let short = record
            .lease_expires_us
            .is_some_and(|expires| expires < full);
        if short {
            let lease_us = record.lease_us;
            self.ledger
                .run(move |catalog| catalog.set_lease(id, lease_us, Some(full)))
                .await?;
        }
        Ok(())
    }

    /// Looks at every lease once. Gives how long nothing needs to be done.
    pub(super) async fn look_at_leases(&self) -> Result<Duration, Error> {
        let records = self
            .ledger
            .run(|catalog| catalog.snapshots(None, false))
            .await?;
        let mut next = LONGEST_SLEEP;
        for record in records {
            let Some(expires_us) = record.lease_expires_us else {
                continue;
            };
            let left_us = expires_us.saturating_sub(self.config.clock.now_us());
            if self.leases.is_held(record.id) {
                // Moved on at half its length, so that half of it is left if we die.
                let half_us = record.lease_us / 2;
                if left_us <= half_us {
                    self.extend(record.id).await?;
                }
                next = next.min(Duration::from_micros(
                    left_us.saturating_sub(half_us).max(1000),
                ));
            } else if left_us > 0 {
                next = next.min(Duration::from_micros(left_us));
            } else if !self.end_lease(&record).await {
                next = next.min(RETRY_PAUSE);
            }
        }
        Ok(next)
    }

    /// `false` when it is to be tried again.
    async fn end_lease(&self, record: &SnapshotRecord) -> bool {
        if !self.leases.begin_ending(record.id) {
            return true;
        }
        let ended = self.end_unless_renewed(record.id).await;
        self.leases.ended(record.id);
        if let Err(error) = &ended {
            tracing::warn!(%error, snapshot = %record.id, "an ended lease could not be enforced yet");
        }
        ended.is_ok()
    }

    /// The record that the task listed may be older than a renewal.
    async fn end_unless_renewed(&self, id: Id) -> Result<(), Error> {
        let record = self.record_of(id).await?;
        let now_us = self.config.clock.now_us();
        if record
            .lease_expires_us
            .is_some_and(|expires| expires <= now_us)
        {
            self.release_data(&record, "lease expired", true).await?;
        }
        Ok(())
    }
}

/// Ends leases when their time has come, until the control plane stops.
pub(super) async fn expire(manager: Arc<Manager>) {
    let work = async {
        loop {
            let pause = manager.look_at_leases().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "leases could not be looked at");
                RETRY_PAUSE
            });
            // A wake-up or the time, whichever is first.
            let _ = timeout(pause, manager.leases.wake.notified()).await;
        }
    };
    tokio::select! {
        () = manager.shutting_down() => {}
        () = work => {}
    }
}
