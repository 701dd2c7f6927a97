//! The loop device: mounted, busy, left behind.

use std::{thread::sleep, time::Duration};

use super::*;

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {said}");
}

/// A file system on the loop device, mounted until dropped.
struct FileSystem {
    at: tempfile::TempDir,
}

impl FileSystem {
    fn mount(device: &str) -> Self {
        let at = tempfile::tempdir().unwrap();
        run("mount", &[device, at.path().to_str().unwrap()]);
        Self { at }
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        run("umount", &[self.at.path().to_str().unwrap()]);
    }
}

#[test]
fn a_file_system_lives_on_the_loop_device() {
    let Some(mut mounted) = Mounted::new((64 << 20) + 300) else {
        return;
    };
    let Some(device) = mounted.portable().device_path().map(Path::to_owned) else {
        return eprintln!("skipped: no loop device");
    };
    let device = device.to_str().unwrap();
    run("mkfs.ext4", &["-q", device]);
    let content = pattern(5 << 20, 3);
    {
        let fs = FileSystem::mount(device);
        fs::write(fs.at.path().join("file"), &content).unwrap();
        run("sync", &["-f", fs.at.path().to_str().unwrap()]);
        let busy = mounted.portable().unmount().unwrap_err();
        assert!(matches!(busy, UnmountError::DeviceInUse { .. }), "{busy}");
        assert!(busy.is_busy());
        fs::remove_file(fs.at.path().join("file")).unwrap();
        fs::write(fs.at.path().join("file"), &content).unwrap();
        run("fstrim", &[fs.at.path().to_str().unwrap()]);
    }
    run("e2fsck", &["-fn", device]);
    assert!(mounted.backend.asked().contains(&"discard"));
    {
        let fs = FileSystem::mount(device);
        assert!(fs::read(fs.at.path().join("file")).unwrap() == content);
    }
    let still = mounted.portable().device_path().map(Path::to_owned);
    assert_eq!(
        still.as_deref().and_then(Path::to_str),
        Some(device),
        "a refused unmount changes nothing"
    );
    mounted.unmount();
}

#[test]
fn an_unmount_is_refused_while_files_are_open() {
    let Some(mut mounted) = Mounted::new(1 << 20) else {
        return;
    };
    let id = mounted.backend.snapshot(1);
    let view = File::open(mounted.view(id)).unwrap();
    let busy = mounted.portable().unmount().unwrap_err();
    assert!(matches!(busy, UnmountError::FilesInUse { .. }), "{busy}");
    view.read_exact_at(&mut [0; 100], 0).unwrap();
    drop(view);
    // A directory is no open file for us, but the kernel minds.
    let folder = File::open(mounted.root.join("snapshots")).unwrap();
    let busy = mounted.portable().unmount().unwrap_err();
    assert!(matches!(busy, UnmountError::FilesInUse { .. }), "{busy}");
    assert!(mounted.portable().is_serving());
    mounted.live().write_all_at(&[1; 10], 0).unwrap();
    drop(folder);
    mounted.unmount();
}

fn abort_connection(minor: u64) {
    let control = tempfile::tempdir().unwrap();
    run(
        "mount",
        &["-t", "fusectl", "none", control.path().to_str().unwrap()],
    );
    let aborted = fs::write(control.path().join(minor.to_string()).join("abort"), "1");
    run("umount", &[control.path().to_str().unwrap()]);
    aborted.unwrap();
}

#[test]
fn the_next_server_clears_what_a_dead_one_left() {
    let Some(mut mounted) = Mounted::new(1 << 20) else {
        return;
    };
    let root = mounted.root.clone();
    let device = mounted.portable().device_path().map(Path::to_owned);
    // As good as a kill -9: the connection ends, mount and loop device stay.
    let minor = fs::metadata(&root).unwrap().dev() & 0xff;
    let mut dead = mounted.portable.take().unwrap();
    dead.device.take().map(LoopDevice::leak);
    std::mem::forget(dead);
    abort_connection(minor);
    assert!(fs::read_dir(&root).is_err(), "the mount is dead");
    let mut again =
        Portable::mount(&root, Arc::clone(&mounted.backend), &Options::default()).unwrap();
    fs::read(root.join("live")).unwrap();
    if let (Some(old), Some(new)) = (device, again.device_path()) {
        let is_ours = |device: &Path| {
            let name = device.file_name().unwrap().to_str().unwrap();
            let backing = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file"));
            // Another test may have been given it since.
            backing.is_ok_and(|backing| backing.starts_with(root.to_str().unwrap()))
        };
        while old != new && is_ours(&old) {
            sleep(Duration::from_millis(20));
        }
    }
    again.unmount().unwrap();
}
