//! The same requests to each kind of disk must leave what a plain array would hold.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use futures_lite::future::block_on;
use proptest::prelude::*;
use tidemark_store::units::ByteRange;

use super::{Disk, file::FileDisk, memory::MemoryDisk};
use crate::{
    host::{
        fixtures::sparse_file,
        loopdev::{LoopDevice, LoopOptions},
    },
    request::Errno,
};

/// No multiple of 512, of a block or of a shard of the memory disk.
const ODD: u64 = (2 << 20) + 4096 + 513;

#[derive(Clone, Debug)]
enum Step {
    Write(ByteRange, u8, bool),
    Zero(ByteRange, bool, bool),
    Discard(ByteRange),
}

fn range(capacity: u64) -> impl Strategy<Value = ByteRange> {
    // Short and long ones; on sectors, on units and anywhere.
    let unit = prop_oneof![Just(1_u64), Just(512), Just(4096), Just(1 << 20)];
    (unit, 0..capacity, 0..capacity).prop_map(move |(unit, offset, len)| {
        let offset = offset / unit * unit;
        let len = (len % (unit * 3)).div_ceil(unit) * unit;
        ByteRange::new(offset, len.min(capacity - offset))
    })
}

fn steps(capacity: u64) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (range(capacity), any::<u8>(), any::<bool>())
            .prop_map(|(range, byte, fua)| Step::Write(range, byte, fua)),
        1 => (range(capacity), any::<bool>(), any::<bool>())
            .prop_map(|(range, fua, unmap)| Step::Zero(range, fua, unmap)),
        1 => range(capacity).prop_map(Step::Discard),
    ];
    prop::collection::vec(step, 1..24)
}

fn index(range: ByteRange) -> std::ops::Range<usize> {
    usize::try_from(range.offset).unwrap()..usize::try_from(range.end()).unwrap()
}

/// Applies the steps and compares bytes and holes with an array.
fn follows_the_model(disk: &impl Disk, steps: &[Step]) {
    let capacity = usize::try_from(disk.capacity()).unwrap();
    let mut model = vec![0; capacity];
    for step in steps {
        match step {
            Step::Write(range, byte, fua) => {
                model[index(*range)].fill(*byte);
                let bytes = model[index(*range)].to_vec();
                block_on(disk.write(range.offset, &bytes, *fua)).unwrap();
            }
            Step::Zero(range, fua, unmap) => {
                model[index(*range)].fill(0);
                block_on(disk.write_zeroes(*range, *fua, *unmap)).unwrap();
            }
            Step::Discard(range) => {
                block_on(disk.discard(*range)).unwrap();
                if disk.discard_zeroes() {
                    model[index(*range)].fill(0);
                } else {
                    block_on(disk.read(range.offset, &mut model[index(*range)])).unwrap();
                }
            }
        }
    }
    block_on(disk.flush()).unwrap();
    let mut found = vec![0xaa; capacity];
    block_on(disk.read(0, &mut found)).unwrap();
    assert!(found == model);
    holes_are_zeros(disk, &model);
}

fn holes_are_zeros(disk: &impl Disk, model: &[u8]) {
    let mut offset = 0;
    while offset < disk.capacity() {
        let run = block_on(disk.run_at(offset)).unwrap();
        assert!(run.end > offset && run.end <= disk.capacity());
        if run.hole {
            let bytes = &model[index(ByteRange::new(offset, run.end - offset))];
            assert!(bytes.iter().all(|byte| *byte == 0));
        }
        offset = run.end;
    }
}

fn refuses_what_leaves_it(disk: &impl Disk) {
    let end = disk.capacity();
    let mut two = [0; 2];
    assert_eq!(block_on(disk.read(end - 1, &mut two)), Err(Errno::EINVAL));
    assert_eq!(block_on(disk.read(u64::MAX, &mut two)), Err(Errno::EINVAL));
    assert_eq!(block_on(disk.read(end, &mut [])), Ok(()));
    for offset in [end - 1, u64::MAX] {
        let range = ByteRange::new(offset, 2);
        assert_eq!(
            block_on(disk.write(offset, &two, false)),
            Err(Errno::EINVAL)
        );
        assert_eq!(block_on(disk.discard(range)), Err(Errno::EINVAL));
        let zeroed = disk.write_zeroes(range, false, true);
        assert_eq!(block_on(zeroed), Err(Errno::EINVAL));
    }
    assert_eq!(block_on(disk.run_at(end)), Err(Errno::EINVAL));
}

