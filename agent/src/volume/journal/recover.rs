//! Finding what an area's journal tells, and making it count again.

use std::path::Path;

use tidemark_store::{
    area::{Layout, Superblock},
    changes::History,
    journal::{BLOCK_BYTES, Header, Image, LogBlock, Recovered, replay},
    state::{Identity, State},
    units::{ByteRange, Epoch},
};

use crate::{disk::Disk, request::Errno};

/// Log bytes that are read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// The running epoch jumps by up to this much after a recovery, so that checkpoints which an area
/// from an older time never heard of do not meet their numbers again.
const MAX_JUMP: u64 = 1 << 20;

/// A journal's newest image: its header and which half it is in.
pub(in crate::volume) type Newest = (Header, u64);

/// Finds the newest image; an error says why none can be known.
pub(in crate::volume) async fn newest(
    area: &impl Disk,
    superblock: &Superblock,
) -> Result<Option<Newest>, String> {
    let layout = Layout::of(superblock.geometry);
    let mut newest: Option<Newest> = None;
    for which in 0..2 {
        let half = layout.half(which);
        let mut bytes = vec![0; usize::try_from(Header::BODY).unwrap_or(0)];
        let read = area.read(half.offset, &mut bytes).await;
        read.map_err(|errno| unreadable(half.offset, errno))?;
        let header = Header::decode(&bytes, half.len).filter(|h| h.area == superblock.area);
        newest = [newest, header.map(|header| (header, which))]
            .into_iter()
            .flatten()
            .max_by_key(|(header, _)| header.generation);
    }
    Ok(newest)
}

/// What tracking knew when the host stopped, or why that cannot be said.
pub(in crate::volume) async fn recover(
    area: &impl Disk,
    superblock: &Superblock,
    newest: Option<Newest>,
) -> Result<Recovered, String> {
    let Some((header, which)) = newest else {
        return Err("the area's journal holds no whole image".to_owned());
    };
    let half = Layout::of(superblock.geometry).half(which);
    read(area, superblock, &header, half).await
}

async fn read(
    area: &impl Disk,
    superblock: &Superblock,
    header: &Header,
    half: ByteRange,
) -> Result<Recovered, String> {
    let mut body = vec![0; usize::try_from(header.body_bytes).unwrap_or(0)];
    let at = half.offset + Header::BODY;
    let read = area.read(at, &mut body).await;
    read.map_err(|errno| unreadable(at, errno))?;
    let damaged = |what: &dyn std::fmt::Display| format!("the area's journal is damaged: {what}");
    let image = Image::decode(header, &body).map_err(|error| damaged(&error))?;
    let log = read_log(area, header, half).await?;
    replay(header, image, &log, superblock.geometry).map_err(|error| damaged(&error))
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
    let nothing = vec![0; usize::try_from(Header::BODY).unwrap_or(0)];
    for which in 0..2 {
        area.write(layout.half(which).offset, &nothing, true)
            .await?;
    }
    Ok(())
}

/// Writes what was known to the state directory, as a process that died would have left it.
pub(in crate::volume) fn restore(
    dir: &Path,
    identity: Identity,
    known: &Recovered,
    random: u64,
) -> std::io::Result<()> {
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
    // What the origin's age is held against.
    state.set_alive_us(known.written_us);
    std::fs::rename(&unfinished, dir.join("state"))
}
