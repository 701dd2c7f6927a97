//! Others who change the volume's table are noticed, and followed.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{sleep, spawn},
    time::Duration,
};

use tidemark_agent::{
    host::dm::Watch,
    insertion::{Bypass, Insertion, InsertionError, Recovered, Sight},
};

use crate::{
    load::Load,
    rig::{Rig, assert_balanced, assert_interposed, lvm, run, text, try_run},
    volumes::{Group, Mounted},
};

fn assert_bypassed(insertion: &Insertion) -> String {
    match insertion.look().unwrap() {
        Sight::Bypassed(Bypass::Table(table)) => table.to_string(),
        other => panic!("{other:?}"),
    }
}

fn write(point: &Path, name: &str) {
    fs::write(point.join(name), vec![7; 200_000]).unwrap();
    nix::unistd::sync();
}

#[test]
#[ignore = "runs in a guest"]
fn a_refresh_is_noticed_and_followed_under_load() {
    let group = Group::new("grd1", 96);
    let volume = group.volume("lv", 128, &[]);
    let mounted = Mounted::new("ext4", &volume);
    let load = Load::start(&mounted.point);
    let mut rig = Rig::new(0x31);
    let (mut insertion, _) = rig.attach(&volume);
    for _ in 0..3 {
        let watch = Watch::new().unwrap();
        assert_interposed(&insertion);
        lvm(&["lvchange", "--refresh", &group.path("lv")]);
        assert!(watch.wait(Duration::from_secs(60)).unwrap());
        assert!(assert_bypassed(&insertion).contains("linear"));
        rig.reinsert(&mut insertion);
    }
    load.finish();
    nix::unistd::sync();
    assert_balanced(&insertion);
    rig.detach(&mut insertion);
    mounted.check();
}

#[test]
#[ignore = "runs in a guest"]
fn growth_is_followed() {
    let group = Group::new("grd2", 160);
    let volume = group.volume("lv", 96, &[]);
    let mounted = Mounted::new("ext4", &volume);
    let load = Load::start(&mounted.point);
    let mut rig = Rig::new(0x32);
    let (mut insertion, _) = rig.attach(&volume);
    lvm(&["lvextend", "-L", "200m", &group.path("lv")]);
    match insertion.look().unwrap() {
        Sight::Resized { sectors, .. } => assert_eq!(sectors, (200 << 20) / 512),
        other => panic!("{other:?}"),
    }
    rig.reinsert(&mut insertion);
    run("resize2fs", &[text(&volume)]);
    write(&mounted.point, "in the new part");
    load.finish();
    rig.detach(&mut insertion);
    assert_eq!(crate::rig::number_of(&volume).capacity(), Some(200 << 20));
    mounted.check();
}

