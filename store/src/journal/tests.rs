//! Images and logs are written, cut short, damaged, and read back.

use proptest::prelude::*;

use super::*;
use crate::{
    changes::ChangeSet,
    state::{CheckpointEntry, Fate, Lineage, SnapshotEntry},
    units::{BlockRange, Epoch, Geometry, Id},
};

const GEOMETRY: Geometry = Geometry::new(20 * (1 << 20) + 4096 * 7, 4096).unwrap();
const BITS: u64 = GEOMETRY.region_blocks();

fn lineage(byte: u8) -> Lineage {
    Lineage {
        id: Id([byte; 16]),
        cause: "attached".to_owned(),
        since_us: 7,
    }
}

fn regions(first: u64, end: u64) -> Regions {
    Regions { first, end }
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
        created_us: epoch * 10,
    }
}

fn fine(epoch: u64, region: u64, first_byte: u8) -> Record {
    let mut bits = [0; 32];
    bits[0] = first_byte;
    Record::Fine {
        epoch: Epoch(epoch),
        region,
        bits,
    }
}

fn placed(place: u16, epoch: u64, fate: Fate) -> Placed {
    let snapshot = SnapshotEntry {
        id: Id([u8::try_from(epoch).unwrap(); 16]),
        epoch: Epoch(epoch),
        created_us: epoch * 10,
        fate,
        settled: epoch < 5,
    };
    Placed { place, snapshot }
}

/// Checkpoints at 3 and 5 with snapshots, the second not settled; epoch 6 running.
fn image() -> Vec<u8> {
    let mut body = Vec::new();
    for item in [
        Item::Lineage(&lineage(9)),
        Item::Checkpoint(checkpoint(3)),
        Item::Checkpoint(checkpoint(5)),
        Item::Ended(&span(4, 5, BlockRange::new(10, 20))),
        Item::Running(&span(6, 6, BlockRange::new(0, 2))),
        Item::Active(regions(4, 5)),
        Item::Origin(b"seen"),
        Item::Snapshot(placed(0, 3, Fate::Live)),
        Item::Snapshot(placed(9, 5, Fate::Live)),
    ] {
        item.encode(&mut body);
    }
    body
}

fn header(body: &[u8]) -> Header {
    Header {
        generation: 4,
        area: Id([2; 16]),
        log: 0x1234_5678,
        body_bytes: body.len() as u64,
        body_crc: crc32c::crc32c(body),
        written_us: 50,
    }
}

fn log_of(records: &[Record]) -> Vec<u8> {
    let mut packer = Packer::with_capacity(1);
    for record in records {
        packer.push(record, BITS);
    }
    let mut blocks = Vec::new();
    packer.take(&mut blocks);
    seal(&mut blocks, 0x1234_5678, 0, 99);
    blocks
}

fn recover(records: &[Record]) -> Recovered {
    let body = image();
    let header = header(&body);
    let image = Image::decode(&header, &body).unwrap();
    replay(&header, image, &log_of(records), GEOMETRY).unwrap()
}

fn runs(span: &Span) -> Vec<BlockRange> {
    span.changes.runs(0).map(|(run, _)| run).collect()
}

#[test]
fn a_region_that_was_active_counts_whole_until_it_is_cold() {
    let known = recover(&[
        Record::Activate(regions(1, 3)),
        fine(6, 1, 0b101),
        Record::Cold(1),
        fine(6, 4, 0b1),
        Record::Cold(4),
    ]);
    assert_eq!(known.active, [2]);
    let expected = [
        BlockRange::new(0, 2),
        BlockRange::new(256, 257),
        BlockRange::new(258, 259),
        BlockRange::new(512, 768),
        BlockRange::new(1024, 1025),
    ];
    assert_eq!(runs(&known.running), expected);
    assert_eq!(known.running.changes.coarse_blocks(), 256);
    assert_eq!((known.written_us, known.log_blocks), (99, 1));
    assert_eq!(known.origin, b"seen");
}

