//! What cannot be interposed is refused, with its reason.

use std::path::{Path, PathBuf};

use tidemark_agent::insertion::{DmVolume, Found, InsertionError, Refusal, check};

use crate::{
    rig::{Mapped, Rig, lvm, number_of, run, text},
    volumes::{Crypt, Disk, Group, Mounted, plain},
};

fn refusal(path: &Path) -> Refusal {
    let refused = check(path, &[]).unwrap_err();
    println!("{refused}");
    refused
}

fn assert_live(path: &Path) {
    let found = check(path, &[]).unwrap();
    assert!(matches!(found, Found::Live(_)), "{found:?}");
}

#[test]
#[ignore = "runs in a guest"]
fn volumes_that_can_be_interposed_are_told_from_others() {
    let group = Group::new("ref1", 160);
    let volume = group.volume("lv", 96, &[]);
    assert_live(&volume);
    let mounted = Mounted::new("ext4", &volume);
    assert_live(&volume);
    let ours = mounted.point.join("state").join("deep");
    let refused = check(&volume, std::slice::from_ref(&ours));
    assert!(
        matches!(refused, Err(Refusal::HoldsOurs { .. })),
        "{refused:?}"
    );
    check(&volume, &[PathBuf::from("/dev/shm/elsewhere")]).unwrap();
    let disk = Disk::new(16);
    assert_eq!(check(disk.path(), &[]).unwrap(), Found::Assembled);
    let plain_fs = Mounted::new("ext4", disk.path());
    assert!(matches!(refusal(disk.path()), Refusal::MountedPlain { .. }));
    drop(plain_fs);
    lvm(&["lvcreate", "-y", "-L", "32m", "-T", "ref1/pool"]);
    lvm(&[
        "lvcreate",
        "-y",
        "-V",
        "64m",
        "-T",
        "ref1/pool",
        "-n",
        "thin",
    ]);
    let pool = crate::rig::node_of("ref1-pool-tpool");
    assert!(matches!(refusal(&pool), Refusal::Immutable { .. }));
    assert_live(&group.node("thin"));
}

#[test]
#[ignore = "runs in a guest"]
fn states_of_others_are_refused() {
    let (volume, _disk) = plain("ref2", 16);
    let node = volume.node();
    run("dmsetup", &["suspend", "--noudevsync", "ref2"]);
    assert!(matches!(refusal(&node), Refusal::Suspended { .. }));
    run("dmsetup", &["resume", "--noudevsync", "ref2"]);
    run("dmsetup", &["load", "ref2", "--table", "0 8 zero"]);
    assert!(matches!(refusal(&node), Refusal::PendingTable { .. }));
    run("dmsetup", &["clear", "ref2"]);
    assert_live(&node);
    let read_only = "0 32768 linear ".to_owned() + &format!("{} 0", number_of(&node));
    run(
        "dmsetup",
        &[
            "create",
            "--noudevsync",
            "-r",
            "ref2-ro",
            "--table",
            &read_only,
        ],
    );
    assert!(matches!(
        refusal(&crate::rig::node_of("ref2-ro")),
        Refusal::ReadOnly { .. }
    ));
    run("dmsetup", &["remove", "--noudevsync", "ref2-ro"]);
}

#[test]
#[ignore = "runs in a guest"]
fn swap_is_refused_as_a_device_as_a_file_and_stacked() {
    let (volume, _disk) = plain("ref3", 64);
    let node = volume.node();
    run("mkswap", &[text(&node)]);
    run("swapon", &[text(&node)]);
    assert!(matches!(refusal(&node), Refusal::Swap { .. }));
    run("swapoff", &[text(&node)]);
    let upper = Mapped::linear("ref3-upper", &node);
    run("mkswap", &[text(&upper.node())]);
    run("swapon", &[text(&upper.node())]);
    assert!(matches!(refusal(&node), Refusal::Swap { .. }));
    run("swapoff", &[text(&upper.node())]);
    drop(upper);
    let mounted = Mounted::new("ext4", &node);
    let file = mounted.point.join("swap");
    run(
        "dd",
        &[
            "if=/dev/zero",
            &format!("of={}", text(&file)),
            "bs=1M",
            "count=8",
        ],
    );
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    run("mkswap", &[text(&file)]);
    run("swapon", &[text(&file)]);
    assert!(matches!(refusal(&node), Refusal::Swap { .. }));
    run("swapoff", &[text(&file)]);
    assert_live(&node);
}

