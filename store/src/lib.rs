//! What Tidemark stores: it says where and which bytes; the agent performs the I/O.
//!
//! FORMAT.md is the contract of every stored byte.

pub mod area;
mod bytes;
#[cfg(feature = "catalog")]
pub mod catalog;
pub mod changes;
pub mod cow;
pub mod journal;
pub mod media;
#[cfg(feature = "repository")]
pub mod repository;
pub mod state;
pub mod sync;
pub mod units;
