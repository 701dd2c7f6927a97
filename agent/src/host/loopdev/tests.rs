//! Real loop devices.

use std::{os::unix::fs::FileExt, thread::sleep, time::Duration};

use super::*;
use crate::host::fixtures::{Mounted, sparse_file};

fn image(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("image");
    sparse_file(&path, 1 << 20);
    path
}

fn is_attached(device: DeviceNumber, image: &Path) -> bool {
    Backing::of(device).is_some_and(|b| b.path == image)
}

/// A child that another test has just forked keeps it until it runs its program.
fn await_detached(device: DeviceNumber, image: &Path) {
    for _ in 0..1000 {
        if !is_attached(device, image) {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("{device} has its file still");
}

#[test]
fn a_device_shows_its_file_until_it_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(&folder);
    let device = LoopDevice::attach(&image, LoopOptions::default()).unwrap();
    let number = device.number();
    assert!(is_attached(number, &image));
    assert_eq!(number.capacity(), Some(1 << 20));
    let anchor = Anchor::of_path(&image).unwrap();
    assert_eq!(backed_by(&image, anchor).unwrap(), [number]);
    let opened = File::options().write(true).open(device.path()).unwrap();
    opened.write_all_at(b"through", 4096).unwrap();
    opened.sync_all().unwrap();
    drop(opened);
    let mut bytes = [0; 7];
    File::open(&image)
        .unwrap()
        .read_exact_at(&mut bytes, 4096)
        .unwrap();
    assert_eq!(&bytes, b"through");
    drop(device);
    await_detached(number, &image);
}

#[test]
fn direct_io_is_used_where_it_works_and_harmless_elsewhere() {
    let options = LoopOptions {
        direct_io: true,
        ..LoopOptions::default()
    };
    for place in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
        let folder = tempfile::tempdir_in(place).unwrap();
        let device = LoopDevice::attach(&image(&folder), options).unwrap();
        let shown = device.number().attribute("loop/dio").unwrap();
        assert_eq!(device.is_direct_io(), shown == "1");
        let opened = File::options().write(true).open(device.path()).unwrap();
        opened.write_all_at(&[1; 512], 512).unwrap();
        opened.sync_all().unwrap();
    }
}

#[test]
fn a_mounted_device_is_not_detached() {
    let mounted = Mounted::ext4();
    let number = mounted.device.number();
    assert!(user_of(number).unwrap().contains("mounted at"));
    let second = LoopDevice::adopt(mounted.device.path()).unwrap();
    match second.detach() {
        Err(LoopError::Busy { user, .. }) => assert!(user.contains("mounted at"), "{user}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_leaked_device_lives_on_and_can_be_adopted() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(&folder);
    let device = LoopDevice::attach(&image, LoopOptions::default()).unwrap();
    let number = device.number();
    let path = device.leak();
    assert!(is_attached(number, &image));
    let adopted = LoopDevice::adopt(&path).unwrap();
    assert_eq!(adopted.number(), number);
    adopted.detach().unwrap();
    await_detached(number, &image);
    match LoopDevice::adopt(&path) {
        Err(error) => assert!(matches!(error, LoopError::Device { .. })),
        // Another test was given the number meanwhile.
        Ok(others) => drop(others.leak()),
    }
}

#[test]
fn autoclear_detaches_on_the_last_close() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(&folder);
    let device = LoopDevice::attach(&image, LoopOptions::default()).unwrap();
    let number = device.number();
    device.set_autoclear(true).unwrap();
    device.set_autoclear(false).unwrap();
    device.set_autoclear(true).unwrap();
    assert!(is_attached(number, &image));
    device.leak();
    await_detached(number, &image);
}

#[test]
fn a_read_only_device_takes_no_write() {
    let folder = tempfile::tempdir().unwrap();
    let options = LoopOptions {
        read_only: true,
        ..LoopOptions::default()
    };
    let device = LoopDevice::attach(&image(&folder), options).unwrap();
    assert!(device.number().is_read_only());
}
