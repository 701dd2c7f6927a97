//! Real stacks: loop devices, partitions, file systems on files on file systems.

use std::{fs::File, os::unix::fs::FileExt};

use super::*;
use crate::host::{
    device::FileIdentity,
    fixtures::{Mounted, run, sparse_file},
    loopdev::{LoopDevice, LoopOptions},
};

fn chain(path: &Path, origin: &Path) -> Option<Vec<String>> {
    lies_on(path, &[Anchor::of_path(origin).unwrap()]).unwrap()
}

#[test]
fn a_path_lies_on_the_device_and_on_the_image_below() {
    for mounted in [Mounted::ext4(), Mounted::btrfs()] {
        let area = mounted.point.join("not yet/there/area");
        let chain_to_device = chain(&area, mounted.device.path()).unwrap();
        let says = explain(&chain_to_device);
        let device = mounted.device.path().display();
        assert!(says.ends_with(&format!("is on {device}")), "{says}");
        let says = explain(&chain(&area, &mounted.image).unwrap());
        let image = mounted.image.display();
        assert!(
            says.ends_with(&format!("which is backed by {image}")),
            "{says}"
        );
    }
}

#[test]
fn a_path_beside_the_image_does_not_lie_on_it() {
    let mounted = Mounted::ext4();
    let area = mounted.folder.path().join("area");
    assert_eq!(chain(&area, &mounted.image), None);
    assert_eq!(chain(&area, mounted.device.path()), None);
    assert_eq!(chain(Path::new("/dev/shm/area"), &mounted.image), None);
    assert_eq!(chain(Path::new("/proc/self/comm"), &mounted.image), None);
}

#[test]
fn the_origin_lies_on_itself() {
    let mounted = Mounted::ext4();
    let link = mounted.folder.path().join("link");
    std::os::unix::fs::symlink(&mounted.image, &link).unwrap();
    assert!(chain(&link, &mounted.image).is_some());
    assert!(chain(mounted.device.path(), mounted.device.path()).is_some());
    assert!(chain(mounted.device.path(), &mounted.image).is_some());
}

#[test]
fn a_path_lies_on_every_layer_below() {
    let lower = Mounted::ext4();
    let image = lower.point.join("upper.img");
    sparse_file(&image, 4 << 20);
    run("mkfs.ext4", &[Path::new("-q"), &image]);
    let upper = LoopDevice::attach(&image, LoopOptions::default()).unwrap();
    let says = explain(&chain(upper.path(), &lower.image).unwrap());
    let lower_device = lower.device.path().display();
    assert!(
        says.contains(&format!("which is on {lower_device}, which is backed by")),
        "{says}"
    );
    drop(upper);
}

#[test]
fn a_renamed_backing_file_is_still_found() {
    let mounted = Mounted::ext4();
    let renamed = mounted.folder.path().join("renamed");
    std::fs::rename(&mounted.image, &renamed).unwrap();
    assert!(chain(&mounted.point, &renamed).is_some());
    let unlinked = Anchor::File(FileIdentity::of(&std::fs::metadata(&renamed).unwrap()));
    std::fs::remove_file(&renamed).unwrap();
    assert!(lies_on(&mounted.point, &[unlinked]).unwrap().is_some());
}

/// A master boot record with two Linux partitions of 2 MiB.
fn partition(path: &Path) {
    let mut sector = [0; 512];
    for (entry, start) in [(446, 2048_u32), (462, 6144)] {
        sector[entry + 4] = 0x83;
        sector[entry + 8..entry + 12].copy_from_slice(&start.to_le_bytes());
        sector[entry + 12..entry + 16].copy_from_slice(&4096_u32.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&sector, 0).unwrap();
}

#[test]
fn a_partition_lies_on_its_disk_and_not_on_its_neighbour() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    sparse_file(&image, 8 << 20);
    partition(&image);
    let args = ["--show", "-f", "-P"].map(Path::new);
    let output = std::process::Command::new("losetup")
        .args(args)
        .arg(&image)
        .output()
        .unwrap();
    let disk = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let _detached_at_the_end = LoopDevice::adopt(&disk).unwrap();
    let [first, second] = ["p1", "p2"].map(|suffix| {
        let mut name = disk.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    });
    if !first.exists() {
        eprintln!("skipped: this host makes no nodes for partitions of loop devices");
        return;
    }
    let says = explain(&chain(&first, &disk).unwrap());
    assert!(says.contains("is a partition of"), "{says}");
    assert!(chain(&first, &image).is_some());
    assert_eq!(chain(&first, &second), None);
    assert!(chain(&disk, &first).is_some());
}