/// LUKS2 keeps its key in the kernel's keyring unless told otherwise.
#[test]
#[ignore = "runs in a guest"]
fn a_key_in_the_keyring_is_refused_until_the_table_has_it() {
    let disk = Disk::new(64);
    let crypt = Crypt::new("ref4", disk.path(), &[]);
    let node = crypt.node();
    let mounted = Mounted::new("ext4", &node);
    let table = run("dmsetup", &["table", "ref4"]);
    if table.contains(":logon:") {
        assert!(matches!(refusal(&node), Refusal::KeyInKeyring { .. }));
        let volume = DmVolume::of_path(&node).unwrap().unwrap();
        let rig = Rig::new(0x41);
        let refused = rig.site().prepare(&volume).map(drop);
        assert!(
            matches!(refused, Err(InsertionError::Refused(_))),
            "{refused:?}"
        );
        rig.assert_clean();
        crypt.refresh_without_keyring();
    } else {
        println!("cryptsetup did not use the keyring here: {table}");
    }
    assert_live(&node);
    let mut rig = Rig::new(0x42);
    let (mut insertion, _) = rig.attach(&node);
    std::fs::write(mounted.point.join("file"), "encrypted").unwrap();
    rig.detach(&mut insertion);
    mounted.check();
}

#[test]
#[ignore = "runs in a guest"]
fn a_second_interposer_is_refused() {
    let (volume, _disk) = plain("ref5", 64);
    let node = volume.node();
    let mut first = Rig::new(0x43);
    let (mut insertion, _) = first.attach(&node);
    assert!(matches!(refusal(&node), Refusal::AlreadyInterposed { .. }));
    let second = Rig::new(0x44);
    let found = DmVolume::of_path(&node).unwrap().unwrap();
    let refused = second.site().prepare(&found).map(drop);
    assert!(
        matches!(refused, Err(InsertionError::Refused(_))),
        "{refused:?}"
    );
    second.assert_clean();
    let refused = insertion.insert(insertion.over().unwrap());
    assert!(
        matches!(refused, Err(InsertionError::Refused(_))),
        "{refused:?}"
    );
    first.detach(&mut insertion);
    assert_live(&node);
}

#[test]
#[ignore = "runs in a guest"]
fn a_swap_that_cannot_be_leaves_the_volume_as_it_was() {
    let (volume, _disk) = plain("ref6", 64);
    let node = volume.node();
    let table = run("dmsetup", &["table", "ref6"]);
    let mut rig = Rig::new(0x45);
    let found = DmVolume::of_path(&node).unwrap().unwrap();
    let mut insertion = rig.site().prepare(&found).unwrap();
    // Prepared again: nothing changes.
    let mut again = rig.site().prepare(&found).unwrap();
    assert_eq!(again.origin().unwrap(), insertion.origin().unwrap());
    let small = Disk::new(32);
    let refused = again.insert(number_of(small.path()));
    assert!(
        matches!(refused, Err(InsertionError::SizeDiffers { .. })),
        "{refused:?}"
    );
    let refused = again.remove();
    assert!(
        matches!(refused, Err(InsertionError::NotInserted { .. })),
        "{refused:?}"
    );
    // Another program puts another table there between prepare and insert.
    let moved = table
        .replace(" 0\n", " 8\n")
        .replace("0 131072", "0 131064");
    run("dmsetup", &["load", "ref6", "--table", moved.trim()]);
    run("dmsetup", &["resume", "--noudevsync", "ref6"]);
    let over = rig.serve(&insertion);
    let refused = insertion.insert(over);
    assert!(
        matches!(refused, Err(InsertionError::TableMoved { .. })),
        "{refused:?}"
    );
    let now = run("dmsetup", &["table", "ref6"]);
    assert_eq!(now.trim(), moved.trim());
    rig.reinsert(&mut insertion);
    rig.detach(&mut insertion);
}
