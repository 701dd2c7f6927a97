//! The area's journal: what makes tracking outlive the host.
//!
//! ```text
//! half 0   header | image of generation 6 | log block 0 | log block 1 | ...
//! half 1   header | image of generation 7 | log block 0 | ...              <- counts
//! ```
//!
//! An *image* is everything that is durable about tracking at one moment; the *log* after it says
//! what happened since, in small [`Record`]s. A new image goes into the other half, the log records
//! that were written meanwhile follow it, then its header makes it count, and the old header is wiped
//! before the new log goes on: of two images both tell everything. [`replay`] turns image and log into what was known, see
//! FORMAT.md, "Journal".
//!
//! The rule that it all serves: no change reaches the volume's origin before a durable record tells
//! of it, if only by its region. A region that was told to be active and not yet to be cold again
//! counts as changed whole.

mod facts;
mod image;
mod log;
mod record;
mod replay;

pub use facts::{Difference, Facts, Mounts, PAGES};
pub use image::{Header, Image, ImageError, Item, Span};
pub use log::{BLOCK_BYTES, LogBlock, Packer, seal};
pub use record::{Placed, Record, RecordError, Regions};
pub use replay::{Recovered, ReplayError, replay};

#[cfg(test)]
mod tests;
