//! What a world's volumes are like and what its host asks: decided by the seed alone.

use std::{sync::Arc, time::Duration};

use tidemark_agent::volume::FullPolicy;
use tidemark_store::{
    area::Layout,
    units::{ByteRange, Geometry},
};

use super::{
    context::{Context, Stream, usize_of},
    errands::{Ask, Verb},
    medium::SECTOR,
    plan::{Fault, Plan},
};

/// The two sectors that only the writer of pairs writes lie here, in worlds with two volumes.
pub(super) const PAIR_BYTES: u64 = SECTOR;

/// One volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct VolumeShape {
    pub(super) geometry: Geometry,
    pub(super) area_bytes: u64,
    pub(super) discard_zeroes: bool,
    pub(super) policy: FullPolicy,
}

/// A world.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) volumes: Vec<VolumeShape>,
    /// Requests in flight at a time, for each volume.
    pub(super) hosts: usize,
    pub(super) operations: u64,
    pub(super) think_us: u64,
    pub(super) housekeep_us: u64,
    /// Steps between crashes, about.
    pub(super) life_steps: u64,
    /// The transport's driver keeps the host's requests over a death; else the origin's time of
    /// modification is what is known.
    pub(super) keeps_requests: bool,
    /// Tracking outlives the host.
    pub(super) durable: bool,
    /// Snapshots do, too.
    pub(super) durable_snapshots: bool,
    /// Regions that may be active, where that is not left to the engine.
    pub(super) max_active: Option<u64>,
    /// For the lineage of requests: shares of 100.
    mix: Mix,
}

#[derive(Clone, Copy, Debug)]
struct Mix {
    reads: u64,
    discards: u64,
    zeroes: u64,
    flushes: u64,
    fua: u64,
    odd: u64,
    large: u64,
}

impl Shape {
    pub(super) fn draw(plan: Plan, choices: &Stream) -> Self {
        let count = 1 + usize::from(choices.per_mille(250));
        let small_store = choices.per_mille(400) && !plan.without.has(Fault::SmallStore);
        let volumes = (0..count)
            .map(|_| draw_volume(choices, small_store))
            .collect();
        let mut shape = Self {
            volumes,
            hosts: usize_of(choices.between(1, 8)),
            operations: choices.between(400, 2000),
            think_us: [0, 200, 2000, 20_000][choices.index(4)],
            housekeep_us: [5_000, 20_000, 100_000][choices.index(3)],
            life_steps: [200, 2000, 8000][choices.index(3)],
            keeps_requests: choices.per_mille(700),
            durable: choices.per_mille(600),
            durable_snapshots: false,
            max_active: [None, Some(1), Some(4)][choices.index(3)],
            mix: Mix {
                reads: choices.below(30),
                discards: [0, 5, 20][choices.index(3)],
                zeroes: [0, 5, 20][choices.index(3)],
                flushes: choices.below(12),
                fua: choices.below(30),
                odd: [0, 10, 60][choices.index(3)],
                large: [0, 3, 15][choices.index(3)],
            },
        };
        // Not drawn: worlds without them stay as they were.
        shape.durable_snapshots = shape.durable && plan.seed % 2 == 1;
        for volume in shape.volumes.iter_mut().filter(|_| shape.durable_snapshots) {
            let layout = Layout::of(volume.geometry);
            volume.area_bytes += layout.min_capacity(true) - layout.min_capacity(false);
        }
        shape
    }
}

fn draw_volume(choices: &Stream, small_store: bool) -> VolumeShape {
    let block_bytes = [4096, 4096, 4096, 8192, 16384, 65536][choices.index(6)];
    // Most small enough that everything happens to every block; some with regions of 1 MiB.
    let about = match choices.below(10) {
        0 => choices.between(4 << 20, 16 << 20),
        1..4 => choices.between(512 << 10, 2 << 20),
        _ => choices.between(48 << 10, 512 << 10),
    };
    let unit = [1, SECTOR, u64::from(block_bytes)][choices.index(3)];
    let capacity = (about / unit * unit).max(u64::from(block_bytes));
    let geometry = Geometry::new(capacity, block_bytes).expect("drawn within limits");
    let roomy = geometry.blocks() * choices.between(1, 4);
    let slots = if small_store {
        choices.between(0, geometry.blocks() / 4)
    } else {
        roomy
    };
    let slow = Duration::from_micros(choices.between(100, 50_000));
    VolumeShape {
        geometry,
        area_bytes: Layout::of(geometry).min_capacity(false)
            + slots * geometry.block_bytes()
            + choices.below(4096),
        discard_zeroes: choices.per_mille(700),
        policy: if choices.per_mille(500) {
            FullPolicy::Slow(slow)
        } else {
            FullPolicy::Drop
        },
    }
}

