//! The area's superblock, change sets and identities.

use tidemark_store::{
    area::{SUPERBLOCK_BYTES, Superblock},
    changes::{ChangeSet, DenseMap, Kind},
    units::{BlockRange, Epoch, Geometry, Id},
};

use crate::{bytes::with_crc32c, reads_back};

pub(crate) fn superblock(bytes: &[u8]) {
    let mut block = [0; SUPERBLOCK_BYTES];
    let len = bytes.len().min(SUPERBLOCK_BYTES);
    block[..len].copy_from_slice(&bytes[..len]);
    let decode = |bytes: &[u8]| Superblock::decode(bytes.try_into().ok()?).ok();
    reads_back(&block, decode, Superblock::encode);
    reads_back(&with_crc32c(&block, 12, 16), decode, Superblock::encode);
}

pub(crate) fn superblocks() -> Vec<Vec<u8>> {
    let superblock = |capacity, block_bytes, slots| Superblock {
        generation: 3,
        volume: Id([1; 16]),
        area: Id([2; 16]),
        geometry: Geometry::new(capacity, block_bytes).expect("a volume has this geometry"),
        first_slot_bytes: 1 << 20,
        slots,
    };
    let all = [
        superblock(1, 4096, 64),
        superblock(1 << 60, 65536, u32::MAX - 1),
    ];
    // The rest of the block is zeros.
    all.map(|superblock| superblock.encode()[..88].to_vec())
        .to_vec()
}

pub(crate) fn change_set(bytes: &[u8]) {
    let decode = |bytes: &[u8]| ChangeSet::decode(bytes).ok();
    reads_back(bytes, decode, ChangeSet::encode);
    if bytes.len() < 16 {
        return;
    }
    let Some(set) = reads_back(&with_crc32c(bytes, 12, 16), decode, ChangeSet::encode) else {
        return;
    };
    let (mut told, mut end, mut last) = (0, 0, None);
    // A few bytes can stand for any number of runs.
    for (run, kind) in set.runs(0).take(100_000) {
        assert!(run.start >= end && !run.is_empty(), "{run:?} after {end}");
        assert!(run.start > end || last != Some(kind), "two runs for one");
        assert!(set.contains(run.start) && set.contains(run.end - 1));
        (told, end, last) = (told + run.len(), run.end, Some(kind));
    }
    assert!(told <= set.len(), "more blocks told than there are");
    let mut twice = set.clone();
    twice.absorb(&set);
    assert_eq!(twice, set, "nothing new was absorbed");
}

pub(crate) fn change_sets() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir_in("/dev/shm").expect("memory holds a map");
    let map = DenseMap::create(&folder.path().join("map"), Id::NIL, Epoch(1), 200_000)
        .expect("memory holds a map");
    let mut seeds = vec![ChangeSet::default().encode(), map.to_set(0).encode()];
    for at in 0..6 {
        map.mark(BlockRange::new(at * 3000, at * 3000 + 1 + at * 7));
    }
    seeds.push(map.to_set(0).encode());
    map.settle(BlockRange::new(3000, 3008), Kind::Zero);
    map.settle(BlockRange::new(6000, 6008), Kind::Discarded);
    seeds.push(map.to_set(0).encode());
    seeds
}

pub(crate) fn id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(id) = Id::parse(text) {
        assert!(
            id.to_string().eq_ignore_ascii_case(text),
            "{text:?} is taken for {id}"
        );
    }
}

pub(crate) fn ids() -> Vec<Vec<u8>> {
    vec![Id([0xa5; 16]).to_string().into_bytes()]
}
