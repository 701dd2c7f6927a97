//! Seeds that found something once; each must pass from then on.

/// A world that failed before what it found was mended.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// What it found.
    pub found: &'static str,
    /// Seeds of worlds in which that happened. What a seed does changes with the simulator, and a
    /// seed that comes to another place tests less: so there are several.
    pub seeds: &'static [u64],
}

/// In the order in which they were found, each with the seeds that found it.
pub const SEEDS: [Named; 4] = [
    Named {
        found: "a hold lasted an hour longer when the host's clock was set back by one",
        seeds: &[241, 434, 442],
    },
    Named {
        found: "a process that took over wrote its first journal image over the newest one: a \
                power cut meanwhile ended the lineage",
        seeds: &[74, 172, 357],
    },
    Named {
        found: "a cut was acknowledged while what was written before it was in the origin's cache: \
                a power cut took that back, and no diff told",
        seeds: &[66, 135, 224],
    },
    Named {
        found: "a diff told blocks as zero after a power cut had undone the discard, which nobody \
                had flushed",
        seeds: &[444, 501_034],
    },
];
