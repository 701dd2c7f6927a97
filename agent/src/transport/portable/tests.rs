//! The portable transport for real: FUSE, loop devices and file systems of this host's kernel.
//! Needs root and /dev/fuse; without them each test says so and passes.

mod device;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, RwLock},
    thread,
};

use nix::{
    fcntl::{FallocateFlags, fallocate},
    mount::{MntFlags, umount2},
    unistd::{Whence, lseek},
};
use tidemark_store::units::Id;

use super::{LoopDevice, Options, Portable, UnmountError};
use crate::{
    disk::Run,
    request::{Errno, Request},
    transport::{Backend, View},
};

const STALE: Errno = Errno(libc::ESTALE);

/// A device in memory that remembers what it was asked.
struct Memory {
    bytes: RwLock<Vec<u8>>,
    views: RwLock<Vec<(View, Vec<u8>)>>,
    asked: Mutex<Vec<&'static str>>,
    discard_zeroes: bool,
}

impl Memory {
    fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: RwLock::new(vec![0; capacity]),
            views: RwLock::default(),
            asked: Mutex::default(),
            discard_zeroes: true,
        })
    }

    fn snapshot(&self, byte: u8) -> Id {
        let id = Id([byte; 16]);
        let view = View {
            id,
            created_us: 1_700_000_000_000_000,
        };
        let frozen = self.bytes.read().unwrap().clone();
        self.views.write().unwrap().push((view, frozen));
        id
    }

    fn release(&self, id: Id) {
        self.views
            .write()
            .unwrap()
            .retain(|(view, _)| view.id != id);
    }

    fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn span(offset: u64, len: usize) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap();
    start..start + len
}

impl Backend for Memory {
    fn capacity(&self) -> u64 {
        self.bytes.read().unwrap().len() as u64
    }

    fn discard_zeroes(&self) -> bool {
        self.discard_zeroes
    }

    async fn serve(&self, request: Request<'_>) -> Result<(), Errno> {
        let name = match request {
            Request::Read { offset, into } => {
                let bytes = self.bytes.read().unwrap();
                into.copy_from_slice(&bytes[span(offset, into.len())]);
                return Ok(());
            }
            Request::Write { offset, from, fua } => {
                self.bytes.write().unwrap()[span(offset, from.len())].copy_from_slice(from);
                if fua { "write fua" } else { "write" }
            }
            Request::ReadRegistered { .. } | Request::WriteRegistered { .. } => {
                return Err(Errno(libc::EOPNOTSUPP));
            }
            Request::Flush => "flush",
            Request::Discard { range } => {
                let len = usize::try_from(range.len).unwrap();
                self.bytes.write().unwrap()[span(range.offset, len)].fill(0);
                "discard"
            }
            Request::WriteZeroes {
                range, may_unmap, ..
            } => {
                let len = usize::try_from(range.len).unwrap();
                self.bytes.write().unwrap()[span(range.offset, len)].fill(0);
                if may_unmap { "zeroes unmap" } else { "zeroes" }
            }
        };
        self.asked.lock().unwrap().push(name);
        Ok(())
    }

    fn views(&self) -> Vec<View> {
        self.views
            .read()
            .unwrap()
            .iter()
            .map(|(view, _)| *view)
            .collect()
    }

    async fn read_view(&self, id: Id, offset: u64, into: &mut [u8]) -> Result<(), Errno> {
        let views = self.views.read().unwrap();
        let (_, bytes) = views.iter().find(|(view, _)| view.id == id).ok_or(STALE)?;
        into.copy_from_slice(&bytes[span(offset, into.len())]);
        Ok(())
    }

    async fn view_run(&self, id: Id, offset: u64) -> Result<Run, Errno> {
        let views = self.views.read().unwrap();
        let (_, bytes) = views.iter().find(|(view, _)| view.id == id).ok_or(STALE)?;
        let rest = &bytes[usize::try_from(offset).unwrap()..];
        let hole = rest[0] == 0;
        let len = rest.iter().take_while(|byte| (**byte == 0) == hole).count();
        Ok(Run {
            end: offset + len as u64,
            hole,
        })
    }
}

/// A mount in a temporary directory; cleans up also when a test fails.
struct Mounted {
    portable: Option<Portable>,
    backend: Arc<Memory>,
    root: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mounted {
    /// `None` where the host cannot.
    fn new(capacity: usize) -> Option<Self> {
        Self::over(Memory::new(capacity))
    }

    fn over(backend: Arc<Memory>) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("skipped: needs root and /dev/fuse");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("fs");
        let portable =
            Portable::mount(&root, Arc::clone(&backend), &Options { threads: 4 }).unwrap();
        Some(Self {
            portable: Some(portable),
            backend,
            root,
            _dir: dir,
        })
    }

