//! Taking copies up from the area's slot table after a power cut.

use tidemark_store::{
    area::{Layout, Superblock},
    cow::table::{
        Copy, PAGE_BYTES, PAGE_SLOTS, Page, Restorer, SHADOW_BYTES, Shadow, decode_page,
        decode_shadow, encode_page, newest_commit, page_of,
    },
    state::State,
    units::{BlockRange, ByteRange},
};

use super::super::preserve::Buffers;
use crate::{disk::Disk, request::Errno};

/// Pages that are read at a time.
const PIECE_PAGES: u32 = 64;

/// More commits than lie between those of a table that cannot be read and the newest that can.
const UNKNOWN_COMMITS: u64 = 1 << 32;

/// Why copies cannot be taken up: those that the snapshots need may be among them.
#[derive(Debug, thiserror::Error)]
pub(in crate::volume) enum TableFailure {
    #[error("{0}")]
    Damaged(#[from] tidemark_store::cow::table::TableError),
    #[error("the slot table cannot be read or mended: {0}")]
    Area(Errno),
}

/// An area and where its table lies.
pub(in crate::volume) struct Table<'a, A> {
    area: &'a A,
    superblock: &'a Superblock,
    place: ByteRange,
}

impl<'a, A: Disk> Table<'a, A> {
    pub(in crate::volume) fn new(area: &'a A, superblock: &'a Superblock) -> Self {
        Self {
            place: Layout::of(superblock.geometry).table(superblock.slots),
            area,
            superblock,
        }
    }

    /// Puts every copy that the table tells of into a state, in which the snapshots are already.
    pub(in crate::volume) async fn restore(
        &self,
        origin: &impl Disk,
        buffers: &Buffers,
        state: &State,
    ) -> Result<(), TableFailure> {
        let mut failure = self.finish_commits().await.err();
        let mut restorer = Restorer::new(state);
        let mut newest: (u64, Vec<Copy>) = (0, Vec::new());
        // Also after a failure: the commits to come are to be newer than all there are.
        for (first, count) in self.pieces() {
            let read = self.read(first, count).await;
            let bytes = read.unwrap_or_else(|error| {
                failure.get_or_insert(error);
                Vec::new()
            });
            for (page, bytes) in (first..).zip(bytes.chunks_exact(PAGE_BYTES)) {
                let told = decode_page(self.superblock.area, page, bytes);
                let commit = newest_commit(self.superblock.area, page, bytes);
                if commit > newest.0 {
                    newest = (commit, Vec::new());
                }
                let told = told.unwrap_or_else(|error| {
                    failure.get_or_insert(error.into());
                    Page::default()
                });
                for (commit, copy) in told.copies {
                    restorer.put(&copy);
                    if commit == newest.0 {
                        newest.1.push(copy);
                    }
                }
            }
        }
        if let Some(failure) = failure {
            state.set_commits(newest.0 + UNKNOWN_COMMITS);
            return Err(failure);
        }
        state.set_commits(newest.0);
        self.drop_unfinished(origin, buffers, &mut restorer, &newest.1)
            .await
    }

    /// Puts pages into their places that power may have torn.
    async fn finish_commits(&self) -> Result<(), TableFailure> {
        let mut shadows = [vec![0; SHADOW_BYTES], vec![0; SHADOW_BYTES]];
        for (which, shadow) in (0..).zip(&mut shadows) {
            let read = self.area.read(self.shadow(which), shadow).await;
            read.map_err(TableFailure::Area)?;
        }
        let decode = |shadow| decode_shadow(self.superblock.area, shadow);
        let mut whole: Vec<Shadow<'_>> = shadows.iter().flat_map(|s| decode(s)).collect();
        whole.sort_by_key(|shadow| shadow.commit);
        let pages = self.pages();
        for Shadow { commit, pages: own } in whole {
            for (page, bytes) in own.into_iter().filter(|(page, _)| *page < pages) {
                let there = self.read(page, 1).await?;
                if newest_commit(self.superblock.area, page, &there) <= commit {
                    let written = self.area.write(self.page(page), bytes, false).await;
                    written.map_err(TableFailure::Area)?;
                }
            }
        }
        Ok(())
    }

    /// From now on the pages tell the truth, and no shadow.
    async fn drop_shadows(&self) -> Result<(), Errno> {
        self.area.flush().await?;
        for which in 0..2 {
            let at = self.shadow(which);
            self.area.write(at, &[0; PAGE_BYTES], true).await?;
        }
        Ok(())
    }