/// A request that a driver can issue again.
#[derive(Clone, Debug)]
pub(super) struct HostRequest {
    pub(super) ask: Ask,
    pub(super) bytes: Option<Arc<[u8]>>,
}

/// How one of the host's tasks likes its ranges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habit {
    kind: u64,
    at: u64,
    last: ByteRange,
}

impl Habit {
    pub(super) fn draw(context: &Context) -> Self {
        Self {
            kind: context.workload.below(4),
            at: 0,
            last: ByteRange::new(0, 512),
        }
    }

    /// The next request of a task.
    pub(super) fn next(&mut self, context: &Context, shape: &Shape, volume: usize) -> HostRequest {
        let choices = &context.workload;
        let mix = shape.mix;
        let reserved = if shape.volumes.len() > 1 {
            PAIR_BYTES
        } else {
            0
        };
        let geometry = shape.volumes[volume].geometry;
        let draw = choices.below(100);
        let fua = choices.below(100) < mix.fua;
        let fill = choices.next();
        let verb = [
            (Verb::Read, mix.reads),
            (Verb::Discard, mix.discards),
            (Verb::Zeroes, mix.zeroes),
            (Verb::Flush, mix.flushes),
        ]
        .into_iter()
        .scan(0, |sum, (verb, share)| {
            *sum += share;
            Some((verb, *sum))
        })
        .find(|(_, sum)| draw < *sum)
        .map_or(Verb::Write, |(verb, _)| verb);
        let range = self.range(choices, mix, (geometry, reserved), verb);
        let ask = match verb {
            Verb::Flush => Ask {
                verb,
                range: ByteRange::new(0, 0),
                fua: false,
            },
            Verb::Read | Verb::Discard => Ask {
                verb,
                range,
                fua: false,
            },
            Verb::Write | Verb::Zeroes => Ask { verb, range, fua },
        };
        let bytes = (verb == Verb::Write).then(|| content(fill, range.len));
        HostRequest { ask, bytes }
    }

    fn range(
        &mut self,
        choices: &Stream,
        mix: Mix,
        (geometry, reserved): (Geometry, u64),
        verb: Verb,
    ) -> ByteRange {
        let unit = if choices.below(100) < mix.odd {
            [1, SECTOR][choices.index(2)]
        } else {
            4096
        };
        let room = geometry.capacity() - reserved;
        let large = choices.below(100) < mix.large;
        let most = match verb {
            Verb::Discard | Verb::Zeroes if large => room,
            Verb::Write | Verb::Read if large => 300 << 10,
            _ => 16 << 10,
        };
        let len = choices
            .between(1, (most / unit).max(1))
            .saturating_mul(unit)
            .min(room);
        let spot = choices.next();
        let again = choices.below(4) == 0;
        let offset = match self.kind {
            0 => self.at,
            1 => spot % (room / 8).max(1),
            2 if again => self.last.offset - reserved.min(self.last.offset),
            _ => spot % room,
        };
        let offset = offset / unit * unit % room;
        let len = len.min(room - offset);
        self.at = offset + len;
        self.last = ByteRange::new(reserved + offset, len);
        self.last
    }
}

/// Bytes of which each sector differs from every other write's.
pub(super) fn content(fill: u64, len: u64) -> Arc<[u8]> {
    let mut bytes = vec![fill.to_le_bytes()[7] | 1; usize_of(len)];
    for (number, sector) in (0_u64..).zip(bytes.chunks_mut(usize_of(SECTOR))) {
        let stamp = fill.wrapping_add(number).to_le_bytes();
        let len = stamp.len().min(sector.len());
        sector[..len].copy_from_slice(&stamp[..len]);
    }
    bytes.into()
}
