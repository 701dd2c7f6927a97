//! The change maps of past epochs, as files, and the diffs they answer.
//!
//! A *segment* is one file and covers the epochs after one checkpoint up to another:
//!
//! ```text
//! checkpoint 3      checkpoint 7            now
//!     |  segment 4..=7  |  dense map of epoch 8
//! ```
//!
//! A cut leaves a dense map behind; housekeeping seals it into a change set. When the checkpoint
//! between two segments is forgotten they are merged; segments that no checkpoint needs are
//! removed. A file is complete before its name appears and its predecessors go after that, so a
//! process that dies in between leaves at most a file too many.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{ChangeSet, DecodeError, DenseMap};
use crate::units::{Epoch, Id};

/// A change map could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A file failed.
    #[error("change map {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file's content is damaged.
    #[error("change map {path}: {source}")]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DecodeError,
    },
    /// No segment covers a part of the span.
    #[error("no change map of epoch {0}")]
    Missing(Epoch),
}

impl HistoryError {
    /// The kernel's error number, if there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            Self::Decode { .. } | Self::Missing(_) => None,
        }
    }
}

#[derive(Clone, Debug)]
enum Form {
    Dense(Arc<DenseMap>),
    Sealed,
}

#[derive(Clone, Debug)]
struct Segment {
    first: Epoch,
    form: Form,
}

/// The past epochs of one lineage.
#[derive(Debug)]
pub struct History {
    dir: PathBuf,
    /// By last epoch.
    segments: BTreeMap<Epoch, Segment>,
}

impl History {
    /// Starts with no past in `dir`; removes the files that an earlier lineage left.
    pub fn create(dir: &Path) -> Result<Self, HistoryError> {
        for (path, name) in files(dir)? {
            if name != Name::Other {
                remove(&path)?;
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            segments: BTreeMap::new(),
        })
    }

    /// Writes what was known before the host stopped to `dir`, as a dead process would have left it:
    /// the changes of past epochs, and an empty map for the epoch that begins.
    pub fn restore<'a>(
        dir: &Path,
        lineage: Id,
        past: impl Iterator<Item = (Epoch, Epoch, &'a ChangeSet)>,
        current: Epoch,
        blocks: u64,
    ) -> Result<(), HistoryError> {
        let mut history = Self::create(dir)?;
        for (first, last, set) in past {
            history.store(first, last, set)?;
        }
        history.create_map(lineage, current, blocks).map(drop)
    }

    /// First and last epoch of each segment, ascending.
    pub fn spans(&self) -> Vec<(Epoch, Epoch)> {
        self.segments
            .iter()
            .map(|(last, segment)| (segment.first, *last))
            .collect()
    }

    /// The changes of the segment with these epochs; `None` when it was merged or dropped meanwhile.
    pub fn span(&self, first: Epoch, last: Epoch) -> Result<Option<ChangeSet>, HistoryError> {
        let found = self.segments.get(&last).filter(|s| s.first == first);
        found.map(|segment| self.load(last, segment)).transpose()
    }

    /// Takes up what a dead process left: the segments before epoch `current`, and the map of
    /// `current` itself.
    pub fn open(
        dir: &Path,
        lineage: Id,
        current: Epoch,
        blocks: u64,
    ) -> Result<(Self, DenseMap), HistoryError> {
        let mut segments: BTreeMap<Epoch, Segment> = BTreeMap::new();
        let mut dense = Vec::new();
        for (path, name) in files(dir)? {
            match name {
                Name::Set { first, last } if last < current => {
                    // A merged file and one of its parts: the wider one is complete.
                    let known = segments.get(&last).map(|segment| segment.first);
                    if known.is_none_or(|known| first < known) {
                        segments.insert(
                            last,
                            Segment {
                                first,
                                form: Form::Sealed,
                            },
                        );
                    }
                }
                Name::Dense(epoch) if epoch < current => dense.push(epoch),
                // Made for an epoch that never began, or half written.
                Name::Dense(epoch) if epoch > current => remove(&path)?,
                Name::Temporary => remove(&path)?,
                Name::Dense(_) | Name::Set { .. } | Name::Other => {}
            }
        }
        for epoch in dense {
            let sealed = segments
                .range(epoch..)
                .next()
                .is_some_and(|(_, s)| s.first <= epoch);
            if !sealed {
                let map = open_dense(dir, lineage, epoch, blocks)?;
                let form = Form::Dense(Arc::new(map));
                segments.insert(epoch, Segment { first: epoch, form });
            }
        }
        let contained: Vec<Epoch> = segments
            .iter()
            .filter(|(last, _)| {
                let after = Epoch(last.0 + 1);
                segments
                    .range(after..)
                    .next()
                    .is_some_and(|(_, wider)| wider.first <= **last)
            })
            .map(|(last, _)| *last)
            .collect();
        for last in contained {
            segments.remove(&last);
        }
        let map = open_dense(dir, lineage, current, blocks)?;
        let dir = dir.to_owned();
        Ok((Self { dir, segments }, map))
    }