    /// The newest commit may tell of slots whose bytes did not reach the medium. What they were to
    /// keep was not overwritten then: the origin still has it. A slot that is damaged otherwise stays,
    /// and costs the views that need it when they read it.
    async fn drop_unfinished(
        &self,
        origin: &impl Disk,
        buffers: &Buffers,
        restorer: &mut Restorer<'_>,
        copies: &[Copy],
    ) -> Result<(), TableFailure> {
        let mut dropped = Vec::new();
        for copy in copies {
            let whole = self.is_whole(copy, buffers).await?;
            if !whole && self.has_not_changed(copy, origin, buffers).await {
                restorer.drop(copy.slot);
                dropped.push(copy.slot);
            }
        }
        // Else another copy of the block would be told of beside this one.
        for slots in dropped.chunk_by(|one, next| page_of(*one) == page_of(*next)) {
            self.forget(page_of(slots[0]), slots).await?;
        }
        self.drop_shadows().await.map_err(TableFailure::Area)
    }

    async fn is_whole(&self, copy: &Copy, buffers: &Buffers) -> Result<bool, TableFailure> {
        let layout = Layout::of(self.superblock.geometry);
        let place = layout.slots(copy.slot, 1);
        let mut buffer = buffers.take(usize::try_from(place.len).unwrap_or(0));
        let read = self.area.read(place.offset, &mut buffer).await;
        let whole = crc32c::crc32c(&buffer) == copy.checksum;
        buffers.put(buffer);
        read.map_err(TableFailure::Area).map(|()| whole)
    }

    /// Whether the origin holds what the copy was made of.
    async fn has_not_changed(&self, copy: &Copy, origin: &impl Disk, buffers: &Buffers) -> bool {
        let geometry = self.superblock.geometry;
        if copy.block >= geometry.blocks() {
            return false;
        }
        let place = geometry.bytes_of(BlockRange::new(copy.block, copy.block + 1));
        let len = usize::try_from(geometry.block_bytes()).unwrap_or(0);
        let mut buffer = buffers.take(len);
        let (block, fill) = buffer.split_at_mut(usize::try_from(place.len).unwrap_or(0));
        fill.fill(0);
        let read = origin.read(place.offset, block).await.is_ok();
        let same = crc32c::crc32c(&buffer) == copy.checksum;
        buffers.put(buffer);
        read && same
    }

    /// Takes slots out of the table.
    async fn forget(&self, page: u32, slots: &[u32]) -> Result<(), TableFailure> {
        let bytes = self.read(page, 1).await?;
        let Page { copies, commit } = decode_page(self.superblock.area, page, &bytes)?;
        let kept = copies.into_iter().map(|(_, copy)| copy);
        let kept = kept.filter(|copy| !slots.contains(&copy.slot));
        let bytes = encode_page(self.superblock.area, page, commit, kept);
        let written = self.area.write(self.page(page), &bytes, false).await;
        written.map_err(TableFailure::Area)
    }

    /// Makes the table tell nothing. What it told must not be believed any more before.
    pub(in crate::volume) async fn clear(&self) -> Result<(), Errno> {
        self.drop_shadows().await?;
        let mut cleared = false;
        for (first, count) in self.pieces() {
            let mut bytes = vec![0xFF; count as usize * PAGE_BYTES];
            // One that cannot be read is written, which mends it on many disks.
            let _ = self.area.read(self.page(first), &mut bytes).await;
            if bytes.iter().any(|byte| *byte != 0) {
                bytes.fill(0);
                self.area.write(self.page(first), &bytes, false).await?;
                cleared = true;
            }
        }
        if cleared {
            self.area.flush().await?;
        }
        Ok(())
    }

    fn pages(&self) -> u32 {
        self.superblock.slots.div_ceil(PAGE_SLOTS)
    }

    /// All pages, as the first of some and how many.
    fn pieces(&self) -> impl Iterator<Item = (u32, u32)> + use<A> {
        let pages = self.pages();
        let firsts = (0..pages).step_by(PIECE_PAGES as usize);
        firsts.map(move |first| (first, PIECE_PAGES.min(pages - first)))
    }

    async fn read(&self, first: u32, pages: u32) -> Result<Vec<u8>, TableFailure> {
        let mut bytes = vec![0; pages as usize * PAGE_BYTES];
        let read = self.area.read(self.page(first), &mut bytes).await;
        read.map_err(TableFailure::Area).map(|()| bytes)
    }

    fn shadow(&self, which: u64) -> u64 {
        let layout = Layout::of(self.superblock.geometry);
        layout.shadow(self.superblock.slots, which).offset
    }

    fn page(&self, page: u32) -> u64 {
        self.place.offset + u64::from(page) * PAGE_BYTES as u64
    }
}
