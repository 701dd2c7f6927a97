//! Finding what an area's journal tells, and making it count again.

use std::path::Path;

use tidemark_store::{
    area::{Layout, Superblock},
    changes::History,
    journal::{BLOCK_BYTES, Header, Image, LogBlock, Placed, Recovered, replay},
    state::{Fate, Identity, State},
    units::{ByteRange, Epoch},
};

use super::{
    super::preserve::Buffers,
    table::{Table, TableFailure},
};
use crate::{disk::Disk, request::Errno};

/// Log bytes that are read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// The running epoch jumps by up to this much after a recovery, so that checkpoints which an area
/// from an older time never heard of do not meet their numbers again.
const MAX_JUMP: u64 = 1 << 20;

/// The images that a journal has, the newest first.
///
/// There are two from when the newer one's header is written until the older one's is wiped, while
/// nothing goes to either log: both tell everything then. But of two that are found, one may be gone:
/// when a power cut brought back what was wiped, or brought down what a dead process had in flight.
pub(in crate::volume) type Images = Vec<(Header, u64)>;

/// Finds the images with the halves that they are in; an error says why none can be known.
pub(in crate::volume) async fn images(
    area: &impl Disk,
    superblock: &Superblock,
) -> Result<Images, String> {
    let layout = Layout::of(superblock.geometry);
    let mut images = Vec::new();
    for which in 0..2 {
        let half = layout.half(which);
        let mut bytes = vec![0; usize::try_from(Header::BODY).unwrap_or(0)];
        let read = area.read(half.offset, &mut bytes).await;
        read.map_err(|errno| unreadable(half.offset, errno))?;
        let header = Header::decode(&bytes, half.len).filter(|h| h.area == superblock.area);
        images.extend(header.map(|header| (header, which)));
    }
    images.sort_by_key(|(header, _)| std::cmp::Reverse(header.generation));
    Ok(images)
}

/// The half that a process which takes over must leave alone until its own image counts: it is there
/// and stays, whatever a dead process had in flight. That is the newest, if it is whole: the older one
/// may be about to be wiped.
pub(in crate::volume) async fn half_to_keep(
    area: &impl Disk,
    superblock: &Superblock,
    images: &Images,
) -> u64 {
    let [(header, newest), (_, older)] = images[..] else {
        return images.first().map_or(0, |(_, half)| *half);
    };
    let half = Layout::of(superblock.geometry).half(newest);
    if read_image(area, &header, half).await.is_err() {
        return older;
    }
    // Its header may still be in a cache. An area that fails now fails the first image too.
    let _ = area.flush().await;
    newest
}

/// What tracking knew when the host stopped and the half that tells it, or why that cannot be said.
/// The other half tells nothing from then on.
pub(in crate::volume) async fn recover(
    area: &impl Disk,
    superblock: &Superblock,
    images: &Images,
) -> Result<(Recovered, u64), String> {
    let layout = Layout::of(superblock.geometry);
    let mut failure = "the area's journal holds no whole image".to_owned();
    for (header, which) in images {
        match read(area, superblock, header, layout.half(*which)).await {
            Ok(known) => {
                if images.len() > 1 {
                    let other = wipe_half(area, layout, which ^ 1).await;
                    let at = layout.half(which ^ 1).offset;
                    other.map_err(|errno| unreadable(at, errno))?;
                }
                return Ok((known, *which));
            }
            Err(why) => failure = why,
        }
    }
    Err(failure)
}

async fn read(
    area: &impl Disk,
    superblock: &Superblock,
    header: &Header,
    half: ByteRange,
) -> Result<Recovered, String> {
    let image = read_image(area, header, half).await?;
    let log = read_log(area, header, half).await?;
    replay(header, image, &log, superblock.geometry).map_err(|error| damaged(&error))
}

async fn read_image(area: &impl Disk, header: &Header, half: ByteRange) -> Result<Image, String> {
    let mut body = vec![0; usize::try_from(header.body_bytes).unwrap_or(0)];
    let at = half.offset + Header::BODY;
    let read = area.read(at, &mut body).await;
    read.map_err(|errno| unreadable(at, errno))?;
    Image::decode(header, &body).map_err(|error| damaged(&error))
}

fn damaged(what: &dyn std::fmt::Display) -> String {
    format!("the area's journal is damaged: {what}")
}

/// The log up to its end.
async fn read_log(area: &impl Disk, header: &Header, half: ByteRange) -> Result<Vec<u8>, String> {
    let mut log = Vec::new();
    let mut at = half.offset + header.log_start();
    let mut number = 0;
    while at < half.end() {
        let len = usize::try_from(half.end() - at).map_or(PIECE_BYTES, |l| l.min(PIECE_BYTES));
        let mut piece = vec![0; len];
        let read = area.read(at, &mut piece).await;
        read.map_err(|errno| unreadable(at, errno))?;
        for block in piece.chunks_exact(BLOCK_BYTES) {
            if LogBlock::decode(block, header.log, number).is_none() {
                return Ok(log);
            }
            log.extend_from_slice(block);
            number += 1;
        }
        at += len as u64;
    }
    Ok(log)
}

fn unreadable(at: u64, errno: Errno) -> String {
    format!("the area's journal cannot be read at byte {at}: {errno}")
}

/// Makes the journal tell nothing.
pub(in crate::volume) async fn wipe(area: &impl Disk, layout: Layout) -> Result<(), Errno> {
    for which in 0..2 {
        wipe_half(area, layout, which).await?;
    }
    Ok(())
}

async fn wipe_half(area: &impl Disk, layout: Layout, which: u64) -> Result<(), Errno> {
    let nothing = vec![0; usize::try_from(Header::BODY).unwrap_or(0)];
    area.write(layout.half(which).offset, &nothing, true).await
}

/// Writes what was known to the state directory, as a process that died would have left it. Copies
/// are taken up from `table`, if there is one; an error says why they cannot be, and then every
/// snapshot is lost.
pub(in crate::volume) async fn restore<A: Disk>(
    dir: &Path,
    identity: Identity,
    known: &Recovered,
    random: u64,
    table: Option<(Table<'_, A>, &impl Disk, &Buffers)>,
) -> std::io::Result<Result<(), TableFailure>> {
    let current = Epoch(known.running.last.0 + 1 + random % MAX_JUMP);
    let running = &known.running;
    let past = known.ended.iter().map(|s| (s.first, s.last, &s.changes));
    let past = past.chain([(running.first, Epoch(current.0 - 1), &running.changes)]);
    let blocks = identity.geometry.blocks();
    History::restore(dir, known.lineage.id, past, current, blocks)
        .map_err(std::io::Error::other)?;
    // Under its name only when it is whole.
    let unfinished = dir.join("state.new");
    let state = State::create(&unfinished, identity, &known.lineage, current)?;
    for checkpoint in &known.checkpoints {
        state.add_checkpoint(*checkpoint);
    }
    for Placed { place, snapshot } in &known.snapshots {
        state.set_snapshot(usize::from(*place), snapshot);
    }
    let mut copies = Ok(());
    if let Some((table, origin, buffers)) = table {
        copies = table.restore(origin, buffers, &state).await;
        let live = known.snapshots.iter();
        let live = live.filter(|placed| placed.snapshot.fate == Fate::Live);
        for placed in live.filter(|_| copies.is_err()) {
            state.set_fate(usize::from(placed.place), Fate::Lost);
        }
    }
    // What the origin's age is held against.
    state.set_alive_us(known.written_us);
    std::fs::rename(&unfinished, dir.join("state")).map(|()| copies)
}
