//! The tree of the portable transport: names, inode numbers and attributes.
//!
//! ```text
//! /            1
//! /live        2   the volume
//! /snapshots   3
//! /snapshots/ID    one number for each view, from its first look-up until the kernel forgets it
//! ```

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use fuser::{FileAttr, FileType, INodeNo};
use tidemark_store::units::Id;

use crate::transport::View;

/// `/live`.
pub(super) const LIVE: INodeNo = INodeNo(2);
/// `/snapshots`.
pub(super) const SNAPSHOTS: INodeNo = INodeNo(3);
/// The number of the first view.
const FIRST_VIEW: u64 = 4;
/// Stands for "look it up" in directory listings.
pub(super) const UNKNOWN: INodeNo = INodeNo(u32::MAX as u64);

/// Name of the live volume.
pub(super) const LIVE_NAME: &str = "live";
/// Name of the folder of views.
pub(super) const SNAPSHOTS_NAME: &str = "snapshots";

/// What an inode number stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Node {
    Root,
    Live,
    Snapshots,
    View(View),
}

impl Node {
    /// How long the kernel may believe names and attributes: views come and go at once, the
    /// rest stays as it is for as long as the mount lives, and some of it must still be known
    /// when the server is dead (see `stale`).
    pub(super) const fn ttl(self) -> Duration {
        match self {
            Self::Root | Self::Live | Self::Snapshots => Duration::from_secs(10 * 365 * 24 * 3600),
            Self::View(_) => Duration::ZERO,
        }
    }
}

/// Views known to the kernel, and everyone's attributes.
pub(super) struct Nodes {
    capacity: u64,
    mounted: SystemTime,
    views: Mutex<Views>,
}

#[derive(Default)]
struct Views {
    numbers: HashMap<Id, u64>,
    known: HashMap<u64, Known>,
    issued: u64,
}

struct Known {
    view: View,
    lookups: u64,
}

impl Nodes {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            mounted: SystemTime::now(),
            views: Mutex::default(),
        }
    }

    /// Counts a look-up of a view and gives its number.
    pub(super) fn looked_up(&self, view: View) -> INodeNo {
        let mut views = self.lock();
        let Views {
            numbers,
            known,
            issued,
        } = &mut *views;
        let number = *numbers.entry(view.id).or_insert_with(|| {
            *issued += 1;
            FIRST_VIEW + *issued
        });
        known
            .entry(number)
            .or_insert(Known { view, lookups: 0 })
            .lookups += 1;
        INodeNo(number)
    }

    /// Takes look-ups back; a view that nobody knows any more loses its number.
    pub(super) fn forgotten(&self, number: INodeNo, lookups: u64) {
        let mut views = self.lock();
        let Some(known) = views.known.get_mut(&number.0) else {
            return;
        };
        known.lookups = known.lookups.saturating_sub(lookups);
        if known.lookups == 0 {
            let id = known.view.id;
            views.known.remove(&number.0);
            views.numbers.remove(&id);
        }
    }

    /// What a number stands for.
    pub(super) fn node(&self, number: INodeNo) -> Option<Node> {
        match number {
            INodeNo::ROOT => Some(Node::Root),
            LIVE => Some(Node::Live),
            SNAPSHOTS => Some(Node::Snapshots),
            INodeNo(number) => self
                .lock()
                .known
                .get(&number)
                .map(|known| Node::View(known.view)),
        }
    }

    /// The attributes of a node.
    pub(super) fn attributes(&self, number: INodeNo, node: Node) -> FileAttr {
        let (kind, perm, nlink, size, time) = match node {
            Node::Root => (FileType::Directory, 0o500, 3, 0, self.mounted),
            Node::Snapshots => (FileType::Directory, 0o500, 2, 0, self.mounted),
            Node::Live => (FileType::RegularFile, 0o600, 1, self.capacity, self.mounted),
            Node::View(view) => (
                FileType::RegularFile,
                0o400,
                1,
                self.capacity,
                SystemTime::UNIX_EPOCH + Duration::from_micros(view.created_us),
            ),
        };
        FileAttr {
            ino: number,
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Views> {
        // Each change leaves the tables whole, so a panic elsewhere does not spoil them.
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(byte: u8) -> View {
        View {
            id: Id([byte; 16]),
            created_us: 7,
        }
    }

    #[test]
    fn a_view_keeps_its_number_until_it_is_forgotten() {
        let nodes = Nodes::new(4096);
        let first = nodes.looked_up(view(1));
        let second = nodes.looked_up(view(2));
        assert_ne!(first, second);
        assert_eq!(nodes.looked_up(view(1)), first);
        nodes.forgotten(first, 1);
        assert_eq!(nodes.node(first), Some(Node::View(view(1))));
        nodes.forgotten(first, 1);
        assert_eq!(nodes.node(first), None);
        assert_eq!(nodes.node(second), Some(Node::View(view(2))));
        assert_ne!(
            nodes.looked_up(view(1)),
            first,
            "a number is never used again"
        );
    }

    #[test]
    fn forgetting_too_much_harms_nobody() {
        let nodes = Nodes::new(4096);
        let number = nodes.looked_up(view(1));
        nodes.forgotten(number, u64::MAX);
        nodes.forgotten(number, 1);
        nodes.forgotten(INodeNo::ROOT, 1);
        assert_eq!(nodes.node(number), None);
        assert_eq!(nodes.node(INodeNo::ROOT), Some(Node::Root));
    }
}
