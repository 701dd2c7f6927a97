//! The freezer and its helper process on a real file system.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tidemark_agent::host::{
    freezer::{FreezeError, Freezer, ThawCause},
    loopdev::{LoopDevice, LoopOptions},
};

const EXE: &str = env!("CARGO_BIN_EXE_tidemarkd");
/// Long enough never to strike in a test that does not wait for it.
const LONG: Duration = Duration::from_secs(90);
/// For how long a write that must wait is watched waiting.
const A_WHILE: Duration = Duration::from_millis(300);
/// A write that may go on must do so, however busy the machine: past this, the test is stuck.
const STUCK: Duration = Duration::from_secs(60);

struct Ext4 {
    point: PathBuf,
    _device: LoopDevice,
    _folder: tempfile::TempDir,
}

impl Ext4 {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let point = folder.path().join("point");
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        fs::create_dir(&point).unwrap();
        let made = Command::new("mkfs.ext4").arg("-q").arg(&image).status();
        assert!(made.unwrap().success());
        let device = LoopDevice::attach(&image, LoopOptions::default()).unwrap();
        let none = None::<&str>;
        mount(
            Some(device.path()),
            &point,
            Some("ext4"),
            MsFlags::empty(),
            none,
        )
        .unwrap();
        Self {
            point,
            _device: device,
            _folder: folder,
        }
    }

    /// Starts a write; the receiver hears when it is through.
    fn write(&self) -> Receiver<()> {
        let path = self.point.join("written");
        let (done, heard) = channel();
        thread::spawn(move || {
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .unwrap();
            file.write_all(b"through").unwrap();
            let _ = done.send(());
        });
        heard
    }

    fn assert_thawed(&self) {
        self.write().recv_timeout(STUCK).unwrap();
    }

    fn assert_frozen(&self) -> Receiver<()> {
        let write = self.write();
        assert_eq!(write.recv_timeout(A_WHILE), Err(RecvTimeoutError::Timeout));
        write
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        // A test that failed may have left it frozen.
        let _ = fsfreeze("-u", &self.point);
        let _ = umount2(&self.point, MntFlags::MNT_DETACH);
    }
}

fn fsfreeze(option: &str, point: &Path) -> bool {
    let mut command = Command::new("fsfreeze");
    command.arg(option).arg(point).stderr(Stdio::null());
    command.status().unwrap().success()
}

fn points(file_systems: &[&Ext4]) -> Vec<PathBuf> {
    file_systems.iter().map(|f| f.point.clone()).collect()
}

/// The process that freezes `point`, found by its command line.
fn helper_of(point: &Path) -> Pid {
    let wanted = point.to_str().unwrap();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut args = line.split(|byte| *byte == 0);
        if args.nth(1) == Some(b"freeze") && args.any(|arg| arg == wanted.as_bytes()) {
            return Pid::from_raw(entry.file_name().to_str().unwrap().parse().unwrap());
        }
    }
    panic!("no helper for {wanted}");
}

#[test]
fn writes_wait_until_the_thaw() {
    let (one, two) = (Ext4::new(), Ext4::new());
    let frozen = Freezer::start(Path::new(EXE), &points(&[&one, &two]), LONG).unwrap();
    let writes = [one.assert_frozen(), two.assert_frozen()];
    let thawed = frozen.thaw().unwrap();
    assert!(thawed.held());
    assert!(thawed.frozen_for >= A_WHILE);
    for write in writes {
        write.recv_timeout(STUCK).unwrap();
    }
}

#[test]
fn a_dropped_guard_thaws() {
    let file_system = Ext4::new();
    let frozen = Freezer::start(Path::new(EXE), &points(&[&file_system]), LONG).unwrap();
    let write = file_system.assert_frozen();
    drop(frozen);
    write.recv_timeout(STUCK).unwrap();
}

#[test]
fn the_deadline_thaws_and_is_told() {
    let file_system = Ext4::new();
    let deadline = Duration::from_millis(500);
    let frozen = Freezer::start(Path::new(EXE), &points(&[&file_system]), deadline).unwrap();
    file_system.write().recv_timeout(STUCK).unwrap();
    let thawed = frozen.thaw().unwrap();
    assert_eq!(thawed.cause, ThawCause::Deadline);
    assert!(!thawed.held());
}

