//! Streams over a plain file with invented extent pages, checked by an independent digest and by
//! applying what was sent to an image.

mod running;

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use proptest::prelude::*;
use tidemark_proto::v1::{Compression, DataBatch, DataExtent, DataTrailer, ExtentKind};
use tidemark_store::units::ByteRange;

use super::*;
use crate::{
    manager::{ErrorReason, operations::CancelToken},
    volume::{Extent, Kind},
};

const BLOCK: u64 = 4096;

/// A snapshot made of a file and a list of extents.
struct Fake {
    file: File,
    capacity: u64,
    extents: Vec<Extent>,
    page_len: usize,
    reads: Arc<AtomicUsize>,
    dropped: Arc<AtomicBool>,
    read_fails_at: Option<u64>,
}

impl Fake {
    fn new(bytes: &[u8], extents: Vec<Extent>) -> Self {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Self {
            file,
            capacity: bytes.len() as u64,
            extents,
            page_len: 3,
            reads: Arc::default(),
            dropped: Arc::default(),
            read_fails_at: None,
        }
    }

    fn whole(bytes: &[u8]) -> Self {
        Self::new(bytes, vec![extent(0, bytes.len() as u64, Kind::Data)])
    }

    fn walk(self, scope: Scope) -> Walk<Self> {
        let capacity = self.capacity;
        Walk::new(self, scope, capacity, BLOCK, CancelToken::default())
    }
}

impl Subject for Fake {
    fn page(&mut self, start: u64) -> Result<ExtentPage, Error> {
        let mut rest = self.extents.iter().filter(|e| e.range.end() > start);
        let extents: Vec<_> = rest.by_ref().take(self.page_len).copied().collect();
        let more = rest.next().is_some();
        let next = extents.last().filter(|_| more).map(|e| e.range.end());
        Ok(ExtentPage {
            extents,
            next,
            over_report_bytes: 0,
        })
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self
            .read_fails_at
            .is_some_and(|at| at < offset + into.len() as u64)
        {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.file.read_exact_at(into, offset)
    }

    fn check(&mut self) -> Result<(), Error> {
        if self.dropped.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorReason::SnapshotOverflowed, "dropped"));
        }
        Ok(())
    }
}

fn extent(offset: u64, len: u64, kind: Kind) -> Extent {
    Extent {
        range: ByteRange::new(offset, len),
        kind,
    }
}

#[derive(Debug, Default, PartialEq)]
struct Sent {
    batches: Vec<DataBatch>,
    trailer: DataTrailer,
}

impl Sent {
    fn extents(&self) -> Vec<DataExtent> {
        let batches = self.batches.iter();
        batches.flat_map(|batch| batch.extents.clone()).collect()
    }
}

fn run(subject: Fake, scope: Scope, compression: Compression) -> Result<Sent, Error> {
    let mut sent = Sent::default();
    let encoder = Encoder::new(compression).unwrap();
    produce(subject.walk(scope), encoder, |part| {
        match part {
            Part::Batch(batch) => sent.batches.push(batch),
            Part::Trailer(trailer) => sent.trailer = trailer,
        }
        Ok(())
    })?;
    Ok(sent)
}

fn full(subject: Fake, start: u64) -> Sent {
    run(subject, Scope::Whole { start }, Compression::None).unwrap()
}

fn plain(extent: &DataExtent) -> Vec<u8> {
    match extent.compression() {
        Compression::Zstd => zstd::decode_all(extent.data.as_ref()).unwrap(),
        Compression::None | Compression::Unspecified => extent.data.to_vec(),
    }
}

