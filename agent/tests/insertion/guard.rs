//! Others who change the volume's table are noticed, and followed.

use std::{fs, path::Path, time::Duration};

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
    std::thread::sleep(Duration::from_secs(2));
    load.finish();
    // What is written through us is preserved by LVM's snapshot.
    let status = run("dmsetup", &["status", &format!("{}-snap", group.name)]);
    assert!(!status.contains(" 0/"), "{status}");
    assert_interposed(&insertion);
    // LVM does not end its snapshot in one go while our origin has the volume's inner device
    // open.
    let path = group.path("snap");
    let remove = std::thread::spawn(move || {
        let config = "activation{udev_sync=0 udev_rules=0 monitoring=0} \
                      devices{use_devicesfile=0 obtain_device_list_from_udev=0}";
        try_run("lvm", &["lvremove", "--config", config, "-y", &path])
    });
    while !matches!(insertion.look().unwrap(), Sight::Bypassed(_)) {
        std::thread::sleep(Duration::from_millis(20));
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
