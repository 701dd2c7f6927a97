//! What the world knows of its volumes without asking the engine: frozen copies, the blocks that
//! requests touched in each epoch, what the host still waits for.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use tidemark_agent::volume::HoldToken;
use tidemark_store::units::{BlockRange, ByteRange, Geometry, Id};

use super::{context::usize_of, image::Image, workload::HostRequest};

/// Cuts that are remembered; older ones are forgotten in the engine too.
pub(super) const KEPT_CUTS: usize = 12;

/// A set of blocks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Blocks(Vec<u64>);

impl Blocks {
    pub(super) fn insert(&mut self, range: BlockRange) {
        let words = usize_of(range.end.div_ceil(64));
        if self.0.len() < words {
            self.0.resize(words, 0);
        }
        for block in range.start..range.end {
            self.0[usize_of(block / 64)] |= 1 << (block % 64);
        }
    }

    pub(super) fn has(&self, block: u64) -> bool {
        let word = self.0.get(usize_of(block / 64));
        word.is_some_and(|word| word & (1 << (block % 64)) != 0)
    }

    pub(super) fn absorb(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// Blocks of this set that are not in the other, ascending.
    pub(super) fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u64> + 'a {
        self.0.iter().enumerate().flat_map(move |(at, word)| {
            let left = word & !other.0.get(at).copied().unwrap_or(0);
            (0..64)
                .filter(move |bit| left & (1 << bit) != 0)
                .map(move |bit| at as u64 * 64 + bit)
        })
    }
}

/// A cut as the world saw it.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub(super) lineage: Id,
    pub(super) epoch: u64,
    pub(super) snapshot: Option<Id>,
    pub(super) frozen: Rc<Image>,
    /// It was said to be durable: a power cut may not undo it.
    pub(super) acknowledged: bool,
    /// Its data was released, or the engine said that it is gone.
    pub(super) ended: bool,
    /// Its checkpoint was forgotten.
    pub(super) forgotten: bool,
}

/// A request without an answer.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) number: u64,
    pub(super) request: HostRequest,
    pub(super) since_us: u64,
}

/// A hold that a task has, or had when it died.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) token: HoldToken,
    pub(super) ends_us: u64,
}

/// One volume's past.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) geometry: Geometry,
    pub(super) lineage: Id,
    /// The running epoch.
    pub(super) epoch: u64,
    pub(super) cuts: Vec<Cut>,
    /// By epoch of the lineage.
    pub(super) touched: BTreeMap<u64, Blocks>,
    /// Overwritten since the newest snapshot's cut.
    pub(super) overwritten: Blocks,
    pub(super) pending: Vec<Pending>,
    pub(super) held: Option<Held>,
    /// Calls that have asked for a hold and have no answer.
    pub(super) closing: u32,
    /// Calls that have asked for a reset and have no answer: the lineage may be a new one.
    pub(super) resetting: u32,
    /// A process died while one had.
    pub(super) lineage_unsure: bool,
    /// Tracking did not outlive the host when it stopped, and why.
    pub(super) distrust: Option<String>,
    /// When the host's last request changed the origin, by the wall clock.
    pub(super) modified_us: u64,
}

impl Past {
    pub(super) fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            lineage: Id::NIL,
            epoch: 0,
            cuts: Vec::new(),
            touched: BTreeMap::new(),
            overwritten: Blocks::default(),
            pending: Vec::new(),
            held: None,
            closing: 0,
            resetting: 0,
            lineage_unsure: false,
            distrust: None,
            modified_us: 0,
        }
    }

    /// A change was admitted in the running epoch, or may have been.
    pub(super) fn touch(&mut self, range: ByteRange) {
        let blocks = self.geometry.touched(range);
        self.touched.entry(self.epoch).or_default().insert(blocks);
    }

    /// The process died: what was in flight may have been admitted.
    pub(super) fn touch_pending(&mut self) {
        for at in 0..self.pending.len() {
            let ask = self.pending[at].request.ask;
            if ask.verb.changes() {
                self.touch(ask.range);
            }
        }
    }

    /// All that requests touched after one epoch and up to another.
    pub(super) fn touched_between(&self, since: u64, until: u64) -> Blocks {
        let mut sum = Blocks::default();
        for (_, blocks) in self.touched.range(since + 1..(until + 1).max(since + 1)) {
            sum.absorb(blocks);
        }
        sum
    }

    /// A new lineage begins: no diff reaches back over it.
    pub(super) fn begin(&mut self, lineage: Id, epoch: u64) {
        self.lineage = lineage;
        self.epoch = epoch;
        self.touched.clear();
    }

    /// The newest snapshot that can still be read, as far as the world knows.
    pub(super) fn newest_snapshot(&self) -> Option<&Cut> {
        let readable = |cut: &&Cut| cut.snapshot.is_some() && !cut.ended;
        self.cuts.iter().rev().find(readable)
    }

    /// The checkpoint that the next diff will most likely be asked against.
    pub(super) fn last_checkpoint(&self) -> Option<&Cut> {
        let asked = |cut: &&Cut| cut.lineage == self.lineage && !cut.forgotten;
        self.cuts.iter().rev().find(asked)
    }

    /// Notes that a snapshot is gone.
    pub(super) fn end(&mut self, id: Id) {
        for cut in self.cuts.iter_mut().filter(|cut| cut.snapshot == Some(id)) {
            cut.ended = true;
        }
    }
}

/// All volumes', and the writer of pairs.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) volumes: Vec<RefCell<Past>>,
    /// The next number that the writer of pairs writes, and to which volume.
    pub(super) pair: Cell<(u64, usize)>,
    /// The first number whose pair counts: those before a power cut may be torn by it.
    pub(super) pairs_from: Cell<u64>,
}

impl Model {
    /// What lies on the media may have been torn by a power cut or by other hands.
    pub(super) fn restart_pairs(&self) {
        let next = self.pair.get().0 + 1;
        self.pair.set((next, 0));
        self.pairs_from.set(next);
    }
}
