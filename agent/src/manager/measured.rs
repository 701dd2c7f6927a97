//! What a scrape of metrics asks of every volume server, all at once and not for long: whoever scrapes gives
//! up soon, and a server that hangs must not hide the others. No lock of the manager's is held meanwhile.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tidemark_proto::{
    private::{self, Description},
    v1,
};
use tokio::time::timeout;

use super::{
    Counters, Manager,
    link::LinkError,
    registry::{Entry, Health},
    volumes::{counters, durability, live_snapshots},
};

/// Within this a server answers, or counts as down.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A volume as a scrape finds it.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// The device or image under it.
    pub origin_path: PathBuf,
    /// The volume was taken from its servers, and the host uses it without us.
    pub fell_back: bool,
    /// No server answers, and none is waited for: what the host writes to the volume now is not tracked.
    pub untracked: bool,
    /// Times that its server was lost, or handed over, and another answered, since this process started.
    pub server_restarts: u64,
    /// Times that its tracking started anew, since this process started.
    pub tracking_resets: u64,
    /// What its server says; `None` when it does not answer in time.
    pub server: Option<MeasuredServer>,
}

impl Measured {
    /// How far what tracking tells can be relied on now; `None` when nobody says.
    pub fn trust(&self) -> Option<v1::Trust> {
        if self.fell_back || self.untracked {
            return Some(v1::Trust::Broken);
        }
        let server = self.server.as_ref()?;
        Some(match (server.bypassed, server.recovered) {
            (true, _) => v1::Trust::Broken,
            (false, true) => v1::Trust::Superset,
            (false, false) => v1::Trust::Continuous,
        })
    }
}

/// What a server says of itself and its volume.
#[derive(Clone, PartialEq, Debug)]
pub struct MeasuredServer {
    /// Size in bytes.
    pub capacity_bytes: u64,
    /// Size of the snapshot store in bytes.
    pub store_capacity_bytes: u64,
    /// Of these in use.
    pub store_used_bytes: u64,
    /// Snapshots whose data can be read.
    pub live_snapshots: usize,
    /// Checkpoints of the current lineage.
    pub checkpoints: usize,
    /// Bytes marked in the running epoch.
    pub changed_bytes_in_epoch: u64,
    /// When tracking last started anew, in microseconds since the UNIX epoch.
    pub lineage_since_us: u64,
    /// By ublk, and not by the portable transport.
    pub ublk: bool,
    /// A device-mapper volume lies over the interposer.
    pub inserted: bool,
    /// The host's requests go around the interposer.
    pub bypassed: bool,
    /// Tracking was taken up from the area after the host stopped, and no cut was made since.
    pub recovered: bool,
    /// Whether tracking outlives the host.
    pub durability: v1::TrackingDurability,
    /// Sums since the server started.
    pub counters: Counters,
    /// How long things took; `None` of a server that is older than this question.
    pub took: Option<Took>,
}

/// How long things took in a volume server since it started.
#[derive(Clone, PartialEq, Debug)]
pub struct Took {
    /// Requests of the host.
    pub requests: Vec<TookRequests>,
    /// For how long changes were stopped, for cuts and otherwise.
    pub holds: Histogram,
}

/// Requests of one kind.
#[derive(Clone, PartialEq, Debug)]
pub struct TookRequests {
    /// The kind.
    pub kind: private::RequestKind,
    /// From when a request reached the server to its answer.
    pub duration: Histogram,
    /// Bytes of those that did not fail.
    pub bytes: u64,
    /// Those that did.
    pub failures: u64,
}

/// Durations, counted by their length.
#[derive(Clone, PartialEq, Debug)]
pub struct Histogram {
    /// Upper bounds in microseconds, ascending, each with how many are within it and no lower one.
    pub buckets: Vec<(u64, u64)>,
    /// Those beyond the last bound.
    pub beyond: u64,
    /// All durations together, in microseconds.
    pub sum_us: u64,
}

impl Manager {
    /// Asks every volume's server; takes some seconds at most. In the order of their names.
    pub async fn measure(&self) -> Vec<Measured> {
        let asked: Vec<_> = self
            .registry
            .all()
            .into_iter()
            .map(|entry| tokio::spawn(measured(entry)))
            .collect();
        let mut volumes = Vec::new();
        for one in asked {
            // Only a runtime that ends cancels it.
            volumes.extend(one.await);
        }
        volumes
    }
}

