//! The area's superblock, change sets and identities.

use tidemark_store::{
    area::{SUPERBLOCK_BYTES, Superblock},
    changes::{ChangeSet, DenseMap, Kind},
    cow::table::{
        COMMIT_PAGES, Copy, PAGE_BYTES, PAGE_SLOTS, SHADOW_BYTES, decode_page, decode_shadow,
        encode_page, encode_shadow, page_of,
    },
    units::{BlockRange, Epoch, Geometry, Id},
};

use crate::{
    bytes::{folder, with_crc32c},
    reads_back,
};

pub(crate) fn superblock(bytes: &[u8]) {
    let mut block = [0; SUPERBLOCK_BYTES];
    let len = bytes.len().min(SUPERBLOCK_BYTES);
    block[..len].copy_from_slice(&bytes[..len]);
    let decode = |bytes: &[u8]| Superblock::decode(bytes.try_into().ok()?).ok();
    reads_back(&block, decode, Superblock::encode);
    reads_back(&with_crc32c(&block, 12, 16), decode, Superblock::encode);
    // With a slot table, the checksum covers the version too.
    let sum = crc32c::crc32c_append(crc32c::crc32c(&block[8..12]), &block[16..]);
    block[12..16].copy_from_slice(&sum.to_le_bytes());
    reads_back(&block, decode, Superblock::encode);
}

const AREA: Id = Id([2; 16]);
const PAGE: u32 = 5;

/// An input is a page from its start on; the rest is zeros.
pub(crate) fn slot_page(bytes: &[u8]) {
    let mut page = bytes.to_vec();
    page.resize(PAGE_BYTES, 0);
    let _ = decode_page(AREA, PAGE, &page);
    for sector in page.chunks_exact_mut(512) {
        let sum = crc32c::crc32c_append(crc32c::crc32c(&AREA.0), &sector[4..]);
        sector[..4].copy_from_slice(&sum.to_le_bytes());
    }
    let Ok(told) = decode_page(AREA, PAGE, &page) else {
        return;
    };
    let copies = || told.copies.iter().map(|(_, copy)| *copy);
    assert!(copies().all(|copy| page_of(copy.slot) == PAGE && copy.epoch.0 > 0));
    assert!(told.copies.iter().all(|(commit, _)| *commit <= told.commit));
    let again = encode_page(AREA, PAGE, 9, copies());
    let again = decode_page(AREA, PAGE, &again).expect("it was just made");
    assert!(again.copies.iter().map(|(_, copy)| *copy).eq(copies()));
}

fn some_copies(page: u32) -> Vec<Copy> {
    let copy = |slot| Copy {
        slot,
        block: 7,
        epoch: Epoch(3),
        checksum: 0x1234_5678,
    };
    [0, 1, 30].map(|at| copy(page * PAGE_SLOTS + at)).to_vec()
}

pub(crate) fn slot_pages() -> Vec<Vec<u8>> {
    let whole = encode_page(AREA, PAGE, 4, some_copies(PAGE));
    vec![whole.to_vec(), whole[..512].to_vec()]
}

/// An input is a header, before pages that are all alike.
pub(crate) fn slot_shadow(bytes: &[u8]) {
    let mut shadow = bytes.to_vec();
    shadow.resize(PAGE_BYTES, 0);
    shadow.resize(SHADOW_BYTES, 0x11);
    let _ = decode_shadow(AREA, &shadow);
    let count = u32::from_le_bytes([shadow[32], shadow[33], shadow[34], shadow[35]]);
    let pages = usize::try_from(count).map_or(COMMIT_PAGES, |count| count.min(COMMIT_PAGES));
    let summed = &shadow[8..(1 + pages) * PAGE_BYTES];
    let sum = crc32c::crc32c(summed);
    shadow[4..8].copy_from_slice(&sum.to_le_bytes());
    if let Some(told) = decode_shadow(AREA, &shadow) {
        assert!(told.pages.len() <= COMMIT_PAGES);
        assert!(
            told.pages
                .iter()
                .all(|(_, bytes)| bytes.len() == PAGE_BYTES)
        );
    }
}

pub(crate) fn slot_shadows() -> Vec<Vec<u8>> {
    let shadow = |pages: &[u32]| encode_shadow(AREA, 4, pages, &vec![0x11; pages.len() * 4096]);
    [&[5_u32][..], &[1, 2, 30]]
        .map(|pages| shadow(pages)[..64].to_vec())
        .to_vec()
}

pub(crate) fn superblocks() -> Vec<Vec<u8>> {
    let superblock = |capacity, block_bytes, slots| Superblock {
        generation: 3,
        volume: Id([1; 16]),
        area: Id([2; 16]),
        geometry: Geometry::new(capacity, block_bytes).expect("a volume has this geometry"),
        first_slot_bytes: 1 << 20,
        slots,
        table: false,
    };
    let with_table = Superblock {
        table: true,
        ..superblock(1 << 30, 4096, 900)
    };
    let all = [
        with_table,
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
    let folder = folder();
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
