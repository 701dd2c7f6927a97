//! Volume servers as units of systemd, `tidemark-volume@NAME.service`.
//!
//! The control plane keeps each server's arguments in a file, from which its unit starts it also
//! where the control plane does not run: at boot before file systems are mounted, and after a death.
//! The file must never tell less than the catalog: it is written before whoever relies on it goes on.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tidemark_config::Assemble;
use tidemark_store::catalog::{Transport, VolumeRecord};
use tokio::{process::Command, time::timeout};

use super::{
    Error, ErrorReason,
    registry::Entry,
    spawn::{arguments_of, parse},
};
use crate::{argfile, paths::Paths};

/// Longer than a unit may take to start.
const START_WITHIN: Duration = Duration::from_secs(150);
const ASK_WITHIN: Duration = Duration::from_secs(10);

/// The units of this host's volumes.
#[derive(Clone, Debug)]
pub struct Units {
    /// Where the files of arguments are.
    folder: PathBuf,
}

impl Units {
    /// `folder` is where the unit's `@FILE` is.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn file(&self, volume: &str) -> PathBuf {
        self.folder.join(format!("{volume}.args"))
    }

    /// Keeps the arguments of a volume's next server. `assemble`: what the configuration says.
    pub(super) fn keep(
        &self,
        paths: &Paths,
        entry: &Entry,
        again: bool,
        assemble: Assemble,
    ) -> Result<(), Error> {
        let mut arguments = arguments_of(paths, entry, again);
        // The role is in the unit's command line.
        arguments.remove(0);
        let early = match assemble {
            Assemble::Auto => is_early(&entry.record),
            Assemble::Boot => true,
            Assemble::Late => false,
        };
        if early {
            arguments.push(argfile::EARLY.into());
        }
        let path = self.file(entry.name());
        argfile::write(&path, &arguments).map_err(|error| failed(entry, &path, &error))
    }

    /// The volume is served no more.
    pub(super) fn forget(&self, entry: &Entry) -> Result<(), Error> {
        let path = self.file(entry.name());
        let _ = fs::remove_file(outcome(entry.name()));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(entry, &path, &error))
            }
            _ => Ok(()),
        }
    }

    /// Starts the server of a volume and waits until it says that it is ready; gives which device or
    /// file the origin is, where that can be told.
    pub(super) async fn start(&self, entry: &Entry) -> Result<Option<String>, Error> {
        let name = entry.name();
        let unit = unit(name);
        let started = systemctl(&["start", &unit], START_WITHIN).await;
        let told = fs::read_to_string(outcome(name)).unwrap_or_default();
        match (started, parse(name, told.trim_end())) {
            (Ok(_), told) => told,
            // What the server said of it is better than what systemd says.
            (Err(_), Err(told)) if told.reason != ErrorReason::VolumeServerUnavailable => Err(told),
            (Err(why), _) => Err(Error::unavailable(
                name,
                format!("{unit} does not start ({why}): see journalctl -u {unit}"),
            )),
        }
        .map_err(|error| error.on_volume(name))
    }

    /// Has systemd look at the arguments and the configuration again: units have settings from them.
    pub(super) async fn look_again(&self) -> Result<(), String> {
        systemctl(&["daemon-reload"], ASK_WITHIN * 6)
            .await
            .map(drop)
    }

    /// Starts the timers of schedules that are new, after [`Units::look_again`].
    pub(super) async fn start_timers(&self) -> Result<(), String> {
        // Those that run already are left alone.
        systemctl(&["start", "timers.target"], ASK_WITHIN)
            .await
            .map(drop)
    }

    /// Has a volume given back to its host.
    pub(super) async fn rescue(&self, entry: &Entry) -> Result<(), Error> {
        let unit = format!("tidemark-rescue@{}.service", entry.name());
        let done = systemctl(&["start", &unit], START_WITHIN).await;
        done.map(drop).map_err(|why| {
            let why = format!("{unit} failed ({why}): see journalctl -u {unit}");
            Error::unavailable(entry.name(), why)
        })
    }

    /// Whether somebody stopped the unit, which then is not to be started by us.
    pub(super) async fn was_stopped(&self, entry: &Entry) -> bool {
        let unit = unit(entry.name());
        let properties = "ActiveState,Result,InactiveEnterTimestampMonotonic";
        let shown = systemctl(&["show", "-p", properties, &unit], ASK_WITHIN).await;
        shown.is_ok_and(|shown| is_stopped(&shown))
    }
}

/// It ran, and ended well.
fn is_stopped(shown: &str) -> bool {
    let value = |key: &str| {
        let mut lines = shown.lines().filter_map(|line| line.split_once('='));
        lines.find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    value("ActiveState") == Some("inactive")
        && value("Result") == Some("success")
        && value("InactiveEnterTimestampMonotonic").is_some_and(|at| at != "0")
}

/// Where the unit has its server's one line of outcome.
fn outcome(volume: &str) -> PathBuf {
    PathBuf::from(format!("/run/tidemark-{volume}.outcome"))
}

fn unit(volume: &str) -> String {
    format!("tidemark-volume@{volume}.service")
}

fn failed(entry: &Entry, path: &Path, error: &io::Error) -> Error {
    Error::internal(format!("{}: {error}", path.display())).on_volume(entry.name())
}

/// What a command printed, or what is wrong.
async fn systemctl(words: &[&str], within: Duration) -> Result<String, String> {
    let mut command = Command::new("systemctl");
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(within, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("systemctl: {error}")),
        Err(_) => return Err(format!("systemctl does not answer within {within:?}")),
    };
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().next().unwrap_or_default();
            Err(format!("{}; systemctl said: {first}", output.status))
        }
    }
}

/// Whether a volume can be served before file systems are mounted: it is a block device, and its area
/// is another or lies on the root file system.
fn is_early(record: &VolumeRecord) -> bool {
    let is_device =
        |path: &Path| fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let area = &record.area_path;
    let on_root = || device(area).is_some_and(|there| Some(there) == device(Path::new("/")));
    record.transport != Transport::Portable
        && is_device(&record.origin_path)
        && (is_device(area) || on_root())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ran_and_ended_well_was_stopped() {
        let shown = |state, result, at| {
            format!("Result={result}\nActiveState={state}\nInactiveEnterTimestampMonotonic={at}\n")
        };
        assert!(is_stopped(&shown("inactive", "success", "815")));
        for (state, result, at) in [
            ("inactive", "success", "0"),
            ("active", "success", "815"),
            ("activating", "exit-code", "815"),
            ("failed", "exit-code", "815"),
        ] {
            assert!(!is_stopped(&shown(state, result, at)));
        }
        assert!(!is_stopped(""));
    }
}
