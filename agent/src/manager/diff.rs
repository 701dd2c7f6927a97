//! Diffs and allocated ranges, a page at a time; and what a diff is worth.

use tidemark_proto::{private::FailureKind, v1};
use tidemark_store::units::Id;

use super::{Checkpoint, Error, ExtentPage, Manager, Trust, validate};

/// Why a diff has more than what changed.
const OVER_REPORTED: &str = "the host stopped without warning in between: what was being changed \
                             then is reported by whole MiB";
/// Ranges of one page, at most: what fits into one message of the private protocol.
const MAX_PAGE: u32 = 16_384;

impl Manager {
    /// What changed after `since` and up to `until` (`None`: now), from byte `start` on, `max`
    /// extents at most. Fails with TRACKING_RESET when `since` is of a past lineage, and with
    /// CHECKPOINT_GONE when it was forgotten or never made.
    pub async fn changes_page(
        &self,
        volume: &str,
        since: &Checkpoint,
        until: Option<&Checkpoint>,
        start: u64,
        max: u32,
    ) -> Result<ExtentPage, Error> {
        validate::name("volume", volume)?;
        let entry = self.registry.get(volume)?;
        if let Some(until) = until {
            check_order(since, until)?;
        }
        let until_epoch = until.map(|until| until.epoch);
        let page = entry
            .link
            .changes(
                since.lineage,
                since.epoch,
                until_epoch,
                start,
                page_size(max),
            )
            .await;
        let error = match page {
            Ok(page) => return Ok(page),
            Err(error) => error,
        };
        match error.refusal() {
            Some(FailureKind::TrackingReset) => {
                // So that the catalog knows what ended the lineage.
                self.refresh(&entry).await?;
                Err(self.past_lineage(volume, *since).await?)
            }
            Some(FailureKind::CheckpointGone) => {
                Err(Error::checkpoint_gone(volume, since.lineage, since.epoch.0))
            }
            _ => Err(error.on_volume(volume)),
        }
    }

    /// What a snapshot holds from byte `start` on, `max` extents at most.
    pub async fn allocated_page(
        &self,
        snapshot: Id,
        start: u64,
        max: u32,
    ) -> Result<ExtentPage, Error> {
        let record = self.record_of(snapshot).await?;
        self.check_ready(&record)?;
        let entry = self.registry.get(&record.volume)?;
        let page = entry.link.allocated(snapshot, start, page_size(max)).await;
        let Err(error) = page else {
            return page.map_err(|error| error.on_volume(&record.volume));
        };
        if error.refusal().is_some() {
            // It may have gone since: then its own reason is the better one.
            self.refresh(&entry).await?;
            self.check_ready(&self.record_of(snapshot).await?)?;
        }
        Err(error.on_volume(&record.volume).on_snapshot(snapshot))
    }

    /// How far a diff between two points (`None`: now) within the current lineage of a volume can
    /// be trusted, or tracking as such. Fails as [`Manager::changes_page`] does.
    pub async fn trust(
        &self,
        volume: &str,
        span: Option<(&Checkpoint, Option<&Checkpoint>)>,
    ) -> Result<Trust, Error> {
        validate::name("volume", volume)?;
        let entry = self.registry.get(volume)?;
        let told = self.refresh(&entry).await?;
        let trust = Trust::continuous(told.lineage_since_us);
        let Some((since, until)) = span else {
            return Ok(trust);
        };
        let page = self.changes_page(volume, since, until, 0, 1).await?;
        Ok(match page.over_report_bytes {
            0 => trust,
            bytes => Trust {
                level: v1::Trust::Superset,
                reason: OVER_REPORTED.to_owned(),
                over_report_bound_bytes: bytes,
                ..trust
            },
        })
    }

    /// Why a checkpoint of another lineage than the current one cannot be used.
    pub(super) async fn past_lineage(
        &self,
        volume: &str,
        checkpoint: Checkpoint,
    ) -> Result<Error, Error> {
        let lineage = checkpoint.lineage;
        let known = self
            .ledger
            .run(move |catalog| catalog.lineage(lineage))
            .await?;
        Ok(match known.filter(|known| known.volume == volume) {
            Some(past) => {
                let cause = past
                    .ended_cause
                    .as_deref()
                    .unwrap_or("the volume was attached anew");
                Error::tracking_reset(volume, cause)
            }
            None => Error::checkpoint_gone(volume, lineage, checkpoint.epoch.0),
        })
    }
}

impl Trust {
    /// Every change since then is known. The engine tracks exactly or begins a new lineage.
    pub fn continuous(since_us: u64) -> Self {
        Self {
            level: v1::Trust::Continuous,
            reason: String::new(),
            over_report_bound_bytes: 0,
            since_us,
        }
    }
}

fn check_order(since: &Checkpoint, until: &Checkpoint) -> Result<(), Error> {
    if since.lineage != until.lineage {
        let why = "the two points are of different lineages: take a full backup";
        return Err(Error::invalid("until", why));
    }
    if until.epoch < since.epoch {
        let why = format!("epoch {} is before {}", until.epoch, since.epoch);
        return Err(Error::invalid("until", why));
    }
    Ok(())
}

fn page_size(max: u32) -> u32 {
    if max == 0 {
        MAX_PAGE
    } else {
        max.min(MAX_PAGE)
    }
}
