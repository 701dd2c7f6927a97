//! The bytes of a disk, in pages that copies of it share until they are written.

use std::sync::Arc;

use tidemark_store::units::ByteRange;

use super::context::usize_of;

/// Bytes that are shared, compared and told as a hole together.
pub(super) const PAGE: u64 = 4096;
const PAGE_LEN: usize = 4096;

type Page = [u8; PAGE_LEN];

/// An image of any length. Cloning it costs a pointer a page.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pages: Vec<Arc<Page>>,
    zero: Arc<Page>,
    len: u64,
}

impl Image {
    pub(super) fn new(len: u64) -> Self {
        let zero = Arc::new([0; PAGE_LEN]);
        Self {
            pages: vec![Arc::clone(&zero); usize_of(len.div_ceil(PAGE))],
            zero,
            len,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) {
        let mut rest = into;
        for (page, from, len) in pieces(ByteRange::new(offset, rest.len() as u64)) {
            let (now, later) = rest.split_at_mut(len);
            now.copy_from_slice(&self.pages[page][from..from + len]);
            rest = later;
        }
    }

    /// `None` is zeros. A page that is zeroed whole becomes a hole.
    pub(super) fn write(&mut self, range: ByteRange, bytes: Option<&[u8]>) {
        let mut done = 0;
        for (page, from, len) in pieces(range) {
            match bytes {
                Some(bytes) => Arc::make_mut(&mut self.pages[page])[from..from + len]
                    .copy_from_slice(&bytes[done..done + len]),
                None if len == PAGE_LEN => self.pages[page] = Arc::clone(&self.zero),
                None if self.is_hole(page) => {}
                None => Arc::make_mut(&mut self.pages[page])[from..from + len].fill(0),
            }
            done += len;
        }
    }

    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        let page = Arc::make_mut(&mut self.pages[usize_of(offset / PAGE)]);
        page[usize_of(offset % PAGE)] ^= mask;
    }

    /// Whether `bytes` are what the image has at `offset`.
    pub(super) fn equals(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        pieces(ByteRange::new(offset, bytes.len() as u64)).all(|(page, from, len)| {
            let (now, later) = rest.split_at(len);
            rest = later;
            self.pages[page][from..from + len] == *now
        })
    }

    /// Whether all of a range is zero.
    pub(super) fn is_zero(&self, range: ByteRange) -> bool {
        pieces(range).all(|(page, from, len)| {
            self.is_hole(page) || self.pages[page][from..from + len].iter().all(|b| *b == 0)
        })
    }

    /// The pages in which two images of one length differ, ascending.
    pub(super) fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u64> + 'a {
        let both = self.pages.iter().zip(&other.pages);
        both.zip(0..)
            .filter(|((one, two), _)| !Arc::ptr_eq(one, two) && one != two)
            .map(|(_, page)| page)
    }

    /// Where the run of holes, or of others, that has `offset` ends; and which it is.
    pub(super) fn run(&self, offset: u64) -> (u64, bool) {
        let first = usize_of(offset / PAGE);
        let hole = self.is_hole(first);
        let same = (first..self.pages.len()).take_while(|page| self.is_hole(*page) == hole);
        let end = (first + same.count()) as u64 * PAGE;
        (end.min(self.len), hole)
    }

    fn is_hole(&self, page: usize) -> bool {
        Arc::ptr_eq(&self.pages[page], &self.zero)
    }
}

/// The parts of a range that lie in one page each: the page, where in it, how long.
fn pieces(range: ByteRange) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut at = range.offset;
    std::iter::from_fn(move || {
        let len = (PAGE - at % PAGE).min(range.end().checked_sub(at)?);
        let piece = (usize_of(at / PAGE), usize_of(at % PAGE), usize_of(len));
        at += len;
        (len > 0).then_some(piece)
    })
}
