//! The engine against a model, on a disk that yields at every step.
#![allow(clippy::cast_possible_truncation, reason = "the sizes here are small")]

mod durable;
mod faults;
mod kept;
mod model;
mod world;
