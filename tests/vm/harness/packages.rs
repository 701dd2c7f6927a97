//! Packages of Debian suites that the host itself does not use.
//!
//! apt works here on lists, sources and a status of its own, so that the host's stay untouched;
//! nothing is installed. The mirror is the one that the host is set up with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use super::cache;
use crate::programs::{printed, run, succeed};

/// Where Debian is when the host's own sources do not say.
const PUBLIC_MIRROR: &str = "http://deb.debian.org/debian";
/// What Debian's own packages are signed with.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where kernels come from: those of the next release, of its backports, and the newest.
const SUITES: &str = "trixie trixie-backports sid";
/// For how long a fetched index is good. A kernel of yesterday serves a test as well.
const INDEX_LIFE: Duration = Duration::from_secs(24 * 3600);

/// One package in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, as Debian writes it.
    pub version: String,
    /// Names of packages that it depends on, of alternatives the first.
    pub depends: Vec<String>,
}

/// An index of the suites.
#[derive(Debug)]
pub struct Index {
    root: PathBuf,
}

impl Index {
    /// The kept index, fetched again when it is old. An old one serves where no mirror answers;
    /// without one either, the error is apt's own words.
    pub fn open() -> Result<Self, String> {
        let index = Self {
            root: cache::folder("apt"),
        };
        let _lock = cache::Lock::take();
        let fetched = index.root.join("fetched");
        let age = fs::metadata(&fetched)
            .and_then(|file| file.modified())
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_some_and(|age| age < INDEX_LIFE) {
            return Ok(index);
        }
        match index.update() {
            Ok(()) => fs::write(&fetched, "").map_err(|e| format!("{}: {e}", fetched.display()))?,
            Err(why) if age.is_none() => return Err(why),
            Err(why) => eprintln!("an older package index is used: {why}"),
        }
        Ok(index)
    }

    fn update(&self) -> Result<(), String> {
        for folder in ["sources", "state/lists/partial", "cache/archives/partial"] {
            let folder = self.root.join(folder);
            fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        let sources = format!(
            "Types: deb\nURIs: {}\nSuites: {SUITES}\nComponents: main\nSigned-By: {KEYRING}\n",
            mirror()
        );
        for (name, text) in [("sources/vm.sources", sources), ("status", String::new())] {
            let path = self.root.join(name);
            fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        let output = run(self.apt("apt-get").args(["update", "--error-on=any"]));
        if output.status.success() {
            return Ok(());
        }
        Err(format!(
            "apt-get update of {SUITES} ended with {}:\n{}",
            output.status,
            printed(&output)
        ))
    }

    /// apt on the private state. Options on the command line go over the host's settings.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = |name: &str| self.root.join(name).display().to_string();
        for (option, value) in [
            ("Dir::State", path("state")),
            ("Dir::State::status", path("status")),
            ("Dir::Cache", path("cache")),
            ("Dir::Etc::SourceList", "/dev/null".into()),
            ("Dir::Etc::SourceParts", path("sources")),
            ("Dir::Etc::Preferences", "/dev/null".into()),
            ("Dir::Etc::PreferencesParts", "/dev/null".into()),
            ("Acquire::Languages", "none".into()),
            ("APT::Architecture", "amd64".into()),
            ("APT::Sandbox::User", "root".into()),
        ] {
            command.args(["-o", &format!("{option}={value}")]);
        }
        // Lists that only graphical package managers read.
        for target in [
            "DEP-11",
            "DEP-11-icons",
            "DEP-11-icons-small",
            "Contents-deb",
        ] {
            let option = format!("Acquire::IndexTargets::deb::{target}::DefaultEnabled=false");
            command.args(["-o", &option]);
        }
        command.env("LC_ALL", "C");
        command
    }

    /// Every version of a package, newest first.
    pub fn versions(&self, name: &str) -> Vec<Package> {
        let output = run(self.apt("apt-cache").args(["show", name]));
        stanzas(&String::from_utf8_lossy(&output.stdout))
    }

    /// Fetches packages and unpacks them into one folder.
    pub fn unpack(&self, packages: &[&Package], into: &Path) {
        let debs = into.with_extension("debs");
        fs::create_dir_all(&debs).unwrap_or_else(|e| panic!("{}: {e}", debs.display()));
        let wanted = packages
            .iter()
            .map(|package| format!("{}={}", package.name, package.version));
        succeed(
            self.apt("apt-get")
                .args(["download", "--quiet"])
                .args(wanted)
                .current_dir(&debs),
        );
        for deb in crate::sources::files(&debs, "deb") {
            succeed(Command::new("dpkg").arg("-x").arg(deb).arg(into));
        }
        fs::remove_dir_all(&debs).unwrap_or_else(|e| panic!("{}: {e}", debs.display()));
    }
}

/// The mirror of the host's own sources, or the public one.
pub fn mirror() -> String {
    let output = run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
    ]));
    mirror_of(&String::from_utf8_lossy(&output.stdout)).unwrap_or_else(|| PUBLIC_MIRROR.to_owned())
}

/// The first source that ends as Debian's main archive does on every mirror.
fn mirror_of(uris: &str) -> Option<String> {
    uris.lines()
        .map(|uri| uri.trim().trim_end_matches('/'))
        .find(|uri| uri.ends_with("/debian"))
        .map(str::to_owned)
}

/// Reads what apt-cache shows.
fn stanzas(text: &str) -> Vec<Package> {
    let field = |stanza: &str, name: &str| {
        let lines = &mut stanza.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
    };
    text.split("\n\n")
        .filter_map(|stanza| {
            let depends = field(stanza, "Depends").unwrap_or_default();
            Some(Package {
                name: field(stanza, "Package")?,
                version: field(stanza, "Version")?,
                depends: depends
                    .split(", ")
                    .filter_map(|entry| entry.split([' ', '|', ':']).next())
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_shows_is_read() {
        let text = "Package: linux-image-cloud-amd64\nVersion: 7.2.13-1\nDepends: \
                    linux-base-cloud-amd64 (= 7.2.13-1), linux-image-7.2.13-cloud-amd64 (= \
                    7.2.13-1)\n\nPackage: other\nVersion: 1:2\nDepends: dracut | \
                    initramfs-tools (>= 0.120)\n\n";
        let found = stanzas(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].version, "7.2.13-1");
        assert_eq!(
            found[0].depends,
            ["linux-base-cloud-amd64", "linux-image-7.2.13-cloud-amd64"]
        );
        assert_eq!(found[1].depends, ["dracut"]);
        assert!(stanzas("N: Unable to locate package\n").is_empty());
    }

    #[test]
    fn the_hosts_mirror_is_taken_and_no_other_source() {
        let uris = "https://packages.example/apt/\nhttp://mirror.example/debian-security/\n\
                    http://mirror.example/debian/\n";
        assert_eq!(
            mirror_of(uris).as_deref(),
            Some("http://mirror.example/debian")
        );
        assert_eq!(mirror_of(""), None);
    }
}
