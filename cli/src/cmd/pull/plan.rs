//! Full, incremental or resumed: decided from what is known, with the reason. Pure.

use super::state::{Loaded, Phase, Point, State};
use crate::image::Identity;

/// What a pull does to the image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// What the image must be at; none for a full pull.
    pub(crate) base: Option<Point>,
    /// Where to start: above 0 only when the same snapshot is read on.
    pub(crate) start_offset_bytes: u64,
    /// Why this and no other.
    pub(crate) why: String,
    /// The last writer of the image is unknown: compare all of it at the end.
    pub(crate) check_all: bool,
}

impl Plan {
    /// A full pull from the start.
    pub(crate) fn full(why: impl Into<String>) -> Self {
        Self {
            base: None,
            start_offset_bytes: 0,
            why: why.into(),
            check_all: false,
        }
    }
}

/// What a decision rests on.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// `--full` was given.
    pub(crate) full_asked: bool,
    /// The state file.
    pub(crate) state: &'a Loaded,
    /// The image; none when this pull made it.
    pub(crate) image: Option<&'a Identity>,
    /// The volume's identity.
    pub(crate) volume_id: &'a str,
    /// Its size now.
    pub(crate) capacity_bytes: u64,
    /// The snapshot to read.
    pub(crate) snapshot_id: &'a str,
    /// Its point.
    pub(crate) target: &'a Point,
}

/// Decides. Whether the checkpoint still serves is the agent's to say: it knows the cause.
pub(crate) fn decide(facts: &Facts<'_>) -> Plan {
    if facts.full_asked {
        return Plan::full("--full was given");
    }
    let state = match facts.state {
        Loaded::Missing => {
            return Plan::full("no state file: this is the first pull to this image");
        }
        Loaded::Unreadable(error) => {
            return Plan::full(format!("the state file cannot be read: {error}"));
        }
        Loaded::Found(state) => state,
    };
    let Some(image) = facts.image else {
        return Plan::full("the image of the last pull is missing");
    };
    if state.volume_id != facts.volume_id {
        return Plan::full("the volume was attached anew since the last pull");
    }
    if state.capacity_bytes != facts.capacity_bytes {
        return Plan::full(format!(
            "the volume's size changed from {} to {} bytes",
            state.capacity_bytes, facts.capacity_bytes
        ));
    }
    match &state.phase {
        Phase::Invalid { reason } => {
            Plan::full(format!("the image is marked as not valid: {reason}"))
        }
        Phase::Complete { at } => from_complete(facts, state, image, at),
        Phase::InProgress { .. } => from_interrupted(facts, state, image),
    }
}

fn from_complete(facts: &Facts<'_>, state: &State, image: &Identity, at: &Point) -> Plan {
    if image != &state.image {
        return Plan::full("the image was changed by others since the last pull");
    }
    if is_older(facts.target, at) {
        return Plan::full("the snapshot is older than the image");
    }
    Plan {
        base: Some(at.clone()),
        start_offset_bytes: 0,
        why: format!("the image holds epoch {}", at.epoch),
        check_all: false,
    }
}

fn from_interrupted(facts: &Facts<'_>, state: &State, image: &Identity) -> Plan {
    let Phase::InProgress {
        base,
        target: interrupted,
        snapshot_id,
        resume_offset_bytes,
        suspect,
    } = &state.phase
    else {
        return Plan::full("the state file contradicts itself");
    };
    if !image.same_object(&state.image) {
        return Plan::full("an interrupted pull's image was replaced by others");
    }
    // A pull that could still write its state recorded the image's time. One that was killed
    // could not: the last write may be its own or a stranger's, so the whole image is compared.
    let check_all = *suspect || image != &state.image;
    if snapshot_id == facts.snapshot_id {
        return Plan {
            base: base.clone(),
            start_offset_bytes: *resume_offset_bytes,
            why: format!("an interrupted pull goes on at byte {resume_offset_bytes}"),
            check_all,
        };
    }
    match base {
        None => Plan::full("an interrupted full pull cannot go on: its snapshot is gone"),
        Some(base) if is_older(facts.target, base) => {
            Plan::full("the snapshot is older than the image")
        }
        // The image is base B with part of the diff B..S applied, S being the snapshot that is
        // gone: each block is as in B or as in S. A new snapshot T of the same lineage comes
        // after B, and so does S.
        //  - T later than S: changes(B..T) is the union of the maps of all epochs between, so it
        //    contains changes(B..S). Every block that the interrupted pull may have touched is
        //    sent again, as in T; every other block is as in B and did not change up to T.
        //  - T earlier than S (a snapshot named by the user): the union B..T may lack blocks
        //    that were taken from S. Not a superset, so a full pull.
        // Lineages that differ have no diff at all: the agent answers TRACKING_RESET.
        Some(_) if is_older(facts.target, interrupted) => {
            Plan::full("the snapshot is older than the one that an interrupted pull was at")
        }
        Some(base) => Plan {
            base: Some(base.clone()),
            start_offset_bytes: 0,
            why: format!(
                "an interrupted pull's snapshot is gone: all changes since epoch {} again",
                base.epoch
            ),
            check_all,
        },
    }
}

