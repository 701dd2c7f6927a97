//! Which volumes are served, told without the daemon.
//!
//! A volume server holds its lock for as long as it lives, and each has told in one line how its start
//! went. Where systemd starts servers, their arguments are kept in a file each.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{text::plain, units};

/// The longest line of outcome that is read, in bytes.
const MAX_OUTCOME: usize = 8 << 10;
/// In a volume's arguments: it is served before file systems are mounted.
const EARLY: &str = "--early";

/// A volume of this host.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Volume {
    /// Its name.
    pub(crate) name: String,
    /// A process holds its lock: requests are served.
    pub(crate) served: bool,
    /// systemd starts its server, and with this before file systems are mounted.
    pub(crate) unit: Option<Unit>,
    /// How the last start of its server went, where systemd started it.
    pub(crate) outcome: Option<Outcome>,
}

impl Volume {
    /// As JSON.
    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "served": self.served,
            "by_unit": self.unit.is_some(),
            "early": self.unit.is_some_and(|unit| unit.early),
            "outcome": self.outcome.as_ref().map(|outcome| json!({
                "at": units::moment(outcome.at),
                "reason": outcome.failure.as_ref().map(|(reason, _)| reason),
                "message": outcome.failure.as_ref().map(|(_, message)| message),
            })),
        })
    }
}

/// What systemd knows of a volume's server.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Unit {
    /// It is started before file systems are mounted.
    pub(crate) early: bool,
}

/// How a start of a server went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    /// When, in seconds since the UNIX epoch.
    pub(crate) at: u64,
    /// Why it failed: the reason's name and a sentence. Nothing: it serves, or has not said yet.
    pub(crate) failure: Option<(String, String)>,
}

/// Where these are told.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    runtime_dir: PathBuf,
    arguments: PathBuf,
}

impl Places {
    /// Of the daemon behind `socket`, whose configuration is `config`.
    pub(crate) fn of(socket: &Path, config: &Path) -> Self {
        let folder = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
        Self {
            runtime_dir: folder(socket),
            arguments: folder(config).join("volumes"),
        }
    }

    /// The daemon's folder of sockets and locks.
    pub(crate) fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    /// The folder of the files of arguments.
    pub(crate) fn arguments(&self) -> &Path {
        &self.arguments
    }

    /// A volume's outcome: /run/tidemark-NAME.outcome.
    pub(crate) fn outcome(&self, name: &str) -> PathBuf {
        let mut path = self.runtime_dir.clone().into_os_string();
        path.push(format!("-{name}.outcome"));
        path.into()
    }

    /// What a server that no unit started logs.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.runtime_dir.join("volumes").join(name).join("log")
    }

    /// Every volume that any of these tells of, by name.
    pub(crate) fn volumes(&self) -> Vec<Volume> {
        let mut all = BTreeMap::<String, Volume>::new();
        for name in names(&self.runtime_dir.join("volumes"), "", "") {
            all.entry(name).or_default();
        }
        for name in names(&self.arguments, "", ".args") {
            let text = fs::read_to_string(self.arguments.join(format!("{name}.args")));
            let early = text.is_ok_and(|text| text.lines().any(|word| word == EARLY));
            all.entry(name).or_default().unit = Some(Unit { early });
        }
        if let (Some(parent), Some(prefix)) =
            (self.runtime_dir.parent(), self.runtime_dir.file_name())
        {
            let prefix = format!("{}-", prefix.to_string_lossy());
            for name in names(parent, &prefix, ".outcome") {
                all.entry(name).or_default();
            }
        }
        for (name, volume) in &mut all {
            volume.name.clone_from(name);
            volume.outcome = read_outcome(&self.outcome(name)).ok();
            let lock = self.runtime_dir.join("volumes").join(name).join("lock");
            volume.served = is_locked(&lock);
        }
        all.into_values().collect()
    }
}

/// Names in a folder, without what stands around them; none where it cannot be read.
fn names(folder: &Path, prefix: &str, suffix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let name = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
            tidemark_config::names::is_name(name).then(|| name.to_owned())
        })
        .collect()
}

/// Whether a process holds a lock file. It is looked up instead of tried, which could keep a server from
/// starting.
pub(crate) fn is_locked(lock: &Path) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let Ok(found) = fs::metadata(lock) else {
        return false;
    };
    let device = found.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let id = format!("{major:02x}:{minor:02x}:{}", found.ino());
    locks
        .lines()
        .any(|line| line.contains(" FLOCK ") && line.split(' ').any(|word| word == id))
}

fn read_outcome(path: &Path) -> io::Result<Outcome> {
    let found = fs::metadata(path)?;
    let mut text = fs::read_to_string(path)?;
    if let Some((at, _)) = text.char_indices().find(|(at, _)| *at >= MAX_OUTCOME) {
        text.truncate(at);
    }
    let modified = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(Outcome {
        at: modified
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        failure: failure(&text),
    })
}

/// `error REASON a sentence`.
fn failure(text: &str) -> Option<(String, String)> {
    let line = text.lines().next()?.strip_prefix("error ")?;
    let (reason, message) = line.split_once(' ')?;
    Some((plain(reason), plain(message)))
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{Flock, FlockArg};

    use super::*;

    #[test]
    fn what_is_left_on_the_host_tells_which_volumes_are_served() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::of(
            &dir.path().join("run/tidemark.sock"),
            &dir.path().join("etc/tidemark.toml"),
        );
        for folder in ["run/volumes/home", "run/volumes/var", "etc/volumes"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        fs::write(
            dir.path().join("etc/volumes/home.args"),
            "--name\nhome\n--early\n",
        )
        .unwrap();
        fs::write(dir.path().join("run-home.outcome"), "ready wwid x\n").unwrap();
        fs::write(
            dir.path().join("run-old.outcome"),
            "error ORIGIN_IN_USE the origin is mounted\n",
        )
        .unwrap();
        fs::write(dir.path().join("run-.outcome"), "").unwrap();
        let lock = fs::File::create(dir.path().join("run/volumes/home/lock")).unwrap();
        let held = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        let volumes = places.volumes();
        let told: Vec<_> = volumes
            .iter()
            .map(|one| (one.name.as_str(), one.served, one.unit))
            .collect();
        let early = Some(Unit { early: true });
        assert_eq!(
            told,
            [
                ("home", true, early),
                ("old", false, None),
                ("var", false, None)
            ]
        );
        assert_eq!(volumes[0].outcome.as_ref().unwrap().failure, None);
        let why = volumes[1].outcome.as_ref().unwrap().failure.clone();
        assert_eq!(
            why.unwrap(),
            (
                "ORIGIN_IN_USE".to_owned(),
                "the origin is mounted".to_owned()
            )
        );
        drop(held);
        assert!(!places.volumes()[0].served);
    }
}
