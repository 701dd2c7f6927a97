//! The checkers see: what cannot fail proves nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidemark_tests::{
    Fio, FsKind, KIB, MIB, Mounted, Random, World, churn::Churn, fio, image, programs::succeed,
};

#[test]
fn a_sound_file_system_passes_and_a_damaged_one_does_not() {
    for (kind, bytes) in [
        (FsKind::Ext4, 64 * MIB + 777),
        (FsKind::Xfs, 320 * MIB + 512),
        (FsKind::Btrfs, 160 * MIB + 1),
    ] {
        let world = World::new();
        let image = world.path("fs.img");
        image::sparse(&image, bytes);
        kind.make(&image);
        let mounted = Mounted::new(kind, &image, &world.path("mnt"));
        let churn = Churn::start(&mounted.point().join("churn"), 3);
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert!(churn.stop() > 0);
        mounted.trim();
        drop(mounted);
        kind.assert_sound(&image, &world);

        // Past the first superblock, where each of them keeps its trees and tables.
        image::scribble(&image, 32 * KIB, 40 * MIB, &mut Random::new(1));
        let seen = catch_unwind(AssertUnwindSafe(|| kind.assert_sound(&image, &world)));
        assert!(seen.is_err(), "{} did not see the damage", kind.name());
    }
}

#[test]
fn fio_sees_a_byte_that_another_changed() {
    let world = World::new();
    let report = world.path("fio.json");
    let load = world.path("load");
    std::fs::create_dir(&load).expect("a directory can be made");
    let mut running = Fio::verifying(&load, &report, 8 * MIB).start();
    fio::await_load(&load);
    running.assert_busy();
    assert!(running.stop().written_bytes() > 0);

    let file = load.join("job.0.0");
    let check = || {
        Fio::new(&report)
            .option(&format!("filename={}", file.display()))
            .option("size=8m")
            .option("bs=4k")
            .option("verify=crc32c")
            .option("verify_fatal=1")
    };
    check().option("rw=write").run();
    check().option("rw=read").option("verify_only").run();
    image::scribble(&file, 5 * MIB + 100, 1, &mut Random::new(2));
    let seen = catch_unwind(|| check().option("rw=read").option("verify_only").run());
    assert!(seen.is_err(), "fio did not see the damage");
}

#[test]
fn one_byte_makes_images_differ() {
    let world = World::new();
    let (one, other) = (world.path("one.img"), world.path("other.img"));
    image::filled(&one, 3 * MIB + 777, &mut Random::new(4));
    succeed(std::process::Command::new("cp").args([&one, &other]));
    image::assert_same(&one, &other);
    assert_eq!(image::digest(&one), image::digest(&other));
    image::scribble(&other, 3 * MIB + 776, 1, &mut Random::new(5));
    let seen = catch_unwind(|| image::assert_same(&one, &other));
    assert!(seen.is_err(), "the last byte counts");
}
