//! Two logical volumes are cut at one moment: what was written to one and only then to the other
//! reads so in every snapshot.

use std::{path::Path, time::Duration};

use tidemark_proto::v1::{
    CreateGroupRequest, CreateSnapshotRequest, FreezeMode, Group as VolumeGroup, Snapshot,
};
use tidemark_tests::{
    Api, Daemon, DoubleEntry, Fio, MIB, fio,
    lvm::{Group, guest_disk},
    ordered::{self, Ordered},
    swaps::summary,
};

const AREA_BYTES: u64 = 96 * MIB;
const CUTS: usize = 100;
const SHORT_CUTS: usize = 15;
const NAMES: [&str; 2] = ["cause", "effect"];

#[test]
#[ignore = "runs in a guest"]
fn are_never_torn() {
    tell(SHORT_CUTS, false);
}

#[test]
#[ignore = "runs in a guest"]
fn are_never_torn_at_length() {
    tell(CUTS, false);
}

/// Both volumes are busy beside: where the driver can, without copying.
#[test]
#[ignore = "runs in a guest"]
fn are_never_torn_under_load_at_length() {
    tell(CUTS, true);
}

fn tell(cuts: usize, busy: bool) {
    let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
    let daemon = Daemon::start();
    let api = daemon.api();
    let devices = NAMES.map(|name| {
        let device = group.linear(name, 64);
        daemon.attach(name, &device, AREA_BYTES).expect("an attach");
        device
    });
    let mut books = NAMES.map(|name| DoubleEntry::open(&api, name));
    create_group(&api);
    let reports = NAMES.map(|name| daemon.path(&format!("{name}.json")));
    let load = [0, 1].map(|one: usize| busy.then(|| beside(&devices[one], &reports[one])));
    let ordered = Ordered::start(&devices[0], &devices[1]);

    let (mut held, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..cuts {
        let snapshots = cut(&api);
        let [cause, effect] = NAMES.map(|name| of(&snapshots, name));
        assert_eq!(cause.set_id, effect.set_id, "one call, one set");
        let views = [cause, effect].map(|snapshot| Path::new(&snapshot.view_path));
        seen.push(ordered::assert_not_torn(views[0], views[1]));
        for snapshot in &snapshots {
            held.push(held_of(snapshot));
            api.release(&snapshot.id).expect("a release");
        }
    }
    let last = ordered.stop();
    for running in load.into_iter().flatten() {
        println!("{} bytes beside", running.stop().written_bytes());
    }
    assert!(seen.is_sorted() && seen[cuts - 1] <= last, "{seen:?}");
    assert!(seen[cuts - 1] > seen[0], "the writer was busy: {seen:?}");
    println!(
        "{cuts} cuts over {} numbers, writers held {}",
        seen[cuts - 1] - seen[0],
        summary(&held)
    );
    for (name, books) in NAMES.iter().zip(&mut books) {
        println!("{name}: {} sectors booked alike", books.assert(&api));
        api.detach(name, false).expect("a detach");
    }
    ordered::assert_not_torn(&devices[0], &devices[1]);
}

/// Direct writes that are read back, off the numbers' part of the device.
fn beside(device: &Path, report: &Path) -> fio::Running {
    Fio::new(report)
        .option(&format!("filename={}", device.display()))
        .option("offset=8m")
        .option("size=32m")
        .option("rw=randwrite")
        .option("bsrange=4k-64k")
        .option("direct=1")
        .option("ioengine=libaio")
        .option("iodepth=16")
        .option("verify=crc32c")
        .option("verify_fatal=1")
        .option("verify_backlog=256")
        .option("loops=100000")
        .start()
}

fn create_group(api: &Api) {
    let group = VolumeGroup {
        name: "pair".into(),
        volumes: NAMES.map(str::to_owned).into(),
    };
    let request = CreateGroupRequest { group: Some(group) };
    api.call(api.groups().create_group(request))
        .expect("a group can be made");
}

fn cut(api: &Api) -> Vec<Snapshot> {
    api.snapshot_as(CreateSnapshotRequest {
        group: "pair".into(),
        freeze: FreezeMode::None.into(),
        ..CreateSnapshotRequest::default()
    })
    .expect("a cut of both")
}

fn of<'a>(snapshots: &'a [Snapshot], volume: &str) -> &'a Snapshot {
    let found = snapshots.iter().find(|one| one.volume == volume);
    found.unwrap_or_else(|| panic!("no snapshot of {volume} in {snapshots:?}"))
}

fn held_of(snapshot: &Snapshot) -> Duration {
    let held = snapshot.held.expect("a cut says for how long it held");
    Duration::try_from(held).expect("a hold is not negative")
}