    /// Makes the map of an epoch that may begin soon.
    pub fn create_map(
        &self,
        lineage: Id,
        epoch: Epoch,
        blocks: u64,
    ) -> Result<DenseMap, HistoryError> {
        let path = dense_path(&self.dir, epoch);
        DenseMap::create(&path, lineage, epoch, blocks).map_err(|source| io_error(&path, source))
    }

    /// Takes over the map of the epoch that a cut ended.
    pub fn push(&mut self, map: Arc<DenseMap>) {
        let epoch = map.epoch();
        let form = Form::Dense(map);
        self.segments.insert(epoch, Segment { first: epoch, form });
    }

    /// Whether [`History::housekeep`] has something to do.
    pub fn needs_housekeeping(&self, checkpoints: &[Epoch]) -> bool {
        self.segments.iter().any(|(last, segment)| {
            matches!(segment.form, Form::Dense(_)) || checkpoints.binary_search(last).is_err()
        })
    }

    /// Seals dense maps, merges segments whose checkpoint was forgotten and removes what no
    /// checkpoint needs. `checkpoints` is ascending.
    pub fn housekeep(&mut self, checkpoints: &[Epoch]) -> Result<(), HistoryError> {
        let oldest = checkpoints.first().copied();
        let lasts: Vec<Epoch> = self.segments.keys().copied().collect();
        for last in lasts {
            let unneeded = oldest.is_none_or(|oldest| last <= oldest);
            if unneeded {
                self.drop_segment(last)?;
                continue;
            }
            self.seal(last)?;
            let before = self
                .segments
                .range(..last)
                .next_back()
                .map(|(before, _)| *before);
            if let Some(before) = before.filter(|b| checkpoints.binary_search(b).is_err()) {
                self.merge(before, last)?;
            }
        }
        Ok(())
    }

    /// What changed in the epochs after `since` up to `until`; the running epoch is not here.
    pub fn diff(&self, since: Epoch, until: Epoch) -> Result<ChangeSet, HistoryError> {
        let mut sum = ChangeSet::default();
        let mut next = since.next();
        while next <= until {
            let (last, segment) = self
                .segments
                .range(next..=until)
                .next()
                .filter(|(_, segment)| segment.first <= next)
                .ok_or(HistoryError::Missing(next))?;
            sum.absorb(&self.load(*last, segment)?);
            next = last.next();
        }
        Ok(sum)
    }

    fn load(&self, last: Epoch, segment: &Segment) -> Result<ChangeSet, HistoryError> {
        match &segment.form {
            Form::Dense(map) => Ok(map.to_set(0)),
            Form::Sealed => {
                let path = set_path(&self.dir, segment.first, last);
                let bytes = fs::read(&path).map_err(|source| io_error(&path, source))?;
                ChangeSet::decode(&bytes).map_err(|source| HistoryError::Decode { path, source })
            }
        }
    }

    fn seal(&mut self, last: Epoch) -> Result<(), HistoryError> {
        let Some(Segment {
            first,
            form: Form::Dense(map),
        }) = self.segments.get(&last).cloned()
        else {
            return Ok(());
        };
        self.store(first, last, &map.to_set(0))?;
        remove(&dense_path(&self.dir, last))
    }

    fn merge(&mut self, earlier: Epoch, last: Epoch) -> Result<(), HistoryError> {
        let (Some(before), Some(after)) = (
            self.segments.get(&earlier).cloned(),
            self.segments.get(&last).cloned(),
        ) else {
            return Ok(());
        };
        let mut sum = self.load(earlier, &before)?;
        sum.absorb(&self.load(last, &after)?);
        self.store(before.first, last, &sum)?;
        remove(&set_path(&self.dir, after.first, last))?;
        self.drop_segment(earlier)
    }

    fn store(&mut self, first: Epoch, last: Epoch, set: &ChangeSet) -> Result<(), HistoryError> {
        let temporary = self.dir.join("set.tmp");
        let path = set_path(&self.dir, first, last);
        fs::write(&temporary, set.encode()).map_err(|source| io_error(&temporary, source))?;
        fs::rename(&temporary, &path).map_err(|source| io_error(&path, source))?;
        self.segments.insert(
            last,
            Segment {
                first,
                form: Form::Sealed,
            },
        );
        Ok(())
    }