fn file_disk(folder: &Path, capacity: u64) -> (tempfile::TempDir, FileDisk) {
    let folder = tempfile::tempdir_in(folder).unwrap();
    let path = folder.path().join("image");
    sparse_file(&path, capacity);
    (folder, FileDisk::open(path).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn memory_follows_the_model(steps in steps(ODD)) {
        follows_the_model(&MemoryDisk::new(ODD), &steps);
    }

    #[test]
    fn a_file_follows_the_model(steps in steps(ODD)) {
        follows_the_model(&file_disk(&std::env::temp_dir(), ODD).1, &steps);
    }

    /// tmpfs has no ZERO_RANGE: zeros are written.
    #[test]
    fn a_file_in_memory_follows_the_model(steps in steps(ODD)) {
        follows_the_model(&file_disk(Path::new("/dev/shm"), ODD).1, &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// Device ranges must be whole sectors for the kernel; ours need not be.
    #[test]
    fn a_device_follows_the_model(steps in steps(3 << 20)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        sparse_file(&path, 3 << 20);
        let device = LoopDevice::attach(&path, LoopOptions::default()).unwrap();
        let disk = FileDisk::open(device.path()).unwrap();
        assert_eq!(disk.capacity(), 3 << 20);
        assert!(!disk.discard_zeroes());
        follows_the_model(&disk, &steps);
        refuses_what_leaves_it(&disk);
        drop(disk);
        device.detach().unwrap();
    }
}

#[test]
fn ranges_past_the_end_are_refused() {
    refuses_what_leaves_it(&MemoryDisk::new(ODD));
    refuses_what_leaves_it(&file_disk(&std::env::temp_dir(), ODD).1);
}

#[test]
fn a_disk_opened_for_reading_cannot_be_changed() {
    let (folder, disk) = file_disk(&std::env::temp_dir(), ODD);
    block_on(disk.write(0, b"kept", false)).unwrap();
    let reader = FileDisk::open_read_only(folder.path().join("image")).unwrap();
    assert!(reader.is_read_only());
    let refused = Err(Errno(libc::EROFS));
    assert_eq!(block_on(reader.write(0, b"lost", true)), refused);
    let range = ByteRange::new(0, 4096);
    assert_eq!(block_on(reader.discard(range)), refused);
    assert_eq!(block_on(reader.write_zeroes(range, false, false)), refused);
    let mut bytes = [0; 4];
    block_on(reader.read(0, &mut bytes)).unwrap();
    assert_eq!(&bytes, b"kept");
}

#[test]
fn a_file_cut_short_is_an_error_and_not_zeros() {
    let (_folder, disk) = file_disk(&std::env::temp_dir(), ODD);
    disk.file().set_len(4096).unwrap();
    let mut bytes = [0; 4096];
    assert_eq!(block_on(disk.read(4095, &mut bytes)), Err(Errno::EIO));
}

#[test]
fn only_files_and_devices_are_disks() {
    let folder = tempfile::tempdir().unwrap();
    let of = |path: &Path| FileDisk::open(path).unwrap_err().raw_os_error();
    assert_eq!(of(folder.path()), Some(libc::EISDIR));
    assert_eq!(of(Path::new("/dev/null")), Some(libc::ENOTBLK));
    assert_eq!(of(&folder.path().join("none")), Some(libc::ENOENT));
}

#[test]
fn a_discard_gives_space_back_and_the_size_stays() {
    // A file system frees whole blocks only.
    const LEN: u64 = 2 << 20;
    let (folder, disk) = file_disk(&std::env::temp_dir(), LEN);
    let whole = ByteRange::new(0, LEN);
    block_on(disk.write(0, &vec![7; usize::try_from(LEN).unwrap()], true)).unwrap();
    block_on(disk.discard(whole)).unwrap();
    let metadata = fs::metadata(folder.path().join("image")).unwrap();
    assert_eq!(metadata.len(), LEN);
    assert_eq!(metadata.blocks(), 0);
    let run = block_on(disk.run_at(0)).unwrap();
    assert!(run.hole && run.end == LEN);
}

#[test]
fn runs_of_a_file_are_those_of_its_file_system() {
    let (folder, disk) = file_disk(&std::env::temp_dir(), 1 << 20);
    let file = File::options()
        .write(true)
        .open(folder.path().join("image"))
        .unwrap();
    file.write_all_at(&[1; 4096], 64 << 10).unwrap();
    let first = block_on(disk.run_at(0)).unwrap();
    assert!(first.hole && first.end == 64 << 10);
    let second = block_on(disk.run_at(first.end)).unwrap();
    assert!(!second.hole && second.end == (64 << 10) + 4096);
    let third = block_on(disk.run_at(second.end)).unwrap();
    assert!(third.hole && third.end == 1 << 20);
}

#[test]
fn memory_tells_holes_by_units_across_shards() {
    let disk = MemoryDisk::new(4 << 20);
    block_on(disk.write((3 << 20) + 1, &[0; 4096], false)).unwrap();
    let first = block_on(disk.run_at(0)).unwrap();
    assert!(first.hole && first.end == 3 << 20);
    let second = block_on(disk.run_at(first.end)).unwrap();
    assert!(!second.hole && second.end == (3 << 20) + 8192);
    block_on(disk.discard(ByteRange::new(3 << 20, 4096))).unwrap();
    assert_eq!(block_on(disk.run_at(0)).unwrap().end, (3 << 20) + 4096);
}

#[test]
fn threads_share_a_memory_disk() {
    let disk = MemoryDisk::new(8 << 20);
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let disk = &disk;
            scope.spawn(move || {
                for unit in 0..256 {
                    let offset = unit * 32768 + u64::from(thread) * 4096;
                    block_on(disk.write(offset, &[thread + 1; 4096], false)).unwrap();
                }
            });
        }
    });
    let all = disk.contents();
    for (unit, bytes) in all.chunks_exact(4096).enumerate() {
        let thread = u8::try_from(unit % 8).unwrap();
        assert!(bytes.iter().all(|byte| *byte == thread + 1));
    }
}