/// The contract of data.proto, written anew: order, sizes, hashes, counts, digest.
fn check_contract(sent: &Sent) {
    let mut digest = blake3::Hasher::new();
    let mut counts = DataTrailer::default();
    let mut position = 0;
    for batch in &sent.batches {
        assert!(!batch.extents.is_empty());
        let mut data_in_batch = 0;
        for extent in &batch.extents {
            assert!(extent.offset_bytes >= position && extent.length_bytes > 0);
            position = extent.offset_bytes + extent.length_bytes;
            digest.update(&extent.offset_bytes.to_le_bytes());
            digest.update(&extent.length_bytes.to_le_bytes());
            digest.update(&[u8::try_from(extent.kind).unwrap()]);
            counts.extents += 1;
            counts.sent_bytes += extent.data.len() as u64;
            match extent.kind() {
                ExtentKind::Data => {
                    let bytes = plain(extent);
                    assert_eq!(bytes.len() as u64, extent.length_bytes);
                    assert_eq!(extent.blake3, blake3::hash(&bytes).as_bytes()[..]);
                    digest.update(&extent.blake3);
                    counts.data_bytes += extent.length_bytes;
                    data_in_batch += extent.length_bytes;
                }
                kind => {
                    assert!(extent.data.is_empty() && extent.blake3.is_empty());
                    match kind {
                        ExtentKind::Zero => counts.zero_bytes += extent.length_bytes,
                        _ => counts.discarded_bytes += extent.length_bytes,
                    }
                }
            }
        }
        assert!(data_in_batch <= BATCH_DATA_BYTES && batch.extents.len() <= BATCH_EXTENTS);
        assert_eq!(batch.resume_offset_bytes, position);
    }
    counts.digest = digest.finalize().as_bytes().to_vec().into();
    assert_eq!(sent.trailer, counts);
}

fn apply(sent: &Sent, image: &mut [u8]) {
    for extent in sent.extents() {
        let start = usize::try_from(extent.offset_bytes).unwrap();
        let end = start + usize::try_from(extent.length_bytes).unwrap();
        match extent.kind() {
            ExtentKind::Data => image[start..end].copy_from_slice(&plain(&extent)),
            _ => image[start..end].fill(0),
        }
    }
}

/// What a test volume holds block by block.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Content {
    Hole,
    ZeroData,
    Random(u8),
}

fn contents() -> impl Strategy<Value = Vec<Content>> {
    let one = prop_oneof![
        2 => Just(Content::Hole),
        1 => Just(Content::ZeroData),
        4 => (1u8..).prop_map(Content::Random),
    ];
    // Runs, so that pieces, cells and batches are crossed: up to 6 MiB.
    prop::collection::vec((one, 1usize..300), 1..12).prop_map(|runs| {
        let blocks = runs
            .into_iter()
            .flat_map(|(content, len)| vec![content; len]);
        blocks.take(1536).collect()
    })
}

fn bytes_of(contents: &[Content], tail: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for content in contents {
        match content {
            Content::Hole | Content::ZeroData => bytes.extend_from_slice(&[0; 4096]),
            Content::Random(seed) => {
                bytes.extend(
                    (0..4096u32)
                        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0] ^ seed),
                );
            }
        }
    }
    let len = bytes.len() - tail;
    bytes.truncate(len);
    bytes
}

/// The extents that an engine would name: data wherever there is no hole, one a block or merged.
fn allocated(contents: &[Content], capacity: u64, merged: bool) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for (index, content) in contents.iter().enumerate() {
        let offset = index as u64 * BLOCK;
        if *content == Content::Hole || offset >= capacity {
            continue;
        }
        let len = BLOCK.min(capacity - offset);
        match extents.last_mut() {
            Some(last) if merged && last.range.end() == offset => last.range.len += len,
            _ => extents.push(extent(offset, len, Kind::Data)),
        }
    }
    extents
}

