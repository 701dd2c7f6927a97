//! Debian's kernels by family: an image to boot, and the modules that a guest may want.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use super::{
    cache,
    packages::{Index, Package},
};
use crate::{programs::succeed, sources};

/// What stories use; with what these depend on.
const MODULES: [&str; 43] = [
    "virtio_blk",
    "virtio_pci",
    "virtio_rng",
    "ublk_drv",
    "dm_mod",
    "dm_snapshot",
    "dm_thin_pool",
    "dm_era",
    "dm_crypt",
    "dm_delay",
    "dm_flakey",
    "dm_log_writes",
    "dm_zero",
    "dm_mirror",
    "dm_raid",
    "dm_cache",
    "dm_cache_smq",
    "dm_writecache",
    "dm_integrity",
    "dm_multipath",
    "dm_service_time",
    "dm_round_robin",
    "dm_verity",
    "dm_clone",
    "null_blk",
    "brd",
    "loop",
    "nbd",
    "scsi_debug",
    "sd_mod",
    "fuse",
    "ext4",
    "xfs",
    "btrfs",
    "xts",
    "aesni_intel",
    "cbc",
    "sha256_generic",
    "af_alg",
    "algif_skcipher",
    "algif_hash",
    "zram",
    "ecb",
];

/// What no story can do without, in the kernel or beside it.
const NEEDED: [&str; 9] = [
    "virtio_blk",
    "ublk_drv",
    "dm_mod",
    "dm_snapshot",
    "dm_thin_pool",
    "null_blk",
    "brd",
    "xfs",
    "ext4",
];

/// Kernels that are tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// The long-term kernel of Debian 13: the oldest with all that we use.
    V6_12,
    /// The newest in Debian, 7.2 or later: zero copy, quiesce, size updates.
    V7_2,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::V6_12, Self::V7_2];

    /// Whether a version is of it.
    fn has(self, version: &str) -> bool {
        version.starts_with(&format!("{self}."))
    }

    /// The best of some versions, newest first: Debian's newest kernel moves on.
    fn choose(self, versions: &[Package]) -> Option<&Package> {
        let exact = versions.iter().find(|package| self.has(&package.version));
        match self {
            Self::V6_12 => exact,
            Self::V7_2 => exact.or(versions.first()),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V6_12 => "6.12",
            Self::V7_2 => "7.2",
        })
    }
}

impl FromStr for Family {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL
            .into_iter()
            .find(|family| family.to_string() == text);
        known
            .ok_or_else(|| format!("{text:?} is no kernel family that is tested; 6.12 and 7.2 are"))
    }
}

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its family.
    pub family: Family,
    /// The package's version.
    pub version: String,
    /// Its own name for itself, as uname tells it.
    pub release: String,
    /// What QEMU loads.
    pub image: PathBuf,
    /// A folder with `lib/modules/RELEASE`: modules unpacked, with their indexes.
    pub modules: PathBuf,
}

impl Kernel {
    /// The newest of a family, fetched when it is not there; one that was fetched earlier where no
    /// mirror answers. Panics with apt's words when there is neither.
    pub fn find(family: Family) -> Self {
        let found = Index::open().and_then(|index| {
            let package = resolve(&index, family)?;
            let folder = cache::folder("kernels").join(format!("{family}-{}", package.version));
            Ok(cache::ensure(&folder, |work| fetch(&index, &package, work)))
        });
        let folder = found.unwrap_or_else(|why| {
            let kept = kept(family);
            kept.unwrap_or_else(|| panic!("no kernel {family} can be had: {why}"))
        });
        Self::open(family, &folder)
    }

    fn open(family: Family, folder: &Path) -> Self {
        let name = folder.file_name().and_then(|name| name.to_str());
        let name = name.expect("names in the cache are UTF-8");
        let release = only_entry(&folder.join("lib/modules"));
        Self {
            family,
            version: name
                .split_once('-')
                .map_or(name, |(_, version)| version)
                .to_owned(),
            release,
            image: folder.join("vmlinuz"),
            modules: folder.to_owned(),
        }
    }
}

impl Kernel {
    /// The file of a module that may be built in instead; None when it is.
    pub fn module(&self, name: &str) -> Option<PathBuf> {
        let folder = self.modules.join("lib/modules").join(&self.release);
        let list = sources::read(&folder.join("modules.dep"));
        let mut paths = list
            .lines()
            .filter_map(|line| Some(line.split_once(':')?.0));
        let path = paths.find(|path| module_name(path) == name)?;
        Some(folder.join(path))
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux {} (Debian {})", self.release, self.version)
    }
}

/// The image package of a family: of the flavour for virtual machines, else of the plain one.
fn resolve(index: &Index, family: Family) -> Result<Package, String> {
    for meta in ["linux-image-cloud-amd64", "linux-image-amd64"] {
        let versions = index.versions(meta);
        let Some(chosen) = family.choose(&versions) else {
            continue;
        };
        let image = chosen
            .depends
            .iter()
            .find(|name| name.starts_with("linux-image-"));
        let exact = image.and_then(|name| of_version(index, name, &chosen.version));
        if let Some(package) = exact {
            return Ok(package);
        }
    }
    Err(format!("the package index has no kernel {family}"))
}

fn of_version(index: &Index, name: &str, version: &str) -> Option<Package> {
    let mut versions = index.versions(name).into_iter();
    versions.find(|package| package.version == version)
}

/// A kernel that was fetched earlier, the latest to come.
fn kept(family: Family) -> Option<PathBuf> {
    let entries = fs::read_dir(cache::folder("kernels")).ok()?;
    let ours = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.starts_with(&format!("{family}-")))
    });
    ours.max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok())
        .map(|entry| entry.path())
}

