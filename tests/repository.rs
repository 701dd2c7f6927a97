//! A repository in a folder, whose writer is killed or whose disk loses its power at any write.
//!
//! In each cycle a process of its own backs up, forgets and prunes, as fast as it can, and says what is
//! finished. Then the power of the disk under the folder's file system is cut, or the process is killed.
//! After it the file system must be sound, every point that was said to be finished must restore to what
//! its image was, a check that reads everything must find nothing, and the next writer must go on.
//!
//! `make test` tells a few cycles, `make test-faults` 200; TIDEMARK_SEED repeats a run's choices, as far
//! as threads and disks let it.

#[path = "repository/claims.rs"]
mod claims;
#[path = "repository/story.rs"]
mod story;
#[path = "repository/worker.rs"]
mod worker;

use tidemark_tests::{FsKind, MIB};

use story::{Moment, PowerCuts, kills};

#[test]
fn power_cuts_under_ext4() {
    PowerCuts::begin(FsKind::Ext4, 64 * MIB).tell();
}

#[test]
fn power_cuts_under_xfs() {
    PowerCuts::begin(FsKind::Xfs, 304 * MIB).tell();
}

#[test]
fn power_cuts_under_btrfs() {
    PowerCuts::begin(FsKind::Btrfs, 128 * MIB).tell();
}

const DISKS: [(FsKind, u64); 3] = [
    (FsKind::Ext4, 64 * MIB),
    (FsKind::Xfs, 304 * MIB),
    (FsKind::Btrfs, 128 * MIB),
];

#[test]
fn an_object_is_durable_when_its_creation_returns_and_so_is_its_deletion() {
    for (kind, bytes) in DISKS {
        println!("{}", kind.name());
        PowerCuts::begin(kind, bytes).keeps_what_it_created();
    }
}

#[test]
fn what_a_dead_writer_did_not_flush_is_flushed_by_who_relies_on_it() {
    for (kind, bytes) in DISKS {
        println!("{}", kind.name());
        PowerCuts::begin(kind, bytes).relies_on_what_a_dead_writer_left();
    }
}

#[test]
fn kills_at_any_moment() {
    kills();
}

/// That the story sees: of a disk that promises and does not keep, something is missing.
#[test]
#[should_panic]
fn a_disk_that_does_not_keep_what_it_promised_is_seen() {
    let mut story = PowerCuts::begin(FsKind::Ext4, 64 * MIB);
    story.cycle(Moment::AfterReport(4));
    story.lie();
    // A power cut may happen to lose nothing; six in a row do not.
    for _ in 0..6 {
        story.cycle(Moment::AfterReport(4));
    }
}

/// The process that the stories kill. Run by itself it has nothing to do.
#[test]
fn a_writer() {
    worker::run();
}