async fn measured(entry: Arc<Entry>) -> Measured {
    let answered = timeout(ANSWER_WITHIN, ask(&entry)).await;
    let server = match answered {
        Ok(Ok(server)) => Some(server),
        Ok(Err(error)) => {
            tracing::debug!(volume = entry.name(), %error, "not measured");
            None
        }
        Err(_) => None,
    };
    Measured {
        name: entry.name().to_owned(),
        origin_path: entry.record.origin_path.clone(),
        fell_back: matches!(entry.health(), Health::FellBack(_)),
        untracked: server.is_none() && !entry.paths.is_presented(),
        server_restarts: entry.restarts.get(),
        tracking_resets: entry.resets.get(),
        server,
    }
}

async fn ask(entry: &Entry) -> Result<MeasuredServer, LinkError> {
    let told = entry.link.describe().await?;
    let took = match entry.link.measure().await {
        Ok(measured) => Some(took(&measured).ok_or_else(|| {
            LinkError::Protocol("the volume server answered histograms that are none".to_owned())
        })?),
        Err(LinkError::Refused(_)) => None,
        Err(error) => return Err(error),
    };
    Ok(server(&told, took))
}

fn server(told: &Description, took: Option<Took>) -> MeasuredServer {
    MeasuredServer {
        capacity_bytes: told.capacity_bytes,
        store_capacity_bytes: told.store_capacity_bytes,
        store_used_bytes: told.store_used_bytes,
        live_snapshots: live_snapshots(told),
        checkpoints: told.checkpoints.len(),
        changed_bytes_in_epoch: told.changed_bytes_in_epoch,
        lineage_since_us: told.lineage_since_us,
        ublk: told.ublk,
        inserted: told.inserted_live,
        bypassed: !told.bypassed.is_empty(),
        recovered: told.recovered_epoch > 0,
        durability: durability(told.durability()),
        counters: counters(told),
        took,
    }
}

/// `None` where it is no histogram that a parser takes.
fn took(told: &private::Measurements) -> Option<Took> {
    let bounds = &told.bounds_us;
    let ascending = bounds.is_sorted_by(|one, next| one < next);
    let requests = told.requests.iter().map(|one| {
        Some(TookRequests {
            kind: Some(one.kind()).filter(|kind| *kind != private::RequestKind::Unspecified)?,
            duration: histogram(bounds, one.duration.as_ref()?)?,
            bytes: one.bytes,
            failures: one.failures,
        })
    });
    Some(Took {
        requests: requests.collect::<Option<_>>().filter(|_| ascending)?,
        holds: histogram(bounds, told.holds.as_ref()?)?,
    })
}

fn histogram(bounds_us: &[u64], told: &private::Histogram) -> Option<Histogram> {
    let (beyond, within) = told.counts.split_last()?;
    // The sum of all is a count too.
    told.counts
        .iter()
        .try_fold(0_u64, |sum, count| sum.checked_add(*count))?;
    (within.len() == bounds_us.len()).then(|| Histogram {
        buckets: bounds_us
            .iter()
            .copied()
            .zip(within.iter().copied())
            .collect(),
        beyond: *beyond,
        sum_us: told.sum_us,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bounds_us: &[u64], counts: &[u64]) -> private::Measurements {
        let histogram = private::Histogram {
            counts: counts.to_vec(),
            sum_us: 9,
        };
        private::Measurements {
            bounds_us: bounds_us.to_vec(),
            requests: vec![private::RequestMeasurements {
                kind: private::RequestKind::Read.into(),
                duration: Some(histogram.clone()),
                bytes: 7,
                failures: 1,
            }],
            holds: Some(histogram),
        }
    }

    #[test]
    fn only_what_is_a_histogram_is_taken() {
        let good = took(&told(&[10, 20], &[1, 2, 3])).expect("a histogram");
        assert_eq!(good.holds.buckets, [(10, 1), (20, 2)]);
        assert_eq!((good.holds.beyond, good.holds.sum_us), (3, 9));
        for wrong in [
            told(&[20, 10], &[1, 2, 3]),
            told(&[10, 10], &[1, 2, 3]),
            told(&[10, 20], &[1, 2]),
            told(&[], &[]),
            told(&[10], &[u64::MAX, 1]),
        ] {
            assert_eq!(took(&wrong), None, "{wrong:?}");
        }
        let mut unknown = told(&[10], &[1, 1]);
        unknown.requests[0].kind = 77;
        assert_eq!(took(&unknown), None);
    }
}
