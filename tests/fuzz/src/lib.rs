//! Every decoder of stored or received bytes, with what must hold for any bytes.
//!
//! [`TARGETS`] is the list; a decoder with an encoder is one line in it. `make fuzz` looks for
//! bytes that break a property, guided by which way the decoders go (run.sh); an ordinary test,
//! corpus.rs, runs all that is in corpus/.

mod bytes;
mod calls;
mod catalog;
mod command;
mod configuration;
mod history;
mod journal;
mod kernel;
mod memory;
mod protocol;
mod repository;
mod stored;
mod words;

#[path = "../../../cli/src/exit.rs"]
#[allow(dead_code, reason = "the command's")]
mod exit;
#[path = "../../../cli/src/heatmap.rs"]
#[allow(dead_code, reason = "the command's")]
mod heatmap;
#[path = "../../../cli/src/image.rs"]
#[allow(dead_code, reason = "the command's")]
mod image;
#[path = "../../../cli/src/cmd/pull/state.rs"]
#[allow(dead_code, reason = "the command's")]
mod state;
#[path = "../../../cli/src/text.rs"]
#[allow(dead_code, reason = "the command's")]
mod text;
#[path = "../../../cli/src/units.rs"]
#[allow(dead_code, reason = "the command's")]
mod units;
#[path = "../../../cli/src/cmd/pull/unpack.rs"]
#[allow(dead_code, reason = "the command's")]
mod unpack;

/// More than any decoder needs beside what its input holds.
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// One decoder.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in corpus/.
    pub name: &'static str,
    /// What it may hold in memory while it reads up to 4 KiB, in bytes.
    pub memory: usize,
    /// Panics when a property does not hold.
    check: fn(&[u8]),
    /// What an encoder made; each leads to the decoder's depths.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

impl Target {
    const fn new(
        name: &'static str,
        memory: usize,
        check: fn(&[u8]),
        seeds: fn() -> Vec<Vec<u8>>,
    ) -> Self {
        Self {
            name,
            memory,
            check,
            seeds,
        }
    }

    /// Panics when a property does not hold for these bytes.
    pub fn run(&self, bytes: &[u8]) {
        let held = memory::most_held(|| (self.check)(bytes));
        assert!(
            held <= self.memory,
            "{held} bytes of memory for {} of input, and {} are allowed",
            bytes.len(),
            self.memory
        );
    }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target::new(
        "area-superblock",
        64 * KIB,
        stored::superblock,
        stored::superblocks,
    ),
    Target::new("slot-page", 64 * KIB, stored::slot_page, stored::slot_pages),
    Target::new(
        "slot-shadow",
        MIB,
        stored::slot_shadow,
        stored::slot_shadows,
    ),
    Target::new(
        "journal-header",
        64 * KIB,
        journal::header,
        journal::headers,
    ),
    Target::new("journal-image", MIB, journal::image, journal::images),
    Target::new(
        "journal-record",
        MIB,
        journal::records,
        journal::record_seeds,
    ),
    Target::new("journal-log", MIB, journal::log, journal::logs),
    Target::new(
        "origin-facts",
        64 * KIB,
        journal::facts,
        journal::some_facts,
    ),
    Target::new("change-set", MIB, stored::change_set, stored::change_sets),
    Target::new("change-map", MIB, words::change_map, words::change_maps),
    Target::new("change-history", MIB, history::names, history::some_names),
    Target::new("state", MIB, words::state, words::states),
    Target::new("id", 64 * KIB, stored::id, stored::ids),
    Target::new("catalog", MIB, catalog::damaged, catalog::some_damage),
    Target::new(
        "insertion-journal",
        64 * KIB,
        kernel::journal,
        kernel::journals,
    ),
    Target::new("dm-table", MIB, kernel::table, kernel::tables),
    Target::new("dm-list", MIB, kernel::devices, kernel::some_devices),
    Target::new(
        "sector-counts",
        64 * KIB,
        kernel::sectors,
        kernel::some_sectors,
    ),
    Target::new("volume-list", MIB, kernel::volumes, kernel::some_volumes),
    Target::new("mountinfo", MIB, kernel::mounts, kernel::some_mounts),
    Target::new(
        "wire-request",
        3 * MIB,
        protocol::requests,
        protocol::some_requests,
    ),
    Target::new(
        "wire-reply",
        3 * MIB,
        protocol::replies,
        protocol::some_replies,
    ),
    Target::new("engine-calls", 16 * MIB, calls::calls, calls::some_calls),
    Target::new(
        "start-outcome",
        64 * KIB,
        protocol::outcome,
        protocol::outcomes,
    ),
    Target::new(
        "restore-extent",
        16 * MIB,
        protocol::extent,
        protocol::extents,
    ),
    Target::new("repository-node", MIB, repository::node, repository::nodes),
    Target::new(
        "repository-point",
        MIB,
        repository::point,
        repository::points,
    ),
    Target::new(
        "repository-index",
        MIB,
        repository::an_index,
        repository::indexes,
    ),
    Target::new("repository-pack", MIB, repository::pack, repository::packs),
    Target::new(
        "repository-object",
        MIB,
        repository::object,
        repository::objects,
    ),
    Target::new(
        "repository-blob",
        4 * MIB,
        repository::blob,
        repository::blobs,
    ),
    Target::new("pull-state", MIB, command::state, command::states),
    Target::new(
        "pull-extent",
        16 * MIB,
        command::extent,
        crate::protocol::extents,
    ),
    Target::new("heat-map", MIB, command::heat_map, command::heat_maps),
    Target::new(
        "configuration",
        4 * MIB,
        configuration::file,
        configuration::files,
    ),
    Target::new("sizes", 64 * KIB, command::sizes, command::some_sizes),
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// For a decoder with an encoder: what was read is what is written, and reads back the same.
/// Gives what was read.
pub(crate) fn reads_back<T: PartialEq + std::fmt::Debug, B: AsRef<[u8]>>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Option<T>,
    encode: impl Fn(&T) -> B,
) -> Option<T> {
    let read = decode(bytes)?;
    let written = encode(&read);
    assert_eq!(
        decode(written.as_ref()).as_ref(),
        Some(&read),
        "it does not read back"
    );
    Some(read)
}
