//! Stories that are told inside a guest: ordinary tests, run one by one by the harness.
//!
//! `target/debug/vm --kernel 6.12 -- vm_guest --ignored --nocapture --exact NAME` runs one.

mod area;
mod assembled;
mod bench;
mod cycles;
mod deaths;
mod fixtures;
mod foreign;
mod groups;
mod guarded;
mod kernel;
mod leaving;
mod live;
mod portable;
mod power;
mod rooted;
mod write_log;
