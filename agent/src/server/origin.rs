//! How this server gets hold of the origin, and how the volume gets under it.
//!
//! | the origin is | and then |
//! |---|---|
//! | a device-mapper volume, mounted or not | a private origin is made of its table, and the volume is put over us |
//! | another block device, not mounted | it is claimed, and what we present is mounted instead |
//! | an image file | likewise; by the portable transport, unless ublk is asked for |

use std::{
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::{TransportArg, VolumeArgs, left::Left, start_error::StartError};
use crate::{
    host::{
        claim::{Claimed, Purpose, claim},
        clock,
        device::{Anchor, DeviceNumber},
        dm::{Sectors, disk},
        identity,
    },
    insertion::{self, Bypass, DmVolume, Hint, Insertion, Recovered, Sight, Site},
    transport::ublk::{self, Features, Ublk},
    volume::Continuity,
};

/// Name of the insertion's journal in the directory of the volume's state.
pub(super) const JOURNAL: &str = "insertion";

/// The origin, and the way to it.
pub(super) struct Origin {
    pub(super) claimed: Claimed,
    pub(super) way: Way,
    pub(super) continuity: Continuity,
    /// Which device or file it is, where that can be told.
    pub(super) identity: Option<String>,
}

/// By which transport, and whether the volume is put over us.
pub(super) enum Way {
    Portable,
    Ublk {
        features: Features,
        live: Option<Box<Live>>,
    },
}

/// A device-mapper volume with a private origin.
pub(super) struct Live {
    pub(super) insertion: Insertion,
    /// The volume lies over us already.
    pub(super) inserted: bool,
    /// An earlier server died while it took us away: that is to be finished.
    pub(super) removing: bool,
}

impl Origin {
    /// Undoes what finding it changed.
    pub(super) fn give_up(self) {
        drop(self.claimed);
        abandon(self.way);
    }
}

/// Lets a private origin go that the volume does not lie over; nobody has it open any more.
pub(super) fn abandon(way: Way) {
    if let Way::Ublk {
        live: Some(mut live),
        ..
    } = way
        && !live.inserted
        && let Err(error) = live.insertion.abandon()
    {
        tracing::warn!(%error, "the private origin is left over");
    }
}

/// Finds the origin. `protected` are our own files, which must not lie on it.
pub(super) fn find(
    args: &VolumeArgs,
    state_dir: &Path,
    protected: &[PathBuf],
) -> Result<Origin, StartError> {
    let mut origin = find_any(args, state_dir, protected)?;
    // Only now: a device that just comes may not have been there before it was claimed. The volume
    // keeps its UUID whatever lies under it.
    let device = DeviceNumber::of_block_device(&args.origin).ok().flatten();
    origin.identity =
        device
            .and_then(identity::of_device)
            .or_else(|| match origin.claimed.anchor {
                Anchor::File(_) => identity::of_file(&origin.claimed.file).ok().flatten(),
                Anchor::Device(_) => None,
            });
    let (expected, found) = (args.expected_origin.as_deref(), origin.identity.as_deref());
    if let Some(why) = identity::difference(expected, found) {
        origin.continuity = Continuity::Broken(why);
    }
    Ok(origin)
}

fn find_any(
    args: &VolumeArgs,
    state_dir: &Path,
    protected: &[PathBuf],
) -> Result<Origin, StartError> {
    let driver = match args.transport {
        TransportArg::Portable => Err("the portable transport was asked for".to_owned()),
        TransportArg::Auto | TransportArg::Ublk => ublk::probe(),
    };
    let seen = Anchor::of_path(&args.origin).ok();
    let device = seen.and_then(Anchor::device);
    let journal = state_dir.join(JOURNAL);
    // What is served before file systems are mounted is a block device, whose users would not find it
    // by another way.
    let must = args.transport == TransportArg::Ublk || args.early;
    let features = match driver {
        Err(why) if must => return Err(StartError::NoUblk { why }),
        Err(_) => return portable(args, state_dir, seen),
        Ok(features) => features,
    };
    if journal.exists() || device.is_some_and(disk::is_dm) {
        return live(args, state_dir, protected, features);
    }
    if device.is_none() && !must {
        return portable(args, state_dir, seen);
    }
    insertion::check(&args.origin, protected)?;
    let claimed = claim_seen(&args.origin, seen)?;
    if claimed.capacity % 512 != 0 {
        return Err(StartError::Geometry {
            path: args.origin.clone(),
            capacity: claimed.capacity,
            block_bytes: args.block_bytes,
        });
    }
    let continuity = match (Ublk::left_behind(args.volume_id), modified_us(&claimed)) {
        (Some(_), Some(modified_us)) => Continuity::ModifiedAt(modified_us),
        // What the host asked for since waits in the kernel.
        (Some(_), None) => Continuity::Unbroken,
        (None, Some(modified_us)) => left_alone(args, modified_us),
        (None, None) => continuity_of(args, state_dir, device),
    };
    Ok(Origin {
        claimed,
        way: Way::Ublk {
            features,
            live: None,
        },
        continuity,
        identity: None,
    })
}

/// Claims what was there when the way to it was chosen. A device that came since may be one that
/// another way is for: a logical volume is activated while we look, and to hold it would keep its
/// file system from being mounted.
fn claim_seen(path: &Path, seen: Option<Anchor>) -> Result<Claimed, StartError> {
    let claimed = claim(path, Purpose::Origin)?;
    match seen == Some(claimed.anchor) {
        true => Ok(claimed),
        false => Err(StartError::JustCame {
            path: path.to_owned(),
        }),
    }
}

fn portable(
    args: &VolumeArgs,
    state_dir: &Path,
    seen: Option<Anchor>,
) -> Result<Origin, StartError> {
    let claimed = claim_seen(&args.origin, seen)?;
    let device = claimed.anchor.device();
    let continuity = match modified_us(&claimed) {
        Some(modified_us) => left_alone(args, modified_us),
        None if args.again && has_state(state_dir) && !left_untouched(state_dir, device) => {
            Continuity::Broken(
                "the volume server died, and nothing tells whether the origin was modified since"
                    .to_owned(),
            )
        }
        None => continuity_of(args, state_dir, device),
    };
    Ok(Origin {
        claimed,
        way: Way::Portable,
        continuity,
        identity: None,
    })
}

/// What a server left in memory, which ends with the host.
fn has_state(state_dir: &Path) -> bool {
    state_dir.join("state").exists()
}

/// A server gave the volume back, and nobody has written to it since.
fn left_untouched(state_dir: &Path, device: Option<DeviceNumber>) -> bool {
    let now = device.and_then(Left::now);
    now.is_some_and(|now| now.is_noted(state_dir))
}

/// An image tells when it was modified. Before the host started, an earlier server did that.
fn left_alone(args: &VolumeArgs, modified_us: u64) -> Continuity {
    match clock::booted_us() {
        Some(booted_us) if args.again && modified_us < booted_us => Continuity::Unbroken,
        _ => Continuity::ModifiedAt(modified_us),
    }
}

/// No earlier server's device is there, so that others may write to the origin. After a start of
/// the host the kernel tells whether they did, and the area what was tracked before.
fn continuity_of(args: &VolumeArgs, state_dir: &Path, device: Option<DeviceNumber>) -> Continuity {
    if !args.again {
        return Continuity::Broken("attached".to_owned());
    }
    let why = match device.and_then(Sectors::of) {
        _ if has_state(state_dir) && left_untouched(state_dir, device) => {
            return Continuity::Unbroken;
        }
        _ if has_state(state_dir) => {
            "what tracked the volume was taken away; changes made meanwhile are not known"
                .to_owned()
        }
        None => {
            "what tracked the volume ended with the host, and nothing tells whether the volume \
                 was changed since"
                .to_owned()
        }
        Some(sectors) if sectors.total() > 0 => format!(
            "{} sectors were written to the volume since the host started, before it was tracked \
             again",
            sectors.total()
        ),
        Some(_) => return Continuity::Unbroken,
    };
    Continuity::Broken(why)
}

fn live(
    args: &VolumeArgs,
    state_dir: &Path,
    protected: &[PathBuf],
    features: Features,
) -> Result<Origin, StartError> {
    let journal = &state_dir.join(JOURNAL);
    let left = Ublk::left_behind(args.volume_id);
    // Before anything of ours is done to it.
    let device = DeviceNumber::of_block_device(&args.origin).ok().flatten();
    let untouched = continuity_of(args, state_dir, device);
    let hint = Hint {
        volume: DmVolume::of_path(&args.origin).map_err(insertion::InsertionError::from)?,
        over: left,
    };
    let (live, continuity) = match Site::new(args.volume_id, journal)?.recover(&hint)? {
        Recovered::Inserted {
            insertion,
            over,
            removing,
        } => {
            if left != Some(over) {
                return Err(StartError::ForeignInterposer { over: over.node() });
            }
            taken_up(insertion, removing)?
        }
        Recovered::Nothing | Recovered::Undone => {
            Ublk::delete_left_behind(args.volume_id)?;
            let insertion::Found::Live(volume) = insertion::check(&args.origin, protected)? else {
                return Err(StartError::Gone {
                    path: args.origin.clone(),
                });
            };
            let insertion = Site::new(args.volume_id, journal)?.prepare(&volume)?;
            (prepared(insertion), untouched)
        }
        Recovered::Bypassed(mut insertion) => {
            Ublk::delete_left_behind(args.volume_id)?;
            let adopted = insertion.adopt()?;
            let why = match adopted.resized {
                // A server that sees this ends, so that its successor makes a device that fits.
                true => format!("the volume was resized to {} sectors", adopted.sectors),
                false => "another program gave the volume its own table while no server ran".into(),
            };
            (prepared(insertion), Continuity::Broken(why))
        }
        Recovered::Gone(mut insertion) => {
            insertion.abandon()?;
            Ublk::delete_left_behind(args.volume_id)?;
            return Err(StartError::Gone {
                path: args.origin.clone(),
            });
        }
    };
    let claimed = claim(&live.insertion.origin()?, Purpose::Origin)?;
    Ok(Origin {
        claimed,
        way: Way::Ublk {
            features,
            live: Some(Box::new(live)),
        },
        continuity,
        identity: None,
    })
}

fn prepared(insertion: Insertion) -> Live {
    Live {
        insertion,
        inserted: false,
        removing: false,
    }
}

/// The volume lies over a device whose requests wait for us; unless something went around it
/// meanwhile, nothing was missed.
fn taken_up(mut insertion: Insertion, removing: bool) -> Result<(Live, Continuity), StartError> {
    let continuity = match insertion.look() {
        Ok(Sight::Bypassed(Bypass::Around(sectors))) => {
            insertion.rebase()?;
            Continuity::Broken(format!(
                "{} sectors were written around us while no server ran",
                sectors.total()
            ))
        }
        _ => Continuity::Unbroken,
    };
    let live = Live {
        insertion,
        inserted: true,
        removing,
    };
    Ok((live, continuity))
}

/// When an image was last written to. A block device tells no such time.
fn modified_us(origin: &Claimed) -> Option<u64> {
    if origin.is_block_device() {
        return None;
    }
    let modified = origin
        .file
        .metadata()
        .and_then(|metadata| metadata.modified())
        .ok()?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_seen_is_claimed() {
        let dir = tempfile::tempdir().unwrap();
        let [path, other] = ["origin", "other"].map(|name| dir.path().join(name));
        for file in [&path, &other] {
            std::fs::write(file, [0; 4096]).unwrap();
        }
        let seen = Anchor::of_path(&path).ok();
        assert_eq!(claim_seen(&path, seen).unwrap().anchor, seen.unwrap());
        for another in [None, Anchor::of_path(&other).ok()] {
            let refused = claim_seen(&path, another).err().unwrap();
            assert!(matches!(refused, StartError::JustCame { .. }), "{refused}");
        }
    }
}
