//! Logical volumes that we make for ourselves, by LVM's own commands.
//!
//! ```text
//! group_of   which volume group an origin is in, and what is free there
//! create     a linear volume of free extents, wiped, with tags that tell whose it is
//! find       the volume with a tag, active or not
//! activate   that volume and no other
//! remove     whatever has the tag, and nothing else
//! ```
//!
//! The tags are what makes a volume ours: LVM itself compares them in the command that removes, so
//! that a volume of the same name that somebody else made is never touched. A command that makes
//! or removes a volume loads no table of another: volumes of the group that lie over us stay there.
//!
//! LVM is used as its administrator has set it up, with no filter of ours. Leaving our devices out
//! would be wrong where a physical volume lies under us: LVM would find it below, and write to it
//! around us. As it is, it sees both, and refuses to change a group with duplicate devices.
//!
//! A command may wait: for another one's lock, or for a device that is held. It must not run while
//! we hold anything ourselves, and each ends within a bound.

mod argv;
mod command;
mod error;
mod report;

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

pub use error::LvmError;

use super::{
    device::DeviceNumber,
    dm::{Address, Control, group_of_name},
};
use argv::Argv;
use command::Program;
use report::{Listed, volumes_in};

/// What of a new volume is zeroed after LVM has wiped what it knows: an area's beginning.
const HEAD_BYTES: usize = 64 << 10;
/// For how long a device's node may take to appear: udev makes it.
const NODE_WITHIN: Duration = Duration::from_secs(10);
const NODE_STEP: Duration = Duration::from_millis(20);
/// An identity of LVM's without its dashes.
const IDENTITY_LEN: usize = 32;

/// A logical volume by its names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name {
    group: String,
    volume: String,
}

impl Name {
    /// Takes names that LVM would give.
    pub fn new(group: &str, volume: &str) -> Option<Self> {
        (is_name(group) && is_name(volume)).then(|| Self {
            group: group.to_owned(),
            volume: volume.to_owned(),
        })
    }

    /// The volume that `/dev/GROUP/VOLUME` names.
    pub fn of_path(path: &Path) -> Option<Self> {
        let (group, volume) = path.to_str()?.strip_prefix("/dev/")?.split_once('/')?;
        Self::new(group, volume)
    }

    /// The name of its group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Its name in the group.
    pub fn volume(&self) -> &str {
        &self.volume
    }

    /// `/dev/GROUP/VOLUME`, which lasts as long as the names do.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.group).join(&self.volume)
    }

    /// `GROUP/VOLUME`, as LVM's commands take it.
    fn word(&self) -> String {
        format!("{}/{}", self.group, self.volume)
    }
}

/// What lvm(8) allows: letters, digits and `+_.-`, not beginning with a dash, nor `.` or `..`.
fn is_name(name: &str) -> bool {
    const LONGEST: usize = 127;
    let bytes = name.as_bytes();
    (1..=LONGEST).contains(&bytes.len())
        && !matches!(name, "." | "..")
        && bytes.first() != Some(&b'-')
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+_.-".contains(byte))
}

/// A volume group, seen from one of its volumes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The unit in which space is given out, in bytes.
    pub extent_bytes: u64,
    /// How many of these are free.
    pub free_extents: u64,
    /// The name of the volume that was asked about.
    pub volume: String,
    /// That volume's size in bytes.
    pub volume_bytes: u64,
    /// The names of all volumes, LVM's hidden ones included.
    pub taken: Vec<String>,
}

impl Group {
    /// What is free, in bytes.
    pub fn free_bytes(&self) -> u64 {
        self.free_extents.saturating_mul(self.extent_bytes)
    }

    /// How many extents hold so many bytes, if so many are free.
    pub fn extents_for(&self, bytes: u64) -> Result<u64, LvmError> {
        let extents = bytes.div_ceil(self.extent_bytes).max(1);
        if extents > self.free_extents {
            return Err(LvmError::NoSpace {
                group: self.name.clone(),
                free_bytes: self.free_bytes(),
                needed_bytes: extents.saturating_mul(self.extent_bytes),
            });
        }
        Ok(extents)
    }
}

/// A logical volume to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Its names.
    pub name: Name,
    /// Its size, in bytes; LVM rounds it up to whole extents.
    pub bytes: u64,
    /// What tells whose it is.
    pub tags: Vec<String>,
}

/// A logical volume that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its names.
    pub name: Name,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Whether LVM's program is there.
pub fn installed() -> Result<(), LvmError> {
    Program::find().map(drop)
}

/// LVM's commands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lvm;