#[test]
fn a_cut_inherits_active_regions_until_the_ended_epoch_is_exact() {
    let cut = [Record::Activate(regions(7, 8)), Record::Cut(checkpoint(6))];
    let known = recover(&cut);
    assert_eq!(known.running.first, Epoch(7));
    // Regions 4 and 7 may have changed before the cut, after it, or both.
    let both = [BlockRange::new(1024, 1280), BlockRange::new(1792, 2048)];
    assert_eq!(runs(&known.running), both);
    let ended = known.ended.last().unwrap();
    assert_eq!(runs(ended), [BlockRange::new(0, 2), both[0], both[1]]);
    assert_eq!(known.checkpoints.len(), 3);

    let exact = [fine(6, 7, 0b10), Record::Exact(Epoch(6))];
    let known = recover(&[&cut[..], &exact].concat());
    let ended = known.ended.last().unwrap();
    assert_eq!(
        runs(ended),
        [BlockRange::new(0, 2), BlockRange::new(1793, 1794)]
    );
    assert_eq!(ended.changes.coarse_blocks(), 0);
    assert_eq!(runs(&known.running), both);
    // A region that became active later was not changed before.
    let later = [Record::Activate(regions(9, 10))];
    let known = recover(&[&cut[..], &later].concat());
    assert!(!known.ended.last().unwrap().changes.contains(9 * 256));
    assert!(known.running.changes.contains(9 * 256));
}

#[test]
fn a_reset_forgets_and_whole_regions_are_certain() {
    let known = recover(&[
        Record::Cut(checkpoint(6)),
        Record::Reset {
            lineage: lineage(8),
            epoch: Epoch(8),
        },
        Record::Cold(4),
        Record::Whole {
            epoch: Epoch(8),
            regions: regions(19, 21),
        },
        Record::Origin(b"other".to_vec()),
    ]);
    assert_eq!(known.lineage, lineage(8));
    assert!(known.checkpoints.is_empty() && known.ended.is_empty());
    // The last region is cut short by the capacity.
    assert_eq!(
        runs(&known.running),
        [BlockRange::new(19 * 256, GEOMETRY.blocks())]
    );
    assert_eq!(known.running.changes.coarse_blocks(), 0);
    assert_eq!(known.origin, b"other");
}

#[test]
fn a_snapshot_counts_when_it_is_settled() {
    let fates = |records: &[Record]| -> Vec<(u16, u64, Fate)> {
        let told = recover(records).snapshots.into_iter();
        told.map(|p| (p.place, p.snapshot.epoch.0, p.snapshot.fate))
            .collect()
    };
    let live = (0, 3, Fate::Live);
    assert_eq!(fates(&[]), [live, (9, 5, Fate::Lost)]);
    let settled = Record::Settled(Epoch(5));
    assert_eq!(
        fates(std::slice::from_ref(&settled)),
        [live, (9, 5, Fate::Live)]
    );
    let ended = Record::End {
        id: Id([3; 16]),
        fate: Fate::Overflowed,
    };
    let fate = (0, 3, Fate::Overflowed);
    assert_eq!(fates(&[ended.clone(), settled.clone()])[0], fate);
    // Without its cut it never was; with it, it takes the place of another.
    let next = Record::Snapshot(placed(0, 6, Fate::Live));
    assert_eq!(fates(&[ended.clone(), next.clone()]), [(9, 5, Fate::Lost)]);
    let cut = Record::Cut(checkpoint(6));
    let cut_and_settled = [ended, next, cut, Record::Settled(Epoch(6))];
    let both = [(0, 6, Fate::Live), (9, 5, Fate::Live)];
    assert_eq!(fates(&cut_and_settled), both);
    // Snapshots outlive a lineage.
    let reset = Record::Reset {
        lineage: lineage(8),
        epoch: Epoch(8),
    };
    assert_eq!(fates(&[&cut_and_settled[..], &[reset]].concat()), both);
}

