//! The area's journal: headers, images, records, and what they come to when they are replayed.

use tidemark_store::{
    changes::ChangeSet,
    journal::{
        BLOCK_BYTES, Facts, Header, Image, Item, Mounts, Placed, Record, Recovered, Regions, Span,
        replay, seal,
    },
    state::{CheckpointEntry, Fate, Lineage, SnapshotEntry},
    units::{BlockRange, Epoch, Geometry, Id},
};

use crate::{bytes::with_crc32c, reads_back};

const HALF_BYTES: u64 = 8 << 20;
const LOG: u64 = 0x1234_5678;
/// Twenty regions and a part of one.
const CAPACITY: u64 = (20 << 20) + 4096 * 7;
/// Where a log block's records begin, and where their length stands: FORMAT.md, "Journal".
const BODY: usize = 40;
const USED: usize = 32;
/// Blocks that an input may stand for.
const MAX_BLOCKS: usize = 32;

fn geometry() -> Geometry {
    Geometry::new(CAPACITY, 4096).expect("a volume has this geometry")
}

pub(crate) fn header(bytes: &[u8]) {
    let mut block = bytes.to_vec();
    block.resize(BLOCK_BYTES, 0);
    let decode = |bytes: &[u8]| Header::decode(bytes, HALF_BYTES);
    reads_back(&block, decode, Header::encode);
    let found = reads_back(&with_crc32c(&block, 12, 16), decode, Header::encode);
    assert!(found.is_none_or(|header| header.log_start() <= HALF_BYTES));
}

pub(crate) fn headers() -> Vec<Vec<u8>> {
    vec![header_of(&image_body()).encode()[..80].to_vec()]
}

fn header_of(body: &[u8]) -> Header {
    Header {
        generation: 4,
        area: Id([2; 16]),
        log: LOG,
        body_bytes: body.len() as u64,
        body_crc: crc32c::crc32c(body),
        written_us: 50,
    }
}

/// What was seen of an origin, and what any bytes in its place are taken for.
pub(crate) fn facts(bytes: &[u8]) {
    reads_back(bytes, Facts::decode, Facts::encode);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let seen = Facts::of(first, second);
    assert_eq!(seen.compare(&seen), Ok(()));
    assert_eq!(Facts::decode(&seen.encode()).as_ref(), Some(&seen));
    assert_eq!(Mounts::written(0, first), seen.mounts.first().copied());
    let mut may = seen.changing();
    for offset in [0, 512, 1024] {
        if let Some(mounts) = Mounts::written(offset, bytes) {
            may.may_become(mounts);
        }
    }
    assert_eq!(Facts::decode(&may.encode()), Some(may));
}

pub(crate) fn some_facts() -> Vec<Vec<u8>> {
    let mut page = vec![0; 2048];
    page[1024 + 0x38..][..2].copy_from_slice(&[0x53, 0xef]);
    let mut seen = Facts::of(&page, &[]);
    let plain = seen.encode();
    page[1024 + 0x34] = 2;
    Mounts::written(0, &page).map(|mounts| seen.may_become(mounts));
    vec![plain, seen.changing().encode(), page, b"XFSB".repeat(2)]
}

pub(crate) fn image(bytes: &[u8]) {
    let decode = |body: &[u8]| Image::decode(&header_of(body), body).ok();
    reads_back(bytes, decode, encode_image);
    reads_back(&with_inner_sums(bytes), decode, encode_image);
}

/// The change sets within have checksums of their own.
fn with_inner_sums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + 12) {
        let word = |range: std::ops::Range<usize>| {
            let bytes = head[range].iter().rev();
            bytes.fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let (tag, len) = (
            word(0..4),
            usize::try_from(word(4..12)).unwrap_or(usize::MAX),
        );
        let start = at + 12;
        let end = start.saturating_add(len);
        if end > bytes.len() {
            break;
        }
        if matches!(tag, 3 | 4) && len >= 32 {
            let set = with_crc32c(&bytes[start + 16..end], 12, 16);
            bytes[start + 16..end].copy_from_slice(&set);
        }
        at = end;
    }
    bytes
}

fn encode_image(image: &Image) -> Vec<u8> {
    let mut body = Vec::new();
    Item::Lineage(&image.lineage).encode(&mut body);
    for checkpoint in &image.checkpoints {
        Item::Checkpoint(*checkpoint).encode(&mut body);
    }
    for span in &image.ended {
        Item::Ended(span).encode(&mut body);
    }
    Item::Running(&image.running).encode(&mut body);
    for regions in &image.active {
        Item::Active(*regions).encode(&mut body);
    }
    for (place, snapshot) in &image.snapshots {
        let (place, snapshot) = (*place, *snapshot);
        Item::Snapshot(Placed { place, snapshot }).encode(&mut body);
    }
    if !image.origin.is_empty() {
        Item::Origin(&image.origin).encode(&mut body);
    }
    body
}

fn span(first: u64, last: u64, blocks: BlockRange) -> Span {
    let mut changes = ChangeSet::default();
    changes.insert(blocks);
    Span {
        first: Epoch(first),
        last: Epoch(last),
        changes,
    }
}

fn checkpoint(epoch: u64) -> CheckpointEntry {
    CheckpointEntry {
        epoch: Epoch(epoch),
        created_us: 10,
    }
}