impl Lvm {
    /// The group that a logical volume is in, by the volume's device.
    pub fn group_of(self, device: &Path) -> Result<Group, LvmError> {
        let (group, identity) = identity_of(device)?;
        let listed = list(&Argv::list(&group))?;
        let own = listed
            .iter()
            .find(|one| one.group_uuid == identity.group && one.volume_uuid == identity.volume);
        let own = own.ok_or_else(|| LvmError::Answer {
            command: Argv::list(&group).to_string(),
            what: format!("{} is not in it", device.display()),
        })?;
        Ok(Group {
            name: own.name.group.clone(),
            extent_bytes: own.extent_bytes,
            free_extents: own.free_extents,
            volume: own.name.volume.clone(),
            volume_bytes: own.bytes,
            taken: listed.iter().map(|one| one.name.volume.clone()).collect(),
        })
    }

    /// The volume of a group that has a tag.
    pub fn find(self, group: &str, tag: &str) -> Result<Option<Found>, LvmError> {
        let listed = list(&Argv::list_tagged(group, tag))?;
        let found = listed.into_iter().find(|one| one.has_tag(tag));
        Ok(found.map(|one| Found {
            name: one.name,
            bytes: one.bytes,
        }))
    }

    /// Makes a volume out of free extents, active, with no signature and its beginning zeroed.
    ///
    /// On an error it may be there or not: [`Lvm::remove`] it by its tag.
    pub fn create(self, wanted: &Wanted) -> Result<(), LvmError> {
        Program::find()?.run(&Argv::create(wanted))?;
        let path = wanted.name.path();
        await_node(&path)?;
        zero_head(&path).map_err(|source| LvmError::Io { path, source })
    }

    /// Activates one volume.
    pub fn activate(self, name: &Name) -> Result<(), LvmError> {
        Program::find()?.run(&Argv::activate(name))?;
        await_node(&name.path())
    }

    /// Removes the volumes of a group that have a tag, which is none when there are none. One that
    /// is open stays, and that is an error.
    pub fn remove(self, group: &str, tag: &str) -> Result<(), LvmError> {
        Program::find()?.run(&Argv::remove(group, tag)).map(drop)
    }
}

/// The names in a report; `None` when it is none.
#[doc(hidden)]
pub fn names_in(report: &str) -> Option<Vec<Name>> {
    let listed = volumes_in(report).ok()?;
    Some(listed.into_iter().map(|one| one.name).collect())
}

fn list(argv: &Argv) -> Result<Vec<Listed>, LvmError> {
    let printed = Program::find()?.run(argv)?;
    volumes_in(&printed).map_err(|what| LvmError::Answer {
        command: argv.to_string(),
        what,
    })
}

/// LVM's identities of a volume and its group.
struct Identity {
    group: String,
    volume: String,
}

/// The name of the group and the identities, as the kernel has them of an active volume.
fn identity_of(device: &Path) -> Result<(String, Identity), LvmError> {
    let none = || LvmError::NotLogical {
        path: device.to_owned(),
    };
    let number = DeviceNumber::of_block_device(device).map_err(|source| LvmError::Io {
        path: device.to_owned(),
        source,
    })?;
    let number = number
        .filter(|number| super::dm::disk::is_dm(*number))
        .ok_or_else(none)?;
    let info = Control::open()?.info(Address::Number(number))?;
    let info = info.ok_or_else(none)?;
    let group = group_of_name(&info.name, &info.uuid).ok_or_else(none)?;
    let identity = identity_in(&info.uuid).ok_or_else(none)?;
    Ok((group, identity))
}

/// `LVM-` and both identities; what LVM hides has more after them.
fn identity_in(uuid: &str) -> Option<Identity> {
    let both = uuid.strip_prefix("LVM-")?;
    if both.len() != 2 * IDENTITY_LEN {
        return None;
    }
    let (group, volume) = both.split_at_checked(IDENTITY_LEN)?;
    Some(Identity {
        group: group.to_owned(),
        volume: volume.to_owned(),
    })
}

fn await_node(path: &Path) -> Result<(), LvmError> {
    let until = Instant::now() + NODE_WITHIN;
    while !matches!(DeviceNumber::of_block_device(path), Ok(Some(_))) {
        if Instant::now() >= until {
            return Err(LvmError::NoNode {
                path: path.to_owned(),
                within: NODE_WITHIN,
            });
        }
        sleep(NODE_STEP);
    }
    Ok(())
}

/// What lay in these extents before may have been an area: no part of it must be taken for one.
fn zero_head(path: &Path) -> io::Result<()> {
    let device = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_EXCL)
        .open(path)?;
    device.write_all_at(&[0; HEAD_BYTES], 0)?;
    device.sync_all()
}

#[cfg(test)]
mod tests;