    fn portable(&mut self) -> &mut Portable {
        self.portable.as_mut().unwrap()
    }

    fn live(&self) -> File {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.root.join("live"))
            .unwrap()
    }

    fn view(&self, id: Id) -> PathBuf {
        self.root.join("snapshots").join(id.to_string())
    }

    fn unmount(mut self) {
        self.portable().unmount().unwrap();
        self.portable = None;
        assert!(fs::read_dir(&self.root).unwrap().next().is_none());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.portable = None;
        while umount2(&self.root, MntFlags::MNT_DETACH).is_ok() {}
    }
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    let byte = |i: usize| u8::try_from((i * 31 + seed * 7 + i / 251) % 255 + 1).unwrap();
    (0..len).map(byte).collect()
}

#[test]
fn bytes_come_back_whatever_their_alignment() {
    // Neither a multiple of a block nor of a sector.
    const SIZE: usize = (3 << 20) + 777;
    let Some(mounted) = Mounted::new(SIZE) else {
        return;
    };
    let live = mounted.live();
    assert_eq!(live.metadata().unwrap().len(), SIZE as u64);
    assert_eq!(live.metadata().unwrap().mode() & 0o7777, 0o600);
    for (seed, (offset, len)) in [
        (0, 1),
        (511, 2),
        (4095, 4098),
        (1 << 20, 2 << 20),
        (SIZE - 5, 5),
    ]
    .into_iter()
    .enumerate()
    {
        let wrote = pattern(len, seed);
        live.write_all_at(&wrote, offset as u64).unwrap();
        let mut read = vec![0; len];
        live.read_exact_at(&mut read, offset as u64).unwrap();
        assert!(read == wrote, "{len} bytes at {offset}");
    }
    let all = fs::read(mounted.root.join("live")).unwrap();
    assert!(all == *mounted.backend.bytes.read().unwrap());
    drop(live);
    mounted.unmount();
}

#[test]
fn the_end_is_the_end() {
    let Some(mounted) = Mounted::new(10_000) else {
        return;
    };
    let live = mounted.live();
    assert_eq!(
        live.write_at(&[1; 100], 9_950).unwrap(),
        50,
        "a write at the end is short"
    );
    assert_eq!(errno(live.write_at(&[1; 100], 10_000)), Some(libc::ENOSPC));
    assert_eq!(errno(live.write_at(&[1; 1], 1 << 40)), Some(libc::ENOSPC));
    let mut buffer = [0; 100];
    assert_eq!(live.read_at(&mut buffer, 9_990).unwrap(), 10);
    assert_eq!(live.read_at(&mut buffer, 10_000).unwrap(), 0);
    assert_eq!(errno(live.set_len(9_999)), Some(libc::EPERM));
    assert_eq!(errno(live.set_len(10_001)), Some(libc::EPERM));
    live.set_len(10_000).unwrap();
    assert_eq!(
        errno(File::create(mounted.root.join("live"))),
        Some(libc::EPERM)
    );
    assert_eq!(
        errno(File::create(mounted.root.join("other"))),
        Some(libc::EPERM)
    );
    assert_eq!(
        errno(fs::remove_file(mounted.root.join("live"))),
        Some(libc::EPERM)
    );
    assert_eq!(
        errno(fs::create_dir(mounted.root.join("folder"))),
        Some(libc::EPERM)
    );
}

#[test]
fn durability_is_passed_on() {
    let Some(mounted) = Mounted::new(1 << 20) else {
        return;
    };
    let live = mounted.live();
    mounted.backend.asked();
    live.write_all_at(&[1; 4096], 0).unwrap();
    live.sync_all().unwrap();
    live.sync_data().unwrap();
    assert_eq!(mounted.backend.asked(), ["write", "flush", "flush"]);
    let synchronous = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DSYNC)
        .open(mounted.root.join("live"))
        .unwrap();
    mounted.backend.asked();
    synchronous.write_all_at(&[2; 4096], 0).unwrap();
    assert_eq!(mounted.backend.asked().first(), Some(&"write fua"));
}

#[test]
fn holes_are_punched_and_ranges_zeroed() {
    let Some(mounted) = Mounted::new(100_000) else {
        return;
    };
    let live = mounted.live();
    live.write_all_at(&pattern(100_000, 1), 0).unwrap();
    mounted.backend.asked();
    let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep;
    let zero = FallocateFlags::FALLOC_FL_ZERO_RANGE;
    fallocate(&live, punch, 10, 5_000).unwrap();
    fallocate(&live, zero, 20_000, 5_001).unwrap();
    fallocate(&live, zero | keep, 99_000, 9_000).unwrap();
    fallocate(&live, punch, 200_000, 10).unwrap();
    assert_eq!(mounted.backend.asked(), ["discard", "zeroes", "zeroes"]);
    let mut expected = pattern(100_000, 1);
    for range in [10..5_010, 20_000..25_001, 99_000..100_000] {
        expected[range].fill(0);
    }
    assert!(*mounted.backend.bytes.read().unwrap() == expected);
    assert_eq!(
        fallocate(&live, zero, 99_000, 9_000),
        Err(nix::Error::ENOSPC)
    );
    for other in [FallocateFlags::empty(), keep] {
        assert_eq!(fallocate(&live, other, 0, 10), Err(nix::Error::EOPNOTSUPP));
    }
}

