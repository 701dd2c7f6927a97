//! Volumes that are no device-mapper devices, and volumes of ours over volumes of ours.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use tidemark_proto::v1::{Snapshot, TransportKind};
use tidemark_tests::{
    Api, Daemon, DoubleEntry, Frozen, FsKind, Load, MIB, Mounted, Tree,
    host::kill_now,
    image,
    lvm::{Group, guest_disk, mapped_device},
    programs::succeed,
    pull,
};

const AREA_BYTES: u64 = 128 * MIB;

/// A disk with one partition; it has none when this is dropped.
struct Partition {
    disk: PathBuf,
}

impl Partition {
    fn new(disk: PathBuf, mib: u64) -> Self {
        let file = File::options().write(true).open(&disk);
        let file = file.expect("a scratch disk can be written");
        file.write_all_at(&master_boot_record(mib), 0)
            .and_then(|()| file.sync_all())
            .expect("a partition table can be written");
        drop(file);
        reread(&disk);
        Self { disk }
    }

    fn device(&self) -> PathBuf {
        format!("{}1", self.disk.display()).into()
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        succeed(Command::new("blkdiscard").arg("-f").arg(&self.disk));
        reread(&self.disk);
    }
}

fn reread(disk: &Path) {
    succeed(Command::new("blockdev").arg("--rereadpt").arg(disk));
}

/// One partition of the type Linux, a MiB from the start of the disk.
fn master_boot_record(mib: u64) -> [u8; 512] {
    const SECTORS_PER_MIB: u32 = 2048;
    let sectors = u32::try_from(mib).expect("a partition is small") * SECTORS_PER_MIB;
    let mut record = [0; 512];
    record[450] = 0x83;
    record[454..458].copy_from_slice(&SECTORS_PER_MIB.to_le_bytes());
    record[458..462].copy_from_slice(&sectors.to_le_bytes());
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    record
}

/// Pulls what changed since another snapshot, and holds it against the view.
fn assert_pulled(api: &Api, snapshot: &Snapshot, since: &Snapshot, target: &Path) {
    pull::pull(api, snapshot, since.checkpoint.clone(), target).expect("an incremental pull");
    assert_eq!(view_of(snapshot), image::digest(target));
}

fn view_of(snapshot: &Snapshot) -> blake3::Hash {
    image::digest(snapshot.view_path.as_ref())
}

/// Mounted after the attach, on the interposer's own device.
#[test]
#[ignore = "runs in a guest"]
fn a_partition_is_served_and_given_back() {
    let partition = Partition::new(guest_disk(2), 48);
    let origin = partition.device();
    let daemon = Daemon::start();
    let api = daemon.api();
    let volume = daemon
        .attach("vol", &origin, AREA_BYTES)
        .expect("an attach");
    assert_eq!(volume.transport(), TransportKind::Ublk);
    assert_eq!(volume.device_path, volume.interposer_path);
    let point = daemon.path("mnt");
    let mounted = Mounted::fresh(FsKind::Ext4, volume.device_path.as_ref(), &point);
    let copied = Tree::copy("/usr/bin".as_ref(), &point.join("tree"), 4);
    let mut books = {
        let _quiet = Frozen::new(&point);
        DoubleEntry::open(&api, "vol")
    };
    let load = Load::start(&point);
    let first = api.snapshot("vol");
    let frozen = view_of(&first);

    let alive = api.volume("vol").expect("a status");
    kill_now(alive.server_pid);
    let back = api.served_again(&alive);
    assert_eq!(back.lineage, alive.lineage, "tracking went on");
    assert_eq!(back.device_path, alive.device_path);
    load.assert_busy();
    let second = api.snapshot("vol");
    {
        let _quiet = Frozen::new(&point);
        books.assert(&api);
    }
    println!("{:?}", load.finish());
    assert_eq!(view_of(&first), frozen);
    let target = daemon.path("pulled.img");
    pull::pull(&api, &first, None, &target).expect("a full pull");
    assert_pulled(&api, &second, &first, &target);
    FsKind::Ext4.assert_sound(&target, daemon.world());
    for snapshot in [&first, &second] {
        api.release(&snapshot.id).expect("a release");
    }
    let refused = api.detach("vol", false);
    let refused = refused.expect_err("a detach while what we present is mounted");
    assert_eq!(refused.reason, "VOLUME_BUSY", "{refused:?}");
    copied.assert_at(&point.join("tree"));
    {
        let _quiet = Frozen::new(&point);
        println!("{} sectors booked alike", books.assert(&api));
    }
    drop(mounted);
    api.detach("vol", false).expect("a detach");
    FsKind::Ext4.assert_device_sound(&origin);
    // It is a plain partition again, with all that was written.
    let mounted = Mounted::new(FsKind::Ext4, &origin, &point);
    copied.assert_at(&point.join("tree"));
    drop(mounted);
}

/// The upper one's private origin is the lower one's volume. Either server may die.
#[test]
#[ignore = "runs in a guest"]
fn ours_over_ours_at_length() {
    let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
    let origin = group.linear("lv", 48);
    let own = group.table("lv");
    let daemon = Daemon::start();
    let api = daemon.api();
    let point = daemon.path("mnt");
    let mounted = Mounted::fresh(FsKind::Ext4, &origin, &point);
    let load = Load::start(&point);
    let upper = daemon
        .attach("upper", &origin, AREA_BYTES)
        .expect("an attach under load");
    let private = mapped_device(&format!("tidemark-{}-origin", upper.id));
    daemon
        .attach("lower", &private, AREA_BYTES)
        .expect("an attach below an interposer under load");
    let mut books = {
        let _quiet = Frozen::new(&point);
        ["upper", "lower"].map(|name| DoubleEntry::open(&api, name))
    };
    let first = ["upper", "lower"].map(|name| api.snapshot(name));
    let frozen = first.each_ref().map(view_of);
    for name in ["lower", "upper"] {
        let alive = api.volume(name).expect("a status");
        kill_now(alive.server_pid);
        let back = api.served_again(&alive);
        assert_eq!(back.lineage, alive.lineage, "tracking went on");
        load.assert_busy();
    }
    let second = ["upper", "lower"].map(|name| api.snapshot(name));
    {
        let _quiet = Frozen::new(&point);
        let booked = books.each_mut().map(|books| books.assert(&api));
        println!("{booked:?} sectors booked alike");
    }
    println!("{:?}", load.finish());
    assert_eq!(first.each_ref().map(view_of), frozen);
    for (base, next) in first.iter().zip(&second) {
        let target = daemon.path(&format!("{}.img", base.volume));
        pull::pull(&api, base, None, &target).expect("a full pull");
        assert_pulled(&api, next, base, &target);
        FsKind::Ext4.assert_sound(&target, daemon.world());
        for snapshot in [base, next] {
            api.release(&snapshot.id).expect("a release");
        }
    }
    let refused = api.detach("upper", false);
    let refused = refused.expect_err("the upper one would take the lower one's table");
    assert_eq!(refused.reason, "VOLUME_BUSY", "{refused:?}");
    api.detach("lower", false).expect("a detach while mounted");
    api.detach("upper", false).expect("a detach while mounted");
    assert_eq!(group.table("lv"), own);
    drop(mounted);
    FsKind::Ext4.assert_device_sound(&origin);
}