    fn drop_segment(&mut self, last: Epoch) -> Result<(), HistoryError> {
        match self.segments.remove(&last) {
            Some(Segment {
                form: Form::Dense(_),
                ..
            }) => remove(&dense_path(&self.dir, last)),
            Some(Segment { first, .. }) => remove(&set_path(&self.dir, first, last)),
            None => Ok(()),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Name {
    Dense(Epoch),
    Set { first: Epoch, last: Epoch },
    Temporary,
    Other,
}

fn files(dir: &Path) -> Result<Vec<(PathBuf, Name)>, HistoryError> {
    let entries = fs::read_dir(dir).map_err(|source| io_error(dir, source))?;
    entries
        .map(|entry| {
            let entry = entry.map_err(|source| io_error(dir, source))?;
            let name = parse(&entry.file_name().to_string_lossy());
            Ok((entry.path(), name))
        })
        .collect()
}

fn parse(name: &str) -> Name {
    let epoch = |text: &str| text.parse().ok().map(Epoch);
    let parsed = match name.split('-').collect::<Vec<_>>()[..] {
        ["dense", at] => epoch(at).map(Name::Dense),
        ["set", first, last] => epoch(first)
            .zip(epoch(last))
            .map(|(first, last)| Name::Set { first, last }),
        ["set.tmp"] => Some(Name::Temporary),
        _ => None,
    };
    parsed.unwrap_or(Name::Other)
}

fn dense_path(dir: &Path, epoch: Epoch) -> PathBuf {
    dir.join(format!("dense-{epoch}"))
}

fn set_path(dir: &Path, first: Epoch, last: Epoch) -> PathBuf {
    dir.join(format!("set-{first}-{last}"))
}

fn open_dense(
    dir: &Path,
    lineage: Id,
    epoch: Epoch,
    blocks: u64,
) -> Result<DenseMap, HistoryError> {
    let path = dense_path(dir, epoch);
    DenseMap::open(&path, lineage, epoch, blocks).map_err(|source| io_error(&path, source))
}

fn remove(path: &Path) -> Result<(), HistoryError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io_error(path, source)),
        _ => Ok(()),
    }
}

fn io_error(path: &Path, source: io::Error) -> HistoryError {
    HistoryError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::BlockRange;

    const LINEAGE: Id = Id([3; 16]);
    const BLOCKS: u64 = 1000;

    /// Epochs 1 to `n`, each of which changed the block of its number.
    fn history(dir: &Path, n: u64) -> History {
        let mut history = History::create(dir).unwrap();
        for epoch in 1..=n + 1 {
            let map = history.create_map(LINEAGE, Epoch(epoch), BLOCKS).unwrap();
            map.mark(BlockRange::new(epoch, epoch + 1));
            if epoch <= n {
                history.push(Arc::new(map));
            }
        }
        history
    }

    fn blocks(history: &History, since: u64, until: u64) -> Vec<u64> {
        let set = history.diff(Epoch(since), Epoch(until)).unwrap();
        set.runs(0)
            .flat_map(|(run, _)| run.blocks())
            .map(|block| block.0)
            .collect()
    }

    #[test]
    fn diffs_stay_the_same_through_sealing_and_merging() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = history(dir.path(), 6);
        assert_eq!(blocks(&history, 2, 5), vec![3, 4, 5]);
        history.housekeep(&[Epoch(2), Epoch(5), Epoch(6)]).unwrap();
        assert_eq!(blocks(&history, 2, 5), vec![3, 4, 5]);
        assert_eq!(blocks(&history, 2, 6), vec![3, 4, 5, 6]);
        assert_eq!(blocks(&history, 5, 6), vec![6]);
        assert_eq!(blocks(&history, 6, 6), Vec::<u64>::new());
        assert!(matches!(
            history.diff(Epoch(1), Epoch(5)),
            Err(HistoryError::Missing(Epoch(2)))
        ));
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["dense-7", "set-3-5", "set-6-6"]);
        assert!(!history.needs_housekeeping(&[Epoch(2), Epoch(5), Epoch(6)]));
    }

    #[test]
    fn a_successor_takes_up_any_state_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = history(dir.path(), 4);
        let checkpoints = [Epoch(1), Epoch(4)];
        // Died after the merged file appeared and before its parts went.
        let parts = dir.path().join("parts");
        first
            .housekeep(&[Epoch(1), Epoch(2), Epoch(3), Epoch(4)])
            .unwrap();
        fs::create_dir(&parts).unwrap();
        for name in ["set-2-2", "set-3-3", "set-4-4"] {
            fs::copy(dir.path().join(name), parts.join(name)).unwrap();
        }
        first.housekeep(&checkpoints).unwrap();
        for name in ["set-2-2", "set-3-3", "set-4-4"] {
            fs::copy(parts.join(name), dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("set.tmp"), "half").unwrap();
        drop(first);
        let (second, map) = History::open(dir.path(), LINEAGE, Epoch(5), BLOCKS).unwrap();
        assert_eq!(blocks(&second, 1, 4), vec![2, 3, 4]);
        assert_eq!(map.changed_blocks(), 1);
        assert!(!dir.path().join("set.tmp").exists());
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_a_short_diff() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = history(dir.path(), 2);
        history.housekeep(&[Epoch(1), Epoch(2)]).unwrap();
        let path = dir.path().join("set-2-2");
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(
            history.diff(Epoch(1), Epoch(2)),
            Err(HistoryError::Decode { .. })
        ));
        fs::remove_file(&path).unwrap();
        assert!(matches!(
            history.diff(Epoch(1), Epoch(2)),
            Err(HistoryError::Io { .. })
        ));
    }
}
