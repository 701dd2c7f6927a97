//! One refusal for each reason, and what is granted.

use std::{
    os::unix::fs::{OpenOptionsExt, symlink},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::*;
use crate::host::{
    fixtures::{Mounted, run, sparse_file},
    loopdev::{LoopDevice, LoopOptions},
};

struct Image {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn image(len: u64) -> Image {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    sparse_file(&path, len);
    Image {
        _folder: folder,
        path,
    }
}

fn refusal(path: &Path) -> ClaimError {
    claim(path, Purpose::Origin).unwrap_err()
}

/// Asks until the answer is as it must be: until a child that another test has just forked runs its
/// program, it has a copy of every descriptor of this process, those that were closed since too.
fn answers(path: &Path, purpose: Purpose, is_right: impl Fn(&Result<Claimed, ClaimError>) -> bool) {
    for _ in 0..1000 {
        if is_right(&claim(path, purpose)) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{:?}", claim(path, purpose));
}

fn is_granted(path: &Path, purpose: Purpose) {
    answers(path, purpose, Result::is_ok);
}

/// Refused, and nobody is to be seen who has it.
fn is_ours(path: &Path) {
    answers(path, Purpose::Origin, |answer| {
        matches!(answer, Err(ClaimError::Busy { .. }))
    });
}

fn is_refused_for(path: &Path, process: &Sleeper) {
    answers(path, Purpose::Origin, |answer| match answer {
        Err(ClaimError::Open { opener, .. }) => opener.pid == process.0.id(),
        _ => false,
    });
}

/// A process that has a file open and does nothing.
struct Sleeper(Child);

impl Sleeper {
    fn with(file: File) -> Self {
        let mut command = Command::new("sleep");
        Self(command.arg("600").stdin(Stdio::from(file)).spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_free_file_is_granted_once() {
    let image = image(10_001);
    let claimed = claim(&image.path, Purpose::Origin).unwrap();
    assert_eq!(claimed.capacity, 10_001);
    assert!(!claimed.is_block_device());
    is_ours(&image.path);
    let disk = claimed.into_disk().unwrap();
    is_ours(&image.path);
    drop(disk);
    is_granted(&image.path, Purpose::Target);
}

#[test]
fn a_free_device_is_granted_once() {
    let image = image(1 << 20);
    let device = LoopDevice::attach(&image.path, LoopOptions::default()).unwrap();
    let claimed = claim(device.path(), Purpose::Origin).unwrap();
    assert!(claimed.is_block_device());
    assert_eq!(claimed.capacity, 1 << 20);
    assert_eq!(claimed.anchor, Anchor::Device(device.number()));
    is_ours(device.path());
    drop(claimed);
    is_granted(device.path(), Purpose::Target);
}

#[test]
fn what_holds_no_volume_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRUSR).unwrap();
    for path in [folder.path(), &fifo, Path::new("/dev/null")] {
        assert!(matches!(refusal(path), ClaimError::WrongType { .. }));
    }
    let missing = refusal(&folder.path().join("none"));
    assert!(matches!(missing, ClaimError::Io { .. }));
    let loose = folder.path().join("loose");
    symlink("nowhere", &loose).unwrap();
    assert!(matches!(refusal(&loose), ClaimError::Io { .. }));
}

#[test]
fn an_empty_file_is_a_target_only() {
    let image = image(0);
    assert!(matches!(refusal(&image.path), ClaimError::Empty { .. }));
    let claimed = claim(&image.path, Purpose::Target).unwrap();
    assert_eq!(claimed.capacity, 0);
}

#[test]
fn a_file_that_a_process_has_open_is_refused_by_its_name() {
    let image = image(4096);
    let sleeper = Sleeper::with(File::open(&image.path).unwrap());
    // By whatever name it is asked for.
    let link = image.path.with_file_name("link");
    symlink(&image.path, &link).unwrap();
    is_refused_for(&link, &sleeper);
    match refusal(&link) {
        ClaimError::Open { opener, .. } => {
            assert_eq!(opener.pid, sleeper.0.id());
            assert_eq!(opener.command, "sleep");
            assert!(!opener.writes);
        }
        other => panic!("{other}"),
    }
    drop(sleeper);
    is_granted(&image.path, Purpose::Origin);
}

#[test]
fn a_device_that_a_process_writes_to_is_refused() {
    let image = image(1 << 20);
    let device = LoopDevice::attach(&image.path, LoopOptions::default()).unwrap();
    let reader = Sleeper::with(File::open(device.path()).unwrap());
    is_granted(device.path(), Purpose::Origin);
    drop(reader);
    let writable = File::options().write(true).open(device.path()).unwrap();
    let writer = Sleeper::with(writable);
    is_refused_for(device.path(), &writer);
}

#[test]
fn a_device_held_by_a_process_is_refused_by_its_name() {
    let image = image(1 << 20);
    let device = LoopDevice::attach(&image.path, LoopOptions::default()).unwrap();
    let mut exclusive = OpenOptions::new();
    exclusive.read(true).custom_flags(libc::O_EXCL);
    let holder = Sleeper::with(exclusive.open(device.path()).unwrap());
    is_refused_for(device.path(), &holder);
}

#[test]
fn what_is_mounted_is_refused_with_its_mount_point() {
    for mounted in [Mounted::ext4(), Mounted::btrfs()] {
        match refusal(mounted.device.path()) {
            ClaimError::Mounted { mount_point, .. } => assert_eq!(mount_point, mounted.point),
            other => panic!("{other}"),
        }
        match refusal(&mounted.image) {
            ClaimError::LoopBacking { device, .. } => assert_eq!(device, mounted.device.path()),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_device_behind_a_loop_device_is_refused() {
    let image = image(1 << 20);
    let lower = LoopDevice::attach(&image.path, LoopOptions::default()).unwrap();
    let upper = LoopDevice::attach(lower.path(), LoopOptions::default()).unwrap();
    match refusal(lower.path()) {
        ClaimError::LoopBacking { device, .. } => assert_eq!(device, upper.path()),
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_read_only_is_refused() {
    let image = image(1 << 20);
    let options = LoopOptions {
        read_only: true,
        ..LoopOptions::default()
    };
    let device = LoopDevice::attach(&image.path, options).unwrap();
    assert!(matches!(
        refusal(device.path()),
        ClaimError::ReadOnly { .. }
    ));
}

#[test]
fn swap_space_is_refused() {
    let image = image(1 << 20);
    let device = LoopDevice::attach(&image.path, LoopOptions::default()).unwrap();
    run("mkswap", &[device.path()]);
    let on = Command::new("swapon").arg(device.path()).output().unwrap();
    if !on.status.success() {
        eprintln!("skipped: this host lets nobody add swap space");
        return;
    }
    let answer = claim(device.path(), Purpose::Origin);
    run("swapoff", &[device.path()]);
    assert!(matches!(answer, Err(ClaimError::Swap { .. })));
}
