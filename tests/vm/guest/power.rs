//! What happens in the guest while `tests/vm/power.rs` pulls its plug: boots on the same disks, all
//! but the last of which are cut in the middle of writes.
//!
//! The volume is a logical volume on the first disk; catalog, area, the image of the last backup and
//! a memo for the next boot lie in a file system on the second, or the area is a logical volume that
//! attach made beside the volume. The area's journal survives the cut: where nobody wrote to the
//! volume meanwhile, the next backup is an incremental one.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use tidemark_proto::v1::{
    Checkpoint, EventKind, Snapshot, SnapshotState, TrackingDurability, Trust, VolumeState,
};
use tidemark_tests::{
    Api, Daemon, DoubleEntry, Frozen, FsKind, Load, MIB, Mounted, Tree,
    api::{attach_request, attach_with_volume},
    host, image,
    lvm::{Group, guest_disk, lvm},
    programs::succeed,
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
const DATABASE: &str = "/mnt/vol/database";
/// The last backup.
const IMAGE: &str = "/mnt/keep/image";
/// What the volume's area may over-report: its regions that may be active, for each epoch.
const MOST_TOO_MANY: u64 = 96 * MIB;
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

/// Leaves the memo for a backup that is complete, and writes until the plug is pulled.
fn write_until_cut(api: &Api, backup: &Snapshot) -> ! {
    nix::unistd::sync();
    Memo::of(backup).write();
    let load = Load::start(Path::new(POINT));
    let transactions = thread::spawn(transact);
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
        assert!(!transactions.is_finished(), "the database met an error");
        assert_eq!(durability(api), TrackingDurability::Durable);
    }
    unreachable!("there are more numbers than time")
}

/// Whether the area is a logical volume beside the volume, or a file in the file system that is
/// kept.
fn is_area_made() -> bool {
    std::env::var("POWER_AREA").is_ok_and(|area| area == "lv")
}

fn durability(api: &Api) -> TrackingDurability {
    api.volume("vol").expect("a status").durability()
}

/// Small transactions in a database, one after the other.
#[expect(clippy::zombie_processes, reason = "the plug is pulled before it ends")]
fn transact() {
    let mut child = Command::new("sqlite3")
        .arg(DATABASE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sqlite3 can be started");
    let mut to = child.stdin.take().expect("it is piped");
    let mut from = BufReader::new(child.stdout.take().expect("it is piped"));
    let schema = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, b BLOB);";
    writeln!(to, "{schema}").expect("a schema can be sent");
    loop {
        let number = "INSERT INTO t (b) VALUES (randomblob(900)); UPDATE t SET b = randomblob(900) \
                      WHERE n = abs(random()) % 500; DELETE FROM t WHERE n < \
                      (SELECT max(n) FROM t) - 400; SELECT 'done';";
        writeln!(to, "BEGIN; {number} COMMIT;").expect("a transaction can be sent");
        let mut line = String::new();
        from.read_line(&mut line).expect("an answer can be read");
        assert_eq!(line, "done\n");
    }
}

fn assert_database_sound() {
    let checked = Command::new("sqlite3")
        .args([DATABASE, "PRAGMA integrity_check; SELECT count(*) FROM t;"])
        .output()
        .expect("sqlite3 can be started");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(said.starts_with("ok\n"), "{said} {checked:?}");
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
    let mut asked = match is_area_made() {
        true => attach_with_volume("vol", ORIGIN.as_ref(), "", AREA_BYTES),
        false => {
            let area = keep.point().join("area");
            attach_request("vol", ORIGIN.as_ref(), &area, AREA_BYTES)
        }
    };
    let store = asked.store.as_mut().expect("a store is asked for");
    store.durable_snapshots = true;
    let api = daemon.api();
    api.attach(asked).expect("an attach while mounted");
    let first = api.snapshot("vol");
    pull::pull(&api, &first, None, IMAGE.as_ref()).expect("a full pull");
    write_until_cut(&api, &first);
}

/// The agent is there before the volume is; the file system is mounted when it lies over us. Told
/// again and again.
#[test]
#[ignore = "runs in a guest"]
fn a_boot_with_the_agent_first() {
    let _keep = Mounted::new(FsKind::Ext4, KEEP_DISK.as_ref(), KEEP.as_ref());
    let daemon = daemon();
    let api = daemon.api();
    let early = api.volume("vol").expect("the catalog knows it");
    assert_eq!(early.state(), VolumeState::Unavailable, "{early:?}");
    // An area of ours in the group is for the agent to activate.
    lvm(&["lvchange", "-ay", "vg/lv"]);
    await_attached(&api);
    let _mounted = Mounted::new(FsKind::Ext4, ORIGIN.as_ref(), POINT.as_ref());
    let backup = assert_tracked_on(&daemon, &Memo::read());
    write_until_cut(&api, &backup);
}

