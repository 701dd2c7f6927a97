//! What happens in the guest while `tests/vm/power.rs` pulls its plug: three boots on the same
//! disks, the first two of which are cut in the middle of writes.
//!
//! The volume is a logical volume on the first disk; catalog, area and a memo for the next boot
//! lie in a file system on the second. Tracking lies in memory, which no cut survives: everything
//! that is known from before must be refused, with its reason.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use tidemark_proto::v1::{Checkpoint, EventKind, Snapshot, SnapshotState, Trust, VolumeState};
use tidemark_tests::{
    Api, Daemon, DoubleEntry, Frozen, FsKind, Load, MIB, Mounted, Tree, host, image,
    lvm::{Group, guest_disk, lvm},
    pull,
};

const AREA_BYTES: u64 = 128 * MIB;
/// As the catalog has it: the numbers of mapped devices may change over a boot.
const ORIGIN: &str = "/dev/vg/lv";
const KEEP_DISK: &str = "/dev/vdb";
const KEEP: &str = "/mnt/keep";
const POINT: &str = "/mnt/vol";
/// A file of one number that only grows.
const COUNTER: &str = "/mnt/vol/counter";
const SOURCE: &str = "/usr/bin";
const TREE_MIB: u64 = 4;
/// How the harness learns of each number that the volume has acknowledged.
const ACKNOWLEDGED: &str = "power: acknowledged ";

/// What the next boot must know.
struct Memo {
    snapshot: String,
    checkpoint: Checkpoint,
}

impl Memo {
    fn path() -> PathBuf {
        Path::new(KEEP).join("memo")
    }

    fn of(snapshot: &Snapshot) -> Self {
        Self {
            snapshot: snapshot.id.clone(),
            checkpoint: snapshot.checkpoint.clone().expect("a cut makes one"),
        }
    }

    fn write(&self) {
        let Checkpoint { lineage, epoch } = &self.checkpoint;
        let text = format!("{} {lineage} {epoch}", self.snapshot);
        let mut file = File::create(Self::path()).expect("a memo can be made");
        file.write_all(text.as_bytes()).expect("it can be written");
        file.sync_all().expect("it can be synced");
    }

    fn read() -> Self {
        let text = fs::read_to_string(Self::path()).expect("the boot before left a memo");
        let words: Vec<_> = text.split(' ').collect();
        Self {
            snapshot: words[0].to_owned(),
            checkpoint: Checkpoint {
                lineage: words[1].to_owned(),
                epoch: words[2].parse().expect("an epoch is a number"),
            },
        }
    }
}

fn daemon() -> Daemon {
    Daemon::keeping(&Path::new(KEEP).join("state"))
}

/// Takes a snapshot, leaves the memo, and writes until the plug is pulled.
fn write_until_cut(api: &Api) -> ! {
    let snapshot = api.snapshot("vol");
    Memo::of(&snapshot).write();
    let load = Load::start(Path::new(POINT));
    let file = File::options()
        .create(true)
        .write(true)
        .custom_flags(libc::O_DSYNC)
        .open(COUNTER)
        .expect("a counter can be made");
    for number in counted() + 1.. {
        file.write_all_at(&u64::to_le_bytes(number), 0)
            .expect("a number can be written");
        println!("{ACKNOWLEDGED}{number}");
        load.assert_busy();
    }
    unreachable!("there are more numbers than time")
}

/// The latest number in the counter.
fn counted() -> u64 {
    let bytes = fs::read(COUNTER).unwrap_or_default();
    let bytes = bytes.try_into().unwrap_or_default();
    u64::from_le_bytes(bytes)
}

#[test]
#[ignore = "runs in a guest"]
fn the_first_boot() {
    let group = Group::new("vg", &[guest_disk(0)]);
    group.linear("lv", 96);
    let keep = Mounted::fresh(FsKind::Ext4, KEEP_DISK.as_ref(), KEEP.as_ref());
    let daemon = daemon();
    let mounted = Mounted::fresh(FsKind::Ext4, ORIGIN.as_ref(), POINT.as_ref());
    Tree::copy(SOURCE.as_ref(), &mounted.point().join("tree"), TREE_MIB);
    nix::unistd::sync();
    let area = keep.point().join("area");
    let asked = tidemark_tests::api::attach_request("vol", ORIGIN.as_ref(), &area, AREA_BYTES);
    let api = daemon.api();
    api.attach(asked).expect("an attach while mounted");
    write_until_cut(&api);
}

