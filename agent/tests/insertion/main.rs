//! Live insertion against a real device-mapper: stories that run in a guest, as root.
//!
//! ```text
//! cargo build --workspace --bins --tests
//! target/debug/vm --kernel 6.12 --memory 2048 --with target/debug/deps/insertion-HASH -- \
//!     insertion-HASH --ignored --nocapture --test-threads=1
//! ```
//!
//! A dm-linear device over the private origin stands in for the interposer: it is what a server
//! that changes nothing would be.

mod crashes;
mod cycles;
mod guard;
mod load;
mod refusals;
mod rig;
mod stacking;
mod volumes;
