//! Seeds that found something once, and the command that found it; each must pass from then on.

/// A world that failed before what it found was mended.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// What it found.
    pub found: &'static str,
    /// Its seed. What a seed does changes with the simulator, so several may stand for one defect.
    pub seed: u64,
}

/// In the order in which they were found.
pub const SEEDS: [Named; 0] = [];
