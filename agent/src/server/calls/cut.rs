//! Hold, cut, unhold.

use std::time::Duration;

use futures_lite::future::block_on;
use tidemark_proto::private::{Cut, CutReply, Failure, FailureKind, Held, Hold};
use tidemark_store::units::Id;

use super::{Session, failure::cut_failure};
use crate::{server::served::failure, volume::HoldToken};

/// Longest that a client may ask changes to be held: the host's writers wait for all of it.
const MAX_HOLD: Duration = Duration::from_secs(30);

impl Session {
    pub(super) fn hold(&mut self, hold: &Hold) -> Result<Held, Failure> {
        let max = Duration::from_micros(hold.max_hold_us);
        if max.is_zero() || max > MAX_HOLD {
            let message = format!("max_hold_us must be from 1 to {}", MAX_HOLD.as_micros());
            return Err(failure(FailureKind::Invalid, message));
        }
        self.served.check_guard()?;
        let permit = self.served.permit_hold(max)?;
        let token = block_on(self.served.volume.hold(max)).map_err(cut_failure)?;
        self.holds.insert(token.0, permit);
        Ok(Held { token: token.0 })
    }

    pub(super) fn cut(&mut self, cut: &Cut) -> Result<CutReply, Failure> {
        let snapshot = optional_id(&cut.snapshot_id)?;
        let outcome = self.served.volume.cut(HoldToken(cut.token), snapshot);
        self.holds.remove(&cut.token);
        self.served.wake_housekeeping();
        let made = outcome.map_err(cut_failure)?;
        let view_path = snapshot.map(|id| self.served.paths.view(&id.to_string()));
        Ok(CutReply {
            lineage: made.checkpoint.lineage.0.to_vec().into(),
            epoch: made.checkpoint.epoch.0,
            held_us: u64::try_from(made.held.as_micros()).unwrap_or(u64::MAX),
            view_path: view_path
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            created_us: made.checkpoint.created_us,
        })
    }

    pub(super) fn unhold(&mut self, token: u64) {
        self.served.volume.unhold(HoldToken(token));
        self.holds.remove(&token);
    }
}

/// Empty for none.
fn optional_id(bytes: &[u8]) -> Result<Option<Id>, Failure> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let id = Id::from_slice(bytes).filter(|id| *id != Id::NIL);
    id.map(Some)
        .ok_or_else(|| failure(FailureKind::Invalid, "a snapshot's id has 16 bytes"))
}