/// The extents between two contents, with zeroed and discarded blocks told apart by position.
fn changed(old: &[Content], new: &[Content], capacity: u64) -> Vec<Extent> {
    let mut extents = Vec::new();
    for (index, (old, new)) in old.iter().zip(new).enumerate() {
        let offset = index as u64 * BLOCK;
        if old == new || offset >= capacity {
            continue;
        }
        let kind = match new {
            Content::Hole if index % 2 == 0 => Kind::Discarded,
            Content::Hole => Kind::Zero,
            Content::ZeroData | Content::Random(_) => Kind::Data,
        };
        extents.push(extent(offset, BLOCK.min(capacity - offset), kind));
    }
    extents
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn full_then_incremental_equals_the_file(
        old in contents(),
        new in contents(),
        tail in 0usize..4096,
        merged: bool,
        zstd: bool,
    ) {
        let compression = if zstd { Compression::Zstd } else { Compression::None };
        let mut new: Vec<_> = new.into_iter().chain(old.iter().copied().skip(8)).take(old.len()).collect();
        new.resize(old.len(), Content::Hole);
        let (before, after) = (bytes_of(&old, tail), bytes_of(&new, tail));
        let capacity = before.len() as u64;

        let subject = Fake::new(&before, allocated(&old, capacity, merged));
        let sent = run(subject, Scope::Whole { start: 0 }, compression).unwrap();
        check_contract(&sent);
        let covered: u64 = sent.extents().iter().map(|e| e.length_bytes).sum();
        prop_assert_eq!(covered, capacity);
        let mut image = vec![0xAA; before.len()];
        apply(&sent, &mut image);
        prop_assert!(image == before);

        let extents = changed(&old, &new, capacity);
        let asked: u64 = extents.iter().map(|e| e.range.len).sum();
        let subject = Fake::new(&after, extents);
        let sent = run(subject, Scope::Changed { start: 0 }, compression).unwrap();
        check_contract(&sent);
        let covered: u64 = sent.extents().iter().map(|e| e.length_bytes).sum();
        prop_assert_eq!(covered, asked);
        apply(&sent, &mut image);
        prop_assert!(image == after);
    }

    #[test]
    fn a_stream_resumed_at_any_batch_repeats_the_rest(
        contents in contents(),
        tail in 0usize..4096,
        page_len in 1usize..5,
        whole: bool,
    ) {
        let bytes = bytes_of(&contents, tail);
        let capacity = bytes.len() as u64;
        let scope = |start| if whole { Scope::Whole { start } } else { Scope::Changed { start } };
        let first = Fake::new(&bytes, allocated(&contents, capacity, true));
        let all = run(first, scope(0), Compression::None).unwrap();
        for (index, batch) in all.batches.iter().enumerate() {
            // The pages of the resumed stream fall elsewhere.
            let mut again = Fake::new(&bytes, allocated(&contents, capacity, false));
            again.page_len = page_len;
            let rest = run(again, scope(batch.resume_offset_bytes), Compression::None).unwrap();
            check_contract(&rest);
            prop_assert!(rest.batches == all.batches[index + 1..]);
        }
    }
}

#[test]
fn a_hole_costs_no_read_and_one_extent() {
    let capacity = 8 << 40;
    let mut subject = Fake::new(&[], vec![extent(3 << 40, 8192, Kind::Data)]);
    subject.file.write_all_at(&[1; 8192], 3 << 40).unwrap();
    subject.capacity = capacity;
    let reads = subject.reads.clone();
    let sent = full(subject, 0);
    check_contract(&sent);
    assert_eq!(reads.load(Ordering::Relaxed), 1);
    let kinds: Vec<_> = sent
        .extents()
        .iter()
        .map(|e| (e.kind(), e.length_bytes))
        .collect();
    let rest = capacity - (3 << 40) - 8192;
    let (zero, data) = (ExtentKind::Zero, ExtentKind::Data);
    assert_eq!(kinds, [(zero, 3 << 40), (data, 8192), (zero, rest)]);
}

#[test]
fn zero_blocks_inside_data_are_told_apart() {
    let mut bytes = vec![9; 5 * 4096 + 100];
    bytes[4096..3 * 4096].fill(0);
    bytes[5 * 4096..].fill(0);
    let sent = full(Fake::whole(&bytes), 0);
    check_contract(&sent);
    let ranges: Vec<_> = sent
        .extents()
        .iter()
        .map(|e| (e.offset_bytes, e.kind()))
        .collect();
    let (zero, data) = (ExtentKind::Zero, ExtentKind::Data);
    assert_eq!(
        ranges,
        [(0, data), (4096, zero), (3 * 4096, data), (5 * 4096, zero)]
    );
}

