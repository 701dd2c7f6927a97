//! What a pull did, for a person and for a program.

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tidemark_proto::v1::{Trust, TrustReport};

use super::{state::Point, tally::Counts};
use crate::{json as as_json, units};

/// The result of a pull.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) volume: String,
    pub(crate) target: PathBuf,
    pub(crate) snapshot_id: String,
    /// What the image holds now.
    pub(crate) point: Point,
    /// What it held before, for an incremental.
    pub(crate) base: Option<Point>,
    /// Why full, or why incremental.
    pub(crate) why: String,
    /// Above 0 when an interrupted pull went on.
    pub(crate) resumed_at: u64,
    pub(crate) capacity_bytes: u64,
    pub(crate) counts: Counts,
    pub(crate) trust: Option<TrustReport>,
    pub(crate) consistency: i32,
    /// For how long the cut held writers.
    pub(crate) held: Option<Duration>,
    /// For how long the file system was frozen.
    pub(crate) frozen: Option<Duration>,
    pub(crate) duration: Duration,
    /// How often the connection was lost and found again.
    pub(crate) reconnects: u32,
    /// `all`, `sent` or `none`.
    pub(crate) verified: &'static str,
}

impl Summary {
    /// `full` or `incremental`.
    pub(crate) fn mode(&self) -> &'static str {
        if self.base.is_some() {
            "incremental"
        } else {
            "full"
        }
    }

    /// Everything that was listed as changed, or as held for a full pull.
    pub(crate) fn changed_bytes(&self) -> u64 {
        let counts = &self.counts;
        counts.data_bytes + counts.zero_bytes + counts.discarded_bytes
    }

    /// As JSON.
    pub(crate) fn json(&self) -> Value {
        let us = |span: Option<Duration>| {
            span.map(|span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
        };
        json!({
            "mode": self.mode(),
            "why": self.why,
            "volume": self.volume,
            "target": self.target,
            "snapshot_id": self.snapshot_id,
            "checkpoint": as_json::checkpoint(Some(&self.point.checkpoint())),
            "since": as_json::checkpoint(self.base.as_ref().map(Point::checkpoint).as_ref()),
            "resumed_at_bytes": self.resumed_at,
            "capacity_bytes": self.capacity_bytes,
            "changed_bytes": self.changed_bytes(),
            "data_bytes": self.counts.data_bytes,
            "zero_bytes": self.counts.zero_bytes,
            "discarded_bytes": self.counts.discarded_bytes,
            "sent_bytes": self.counts.sent_bytes,
            "extents": self.counts.extents,
            "trust": as_json::trust(self.trust.as_ref()),
            "consistency": as_json::consistency(self.consistency),
            "held_us": us(self.held),
            "frozen_us": us(self.frozen),
            "duration_us": us(Some(self.duration)),
            "reconnects": self.reconnects,
            "verified": self.verified,
        })
    }

    /// For a person.
    pub(crate) fn lines(&self) -> Vec<String> {
        let counts = &self.counts;
        let mut lines = vec![
            format!("{} pull of {}: {}", self.mode(), self.volume, self.why),
            format!(
                "  {} changed of {}, {} of it data, {} sent in {} extents",
                units::bytes(self.changed_bytes()),
                units::bytes(self.capacity_bytes),
                units::bytes(counts.data_bytes),
                units::bytes(counts.sent_bytes),
                counts.extents
            ),
            format!(
                "  took {}; writers held {}, file system frozen {} ({})",
                units::span(self.duration),
                units::span(self.held.unwrap_or_default()),
                units::span(self.frozen.unwrap_or_default()),
                as_json::consistency(self.consistency)
            ),
            format!(
                "  verified: {}; the image is at {}:{}",
                self.verified, self.point.lineage, self.point.epoch
            ),
        ];
        if self.reconnects > 0 {
            lines.push(format!(
                "  the connection was lost and found again: {} attempts",
                self.reconnects
            ));
        }
        if let Some(trust) = self
            .trust
            .as_ref()
            .filter(|trust| trust.trust == Trust::Superset as i32)
        {
            lines.push(format!(
                "  superset: up to {} more than changed ({})",
                units::bytes(trust.over_report_bound_bytes),
                trust.reason
            ));
        }
        lines
    }
}
