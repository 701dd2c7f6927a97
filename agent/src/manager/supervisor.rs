//! One task a volume: it sees to it that the volume's server runs, and hears what that tells.
//!
//! ```text
//!            answers Hello                      a call fails
//! UNKNOWN ------------------> UP (follow) ------------------> DOWN
//!    |  nobody answers: start it  ^                             |
//!    +--- fails ---> DOWN --------+--- after a pause, again ----+
//! ```
//!
//! A server that was started by an earlier control plane answers Hello like one of ours. One whose
//! lock is held but that does not answer is left alone: a second one must not take its origin.
//! One that ends again and again while the host waits for it loses the volume ([`super::falling`]).

use std::{fs, sync::Arc, time::Duration};

use tidemark_config::Assemble;
use tidemark_proto::v1::{EventKind, Severity};
use tidemark_store::catalog::VolumeRecord;
use tokio::time::{Instant, sleep};

use super::{
    Error, ErrorReason, Happening, Manager,
    endurance::{End, Endurance},
    registry::{Entry, Health},
    spawn,
};

/// Pauses between attempts to start a server that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The same where the host's requests wait for the server meanwhile.
const LONGEST_PAUSE_OF_WAITING: Duration = Duration::from_secs(1);
/// A server that ran for this long has not failed to start.
const STEADY: Duration = Duration::from_secs(60);

impl Manager {
    /// Looks after a volume from now on.
    pub(super) fn supervise(self: &Arc<Self>, record: VolumeRecord) -> Arc<Entry> {
        let paths = self.config.paths.volume(&record.name);
        let entry = Arc::new(Entry::new(record, paths));
        self.registry.insert(Arc::clone(&entry));
        if let Err(error) = self.keep_arguments(&entry) {
            tracing::error!(volume = entry.name(), %error, "not served before the agent at the next boot");
        }
        match fs::read_to_string(entry.paths.fallen_back()) {
            Ok(cause) => entry.set_health(Health::FellBack(cause)),
            Err(_) => self.look_after(&entry),
        }
        entry
    }

    /// Starts the task of an entry.
    pub(super) fn look_after(self: &Arc<Self>, entry: &Arc<Entry>) {
        let (manager, kept) = (Arc::clone(self), Arc::clone(entry));
        entry.set_keeper(tokio::spawn(async move {
            tokio::select! {
                () = manager.shutting_down() => {}
                () = manager.keep_up(&kept) => {}
            }
        }));
    }