fn snapshot(epoch: u64) -> SnapshotEntry {
    SnapshotEntry {
        id: Id([3; 16]),
        epoch: Epoch(epoch),
        created_us: 10,
        fate: Fate::Live,
        settled: true,
    }
}

fn lineage() -> Lineage {
    Lineage {
        id: Id([9; 16]),
        cause: "attached".to_owned(),
        since_us: 7,
    }
}

/// Checkpoints at 3 and 5, epoch 6 running.
fn image_body() -> Vec<u8> {
    encode_image(&Image {
        lineage: lineage(),
        checkpoints: vec![checkpoint(3), checkpoint(5)],
        ended: vec![span(4, 5, BlockRange::new(10, 20))],
        running: span(6, 6, BlockRange::new(0, 2)),
        active: vec![Regions { first: 4, end: 5 }],
        origin: b"seen".to_vec(),
        snapshots: [(7, snapshot(5))].into(),
    })
}

pub(crate) fn images() -> Vec<Vec<u8>> {
    vec![image_body()]
}

pub(crate) fn records(bytes: &[u8]) {
    for bits in [geometry().region_blocks(), 16] {
        let decode = |body: &[u8]| Record::decode_all(body, bits).ok();
        reads_back(bytes, decode, |records| {
            let mut body = Vec::new();
            for record in records {
                record.encode(bits, &mut body);
            }
            body
        });
    }
}

/// An input is the records of a log's blocks, a block's length before each.
pub(crate) fn log(bytes: &[u8]) {
    let body = image_body();
    let header = header_of(&body);
    let image = Image::decode(&header, &body).expect("it was just made");
    let blocks = blocks_of(bytes);
    if let Ok(recovered) = replay(&header, image, &blocks, geometry()) {
        assert_sensible(&recovered);
        let count = (blocks.len() / BLOCK_BYTES) as u64;
        assert_eq!(recovered.log_blocks, count);
    }
}

fn blocks_of(mut input: &[u8]) -> Vec<u8> {
    let mut blocks = Vec::new();
    while !input.is_empty() && blocks.len() < MAX_BLOCKS * BLOCK_BYTES {
        let len = crate::bytes::number::<2>(&mut input);
        let len = usize::try_from(len).unwrap_or(0).min(BLOCK_BYTES - BODY);
        let (body, rest) = input.split_at(len.min(input.len()));
        input = rest;
        let mut block = vec![0; BLOCK_BYTES];
        block[BODY..BODY + body.len()].copy_from_slice(body);
        let used = u16::try_from(body.len()).unwrap_or(0);
        block[USED..USED + 2].copy_from_slice(&used.to_le_bytes());
        blocks.extend(block);
    }
    seal(&mut blocks, LOG, 0, 99);
    blocks
}

/// What tracking goes on from lies in the volume, and its epochs ascend.
fn assert_sensible(recovered: &Recovered) {
    let mut next = Epoch::FIRST;
    for span in recovered.ended.iter().chain([&recovered.running]) {
        assert!(next <= span.first && span.first <= span.last, "{span:?}");
        next = span.last.next();
        let beyond = span.changes.runs(geometry().blocks()).next();
        assert!(beyond.is_none(), "blocks past the volume's end: {beyond:?}");
    }
    for entry in &recovered.checkpoints {
        assert!(entry.epoch < recovered.running.last, "{entry:?}");
    }
    for Placed { snapshot, .. } in &recovered.snapshots {
        assert!(snapshot.epoch < recovered.running.first, "{snapshot:?}");
    }
    let regions = geometry().regions();
    assert!(recovered.active.iter().all(|region| *region < regions));
}

fn some_records() -> Vec<Record> {
    vec![
        Record::Activate(Regions { first: 1, end: 3 }),
        Record::Fine {
            epoch: Epoch(6),
            region: 1,
            bits: [5; 32],
        },
        Record::Cold(1),
        Record::Whole {
            epoch: Epoch(6),
            regions: Regions { first: 2, end: 4 },
        },
        Record::Snapshot(Placed {
            place: 7,
            snapshot: snapshot(6),
        }),
        Record::Cut(checkpoint(6)),
        Record::Settled(Epoch(6)),
        Record::End {
            id: Id([3; 16]),
            fate: Fate::Released,
        },
        Record::Exact(Epoch(6)),
        Record::Forget(Epoch(5)),
        Record::Origin(b"seen".to_vec()),
        Record::Reset {
            lineage: lineage(),
            epoch: Epoch(9),
        },
    ]
}

pub(crate) fn record_seeds() -> Vec<Vec<u8>> {
    let encoded = |record: &Record| {
        let mut body = Vec::new();
        record.encode(geometry().region_blocks(), &mut body);
        body
    };
    let all = some_records();
    let mut seeds: Vec<_> = all.iter().map(encoded).collect();
    seeds.push(seeds.concat());
    seeds
}

pub(crate) fn logs() -> Vec<Vec<u8>> {
    let framed = |body: Vec<u8>| {
        let len = u16::try_from(body.len()).unwrap_or(0);
        [&len.to_le_bytes()[..], &body].concat()
    };
    let mut seeds: Vec<_> = record_seeds().into_iter().map(framed).collect();
    seeds.push(seeds.concat());
    seeds
}
