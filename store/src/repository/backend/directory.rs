//! A directory, local or on a network file system.
//!
//! An object is written under `tmp/`, flushed, linked to its name, which fails where the name is taken,
//! and its folder is flushed. A power cut at any point leaves the object whole or not there; what it
//! leaves in `tmp/` a later sweep removes. Between the link and the flush others see the object and a power
//! cut may take it away: who relies on it flushes the folder, too. The clock is that which stamps files: the server's on a network
//! file system.
//!
//! A folder that something was mounted on or unmounted from is another one: nothing is written to it, or a
//! disk that is not there would fill the one below it.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{Backend, Listed, StorageTime};
use crate::repository::{
    crypto::secret,
    format::name::{CONFIG, KEYS},
};

const TEMPORARY: &str = "tmp";
/// What is in `tmp/` for longer than this has no writer any more.
const STALE_SECONDS: u64 = 24 * 3600;

/// A repository in a directory.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    /// Device and inode of the root when it was first used.
    identity: OnceLock<(u64, u64)>,
}

impl Directory {
    /// The repository at `root`, which is made with a repository's first objects.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            identity: OnceLock::new(),
        }
    }

    /// Whether the root is there, and the one that it was.
    fn check(&self) -> io::Result<()> {
        let about = fs::metadata(&self.root)?;
        let found = (about.dev(), about.ino());
        if *self.identity.get_or_init(|| found) == found {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{} is another folder than when it was opened: was something mounted or unmounted there?",
            self.root.display()
        )))
    }

    /// The root is made with the first objects of a repository, and never again.
    fn make_root_for(&self, name: &str) -> io::Result<()> {
        match self.check() {
            Err(why)
                if why.kind() == ErrorKind::NotFound
                    && self.identity.get().is_none()
                    && (name == CONFIG || name.starts_with(KEYS)) =>
            {
                make_folder(&self.root)?;
                self.check()
            }
            other => other,
        }
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        let plain = name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.'));
        if !plain {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "not an object's name",
            ));
        }
        Ok(self.root.join(name))
    }

    /// A new file in `tmp/`, which is made when it is missing.
    fn temporary(&self) -> io::Result<(PathBuf, File)> {
        let random: [u8; 16] = secret::random().map_err(io::Error::other)?;
        let folder = self.root.join(TEMPORARY);
        let path = folder.join(crate::units::Id(random).to_string());
        let open = || {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
        };
        let file = match open() {
            Err(why) if why.kind() == ErrorKind::NotFound => {
                make_folder(&folder)?;
                open()
            }
            other => other,
        }?;
        Ok((path, file))
    }

    fn walk(&self, folder: &Path, name: &str, into: &mut Vec<Listed>) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Err(why) if why.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(part) = entry.file_name().into_string() else {
                continue;
            };
            let name = format!("{name}{part}");
            // What another host deletes meanwhile is not there.
            let about = match entry.metadata() {
                Err(why) if why.kind() == ErrorKind::NotFound => continue,
                other => other?,
            };
            if about.is_dir() {
                self.walk(&entry.path(), &format!("{name}/"), into)?;
            } else {
                into.push(listed(name, &about));
            }
        }
        Ok(())
    }
}

