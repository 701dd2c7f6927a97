//! Insertion and removal, again and again, under load.

use std::{path::Path, thread::sleep, time::Duration};

use crate::{
    load::Load,
    rig::{Rig, assert_balanced, assert_interposed},
    volumes::{Crypt, Disk, Group, Mounted, plain},
};

const CYCLES: u32 = 10;
/// For how long the load runs over the interposer, and past it, in each cycle.
const PHASE: Duration = Duration::from_millis(700);

fn cycle(kind: &'static str, volume: &Path, seed: u8) {
    let mounted = Mounted::new(kind, volume);
    let load = Load::start(&mounted.point);
    let mut rig = Rig::new(seed);
    let (mut in_ms, mut out_ms) = (Vec::new(), Vec::new());
    let mut served = 0;
    for _ in 0..CYCLES {
        let (mut insertion, swap) = rig.attach(volume);
        in_ms.push(swap.held.as_secs_f64() * 1e3);
        sleep(PHASE);
        served += assert_interposed(&insertion);
        let swap = rig.detach(&mut insertion);
        out_ms.push(swap.held.as_secs_f64() * 1e3);
        sleep(PHASE);
    }
    let (mut insertion, _) = rig.attach(volume);
    sleep(PHASE);
    let (jobs, files) = load.finish();
    nix::unistd::sync();
    served += assert_balanced(&insertion);
    rig.detach(&mut insertion);
    mounted.check();
    println!(
        "{kind} on {}: {jobs} fio jobs, {files} files, {served} sectors through the interposer; \
         held in ms: inserting {in_ms:.1?}, removing {out_ms:.1?}",
        volume.display()
    );
    assert!(served > 0 && jobs > 0);
}

#[test]
#[ignore = "runs in a guest"]
fn ext4_on_a_linear_logical_volume() {
    let group = Group::new("cyc1", 96);
    cycle("ext4", &group.volume("lin", 128, &[]), 0x11);
}

#[test]
#[ignore = "runs in a guest"]
fn xfs_on_a_striped_logical_volume() {
    let group = Group::new("cyc2", 200);
    cycle("xfs", &group.volume("str", 320, &["-i", "2"]), 0x12);
}

#[test]
#[ignore = "runs in a guest"]
fn ext4_on_dm_crypt() {
    let disk = Disk::new(96);
    let crypt = Crypt::new("cyc3", disk.path(), &["--disable-keyring"]);
    cycle("ext4", &crypt.node(), 0x13);
}

#[test]
#[ignore = "runs in a guest"]
fn ext4_on_a_thin_volume() {
    let group = Group::new("cyc4", 128);
    crate::rig::lvm(&["lvcreate", "-y", "-L", "160m", "-T", "cyc4/pool"]);
    crate::rig::lvm(&[
        "lvcreate",
        "-y",
        "-V",
        "128m",
        "-T",
        "cyc4/pool",
        "-n",
        "thin",
    ]);
    cycle("ext4", &group.node("thin"), 0x14);
}

#[test]
#[ignore = "runs in a guest"]
fn ext4_on_a_plain_device_without_identity() {
    let (volume, _disk) = plain("cyc5 odd%name", 96);
    cycle("ext4", &volume.node(), 0x15);
}
