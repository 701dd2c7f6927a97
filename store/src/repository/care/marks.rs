//! Which blobs the recovery points need.

use std::sync::{PoisonError, RwLock};

use crate::repository::{
    error::{Error, Result},
    id::{Blob, Digest},
    index::Table,
    open::Repository,
    points::Points,
    tree::{Nodes, Root},
    writer::Progress,
};

/// A bit a blob of a table: whether some point needs it.
#[derive(Debug)]
pub(super) struct Marks {
    bits: Vec<u64>,
}

impl Marks {
    /// Walks all points, which were read before the table was. Fails on anything damaged or missing: who
    /// cannot see all that is needed must not delete.
    pub(super) fn of_all_points(
        repository: &Repository,
        mut points: Points,
        table: &RwLock<Table>,
        progress: &Progress,
    ) -> Result<Self> {
        if let Some(why) = points.damaged.pop() {
            return Err(why);
        }
        let blobs = table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .places()
            .len();
        let mut marks = Self {
            bits: vec![0; blobs.div_ceil(64)],
        };
        let nodes = Nodes::new(repository, table)?;
        for (_, point) in &points.points {
            progress.go_on()?;
            nodes.blobs(Root::of(point), &mut |_: Blob, id| marks.mark(table, id))?;
        }
        Ok(marks)
    }

    /// Marks every place of a blob; says whether it was not marked before.
    fn mark(&mut self, table: &RwLock<Table>, id: Digest) -> Result<bool> {
        let table = table.read().unwrap_or_else(PoisonError::into_inner);
        let mut new = None;
        for number in table.numbers(id) {
            new.get_or_insert(!self.has(number));
            self.bits[number / 64] |= 1 << (number % 64);
        }
        new.ok_or(Error::Missing(id))
    }

    /// Whether blob `number` of the table is needed.
    pub(super) fn has(&self, number: usize) -> bool {
        self.bits[number / 64] & (1 << (number % 64)) != 0
    }
}