fn is_older(point: &Point, than: &Point) -> bool {
    point.lineage == than.lineage && point.epoch < than.epoch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(epoch: u64) -> Point {
        Point {
            lineage: "l".into(),
            epoch,
            ours: true,
        }
    }

    fn identity(modified_ns: i64) -> Identity {
        Identity::File {
            inode: 1,
            size_bytes: 100,
            modified_s: 1,
            modified_ns,
        }
    }

    fn found(phase: Phase) -> Loaded {
        Loaded::Found(State::new("v", "id", (100, 4096), identity(0), phase))
    }

    fn interrupted(base: Option<Point>) -> Loaded {
        found(Phase::InProgress {
            base,
            target: point(6),
            snapshot_id: "s6".into(),
            resume_offset_bytes: 40,
            suspect: false,
        })
    }

    fn plan(state: &Loaded, image: Option<&Identity>, snapshot_id: &str, epoch: u64) -> Plan {
        decide(&Facts {
            full_asked: false,
            state,
            image,
            volume_id: "id",
            capacity_bytes: 100,
            snapshot_id,
            target: &point(epoch),
        })
    }

    #[test]
    fn a_good_image_is_brought_forward() {
        let state = found(Phase::Complete { at: point(5) });
        let plan = plan(&state, Some(&identity(0)), "s7", 7);
        assert_eq!(plan.base, Some(point(5)));
        assert!(!plan.check_all);
    }

    #[test]
    fn whatever_is_not_sure_is_full_and_says_why() {
        let good = found(Phase::Complete { at: point(5) });
        let here = identity(0);
        let cases = [
            (plan(&Loaded::Missing, Some(&here), "s", 7), "first"),
            (
                plan(&Loaded::Unreadable("x".into()), Some(&here), "s", 7),
                "read",
            ),
            (plan(&good, None, "s", 7), "missing"),
            (plan(&good, Some(&identity(9)), "s", 7), "others"),
            (plan(&good, Some(&here), "s", 4), "older"),
            (
                plan(
                    &found(Phase::Invalid {
                        reason: "bad".into(),
                    }),
                    Some(&here),
                    "s",
                    7,
                ),
                "bad",
            ),
            (plan(&interrupted(None), Some(&here), "s7", 7), "gone"),
            (
                plan(&interrupted(Some(point(3))), Some(&here), "s5", 5),
                "older",
            ),
        ];
        for (plan, word) in cases {
            assert_eq!(
                (plan.base.as_ref(), plan.start_offset_bytes),
                (None, 0),
                "{word}"
            );
            assert!(plan.why.contains(word), "{} / {word}", plan.why);
        }
    }

    #[test]
    fn an_interrupted_pull_goes_on_with_its_snapshot() {
        for base in [None, Some(point(5))] {
            let plan = plan(&interrupted(base.clone()), Some(&identity(0)), "s6", 6);
            assert_eq!((plan.base, plan.start_offset_bytes), (base, 40));
            assert!(!plan.check_all);
        }
    }

    #[test]
    fn a_killed_pull_is_compared_whole() {
        let state = interrupted(Some(point(5)));
        assert!(plan(&state, Some(&identity(8)), "s6", 6).check_all);
        let anew = plan(&state, Some(&identity(8)), "s7", 7);
        assert!(anew.check_all);
        assert_eq!((anew.base, anew.start_offset_bytes), (Some(point(5)), 0));
    }
}