#[test]
fn a_killed_helper_leaves_nothing_frozen() {
    let (one, two) = (Ext4::new(), Ext4::new());
    let frozen = Freezer::start(Path::new(EXE), &points(&[&one, &two]), LONG).unwrap();
    kill(helper_of(&one.point), Signal::SIGKILL).unwrap();
    let write = one.assert_frozen();
    let thawed = frozen.thaw().unwrap();
    assert_eq!(thawed.cause, ThawCause::Helper);
    write.recv_timeout(STUCK).unwrap();
    two.assert_thawed();
}

#[test]
fn a_stopped_helper_leaves_nothing_frozen() {
    let file_system = Ext4::new();
    let deadline = Duration::from_millis(500);
    let frozen = Freezer::start(Path::new(EXE), &points(&[&file_system]), deadline).unwrap();
    kill(helper_of(&file_system.point), Signal::SIGSTOP).unwrap();
    assert_eq!(frozen.thaw().unwrap().cause, ThawCause::Helper);
    file_system.assert_thawed();
}

#[test]
fn a_terminated_helper_thaws_first() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let file_system = Ext4::new();
        let frozen = Freezer::start(Path::new(EXE), &points(&[&file_system]), LONG).unwrap();
        kill(helper_of(&file_system.point), signal).unwrap();
        file_system.assert_thawed();
        assert_eq!(frozen.thaw().unwrap().cause, ThawCause::Helper);
    }
}

#[test]
fn what_someone_else_froze_is_an_error_and_stays_frozen() {
    let (ours, theirs) = (Ext4::new(), Ext4::new());
    assert!(fsfreeze("-f", &theirs.point));
    match Freezer::start(Path::new(EXE), &points(&[&ours, &theirs]), LONG) {
        Err(FreezeError::AlreadyFrozen { mount_point }) => assert_eq!(mount_point, theirs.point),
        other => panic!("{other:?}"),
    }
    ours.assert_thawed();
    assert!(
        fsfreeze("-u", &theirs.point),
        "it was thawed behind their back"
    );
}

#[test]
fn what_cannot_be_frozen_is_named() {
    let ours = Ext4::new();
    let shared = PathBuf::from("/proc");
    let both = [ours.point.clone(), shared.clone()];
    match Freezer::start(Path::new(EXE), &both, LONG) {
        Err(FreezeError::Refused { mount_point, .. }) => assert_eq!(mount_point, shared),
        other => panic!("{other:?}"),
    }
    ours.assert_thawed();
    let missing = [PathBuf::from("/no/such/place")];
    let answer = Freezer::start(Path::new(EXE), &missing, LONG);
    assert!(matches!(answer, Err(FreezeError::Open { .. })));
    let answer = Freezer::start(Path::new("/no/such/program"), &both, LONG);
    assert!(matches!(answer, Err(FreezeError::Start { .. })));
    let answer = Freezer::start(Path::new("/bin/true"), &both, LONG);
    assert!(matches!(answer, Err(FreezeError::HelperDied)));
}

#[test]
fn nothing_to_freeze_is_held_at_once() {
    let frozen = Freezer::start(Path::new(EXE), &[], LONG).unwrap();
    assert!(frozen.thaw().unwrap().held());
}

/// The role alone, as its other side sees it.
struct Role {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Role {
    fn start(deadline_ms: &str, point: &Path) -> Self {
        let mut child = Command::new(EXE)
            .args(["freeze", "--deadline-ms", deadline_ms])
            .arg(point)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }
}

#[test]
fn the_role_thaws_when_its_parent_is_gone() {
    let file_system = Ext4::new();
    let mut role = Role::start("90000", &file_system.point);
    assert_eq!(role.line(), "freezing 0");
    assert!(role.line().starts_with("frozen "));
    drop(role.child.stdin.take());
    let last = role.line();
    assert!(
        last.starts_with("thawed ") && last.ends_with(" eof"),
        "{last}"
    );
    assert!(role.child.wait().unwrap().success());
    file_system.assert_thawed();
}

#[test]
fn the_role_reads_orders_however_they_arrive() {
    let file_system = Ext4::new();
    let mut role = Role::start("90000", &file_system.point);
    role.line();
    role.line();
    let mut stdin = role.child.stdin.take().unwrap();
    for piece in [
        "nonsense, and a long line of it ".repeat(8).as_str(),
        "\nth",
        "aw",
        "\n",
    ] {
        stdin.write_all(piece.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    let last = role.line();
    assert!(last.ends_with(" requested"), "{last}");
    assert!(role.child.wait().unwrap().success());
}
