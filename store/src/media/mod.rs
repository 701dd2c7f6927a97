//! Where stored state lives.

mod mapping;

pub use mapping::Mapping;

/// Bytes of a memory page, and of a page of a bitmap.
pub const PAGE_BYTES: usize = 4096;