/// Fetches a kernel and leaves in `into` its image and the modules that we use.
fn fetch(index: &Index, image: &Package, into: &Path) {
    println!("fetching {} {}", image.name, image.version);
    let mut packages = vec![image.clone()];
    for name in image.depends.iter().filter(|name| is_part(name)) {
        let part = of_version(index, name, &image.version);
        packages.push(part.unwrap_or_else(|| panic!("the package index has no {name}")));
    }
    let tree = into.with_extension("tree");
    index.unpack(&packages.iter().collect::<Vec<_>>(), &tree);
    if !tree.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", tree.join("lib")).expect("a link can be made");
    }
    fs::create_dir_all(into).unwrap_or_else(|e| panic!("{}: {e}", into.display()));
    let release = only_entry(&tree.join("lib/modules"));
    copy(&image_in(&tree, &release), &into.join("vmlinuz"));
    take_modules(&tree, &release, into);
    fs::remove_dir_all(&tree).unwrap_or_else(|e| panic!("{}: {e}", tree.display()));
}

/// Newer kernels are split, and what the image itself holds is then nothing: the binary is what
/// boots, and the list of what is built in comes with the base.
fn is_part(name: &str) -> bool {
    ["linux-base-", "linux-binary-", "linux-modules-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn image_in(tree: &Path, release: &str) -> PathBuf {
    let places = [
        tree.join(format!("boot/vmlinuz-{release}")),
        tree.join(format!("lib/modules/{release}/vmlinuz")),
    ];
    let found = places.iter().find(|path| path.exists());
    found
        .unwrap_or_else(|| panic!("no image in {places:?}"))
        .clone()
}

/// Copies modules with what they depend on, unpacked: neither busybox nor a guest without a
/// decompressor could load them otherwise, and under emulation each unpacking costs seconds.
fn take_modules(tree: &Path, release: &str, into: &Path) {
    succeed(Command::new("depmod").arg("-b").arg(tree).arg(release));
    let from = tree.join("lib/modules").join(release);
    let to = into.join("lib/modules").join(release);
    let wanted = with_dependencies(&sources::read(&from.join("modules.dep")), &MODULES);
    let builtin = sources::read(&from.join("modules.builtin"));
    for name in NEEDED {
        let there = wanted.iter().any(|path| module_name(path) == name)
            || builtin.lines().any(|path| module_name(path) == name);
        assert!(there, "kernel {release} comes without {name}");
    }
    for path in &wanted {
        let target = to.join(path);
        fs::create_dir_all(target.parent().expect("a module lies in a folder"))
            .expect("a folder can be made");
        copy(&from.join(path), &target);
        match target.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => drop(succeed(Command::new("xz").arg("-d").arg(&target))),
            Some("zst") => drop(succeed(
                Command::new("zstd").args(["-q", "-d", "--rm"]).arg(&target),
            )),
            _ => {}
        }
    }
    for index in [
        "modules.order",
        "modules.builtin",
        "modules.builtin.modinfo",
    ] {
        copy(&from.join(index), &to.join(index));
    }
    succeed(Command::new("depmod").arg("-b").arg(into).arg(release));
}

/// Paths of modules and all that they depend on, by depmod's own list.
fn with_dependencies(dependencies: &str, names: &[&str]) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for line in dependencies.lines() {
        let Some((path, needs)) = line.split_once(':') else {
            continue;
        };
        if names.contains(&module_name(path).as_str()) {
            paths.insert(path.to_owned());
            paths.extend(needs.split_whitespace().map(str::to_owned));
        }
    }
    paths
}

/// `kernel/drivers/md/dm-mod.ko.xz` is dm_mod.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split(".ko").next().unwrap_or(file);
    stem.replace('-', "_")
}

fn only_entry(folder: &Path) -> String {
    let entry = fs::read_dir(folder)
        .ok()
        .and_then(|mut entries| entries.next()?.ok());
    let entry = entry.unwrap_or_else(|| panic!("{} is empty", folder.display()));
    entry
        .file_name()
        .into_string()
        .expect("kernel names are UTF-8")
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|e| panic!("{} to {}: {e}", from.display(), to.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(version: &str) -> Package {
        Package {
            name: "linux-image-cloud-amd64".into(),
            version: version.into(),
            depends: Vec::new(),
        }
    }

    #[test]
    fn a_family_is_not_taken_for_another() {
        let versions = [
            "7.20.1-1",
            "7.2.13-1",
            "7.2.12-1~bpo13+1",
            "6.12.107-1",
            "6.1.5-1",
        ]
        .map(package);
        let chosen = |family: Family| family.choose(&versions).map(|found| found.version.as_str());
        assert_eq!(chosen(Family::V7_2), Some("7.2.13-1"));
        assert_eq!(chosen(Family::V6_12), Some("6.12.107-1"));
    }

    #[test]
    fn the_newest_serves_when_debian_has_moved_on() {
        let versions = ["7.4.1-1", "6.12.107-1"].map(package);
        let newest = Family::V7_2.choose(&versions);
        assert_eq!(newest.map(|found| found.version.as_str()), Some("7.4.1-1"));
        assert_eq!(Family::V6_12.choose(&versions[..1]), None);
    }

    #[test]
    fn modules_come_with_what_they_need() {
        let list = "kernel/drivers/md/dm-snapshot.ko.xz: kernel/drivers/md/dm-bufio.ko.xz \
                    kernel/drivers/md/dm-mod.ko.xz\nkernel/drivers/md/dm-era.ko.xz:\n";
        let found = with_dependencies(list, &["dm_snapshot"]);
        let names: Vec<_> = found.iter().map(|path| module_name(path)).collect();
        assert_eq!(names, ["dm_bufio", "dm_mod", "dm_snapshot"]);
    }
}
