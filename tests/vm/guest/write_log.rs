//! What happens in the guest before `tests/vm/write_log.rs` replays the log of it: a volume and its
//! area on one disk whose every write the kernel records, in the order of both.
//!
//! The volume is written to through ext4, mounted anew again and again, with and without fsyncs;
//! a mark in the log tells when a checkpoint was promised, and the recording what it holds.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tidemark_proto::v1::{SnapshotState, TrackingDurability};
use tidemark_store::units::{Epoch, Id};
use tidemark_tests::{
    Api, Daemon, Fio, FsKind, Load, MIB, Mounted,
    api::attach_request,
    fio::Running,
    host,
    lvm::mapped_device,
    programs::{printed, run, succeed},
    write_log::{ATTACHED, DONE, PROMISED, RELEASED, Recording},
};

const DISK: &str = "/dev/vda";
const LOG: &str = "/dev/vdb";
const RECORDING: &str = "/dev/vdc";
const VOLUME_MIB: u64 = 64;
const AREA_MIB: u64 = 224;
/// Snapshots that are kept at a time.
const KEPT: usize = 3;
const SECTORS_PER_MIB: u64 = 2048;

/// A logged device, and the two parts of it.
struct Logged;

impl Logged {
    const NAMES: [&str; 3] = ["logged", "volume", "area"];

    fn new() -> Self {
        let sectors = (VOLUME_MIB + AREA_MIB) * SECTORS_PER_MIB;
        create("logged", &format!("0 {sectors} log-writes {DISK} {LOG}"));
        let device = mapped_device("logged");
        let mut start = 0;
        for (name, mib) in [("volume", VOLUME_MIB), ("area", AREA_MIB)] {
            let sectors = mib * SECTORS_PER_MIB;
            create(
                name,
                &format!("0 {sectors} linear {} {start}", device.display()),
            );
            start += sectors;
        }
        Self
    }

    fn mark(&self, name: &str) {
        succeed(Command::new("dmsetup").args(["message", "logged", "0", "mark", name]));
        let status = succeed(Command::new("dmsetup").args(["status", "logged"]));
        assert!(!status.contains("disabled"), "the log is full: {status}");
        println!("{name}: {}", status.trim());
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        for name in Self::NAMES.iter().rev() {
            let words = ["remove", "--noudevsync", "--retry", name];
            let output = run(Command::new("dmsetup").args(words));
            if !output.status.success() {
                eprintln!("{name} stays: {}", printed(&output));
            }
        }
    }
}

fn create(name: &str, table: &str) {
    let words = ["create", "--noudevsync", name, "--table", table];
    succeed(Command::new("dmsetup").args(words));
}

/// Writes of single blocks all over the volume, each of which is sure when it returns; in between
/// regions are left alone and go cold.
fn scatter(point: &Path, report: &Path) -> Running {
    Fio::new(report)
        .option(&format!("directory={}", tidemark_tests::world::text(point)))
        .option("filename=scattered")
        .option("size=20m")
        .option("rw=randwrite")
        .option("bs=4k")
        .option("ioengine=psync")
        .option("direct=1")
        .option("sync=1")
        .option("thinktime=100000")
        .option("loops=100000")
        .start()
}

fn promise(api: &Api, logged: &Logged, recording: &mut Recording) {
    let snapshot = api.snapshot("vol");
    let checkpoint = snapshot.checkpoint.as_ref().expect("a cut makes one");
    assert_eq!(Id::parse(&checkpoint.lineage), Some(recording.lineage));
    logged.mark(&format!("{PROMISED}-{}", recording.moments.len()));
    let id = Id::parse(&snapshot.id).expect("an id");
    recording.add(Epoch(checkpoint.epoch), id, snapshot.view_path.as_ref());
    if let Some(old) = recording.moments.len().checked_sub(KEPT + 1) {
        logged.mark(&format!("{RELEASED}-{old}"));
        let old = recording.moments[old].snapshot.to_string();
        api.release(&old).expect("a release");
    }
}

#[test]
#[ignore = "runs in a guest"]
fn every_write_is_recorded() {
    let rounds = std::env::var("WRITE_LOG_ROUNDS").expect("the harness says how many");
    let rounds: u64 = rounds.parse().expect("a number");
    let logged = Logged::new();
    let [origin, area] = ["volume", "area"].map(mapped_device);
    let daemon = Daemon::start();
    let point = daemon.path("mnt");
    let mut mounted = Mounted::fresh(FsKind::Ext4, &origin, &point);
    let api = daemon.api();
    let mut asked = attach_request("vol", &origin, &area, 0);
    let store = asked.store.as_mut().expect("a store is asked for");
    store.durable_snapshots = true;
    let volume = api.attach(asked);
    let volume = volume.expect("an attach while mounted");
    host::eventually("tracking outlives the host", || {
        let volume = api.volume("vol").expect("a status");
        volume.durability() == TrackingDurability::Durable
    });
    logged.mark(ATTACHED);
    let mut recording = Recording {
        path: PathBuf::from(RECORDING),
        volume: Id::parse(&volume.id).expect("an id"),
        lineage: Id::parse(&volume.lineage).expect("an id"),
        volume_bytes: VOLUME_MIB * MIB,
        area_bytes: AREA_MIB * MIB,
        moments: Vec::new(),
    };
    promise(&api, &logged, &mut recording);
    for round in 0..rounds {
        let mut scattered = scatter(&point, &daemon.path("scatter.json"));
        let load = Load::start(&point);
        promise(&api, &logged, &mut recording);
        load.assert_busy();
        scattered.assert_busy();
        scattered.stop();
        println!("{round}: {:?}", load.finish());
        mounted.trim();
        drop(mounted);
        mounted = Mounted::new(FsKind::Ext4, &origin, &point);
    }
    logged.mark(DONE);
    recording.finish();
    for moment in recording.moments.iter().rev().take(KEPT) {
        let id = moment.snapshot.to_string();
        let kept = api.get_snapshot(&id).expect("its record stays");
        assert_eq!(kept.state(), SnapshotState::Ready, "the area had room");
        api.release(&id).expect("a release");
    }
    drop(mounted);
    api.detach("vol", false).expect("a detach");
    FsKind::Ext4.assert_device_sound(&origin);
}