/// A copy of the volume is in its place, to the last byte: only the device itself is another one.
#[test]
#[ignore = "runs in a guest"]
fn a_boot_with_a_clone() {
    let keep = Mounted::new(FsKind::Ext4, KEEP_DISK.as_ref(), KEEP.as_ref());
    lvm(&["vgchange", "-ay", "vg"]);
    lvm(&["lvcreate", "-y", "-Wn", "-n", "clone", "-L", "96m", "vg"]);
    let words = ["if=/dev/vg/lv", "of=/dev/vg/clone", "bs=1M", "conv=fsync"];
    succeed(Command::new("dd").args(words));
    lvm(&["lvrename", "vg", "lv", "original"]);
    lvm(&["lvrename", "vg", "clone", "lv"]);
    // What was written to a device is counted as long as it is there.
    lvm(&["vgchange", "-an", "vg"]);
    let daemon = daemon();
    let api = daemon.api();
    lvm(&["vgchange", "-ay", "vg"]);
    await_attached(&api);
    let memo = Memo::read();
    let found = api.volume("vol").expect("a status");
    assert_ne!(found.lineage, memo.checkpoint.lineage);
    let told = api.events();
    let reset = told
        .iter()
        .rfind(|event| event.kind() == EventKind::TrackingReset);
    let reset = reset.unwrap_or_else(|| panic!("no reset: {told:#?}"));
    assert!(
        reset.message.contains("another one than before"),
        "{reset:?}"
    );
    assert_eq!(
        reset.message.matches("dm-uuid LVM-").count(),
        2,
        "{reset:?}"
    );
    let mounted = Mounted::new(FsKind::Ext4, ORIGIN.as_ref(), POINT.as_ref());
    assert_what_is_there();
    let next = api.snapshot("vol");
    let refused = pull::pull(&api, &next, Some(memo.checkpoint), IMAGE.as_ref());
    let refused = refused.expect_err("a diff between two devices");
    assert_eq!(refused.reason, "TRACKING_RESET", "{refused:?}");
    pull::pull(&api, &next, None, IMAGE.as_ref()).expect("a full pull");
    Memo::of(&next).write();
    nix::unistd::sync();
    // The next boot finds it attached: a daemon that is dropped detaches.
    std::mem::forget((daemon, mounted, keep));
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
    assert_what_is_there();
    assert_nothing_silently_wrong(&daemon, &Memo::read());
    api.detach("vol", false).expect("a detach while mounted");
    let left = lvm(&["lvs", "--noheadings", "-o", "lv_name", "vg"]);
    assert!(!left.contains("tidemark"), "{left}");
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

/// What was acknowledged before the cut.
fn assert_what_is_there() {
    let seen = std::env::var("POWER_SEEN").expect("the harness tells what it saw");
    let seen: u64 = seen.parse().expect("a number");
    let counted = counted();
    assert!(
        counted >= seen,
        "{seen} was acknowledged, {counted} is there"
    );
    assert_database_sound();
}

/// Tracking went on: what changed since the last backup brings its image to now. Gives the
/// snapshot that the image is of.
fn assert_tracked_on(daemon: &Daemon, memo: &Memo) -> Snapshot {
    assert_what_is_there();
    let api = daemon.api();
    let found = api.volume("vol").expect("a status");
    let area = found.store.expect("a volume has an area").area_path;
    assert_eq!(area == "/dev/vg/lv-tidemark", is_area_made(), "{area}");
    let why = api.events();
    assert_eq!(found.lineage, memo.checkpoint.lineage, "{why:#?}");
    let told = api.events();
    let recovered = told.iter().map(|event| event.kind());
    assert!(
        recovered
            .clone()
            .any(|kind| kind == EventKind::TrackingRecovered)
    );
    assert!(
        !recovered
            .clone()
            .any(|kind| kind == EventKind::TrackingReset)
    );
    let old = api.get_snapshot(&memo.snapshot).expect("its record stays");
    // It was written to since, and shows what the last backup is of.
    assert_eq!(old.state(), SnapshotState::Ready, "{old:?}");
    let view = image::digest(old.view_path.as_ref());
    assert_eq!(view, image::digest(IMAGE.as_ref()));
    api.release(&old.id).expect("a release");

    let next = api.snapshot("vol");
    let mut pull = pull::Pull::new(&next, Some(memo.checkpoint.clone()), IMAGE.as_ref());
    pull.finish(&api).expect("an incremental pull over the cut");
    let view = Path::new(&next.view_path);
    assert_eq!(image::digest(IMAGE.as_ref()), image::digest(view));
    FsKind::Ext4.assert_sound(IMAGE.as_ref(), daemon.world());
    let trust = pull.header.expect("a header came").trust;
    let trust = trust.expect("a diff says what it is worth");
    let bound = trust.over_report_bound_bytes;
    match trust.trust() {
        Trust::Continuous => assert_eq!(bound, 0),
        Trust::Superset => assert!(bound <= MOST_TOO_MANY && !trust.reason.is_empty()),
        _ => panic!("{trust:?}"),
    }
    println!(
        "{:?}: {} KiB sent, of which at most {} too many",
        trust.trust(),
        pull.data_bytes >> 10,
        bound >> 10
    );
    next
}

fn assert_nothing_silently_wrong(daemon: &Daemon, memo: &Memo) {
    let api = daemon.api();
    let point = Path::new(POINT);
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
    let cause = "before it was tracked again";
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
