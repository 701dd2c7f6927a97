//! The engine against a model, on a disk that yields at every step.

mod faults;
mod model;
mod world;