    async fn keep_up(self: &Arc<Self>, entry: &Arc<Entry>) {
        let mut pause = FIRST_PAUSE;
        let mut lost = false;
        let mut endurance = Endurance::default();
        loop {
            let since = Instant::now();
            let brought_up = {
                let _work = entry.work.lock().await;
                self.bring_up(entry, true).await
            };
            let came_up = brought_up.is_ok();
            let up = Instant::now();
            let why = match brought_up {
                Ok(server) => {
                    if std::mem::take(&mut lost) {
                        self.tell_back(entry).await;
                    }
                    entry.served_by(&server);
                    self.follow(entry, &server).await
                }
                Err(error) => error,
            };
            entry.set_health(Health::Down(why.message.clone()));
            if self.was_taken_by_systemd(entry).await {
                return;
            }
            let end = self.how_it_ended(entry).await;
            if end != End::Restart && !std::mem::replace(&mut lost, true) {
                // Beside the restart: the catalog may lie on the very volume that waits for it.
                let (manager, entry, why) = (Arc::clone(self), Arc::clone(entry), why.clone());
                tokio::spawn(async move { manager.tell_lost(&entry, &why).await });
            }
            let served = if came_up {
                up.elapsed()
            } else {
                Duration::ZERO
            };
            let exhausted = endurance.note(end, served);
            // systemd counts for itself.
            if exhausted && entry.paths.has_links() && self.config.units.is_none() {
                let ends = endurance.ends();
                let cause = format!(
                    "its server ended {ends} times in a row, last: {}",
                    why.message
                );
                match self.fall_back(entry, &cause).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::error!(volume = entry.name(), %error, "cannot fall back");
                        endurance = Endurance::default();
                    }
                }
            }
            // The host waits for a server that died; only one that cannot start is given time.
            if came_up {
                pause = FIRST_PAUSE;
                continue;
            }
            if since.elapsed() >= STEADY {
                pause = FIRST_PAUSE;
            }
            sleep(pause).await;
            pause = (pause * 2).min(match entry.paths.has_links() {
                true => LONGEST_PAUSE_OF_WAITING,
                false => LONGEST_PAUSE,
            });
        }
    }

    /// Remembers which device or file a volume's origin is, so that another one is noticed.
    async fn know_origin(&self, entry: &Entry, found: Option<String>) -> Result<(), Error> {
        if found.is_none() || found == entry.origin_identity() {
            return Ok(());
        }
        entry.set_origin_identity(found.clone());
        self.keep_arguments(entry)?;
        let name = entry.name().to_owned();
        self.ledger
            .run(move |catalog| catalog.set_origin_identity(&name, found.as_deref()))
            .await
    }

    /// Finds the server, or starts it. Gives what tells its process from any other. `again`: the
    /// volume had a server before.
    pub(super) async fn bring_up(&self, entry: &Entry, again: bool) -> Result<String, Error> {
        let name = entry.name();
        let greeting = match entry.link.hello().await {
            Err(error) if error.nobody_there() => {
                if spawn::is_running(&entry.paths) {
                    return Err(Error::unavailable(name, "it runs but does not listen"));
                }
                self.ready_area(entry).await?;
                let origin = self.start_server(entry, again).await?;
                self.know_origin(entry, origin).await?;
                entry.link.hello().await
            }
            greeting => greeting,
        };
        let greeting = greeting.map_err(|error| error.on_volume(name))?;
        if greeting.volume != name {
            let why = format!("its socket is answered by \"{}\"", greeting.volume);
            return Err(Error::unavailable(name, why));
        }
        Ok(process_identity(greeting.pid))
    }

    async fn start_server(&self, entry: &Entry, again: bool) -> Result<Option<String>, Error> {
        let Some(units) = &self.config.units else {
            let (program, paths) = (&self.config.program, &self.config.paths);
            return spawn::start(program, paths, entry, again).await;
        };
        if again && units.was_stopped(entry).await {
            return Err(Error::new(
                ErrorReason::VolumeServerUnavailable,
                format!(
                    "volume \"{0}\" is not tracked: its unit was stopped; systemctl start \
                     tidemark-volume@{0} goes on",
                    entry.name()
                ),
            ));
        }
        units.keep(&self.config.paths, entry, again, self.assemble(entry))?;
        if !again && let Err(why) = units.look_again().await {
            tracing::warn!(volume = entry.name(), why, "its unit may lack settings");
        }
        let origin = units.start(entry).await?;
        self.keep_arguments(entry)?;
        Ok(origin)
    }

    /// Keeps what the next server of a volume that had one is started with as the catalog has it.
    pub(super) fn keep_arguments(&self, entry: &Entry) -> Result<(), Error> {
        match &self.config.units {
            Some(units) => {
                let assemble = self.assemble(entry);
                units.keep(&self.config.paths, entry, true, assemble)
            }
            None => Ok(()),
        }
    }

    fn assemble(&self, entry: &Entry) -> Assemble {
        let configured = self.configured(entry.name());
        configured.map_or(Assemble::Auto, |volume| volume.assemble)
    }

    /// Has systemd take up a configuration that changed: when volumes are assembled, and schedules.
    pub async fn tell_systemd(&self) -> Result<(), Error> {
        let Some(units) = &self.config.units else {
            return Ok(());
        };
        for entry in self.registry.all() {
            self.keep_arguments(&entry)?;
        }
        let told = async {
            units.look_again().await?;
            units.start_timers().await
        };
        told.await
            .map_err(|why| Error::internal(format!("schedules are not taken up: {why}")))
    }

    /// How the last server ended; one that an administrator stopped is not missed.
    async fn how_it_ended(&self, entry: &Entry) -> End {
        match &self.config.units {
            Some(units) if units.was_stopped(entry).await => End::Restart,
            _ => entry.how_it_ended().await,
        }
    }

    /// Whether systemd had the volume given back to its host, which then is noted.
    async fn was_taken_by_systemd(&self, entry: &Entry) -> bool {
        let Ok(cause) = fs::read_to_string(entry.paths.fallen_back()) else {
            return false;
        };
        let _work = entry.work.lock().await;
        let noted = async {
            self.distrust(entry, Some(&cause)).await?;
            self.fell_back(entry, &cause).await
        };
        match noted.await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(volume = entry.name(), %error, "that it fell back cannot be noted");
                false
            }
        }
    }

    async fn tell_lost(&self, entry: &Entry, why: &Error) {
        let message = format!(
            "the server of volume \"{}\" is lost and is started again: {}",
            entry.name(),
            why.message
        );
        tracing::warn!(volume = entry.name(), error = %why, "a volume server is lost");
        let happening = Happening::new(EventKind::VolumeServerLost, Severity::Error, message);
        self.events.record(happening.on_volume(entry.name())).await;
    }

    async fn tell_back(&self, entry: &Entry) {
        let message = format!("the server of volume \"{}\" answers again", entry.name());
        let happening = Happening::new(EventKind::VolumeServerBack, Severity::Info, message);
        self.events.record(happening.on_volume(entry.name())).await;
    }
}

/// A process id may come back; with its start time it does not.
fn process_identity(pid: i32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // proc(5): the name in parentheses may hold anything; the 20th field after it is starttime.
    let started = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19))
        .unwrap_or("0");
    format!("{pid}:{started}")
}
