//! Stored bytes and what they mean: FORMAT.md, "Repository, version 1". Pure: no storage, no clock.

pub mod blob;
pub mod condemned;
pub mod config;
pub mod envelope;
pub mod index;
pub mod name;
pub mod node;
pub mod pack;
pub mod point;
