//! The copy-on-write index: which slot of the area holds which old block, for which snapshots.
//!
//! A snapshot is a *layer*: blocks whose first change after its cut happened while it was the
//! newest snapshot. One copy serves older snapshots too: a view reads a block from the first
//! layer at or after its own that has it, else from the origin.
//!
//! ```text
//! snapshot 1 ─┐        snapshot 2 ─┐        now
//!   layer 1: 10, 11      layer 2: 11, 12
//!   view 1 reads 10, 11 from layer 1, 12 from layer 2, the rest from the origin
//! ```
//!
//! So a copy in the layer of epoch `t` is needed as long as a snapshot is live whose epoch lies
//! after the block's next older copy and up to `t`. [`Index::sweep`] frees the others.
//!
//! The words of the slots lie in the state file and outlive the process; the hash chains that
//! find them do not, and are made anew from the words at the start. A slot costs 20 bytes of
//! memory: 8 for its word, 4 for the checksum, 4 for its link and 4 for a chain's head, which is
//! below 0.5 % of a 4 KiB block.

mod index;
mod layers;
pub mod table;

pub use index::{Found, Index, SlotRun, Sweep};
pub use layers::{Layer, Layers, LayersError};
