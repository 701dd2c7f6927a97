//! The state file beside an image: what the image holds, and what it is on the way to.
//!
//! ```text
//!           first pull            trailer seen, synced, verified
//!   (none) ───────────> InProgress ───────────────────────────> Complete
//!                        │  ^   ^                                 │
//!        bytes are wrong │  │   └─────────── next pull ────────────┘
//!                        v  │ full pull
//!                      Invalid
//! ```
//! The file is written before the first byte of the image changes (so that a half-written image
//! never looks like a good one) and replaced whole: temporary file, fsync, rename, fsync of the
//! directory.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tidemark_proto::v1::Checkpoint;

use crate::{
    exit::{Exit, Fault},
    image::Identity,
};

/// The format's version; a file of another one is not read.
const VERSION: u32 = 1;

/// A point in a volume's history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    /// The lineage.
    pub(crate) lineage: String,
    /// The epoch that the cut ended.
    pub(crate) epoch: u64,
    /// Whether a pull made it, so that the next pull may forget it.
    pub(crate) ours: bool,
}

impl Point {
    /// A point of a message.
    pub(crate) fn new(checkpoint: &Checkpoint, ours: bool) -> Self {
        Self {
            lineage: checkpoint.lineage.clone(),
            epoch: checkpoint.epoch,
            ours,
        }
    }

    /// The point as a message.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            lineage: self.lineage.clone(),
            epoch: self.epoch,
        }
    }

    /// Whether both are the same moment.
    pub(crate) fn same_moment(&self, other: &Self) -> bool {
        (&self.lineage, self.epoch) == (&other.lineage, other.epoch)
    }
}

/// What the image holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub(crate) enum Phase {
    /// The volume as it was at this point.
    Complete {
        /// The point.
        at: Point,
    },
    /// Neither old nor new: a pull is under way, or was interrupted.
    InProgress {
        /// What the image was at when the pull began; none for a full pull.
        base: Option<Point>,
        /// What it is being brought to.
        target: Point,
        /// The snapshot read from.
        snapshot_id: String,
        /// Everything below is in the image, durable, and verified as was asked.
        resume_offset_bytes: u64,
        /// An earlier pull was killed, so a stranger may have written to the image since: the
        /// whole of it has to be compared before it counts as complete.
        suspect: bool,
    },
    /// Wrong bytes were found: only a full pull makes it good again.
    Invalid {
        /// What was found.
        reason: String,
    },
}

/// The content of the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    version: u32,
    /// The volume's name.
    pub(crate) volume: String,
    /// Its identity, fixed at attach.
    pub(crate) volume_id: String,
    /// The volume's size.
    pub(crate) capacity_bytes: u64,
    /// Its unit of tracking.
    pub(crate) block_bytes: u32,
    /// The image when this was written.
    pub(crate) image: Identity,
    /// What the image holds.
    #[serde(flatten)]
    pub(crate) phase: Phase,
}

impl State {
    /// The state of an image.
    pub(crate) fn new(
        volume: &str,
        volume_id: &str,
        geometry: (u64, u32),
        image: Identity,
        phase: Phase,
    ) -> Self {
        Self {
            version: VERSION,
            volume: volume.to_owned(),
            volume_id: volume_id.to_owned(),
            capacity_bytes: geometry.0,
            block_bytes: geometry.1,
            image,
            phase,
        }
    }
}

/// What was found where the state file should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Loaded {
    /// Nothing.
    Missing,
    /// A file that makes no sense.
    Unreadable(String),
    /// A state.
    Found(State),
}

/// Where the state of one image is kept.
#[derive(Clone, Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file beside an image: `IMAGE.tidemark`.
    pub(crate) fn beside(image: &Path) -> Self {
        let mut path = image.as_os_str().to_owned();
        path.push(".tidemark");
        Self { path: path.into() }
    }

    /// The file at a path that was given.
    pub(crate) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it. A file of a later version is an error rather than unreadable: it is someone's.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let text = match std::fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Missing),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Ok(Loaded::Unreadable(error.to_string()));
            }
            other => other.with_context(|| self.path.display().to_string())?,
        };
        match serde_json::from_str::<Head>(&text) {
            Ok(head) if head.version > VERSION => Err(Fault::new(
                Exit::Failed,
                format!("{} is of version {}", self.path.display(), head.version),
            )
            .advise("a newer `tidemark` wrote it: use that one")
            .into()),
            Ok(_) => Ok(match serde_json::from_str(&text) {
                Ok(state) => Loaded::Found(state),
                Err(error) => Loaded::Unreadable(error.to_string()),
            }),
            Err(error) => Ok(Loaded::Unreadable(error.to_string())),
        }
    }

    /// Replaces it; durable when this returns.
    pub(crate) fn store(&self, state: &State) -> anyhow::Result<()> {
        self.replace(state)
            .with_context(|| format!("writing {}", self.path.display()))
    }

    fn replace(&self, state: &State) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(state)?;
        text.push(b'\n');
        let mut temporary = self.path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.path)?;
        let dir = match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        File::open(dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(phase: Phase) -> State {
        let image = Identity::File {
            inode: 1,
            size_bytes: 2,
            modified_s: 3,
            modified_ns: 4,
        };
        State::new("v", "id", (10_000, 4096), image, phase)
    }

    fn point(epoch: u64) -> Point {
        Point {
            lineage: "l".into(),
            epoch,
            ours: true,
        }
    }

    #[test]
    fn every_phase_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::beside(&dir.path().join("image"));
        assert_eq!(file.load().unwrap(), Loaded::Missing);
        let phases = [
            Phase::Complete { at: point(1) },
            Phase::InProgress {
                base: Some(point(1)),
                target: point(2),
                snapshot_id: "s".into(),
                resume_offset_bytes: 4096,
                suspect: true,
            },
            Phase::InProgress {
                base: None,
                target: point(2),
                snapshot_id: "s".into(),
                resume_offset_bytes: 0,
                suspect: false,
            },
            Phase::Invalid { reason: "r".into() },
        ];
        for phase in phases {
            let state = state(phase);
            file.store(&state).unwrap();
            assert_eq!(file.load().unwrap(), Loaded::Found(state));
        }
    }

    #[test]
    fn nonsense_is_unreadable_and_the_future_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::at(&dir.path().join("s"));
        for nonsense in ["", "{}", "[1]", "{\"version\": 1}", "{\"version\": -1}"] {
            std::fs::write(file.path(), nonsense).unwrap();
            assert!(
                matches!(file.load().unwrap(), Loaded::Unreadable(_)),
                "{nonsense}"
            );
        }
        std::fs::write(file.path(), [0xff, 0xfe]).unwrap();
        assert!(matches!(file.load().unwrap(), Loaded::Unreadable(_)));
        std::fs::write(file.path(), "{\"version\": 2}").unwrap();
        assert!(file.load().is_err());
    }
}
