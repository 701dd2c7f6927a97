//! Transports present block devices and hand requests to the engine.

pub mod portable;
