//! Writes down how far a pull is.

use super::state::{Phase, Point, State, StateFile};
use crate::image::Image;

/// The pull under way, and where it is written down.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// The state file.
    pub(crate) file: StateFile,
    /// The volume's name.
    pub(crate) volume: String,
    /// Its identity.
    pub(crate) volume_id: String,
    /// Its size.
    pub(crate) capacity_bytes: u64,
    /// Its unit of tracking.
    pub(crate) block_bytes: u32,
    /// What the image was at; none for a full pull.
    pub(crate) base: Option<Point>,
    /// What it is being brought to.
    pub(crate) target: Point,
    /// The snapshot read from.
    pub(crate) snapshot_id: String,
    /// See [`Phase::InProgress`].
    pub(crate) suspect: bool,
}

impl Record {
    /// The image is right below `offset`, for the pull under way.
    pub(crate) fn progress(&self, image: &Image, offset: u64) -> anyhow::Result<()> {
        self.write(
            image,
            Phase::InProgress {
                base: self.base.clone(),
                target: self.target.clone(),
                snapshot_id: self.snapshot_id.clone(),
                resume_offset_bytes: offset,
                suspect: self.suspect,
            },
        )
    }

    /// The image is at its target.
    pub(crate) fn complete(&self, image: &Image) -> anyhow::Result<()> {
        let at = self.target.clone();
        self.write(image, Phase::Complete { at })
    }

    /// The image holds wrong bytes.
    pub(crate) fn invalid(&self, image: &Image, reason: &str) -> anyhow::Result<()> {
        let reason = reason.to_owned();
        self.write(image, Phase::Invalid { reason })
    }

    fn write(&self, image: &Image, phase: Phase) -> anyhow::Result<()> {
        let geometry = (self.capacity_bytes, self.block_bytes);
        let identity = image.identity()?;
        self.file.store(&State::new(
            &self.volume,
            &self.volume_id,
            geometry,
            identity,
            phase,
        ))
    }
}