#[test]
#[ignore = "runs in a guest"]
fn a_snapshot_by_lvm_is_followed_and_its_end_too() {
    let group = Group::new("grd3", 160);
    let volume = group.volume("lv", 96, &[]);
    let mounted = Mounted::new("ext4", &volume);
    write(&mounted.point, "before");
    let mut rig = Rig::new(0x33);
    let (mut insertion, _) = rig.attach(&volume);
    lvm(&[
        "lvcreate",
        "-y",
        "-s",
        "-n",
        "snap",
        "-L",
        "64m",
        &group.path("lv"),
    ]);
    assert!(assert_bypassed(&insertion).contains("snapshot-origin"));
    rig.reinsert(&mut insertion);
    let load = Load::start(&mounted.point);
    sleep(Duration::from_secs(2));
    load.finish();
    // What is written through us is preserved by LVM's snapshot.
    let status = run("dmsetup", &["status", &format!("{}-snap", group.name)]);
    assert!(!status.contains(" 0/"), "{status}");
    assert_interposed(&insertion);
    // LVM does not end its snapshot in one go while our origin has the volume's inner device
    // open.
    let path = group.path("snap");
    let remove = spawn(move || {
        let config = "activation{udev_sync=0 udev_rules=0 monitoring=0} \
                      devices{use_devicesfile=0 obtain_device_list_from_udev=0}";
        try_run("lvm", &["lvremove", "--config", config, "-y", &path])
    });
    while !matches!(insertion.look().unwrap(), Sight::Bypassed(_)) {
        sleep(Duration::from_millis(20));
    }
    let followed = insertion.adopt();
    let output = remove.join().unwrap();
    println!(
        "adopt while LVM removes its snapshot: {followed:?}; lvremove: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    rig.reinsert(&mut insertion);
    // Its second half, which LVM leaves to the user, finds nothing of ours in the way.
    lvm(&["lvremove", "-y", &group.path("snap")]);
    lvm(&["lvchange", "--refresh", &group.path("lv")]);
    let left = lvm(&["lvs", "-a", "--noheadings", "-o", "lv_name", &group.name]);
    assert_eq!(left.trim(), "lv");
    println!("left: {}", run("dmsetup", &["ls"]));
    rig.reinsert(&mut insertion);
    write(&mounted.point, "after");
    assert_balanced(&insertion);
    rig.detach(&mut insertion);
    mounted.check();
}

/// The table goes away and comes back, and only the counters know. No file system: ext4 writes
/// now and then by itself, which is noticed too.
#[test]
#[ignore = "runs in a guest"]
fn writes_around_us_are_noticed_after_the_table_is_back() {
    const SECTORS: u64 = 400;
    let group = Group::new("grd4", 96);
    let volume = group.volume("lv", 96, &[]);
    let own = run("dmsetup", &["table", text(&volume)]);
    let mut rig = Rig::new(0x34);
    let (mut insertion, _) = rig.attach(&volume);
    let ours = run("dmsetup", &["table", text(&volume)]);
    let put = |table: &str| {
        run("dmsetup", &["load", text(&volume), "--table", table.trim()]);
        run("dmsetup", &["resume", "--noudevsync", text(&volume)]);
    };
    let write = || {
        let to = format!("of={}", text(&volume));
        let count = format!("count={SECTORS}");
        let words = ["if=/dev/urandom", &to, "bs=512", &count, "oflag=direct"];
        run("dd", &words);
    };
    write();
    put(&own);
    put(&ours);
    assert_eq!(assert_balanced(&insertion), SECTORS);
    put(&own);
    write();
    put(&ours);
    write();
    match insertion.look().unwrap() {
        Sight::Bypassed(Bypass::Around(sectors)) => assert_eq!(sectors.total(), SECTORS),
        other => panic!("{other:?}"),
    }
    insertion.rebase().unwrap();
    write();
    assert_eq!(assert_balanced(&insertion), SECTORS);
    rig.detach(&mut insertion);
}

#[test]
#[ignore = "runs in a guest"]
fn a_volume_that_is_deactivated_is_gone_and_returns() {
    let group = Group::new("grd5", 96);
    let volume = group.volume("lv", 96, &[]);
    let mut rig = Rig::new(0x35);
    let (mut insertion, _) = rig.attach(&volume);
    lvm(&["lvchange", "-an", &group.path("lv")]);
    assert!(matches!(insertion.look().unwrap(), Sight::Gone));
    assert!(matches!(rig.recover(), Recovered::Gone(_)));
    let refused = insertion.adopt();
    assert!(matches!(refused, Err(InsertionError::Gone { .. })));
    lvm(&["lvchange", "-ay", &group.path("lv")]);
    match insertion.look().unwrap() {
        Sight::Returned(volume) => assert_eq!(volume.node(), group.node("lv")),
        other => panic!("{other:?}"),
    }
    assert!(matches!(rig.recover(), Recovered::Bypassed(_)));
    rig.reinsert(&mut insertion);
    rig.detach(&mut insertion);
    let (mut insertion, _) = rig.attach(&group.node("lv"));
    lvm(&["lvchange", "-an", &group.path("lv")]);
    insertion.abandon().unwrap();
    rig.stop();
    rig.assert_clean();
}

/// LVM changes the same table all the while: whoever comes second sees what the first one did.
#[test]
#[ignore = "runs in a guest"]
fn lvm_at_work_at_the_same_time_does_no_harm() {
    const ROUNDS: u32 = 20;
    let group = Group::new("grd8", 96);
    let volume = group.volume("lv", 128, &[]);
    let mounted = Mounted::new("ext4", &volume);
    let load = Load::start(&mounted.point);
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, path) = (Arc::clone(&stop), group.path("lv"));
    let refreshing = spawn(move || {
        let mut times = 0;
        while !stopped.load(Ordering::Relaxed) {
            lvm(&["lvchange", "--refresh", &path]);
            times += 1;
        }
        times
    });
    let (mut bypassed, mut moved) = (0, 0);
    let mut rig = Rig::new(0x38);
    for _ in 0..ROUNDS {
        let (mut insertion, _) = rig.attach(&volume);
        sleep(Duration::from_millis(150));
        match insertion.remove() {
            Ok(_) => (),
            Err(InsertionError::NotInserted { .. }) => {
                bypassed += 1;
                insertion.abandon().unwrap();
            }
            Err(InsertionError::TableMoved { .. }) => {
                moved += 1;
                insertion.abandon().unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        rig.stop();
        rig.assert_clean();
    }
    stop.store(true, Ordering::Relaxed);
    let refreshed: u32 = refreshing.join().unwrap();
    println!("{refreshed} refreshes, {bypassed} of {ROUNDS} times bypassed, {moved} moved");
    load.finish();
    mounted.check();
}

/// What another program holds is left alone, and what it has pending too.
#[test]
#[ignore = "runs in a guest"]
fn a_suspension_by_another_is_told() {
    let group = Group::new("grd6", 96);
    let volume = group.volume("lv", 96, &[]);
    let mut rig = Rig::new(0x36);
    let (mut insertion, _) = rig.attach(&volume);
    run("dmsetup", &["suspend", "--noudevsync", text(&volume)]);
    assert!(matches!(insertion.look().unwrap(), Sight::Suspended));
    assert!(matches!(
        insertion.remove(),
        Err(InsertionError::Refused(_))
    ));
    run("dmsetup", &["resume", "--noudevsync", text(&volume)]);
    assert_interposed(&insertion);
    rig.detach(&mut insertion);
}

/// The file system below is found once, at the volume, and never at the private origin.
#[test]
#[ignore = "runs in a guest"]
fn udev_leaves_private_origins_alone() {
    if !Path::new("/run/udev/control").exists() {
        println!("skipped: no udev runs in this guest");
        return;
    }
    let group = Group::new("grd7", 96);
    let volume = group.volume("lv", 96, &[]);
    let mounted = Mounted::new("ext4", &volume);
    let uuid = run("blkid", &["-o", "value", "-s", "UUID", text(&volume)]);
    let link = Path::new("/dev/disk/by-uuid").join(uuid.trim());
    let mut rig = Rig::new(0x37);
    for _ in 0..3 {
        let (mut insertion, swap) = rig.attach(&volume);
        run("udevadm", &["settle"]);
        let origin = insertion.origin().unwrap();
        let number = crate::rig::number_of(&origin);
        let known = fs::read_to_string(format!("/run/udev/data/b{number}")).unwrap();
        assert!(
            known.contains("DM_UDEV_DISABLE_OTHER_RULES_FLAG=1"),
            "{known}"
        );
        assert!(!known.contains("ID_FS_UUID"), "{known}");
        assert_ne!(fs::canonicalize(&link).unwrap(), origin);
        // What LVM told udev of its volume is as it was: its links are there.
        assert!(Path::new("/dev/grd7/lv").exists());
        println!("held {:?}", swap.held);
        rig.detach(&mut insertion);
        run("udevadm", &["settle"]);
        assert_eq!(fs::canonicalize(&link).unwrap(), volume);
    }
    mounted.check();
}
