//! Real files for the demo: a copy of a directory tree, and changes to it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::context::Interrupt;

/// Trees that nearly every host has, the best first.
const TREES: [&str; 4] = [
    "/usr/share/doc",
    "/usr/lib/python3",
    "/usr/share",
    "/usr/lib",
];
/// One file in so many is edited, grows, or goes.
const EDITED: usize = 13;
const APPENDED: usize = 29;
const DELETED: usize = 17;
/// What is written into the middle of an edited file.
const EDIT: &[u8] = b"-- edited while the volume was being pulled --";

/// What was copied.
#[derive(Debug)]
pub(super) struct Copied {
    /// From where.
    pub(super) from: PathBuf,
    /// The copies, in the order they were made.
    pub(super) files: Vec<PathBuf>,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// What was changed.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) edited: usize,
    pub(super) appended: usize,
    pub(super) deleted: usize,
    pub(super) added: usize,
}

/// Copies up to `budget` bytes of `tree`, or of the first usual one, to `to`.
pub(super) fn copy(
    tree: Option<&Path>,
    to: &Path,
    budget: u64,
    interrupt: &Interrupt,
) -> anyhow::Result<Copied> {
    let from = match tree {
        Some(tree) => tree.to_owned(),
        None => TREES
            .iter()
            .map(PathBuf::from)
            .find(|tree| holds_something(tree))
            .context("no directory tree to copy was found; name one with --tree")?,
    };
    let mut copied = Copied {
        from: from.clone(),
        files: Vec::new(),
        bytes: 0,
    };
    let mut left = vec![(from, to.to_owned())];
    while let Some((from, to)) = left.pop() {
        fs::create_dir_all(&to).with_context(|| to.display().to_string())?;
        let mut entries: Vec<_> = fs::read_dir(&from)
            .with_context(|| from.display().to_string())?
            .flatten()
            .collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if interrupt.is_set() {
                return Err(crate::exit::Fault::interrupted().into());
            }
            let target = to.join(entry.file_name());
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                left.push((entry.path(), target));
            } else if metadata.is_file() && copied.bytes + metadata.len() <= budget {
                copied.bytes += copy_file(&entry.path(), &target)?;
                copied.files.push(target);
            }
        }
    }
    if copied.files.is_empty() {
        bail!("{} holds no file that fits", copied.from.display());
    }
    Ok(copied)
}

fn holds_something(tree: &Path) -> bool {
    fs::read_dir(tree).is_ok_and(|mut entries| entries.next().is_some())
}

/// A file that cannot be read is passed over; one that cannot be written is an error.
fn copy_file(from: &Path, to: &Path) -> anyhow::Result<u64> {
    let Ok(mut source) = fs::File::open(from) else {
        return Ok(0);
    };
    let context = || to.display().to_string();
    let mut target = fs::File::create(to).with_context(context)?;
    io::copy(&mut source, &mut target).with_context(context)
}

/// Edits, lengthens, deletes and adds files; each kind is spread over the tree.
pub(super) fn change(copied: &Copied, to: &Path, interrupt: &Interrupt) -> anyhow::Result<Changed> {
    let mut changed = Changed::default();
    for (number, path) in copied.files.iter().enumerate() {
        if interrupt.is_set() {
            return Err(crate::exit::Fault::interrupted().into());
        }
        let context = || path.display().to_string();
        let file = || OpenOptions::new().write(true).open(path);
        if number % DELETED == 0 {
            fs::remove_file(path).with_context(context)?;
            changed.deleted += 1;
        } else if number % EDITED == 0 {
            let file = file().with_context(context)?;
            let middle = file.metadata().with_context(context)?.len() / 2;
            file.write_all_at(EDIT, middle).with_context(context)?;
            changed.edited += 1;
        } else if number % APPENDED == 0 {
            let mut file = OpenOptions::new()
                .append(true)
                .open(path)
                .with_context(context)?;
            file.write_all(&EDIT.repeat(100)).with_context(context)?;
            changed.appended += 1;
        }
    }
    for number in 0..copied.files.len().div_ceil(100) {
        let path = to.join(format!("new-{number}.txt"));
        fs::write(&path, EDIT.repeat(200)).with_context(|| path.display().to_string())?;
        changed.added += 1;
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_copied_within_its_budget_and_changed() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from/deep");
        fs::create_dir_all(&from).unwrap();
        for number in 0..60 {
            fs::write(from.join(format!("{number:02}")), vec![1; 1000]).unwrap();
        }
        std::os::unix::fs::symlink("/", from.join("link")).unwrap();
        let (_tell, interrupt) = Interrupt::manual();
        let to = dir.path().join("to");
        let copied = copy(Some(&dir.path().join("from")), &to, 50_500, &interrupt).unwrap();
        assert_eq!((copied.files.len(), copied.bytes), (50, 50_000));
        let changed = change(&copied, &to, &interrupt).unwrap();
        assert_eq!(
            (
                changed.deleted,
                changed.edited,
                changed.appended,
                changed.added
            ),
            (3, 3, 1, 1)
        );
    }

    #[test]
    fn an_empty_tree_is_told_and_an_interrupt_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let (tell, interrupt) = Interrupt::manual();
        let to = dir.path().join("to");
        assert!(copy(Some(&dir.path().join("none")), &to, 1, &interrupt).is_err());
        fs::write(dir.path().join("f"), "x").unwrap();
        tell.send_replace(1);
        let error = copy(Some(dir.path()), &dir.path().join("t"), 1, &interrupt).unwrap_err();
        assert!(error.to_string().contains("interrupted"));
    }
}
