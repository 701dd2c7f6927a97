//! The configuration, and room where things are kept.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use tidemark_config::{Area, Configuration, LoadError, Location};

use super::check::{Check, Level};
use crate::{cmd::status::overview::Overview, output::counted, units};

/// A catalog of thousands of snapshots fits several times over.
const STATE_NEEDS_BYTES: u64 = 64 << 20;
/// A file system with less left will be full soon.
const LOW_PER_CENT: u128 = 5;

/// All of these.
pub(super) fn checks(
    configuration: &Result<Configuration, LoadError>,
    state_dir: &Path,
    overview: &Overview,
) -> Vec<Check> {
    let mut checks = of_configuration(configuration, &overview.config);
    checks.extend(state(state_dir));
    checks.extend(
        places(configuration, overview)
            .into_iter()
            .filter_map(|(what, path)| filling(&what, &path)),
    );
    checks
}

/// One line for each thing that is wrong with it.
fn of_configuration(read: &Result<Configuration, LoadError>, path: &Path) -> Vec<Check> {
    let file = path.display();
    let name = "configuration";
    match read {
        Ok(read) => vec![Check::ok(
            name,
            format!(
                "{file}: {}, {}",
                counted(read.volumes.len() as u64, "volume"),
                counted(read.backups.len() as u64, "schedule")
            ),
        )],
        Err(LoadError::Missing(_)) => vec![Check::ok(
            name,
            format!("there is no {file}; none is needed"),
        )],
        Err(LoadError::Wrong(wrong)) => wrong
            .lines()
            .map(|line| Check::missing(name, line, format!("tidemark config check {file}")))
            .collect(),
        Err(error @ LoadError::Writable(_)) => {
            vec![Check::missing(
                name,
                error.to_string(),
                format!("chmod go-w {file}"),
            )]
        }
        Err(error @ LoadError::Io(..)) => {
            vec![Check::missing(
                name,
                error.to_string(),
                "sudo tidemark doctor",
            )]
        }
    }
}

/// The daemon's directory needs room, or nothing is remembered.
fn state(path: &Path) -> Vec<Check> {
    let name = "state";
    let shown = path.display();
    match room(path) {
        Ok(room) if room.free_bytes < STATE_NEEDS_BYTES => vec![Check::missing(
            name,
            format!("{shown} has {} left", units::bytes(room.free_bytes)),
            format!("make room: df -h {shown}"),
        )],
        Ok(room) => vec![Check::ok(
            name,
            format!("{shown} has {} left", units::bytes(room.free_bytes)),
        )],
        Err(nix::errno::Errno::ENOENT) => vec![Check::advice(
            name,
            format!("{shown} is not there: the daemon makes it when it starts"),
            "start the daemon, or name its directory with --state-dir",
        )],
        Err(error) => vec![Check::missing(
            name,
            format!("{shown}: {error}"),
            "sudo tidemark doctor",
        )],
    }
}

struct Room {
    free_bytes: u64,
    all_bytes: u64,
}

fn room(path: &Path) -> nix::Result<Room> {
    let found = statvfs(path)?;
    let unit = found.fragment_size();
    Ok(Room {
        free_bytes: found.blocks_available().saturating_mul(unit),
        all_bytes: found.blocks().saturating_mul(unit),
    })
}

/// Where areas and repositories are, as far as they are files of this host.
fn places(
    configuration: &Result<Configuration, LoadError>,
    overview: &Overview,
) -> Vec<(String, PathBuf)> {
    let mut all = Vec::new();
    if let Some(told) = overview.told() {
        for volume in &told.volumes {
            let area = volume.store.as_ref().map(|store| store.area_path.clone());
            all.push((
                format!("area of {}", volume.name),
                area.unwrap_or_default().into(),
            ));
        }
        for one in &told.repositories {
            all.push((
                format!("repository {}", one.name),
                one.location.clone().into(),
            ));
        }
    } else if let Ok(read) = configuration {
        for (name, volume) in &read.volumes {
            if let Area::At(path) = &volume.area {
                all.push((format!("area of {name}"), path.clone()));
            }
        }
        for (name, repository) in &read.repositories {
            if let Location::Directory(path) = &repository.location {
                all.push((format!("repository {name}"), path.clone()));
            }
        }
    }
    all.retain(|(_, path)| path.is_file() || path.is_dir());
    all
}

/// Only where there is something to say: every volume with an area would be a line otherwise.
fn filling(what: &str, path: &Path) -> Option<Check> {
    let room = room(path).ok()?;
    let low = u128::from(room.free_bytes) * 100 < u128::from(room.all_bytes) * LOW_PER_CENT;
    low.then(|| {
        Check::new(
            what,
            Level::Advice,
            format!(
                "the file system of {} is filling: {} of {} left",
                path.display(),
                units::bytes(room.free_bytes),
                units::bytes(room.all_bytes)
            ),
            format!("make room: df -h {}", path.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_line_of_a_configuration_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidemark.toml");
        let none = of_configuration(&tidemark_config::load(&path), &path);
        assert_eq!(none[0].level, Level::Ok);
        std::fs::write(&path, "[daemon]\ngruop = \"x\"\nlog = 3\n").unwrap();
        let wrong = of_configuration(&tidemark_config::load(&path), &path);
        assert_eq!(wrong.len(), 2);
        assert!(wrong[0].detail.contains("tidemark.toml:2:1: "), "{wrong:?}");
        assert!(wrong[1].detail.contains("tidemark.toml:3:"), "{wrong:?}");
        assert!(wrong.iter().all(|one| one.level == Level::Missing));
    }

    #[test]
    fn a_directory_that_is_not_there_is_told() {
        assert_eq!(state(Path::new("/no/such/place"))[0].level, Level::Advice);
        assert!(filling("x", Path::new("/no/such/place")).is_none());
    }
}
