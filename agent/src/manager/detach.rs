//! Detaching: the interposer goes, tracking ends, and what was made for the volume is removed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tidemark_proto::v1::{EventKind, Severity};
use tokio::time::sleep;

use super::{
    Error, ErrorReason, Happening, Manager, registry::Entry, spawn, volumes::live_snapshots,
};

/// For how long a stopped server may take to end.
const END_WITHIN: Duration = Duration::from_secs(60);

impl Manager {
    pub(super) async fn detach_now(self: &Arc<Self>, name: &str, force: bool) -> Result<(), Error> {
        let (entry, _work) = self.claim(name).await?;
        self.check_detachable(&entry, force).await?;
        entry.dismiss_keeper().await;
        if let Err(error) = stop(&entry, force).await {
            self.look_after(&entry);
            return Err(error);
        }
        let volume = name.to_owned();
        let gone = self
            .ledger
            .run(move |catalog| catalog.remove_volume(&volume, "detached"))
            .await?;
        self.registry.remove(name);
        if let Some(units) = &self.config.units {
            units.forget(&entry)?;
        }
        self.leases.wake();
        clean_up(&entry);
        self.remove_unwanted_areas().await;
        for id in gone {
            let message = format!("snapshot {id} was released: volume \"{name}\" was detached");
            let happening = Happening::new(EventKind::SnapshotReleased, Severity::Info, message);
            let happening = happening.on_volume(name).on_snapshot(id);
            self.events.record(happening).await;
        }
        let mut message = format!("volume \"{name}\" was detached; its tracking ended");
        let mut severity = Severity::Info;
        if entry.record.area_made {
            let area = entry.record.area_path.display();
            if self.is_unwanted(entry.record.id).await {
                severity = Severity::Warning;
                message.push_str(&format!(
                    "; its area {area} could not be removed yet, which is tried again (the agent's \
                     log says why)"
                ));
            } else {
                message.push_str(&format!("; its area {area} was removed"));
            }
        }
        let happening = Happening::new(EventKind::VolumeDetached, severity, message);
        self.events.record(happening.on_volume(name)).await;
        Ok(())
    }

    async fn check_detachable(&self, entry: &Entry, force: bool) -> Result<(), Error> {
        let name = entry.name();
        let described = match self.refresh(entry).await {
            // What waits in a dead server's device would wait for ever: it is taken up first.
            Err(_) if entry.paths.has_links() => {
                self.bring_up(entry, true).await?;
                self.refresh(entry).await
            }
            described => described,
        };
        let (device, live) = match described {
            // Its table is swapped back under whoever has it mounted.
            Ok(told) if told.inserted_live => (PathBuf::new(), live_snapshots(&told)),
            Ok(told) => (PathBuf::from(&told.device_path), live_snapshots(&told)),
            // A dead server holds nothing, but its device may still be mounted.
            Err(_) => (entry.paths.device_link(), 0),
        };
        if let Some(mount) = self.mounts(&device)?.points.first() {
            let mount = mount.display();
            let why = format!("volume \"{name}\" is mounted at {mount}: unmount it first");
            let error = Error::new(ErrorReason::VolumeBusy, why).on_volume(name);
            return Err(error.with("mount_point", mount));
        }
        if live > 0 && !force {
            let why = format!(
                "volume \"{name}\" has {live} live snapshots: release them, or force the detach"
            );
            let error = Error::new(ErrorReason::VolumeBusy, why).on_volume(name);
            return Err(error.with("live_snapshots", live));
        }
        Ok(())
    }
}

/// Ends a volume's server. When it cannot be asked because it is dead, it has ended.
async fn stop(entry: &Entry, force: bool) -> Result<(), Error> {
    if let Err(error) = entry.link.stop(force).await {
        if error.refusal().is_some() {
            return Err(error.on_volume(entry.name()));
        }
        // It may have ended before its answer arrived.
        let gone = error.nobody_there() && !spawn::is_running(&entry.paths);
        if !gone && !ends_within(entry, Duration::from_secs(2)).await {
            return Err(error.on_volume(entry.name()));
        }
    }
    if ends_within(entry, END_WITHIN).await {
        return Ok(());
    }
    let why = format!("it was stopped, but has not ended within {END_WITHIN:?}");
    Err(Error::unavailable(entry.name(), why))
}

pub(super) async fn ends_within(entry: &Entry, within: Duration) -> bool {
    const STEP: Duration = Duration::from_millis(20);
    let waited = tokio::time::timeout(within, async {
        while spawn::is_running(&entry.paths) {
            sleep(STEP).await;
        }
    });
    waited.await.is_ok()
}

/// Removes what a dead server left in the runtime directory. Only known names, and directories
/// only when empty: a mount may still be there.
pub(super) fn clean_up(entry: &Entry) {
    let paths = &entry.paths;
    if spawn::is_running(paths) {
        return;
    }
    for file in [
        paths.control_socket(),
        paths.device_link(),
        paths.log(),
        paths.lock(),
        paths.fallen_back(),
    ] {
        tell_failure(&file, fs::remove_file(&file));
    }
    for dir in [paths.views(), paths.mount_point(), paths.dir().to_owned()] {
        tell_failure(&dir, fs::remove_dir(&dir));
    }
}

fn tell_failure(path: &Path, removed: io::Result<()>) {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a leftover was not removed");
        }
        _ => {}
    }
}