/// The agent is there before the volume is; the file system is mounted when it lies over us.
#[test]
#[ignore = "runs in a guest"]
fn a_boot_with_the_agent_first() {
    let _keep = Mounted::new(FsKind::Ext4, KEEP_DISK.as_ref(), KEEP.as_ref());
    let daemon = daemon();
    let api = daemon.api();
    let early = api.volume("vol").expect("the catalog knows it");
    assert_eq!(early.state(), VolumeState::Unavailable, "{early:?}");
    lvm(&["vgchange", "-ay", "vg"]);
    await_attached(&api);
    let _mounted = Mounted::new(FsKind::Ext4, ORIGIN.as_ref(), POINT.as_ref());
    assert_nothing_silently_wrong(&daemon, &Memo::read());
    write_until_cut(&api);
}

/// The file system was mounted, and written to, before the agent was there.
#[test]
#[ignore = "runs in a guest"]
fn a_boot_with_the_volume_first() {
    let keep = Mounted::new(FsKind::Ext4, KEEP_DISK.as_ref(), KEEP.as_ref());
    lvm(&["vgchange", "-ay", "vg"]);
    let mounted = Mounted::new(FsKind::Ext4, ORIGIN.as_ref(), POINT.as_ref());
    fs::write(mounted.point().join("untracked"), [7; 100_000]).expect("a file can be written");
    nix::unistd::sync();
    let daemon = daemon();
    let api = daemon.api();
    await_attached(&api);
    assert_nothing_silently_wrong(&daemon, &Memo::read());
    api.detach("vol", false).expect("a detach while mounted");
    drop(mounted);
    FsKind::Ext4.assert_device_sound(ORIGIN.as_ref());
    drop((daemon, keep));
    lvm(&["vgremove", "-ff", "-y", "vg"]);
}

/// Nobody asks for it: the catalog says that it belongs to us.
fn await_attached(api: &Api) {
    host::eventually("the volume is attached again by itself", || {
        let found = api.volume("vol").expect("the catalog knows it");
        found.state() == VolumeState::Attached
    });
}

fn assert_nothing_silently_wrong(daemon: &Daemon, memo: &Memo) {
    let api = daemon.api();
    let point = Path::new(POINT);
    let seen = std::env::var("POWER_SEEN").expect("the harness tells what it saw");
    let seen: u64 = seen.parse().expect("a number");
    let counted = counted();
    assert!(
        counted >= seen,
        "{seen} was acknowledged, {counted} is there"
    );
    let sources = daemon.path("sources");
    Tree::copy(SOURCE.as_ref(), &sources, TREE_MIB).assert_at(&point.join("tree"));

    let found = api.volume("vol").expect("a status");
    assert_ne!(found.lineage, memo.checkpoint.lineage);
    let trust = found.trust.clone().expect("a volume has a trust");
    assert_eq!(
        trust.trust(),
        Trust::Continuous,
        "since the attach: {trust:?}"
    );
    let cause = "ended with the host";
    let told = api.events();
    let told = told
        .iter()
        .filter(|event| event.kind() == EventKind::TrackingReset && event.message.contains(cause));
    assert!(told.count() > 0, "no event says {cause:?}");

    let old = api.get_snapshot(&memo.snapshot).expect("its record stays");
    assert_eq!(old.state(), SnapshotState::Lost, "{old:?}");
    assert!(old.view_path.is_empty() && !old.state_reason.is_empty());
    let target = daemon.path("pulled.img");
    let refused = pull::pull(&api, &old, None, &target).expect_err("a pull of what is lost");
    assert_eq!(refused.reason, "SNAPSHOT_LOST", "{refused:?}");

    let mut books = {
        let _quiet = Frozen::new(point);
        DoubleEntry::open(&api, "vol")
    };
    let next = api.snapshot("vol");
    pull::pull(&api, &next, None, &target).expect("a full pull");
    let refused = pull::pull(&api, &next, Some(memo.checkpoint.clone()), &target);
    let refused = refused.expect_err("a diff over the cut");
    assert_eq!(refused.reason, "TRACKING_RESET", "{refused:?}");
    let told = refused.metadata.get("cause").cloned().unwrap_or_default();
    assert!(told.contains(cause), "{refused:?}");
    FsKind::Ext4.assert_sound(&target, daemon.world());

    println!("{:?}", Load::start(point).finish());
    let last = api.snapshot("vol");
    pull::pull(&api, &last, next.checkpoint.clone(), &target).expect("an incremental pull");
    let view = Path::new(&last.view_path);
    assert_eq!(image::digest(&target), image::digest(view));
    FsKind::Ext4.assert_sound(&target, daemon.world());
    for snapshot in [&next, &last] {
        api.release(&snapshot.id).expect("a release");
    }
    let _quiet = Frozen::new(point);
    println!("{} sectors booked alike", books.assert(&api));
}
