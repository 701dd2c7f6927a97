//! LVM's own lock of a volume group.
//!
//! An LVM command reads the metadata, loads tables, suspends and resumes, and holds this lock
//! all the while. Whoever changes a logical volume's table meanwhile can have his table taken
//! for LVM's, or the other way round. So we take the lock as LVM's commands do.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

/// LVM's built-in `locking_dir`.
const LOCK_DIR: &str = "/run/lock/lvm";
/// How often a lock that another has is tried again, and how long that makes: 30 s. A command
/// that waits for its user to answer a question may hold it for ever.
const TRIES: u32 = 600;
const PAUSE: Duration = Duration::from_millis(50);

/// The lock of a volume group, for as long as this lives.
#[derive(Debug)]
pub struct GroupLock {
    _file: File,
}

/// Why the lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum GroupLockError {
    /// An LVM command has it.
    #[error(
        "an LVM command is at work on the volume group {group} and holds {path}; try again when \
         it has ended"
    )]
    Busy {
        /// The group's name.
        group: String,
        /// The lock file.
        path: PathBuf,
    },
    /// The lock file cannot be used.
    #[error("LVM's lock {path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl GroupLock {
    /// Takes the lock of the group that a logical volume is in. `None` when the device is none
    /// of LVM's, or LVM keeps no locks at its usual place.
    pub fn of_device(name: &str, uuid: &str) -> Result<Option<Self>, GroupLockError> {
        let dir = Path::new(LOCK_DIR);
        match group_of_name(name, uuid) {
            Some(group) if dir.is_dir() => Self::take(dir, &group, TRIES).map(Some),
            _ => Ok(None),
        }
    }

    fn take(dir: &Path, group: &str, tries: u32) -> Result<Self, GroupLockError> {
        let path = dir.join(format!("V_{group}"));
        let failed = |source| GroupLockError::Io {
            path: path.clone(),
            source,
        };
        for attempt in 0..tries {
            if attempt > 0 {
                sleep(PAUSE);
            }
            let file = File::options()
                .read(true)
                .append(true)
                .create(true)
                .open(&path)
                .map_err(failed)?;
            match file.try_lock() {
                // LVM removes the file when it lets go: what we locked may have no name now.
                Ok(()) if is_still(&file, &path) => return Ok(Self { _file: file }),
                Ok(()) | Err(TryLockError::WouldBlock) => (),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        Err(GroupLockError::Busy {
            group: group.to_owned(),
            path,
        })
    }
}

fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => ours.ino() == theirs.ino() && ours.dev() == theirs.dev(),
        _ => false,
    }
}

/// The group in `GROUP-VOLUME`, where LVM doubles dashes that belong to a name. `None` when the
/// device is none of LVM's.
pub fn group_of_name(name: &str, uuid: &str) -> Option<String> {
    if !uuid.starts_with("LVM-") {
        return None;
    }
    let mut group = String::new();
    let mut rest = name.chars().peekable();
    while let Some(character) = rest.next() {
        if character == '-' && rest.next_if_eq(&'-').is_none() {
            return (!group.is_empty()).then_some(group);
        }
        group.push(character);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_told_from_the_volume() {
        let group = |name| group_of_name(name, "LVM-abc");
        assert_eq!(group("vg-root").as_deref(), Some("vg"));
        assert_eq!(group("my--vg-a--b").as_deref(), Some("my-vg"));
        assert_eq!(group("vg---x").as_deref(), Some("vg-"));
        assert_eq!(group("nodash"), None);
        assert_eq!(group("-x"), None);
        assert_eq!(group_of_name("vg-root", "CRYPT-LUKS2-x"), None);
    }

    #[test]
    fn one_at_a_time_has_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let held = GroupLock::take(folder.path(), "vg", 1).unwrap();
        let refused = GroupLock::take(folder.path(), "vg", 2);
        assert!(matches!(refused, Err(GroupLockError::Busy { .. })));
        drop(held);
        GroupLock::take(folder.path(), "vg", 1).unwrap();
    }

    #[test]
    fn a_lock_file_that_was_replaced_is_not_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("V_vg");
        let file = File::create(&path).unwrap();
        assert!(is_still(&file, &path));
        fs::remove_file(&path).unwrap();
        assert!(!is_still(&file, &path));
    }
}