impl Backend for Directory {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name)?;
        self.make_root_for(name)?;
        let (temporary, mut file) = self.temporary()?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        let placed = written.and_then(|()| place(&temporary, &path));
        // The link stays; without one this is what undoes the attempt.
        match fs::remove_file(&temporary) {
            Err(why) if why.kind() != ErrorKind::NotFound && placed.is_ok() => return Err(why),
            _ => placed?,
        }
        sync_folder_of(&path)
    }

    fn read(&self, name: &str, max: u64) -> io::Result<Vec<u8>> {
        self.check()?;
        let file = File::open(self.path(name)?)?;
        let len = file.metadata()?.len();
        if len > max {
            let why = format!("{len} bytes, and at most {max} are expected");
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        file.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn read_range(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        File::open(self.path(name)?)?.read_exact_at(into, offset)
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<Listed>> {
        let mut found = Vec::new();
        self.walk(
            &self.path(prefix.trim_end_matches('/'))?,
            prefix,
            &mut found,
        )?;
        Ok(found)
    }

    fn stat(&self, name: &str) -> io::Result<Listed> {
        let about = fs::metadata(self.path(name)?)?;
        Ok(listed(name.to_owned(), &about))
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| sync_folder_of(&path)),
        }
    }

    fn hold(&self, names: &[String]) -> io::Result<()> {
        let mut folders = BTreeSet::new();
        for name in names {
            let path = self.path(name)?;
            let above = path.ancestors().skip(1);
            let ours = above.take_while(|folder| folder.starts_with(&self.root));
            folders.extend(ours.map(Path::to_owned));
        }
        // What is below first: a folder must not be there without what it holds.
        for folder in folders.iter().rev() {
            match File::open(folder).and_then(|folder| folder.sync_all()) {
                Err(why) if why.kind() != ErrorKind::NotFound => return Err(why),
                _ => {}
            }
        }
        Ok(())
    }

    fn now(&self) -> io::Result<StorageTime> {
        self.check()?;
        let (path, mut file) = self.temporary()?;
        // A network file system stamps with its server's clock only what its server wrote.
        let stamped = file.write_all(&[0]).and_then(|()| file.sync_all());
        let about = stamped.and_then(|()| file.metadata());
        fs::remove_file(path)?;
        about.map(|about| stamp(&about))
    }

    fn sweep(&self) -> io::Result<()> {
        let now = self.now()?;
        let mut left = Vec::new();
        self.walk(&self.root.join(TEMPORARY), "", &mut left)?;
        for file in left {
            if now.seconds_since(file.created) > STALE_SECONDS {
                fs::remove_file(self.root.join(TEMPORARY).join(file.name))?;
            }
        }
        Ok(())
    }
}

fn listed(name: String, about: &fs::Metadata) -> Listed {
    Listed {
        name,
        bytes: about.len(),
        created: stamp(about),
    }
}

fn stamp(about: &fs::Metadata) -> StorageTime {
    let seconds = u64::try_from(about.mtime()).unwrap_or(0);
    let nanoseconds = u64::try_from(about.mtime_nsec()).unwrap_or(0);
    StorageTime(seconds.saturating_mul(1_000_000) + nanoseconds / 1000)
}

/// Gives a whole file its name, unless that is taken.
fn place(temporary: &Path, path: &Path) -> io::Result<()> {
    match link(temporary, path) {
        Err(why) if why.kind() == ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), make_folder)?;
            link(temporary, path)
        }
        other => other,
    }
}

fn link(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        // A file system without hard links can still refuse to replace.
        Err(why)
            if matches!(
                why.raw_os_error(),
                Some(nix::libc::EPERM | nix::libc::EOPNOTSUPP)
            ) =>
        {
            let flags = RenameFlags::RENAME_NOREPLACE;
            renameat2(AT_FDCWD, temporary, AT_FDCWD, path, flags).map_err(io::Error::from)
        }
        other => other,
    }
}

/// Makes a folder and those above it, durably.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder
        .parent()
        .filter(|above| !above.as_os_str().is_empty())
    {
        make_folder(above)?;
    }
    match fs::create_dir(folder) {
        Err(why) if why.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }?;
    sync_folder_of(folder)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_gone_is_not_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("disk/repository");
        let early = Directory::new(&root);
        let refused = early.create("packs/a", b"a").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        early.create("keys/a", b"a").unwrap();
        early.create("packs/a", b"a").unwrap();

        // As when a disk is unmounted, and with it the mount point stays.
        let away = folder.path().join("away");
        fs::rename(&root, &away).unwrap();
        for name in ["packs/b", "keys/b", CONFIG] {
            early.create(name, b"b").unwrap_err();
        }
        early.now().unwrap_err();
        assert!(!root.exists());
        fs::create_dir(&root).unwrap();
        let refused = early.create("packs/b", b"b").unwrap_err();
        assert!(refused.to_string().contains("another folder"), "{refused}");
        early.read("packs/a", 9).unwrap_err();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);

        fs::remove_dir(&root).unwrap();
        fs::rename(&away, &root).unwrap();
        early.create("packs/b", b"b").unwrap();
    }
}
