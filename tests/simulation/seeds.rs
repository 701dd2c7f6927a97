//! Seeds that found something once; each must pass from then on.

/// A world that failed before what it found was mended.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// What it found.
    pub found: &'static str,
    /// Its seed. What a seed does changes with the simulator, so several may stand for one defect.
    pub seed: u64,
}

/// In the order in which they were found.
pub const SEEDS: [Named; 4] = [
    Named {
        found: "a hold lasted an hour longer when the host's clock was set back by one",
        seed: 119,
    },
    Named {
        found: "an area that lost power while it was first claimed is refused for good; the \
                operator is told, and an empty file is taken",
        seed: 3042,
    },
    Named {
        found: "a process that took over wrote its first journal image over the newest one: a \
                power cut meanwhile ended the lineage",
        seed: 74,
    },
    Named {
        found: "a cut was acknowledged while what was written before it was in the origin's cache: \
                a power cut took that back, and no diff told",
        seed: 66,
    },
];