#[test]
fn a_hole_reads_as_zeros_where_discards_do_not() {
    let mut backend = Memory::new(65_536);
    Arc::get_mut(&mut backend).unwrap().discard_zeroes = false;
    let Some(mounted) = Mounted::over(backend) else {
        return;
    };
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    mounted.backend.asked();
    fallocate(mounted.live(), punch, 0, 4096).unwrap();
    assert_eq!(mounted.backend.asked(), ["zeroes unmap"]);
}

#[test]
fn views_appear_stay_and_vanish() {
    let Some(mounted) = Mounted::new(50_000) else {
        return;
    };
    let live = mounted.live();
    let before = pattern(50_000, 1);
    live.write_all_at(&before, 0).unwrap();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(mounted.root.join("snapshots"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert!(names().is_empty());
    let path = mounted.view(Id([1; 16]));
    assert_eq!(errno(fs::metadata(&path)), Some(libc::ENOENT));
    let first = mounted.backend.snapshot(1);
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(
        (metadata.len(), metadata.mode() & 0o7777, metadata.mtime()),
        (50_000, 0o400, 1_700_000_000)
    );
    live.write_all_at(&[9; 50_000], 0).unwrap();
    assert!(fs::read(&path).unwrap() == before);
    let many: Vec<Id> = (2..=200)
        .map(|byte| mounted.backend.snapshot(byte))
        .collect();
    assert_eq!(names().len(), 200);
    many.iter().for_each(|id| mounted.backend.release(*id));
    assert_eq!(names(), [first.to_string()]);
    assert_eq!(
        errno(OpenOptions::new().write(true).open(&path)),
        Some(libc::EROFS)
    );
    let mut open = File::open(&path).unwrap();
    mounted.backend.release(first);
    assert_eq!(errno(fs::metadata(&path)), Some(libc::ENOENT));
    assert_eq!(errno(open.read(&mut [0; 10])), Some(libc::ESTALE));
    assert!(names().is_empty());
    for wrong in ["1", &"0".repeat(31), &"A1".repeat(16), &"g".repeat(32)] {
        assert_eq!(
            errno(fs::metadata(mounted.root.join("snapshots").join(wrong))),
            Some(libc::ENOENT)
        );
    }
}

#[test]
fn holes_of_views_are_found() {
    let Some(mounted) = Mounted::new(30_000) else {
        return;
    };
    mounted.live().write_all_at(&[1; 1_000], 10_000).unwrap();
    let id = mounted.backend.snapshot(1);
    let view = File::open(mounted.view(id)).unwrap();
    let seek = |offset, whence| lseek(&view, offset, whence);
    assert_eq!(seek(0, Whence::SeekData), Ok(10_000));
    assert_eq!(seek(0, Whence::SeekHole), Ok(0));
    assert_eq!(seek(10_500, Whence::SeekData), Ok(10_500));
    assert_eq!(seek(10_500, Whence::SeekHole), Ok(11_000));
    assert_eq!(seek(11_000, Whence::SeekData), Err(nix::Error::ENXIO));
    assert_eq!(seek(30_000, Whence::SeekHole), Err(nix::Error::ENXIO));
    let live = mounted.live();
    assert_eq!(lseek(&live, 5, Whence::SeekData), Ok(5));
    assert_eq!(lseek(&live, 5, Whence::SeekHole), Ok(30_000));
}

#[test]
fn many_threads_write_and_read_at_once() {
    const THREADS: usize = 8;
    const PART: usize = 256 * 1024;
    let Some(mounted) = Mounted::new(THREADS * PART) else {
        return;
    };
    let mounted = &mounted;
    thread::scope(|scope| {
        for part in 0..THREADS {
            scope.spawn(move || {
                let live = mounted.live();
                for round in 0..20 {
                    let len = 4096 + round * 513;
                    let offset = (part * PART + round * 9_000) as u64;
                    let wrote = pattern(len, part + round);
                    live.write_all_at(&wrote, offset).unwrap();
                    let mut read = vec![0; len];
                    live.read_exact_at(&mut read, offset).unwrap();
                    assert!(read == wrote, "part {part} round {round}");
                }
            });
        }
    });
}
