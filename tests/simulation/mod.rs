//! The deterministic simulator: the real engine on simulated disks, clock and scheduler, all from
//! one seed.
//!
//! - a world: `world` (what outlives processes), `life` (one process), `schedule` (who runs);
//! - what is under the engine: `medium` (what a disk promises), `disk`, `image`, `context` (time and
//!   choices);
//! - who uses it: `workload` and `host` (requests), `snapshots` (cuts, views, diffs), `trouble` and
//!   `faults`;
//! - who judges: `model` (what must be), `checkers` (I1 to I8), `errands` (what the disks saw);
//! - `continuity`: all that durable tracking changes;
//! - `campaign` (many worlds, and the smallest failing one), `seeds` (what was found once).
//!
//! A checker must be seen to fail: the engine leaves out one step for each invariant when asked to
//! (`tidemark_agent::volume::Step`), and the checker of that invariant must be the one that finds it.

mod campaign;
mod checkers;
mod context;
mod continuity;
mod disk;
mod errands;
mod faults;
mod host;
mod image;
mod life;
mod medium;
mod model;
mod plan;
mod schedule;
pub mod seeds;
mod snapshots;
mod tally;
mod trouble;
mod workload;
mod world;

pub use campaign::{Campaign, Lived, run, shrink};
pub use plan::{Failure, Fault, Faults, Invariant, Plan};
pub use tally::{Count, Tally};
