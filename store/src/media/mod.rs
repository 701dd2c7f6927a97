//! Where stored state lives.

#[cfg(not(loom))]
mod mapping;
#[cfg(loom)]
#[path = "modelled.rs"]
mod mapping;

pub use mapping::Mapping;

/// Bytes of a memory page, and of a page of a bitmap; few where every word is modelled.
pub const PAGE_BYTES: usize = if cfg!(loom) { 64 } else { 4096 };
