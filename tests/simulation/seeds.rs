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
pub const SEEDS: [Named; 8] = [
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
    Named {
        found: "a header, or the wiping of one, that a dead process had in flight came to the medium or \
                did not, after its successor had begun an image there: a power cut then ended the \
                lineage",
        seeds: &[20_270_298, 5_000_666, 30_004_842],
    },
    Named {
        found: "the shadow of an earlier commit was put over pages of a later one, after a process \
                died between two commits: a durable snapshot showed other bytes",
        seeds: &[5_000_013],
    },
    Named {
        found: "a process that followed one whose area had failed said that tracking was durable before \
                the area told of what had changed meanwhile: a power cut brought back a lineage that \
                did not know of it",
        seeds: &[60_037_547],
    },
    Named {
        found: "not a defect of the engine: what a power cut brought back in a volume was taken for a \
                number of the writer of pairs",
        seeds: &[60_040_834],
    },
];