#[test]
fn what_makes_no_sense_is_told() {
    let body = image();
    let header = header(&body);
    for record in [
        Record::Activate(regions(20, 22)),
        Record::Cut(checkpoint(5)),
        fine(7, 1, 1),
    ] {
        let image = Image::decode(&header, &body).unwrap();
        let log = log_of(&[Record::Cold(1), record]);
        let error = replay(&header, image, &log, GEOMETRY).unwrap_err();
        assert!(matches!(error, ReplayError::Senseless { block: 0, .. }));
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    let region = || 0_u64..20;
    prop_oneof![
        (region(), 1_u64..3)
            .prop_map(|(first, len)| Record::Activate(regions(first, (first + len).min(21)))),
        region().prop_map(Record::Cold),
        (4_u64..7, region(), any::<u8>())
            .prop_map(|(epoch, region, bits)| fine(epoch, region, bits)),
        region().prop_map(|first| Record::Whole {
            epoch: Epoch(6),
            regions: regions(first, first + 1)
        }),
        (3_u64..6).prop_map(|epoch| Record::Exact(Epoch(epoch))),
        (3_u64..6).prop_map(|epoch| Record::Forget(Epoch(epoch))),
        prop::collection::vec(any::<u8>(), 0..512).prop_map(Record::Origin),
        (0_u16..9, 3_u64..7).prop_map(|(place, epoch)| Record::Snapshot(placed(
            place,
            epoch,
            Fate::Live
        ))),
        (3_u64..7).prop_map(|epoch| Record::Settled(Epoch(epoch))),
        (3_u8..7).prop_map(|id| Record::End {
            id: Id([id; 16]),
            fate: Fate::Released
        }),
    ]
}

proptest! {
    /// Every prefix of a log is a log, whatever lies behind it.
    #[test]
    fn a_log_ends_at_the_first_block_that_is_not_its_next(
        records in prop::collection::vec(any_record(), 1..400),
        cut in any::<prop::sample::Index>(),
        bit in 0..8,
    ) {
        let body = image();
        let header = header(&body);
        let read = |log: &[u8]| replay(&header, Image::decode(&header, &body).unwrap(), log, GEOMETRY);
        let whole = log_of(&records);
        let all = read(&whole).unwrap();
        prop_assert_eq!(all.log_blocks, (whole.len() / BLOCK_BYTES) as u64);
        let mut damaged = whole.clone();
        let at = cut.index(damaged.len());
        damaged[at] ^= 1_u8 << bit;
        let before = at / BLOCK_BYTES;
        let known = read(&damaged).unwrap();
        prop_assert_eq!(known.log_blocks, before as u64);
        prop_assert_eq!(known, read(&whole[..before * BLOCK_BYTES]).unwrap());
    }

    #[test]
    fn records_read_back(records in prop::collection::vec(any_record(), 1..100)) {
        let log = log_of(&records);
        let mut read = Vec::new();
        for (bytes, number) in log.chunks(BLOCK_BYTES).zip(0..) {
            let block = LogBlock::decode(bytes, 0x1234_5678, number).unwrap();
            read.extend(block.records(BITS).unwrap());
        }
        prop_assert_eq!(read, records);
        prop_assert!(LogBlock::decode(&log, 0x1234_5679, 0).is_none());
        prop_assert!(LogBlock::decode(&log, 0x1234_5678, 1).is_none());
    }

    #[test]
    fn damage_to_an_image_is_seen(at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut body = image();
        let header = header(&body);
        let at = at.index(body.len());
        body[at] ^= 1_u8 << bit;
        prop_assert_eq!(Image::decode(&header, &body), Err(ImageError::Checksum));
        let mut stored = header.encode();
        prop_assert_eq!(Header::decode(&stored, 1 << 20), Some(header));
        stored[at] ^= 1_u8 << bit;
        prop_assert_eq!(Header::decode(&stored, 1 << 20), None);
        prop_assert_eq!(Header::decode(&header.encode(), 4096), None);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Record::decode_all(&bytes, BITS);
        let header = Header { body_bytes: bytes.len() as u64, body_crc: crc32c::crc32c(&bytes), ..header(&[]) };
        let _ = Image::decode(&header, &bytes);
    }
}