#[test]
fn ranges_are_read_in_the_order_given() {
    let bytes: Vec<u8> = (0..4u32 << 20)
        .map(|i| (i >> 12).to_le_bytes()[0] | 1)
        .collect();
    let ranges = vec![
        ByteRange::new((2 << 20) + 17, 1 << 20),
        ByteRange::new(5, 10),
        ByteRange::new(0, 4096),
    ];
    let sent = run(
        Fake::whole(&bytes),
        Scope::Ranges(ranges),
        Compression::None,
    )
    .unwrap();
    let got: Vec<_> = sent
        .extents()
        .iter()
        .map(|e| (e.offset_bytes, e.length_bytes))
        .collect();
    let cut = (3 << 20) - ((2 << 20) + 17);
    assert_eq!(
        got,
        [((2 << 20) + 17, cut), (3 << 20, 17), (5, 10), (0, 4096)]
    );
    for extent in sent.extents() {
        let start = usize::try_from(extent.offset_bytes).unwrap();
        assert_eq!(extent.data, bytes[start..start + extent.data.len()]);
    }
}

#[test]
fn zstd_is_kept_only_where_it_is_smaller() {
    let mut bytes = vec![3; 1 << 20];
    let mut noise = blake3::Hasher::new().finalize_xof();
    bytes.resize(2 << 20, 0);
    noise.fill(&mut bytes[1 << 20..]);
    let sent = run(
        Fake::whole(&bytes),
        Scope::Whole { start: 0 },
        Compression::Zstd,
    )
    .unwrap();
    check_contract(&sent);
    let used: Vec<_> = sent.extents().iter().map(DataExtent::compression).collect();
    assert_eq!(used, [Compression::Zstd, Compression::None]);
}

#[test]
fn a_read_error_becomes_the_snapshots_fate() {
    let mut subject = Fake::whole(&vec![1; 3 << 20]);
    subject.read_fails_at = Some(2 << 20);
    subject.dropped.store(true, Ordering::Relaxed);
    let error = run(subject, Scope::Whole { start: 0 }, Compression::None).unwrap_err();
    assert_eq!(error.reason, ErrorReason::SnapshotOverflowed);

    let mut subject = Fake::whole(&vec![1; 3 << 20]);
    subject.read_fails_at = Some(2 << 20);
    let error = run(subject, Scope::Whole { start: 0 }, Compression::None).unwrap_err();
    assert_eq!(error.reason, ErrorReason::SourceIo);
    assert!(error.message.contains("os error 5"), "{error}");
}

#[test]
fn a_snapshot_dropped_meanwhile_gets_no_trailer() {
    let subject = Fake::whole(&vec![1; 4096]);
    subject.dropped.store(true, Ordering::Relaxed);
    let error = run(subject, Scope::Whole { start: 0 }, Compression::None).unwrap_err();
    assert_eq!(error.reason, ErrorReason::SnapshotOverflowed);
}

#[test]
fn pages_that_make_no_sense_end_the_stream() {
    for bad in [
        extent(4096, u64::MAX, Kind::Data),
        extent(1 << 20, 4096, Kind::Zero),
    ] {
        let subject = Fake::new(&[1; 8192], vec![bad]);
        let error = run(subject, Scope::Whole { start: 0 }, Compression::None).unwrap_err();
        assert_eq!(error.reason, ErrorReason::Internal);
    }
}

#[test]
fn a_stream_that_starts_at_the_end_has_only_a_trailer() {
    let sent = full(Fake::whole(&[1; 8192]), 8192);
    assert!(sent.batches.is_empty());
    check_contract(&sent);
}
