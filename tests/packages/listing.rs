//! Every file of a tree, so that two moments can be compared.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use tidemark_tests::sources::complain;

/// What dpkg, apt and the dynamic linker write down about any package.
const BOOKS: [&str; 5] = [
    "var/lib/dpkg",
    "var/lib/apt",
    "var/cache",
    "var/log",
    "etc/ld.so.cache",
];

/// A tree: each path with its mode, owner and content.
#[derive(Debug)]
pub(crate) struct Listing(BTreeMap<PathBuf, String>);

impl Listing {
    /// Looks at all of it but what is mounted there.
    pub(crate) fn of(root: &Path) -> Self {
        let mut found = BTreeMap::new();
        walk(root, root, &mut found);
        Self(found)
    }

    /// Complains of what is not as in `before`, but for what is known, or lies below that: paths, each with
    /// its reason. `what` says whose tree it is.
    pub(crate) fn hold_against(&self, before: &Self, known: &[(&str, &str)], what: &str) {
        let is_known = |path: &str| {
            let mut known = known.iter();
            known.any(|(place, _)| Path::new(path).starts_with(place))
        };
        let changed = self.since(before).into_iter();
        let unexpected = changed.filter(|path| !is_known(path));
        complain(unexpected.map(|path| format!("{what}: /{path} is not as before")));
    }

    /// Paths that are new, gone or other than in `before`.
    fn since(&self, before: &Self) -> Vec<String> {
        let all = self.0.keys().chain(before.0.keys());
        let mut changed: Vec<_> = all
            .filter(|path| self.0.get(*path) != before.0.get(*path))
            .map(|path| path.display().to_string())
            .collect();
        changed.sort();
        changed.dedup();
        changed
    }
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        let inside = path.strip_prefix(root).expect("it was found there");
        if BOOKS.iter().any(|book| inside == Path::new(book)) {
            continue;
        }
        let about = entry.metadata().expect("what is listed can be asked about");
        let content = if about.is_symlink() {
            format!("{:?}", fs::read_link(&path).expect("a link"))
        } else if about.is_file() {
            blake3::hash(&fs::read(&path).expect("a file")).to_string()
        } else {
            String::new()
        };
        let owner = (about.uid(), about.gid());
        let line = format!("{:o} {owner:?} {content}", about.mode());
        found.insert(inside.to_owned(), line);
        if about.is_dir() {
            walk(root, &path, found);
        }
    }
}
