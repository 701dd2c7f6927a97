//! All that `tidemark status` tells of, gathered from the daemon and from the host.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tidemark_config::{Configuration, LoadError};
use tidemark_proto::v1::{
    Event, GetServerInfoRequest, GetServerInfoResponse, ListSnapshotsRequest, Operation,
    Repository, Severity, Snapshot, Volume, WatchEventsRequest,
};
use tokio::time::timeout;

use super::{StatusArgs, attention};
use crate::{
    client::Client,
    cmd::{job, repo, schedule::Schedule, volume},
    context::Context,
    exit::{Exit, Fault, Report},
    host::{
        command,
        served::{self, Places},
    },
    json as as_json, units,
};

/// How many of the latest events, and of the latest warnings, are shown.
const KEPT: usize = 5;
/// A daemon that has not told everything by then hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Looks from one reading of schedules to the next.
const SCHEDULES_EVERY: u32 = 15;

/// How everything stands.
#[derive(Debug)]
pub(crate) struct Overview {
    /// When this was gathered, in seconds since the UNIX epoch.
    pub(crate) now: u64,
    /// What the daemon told.
    pub(crate) daemon: Daemon,
    /// The volumes that the host itself tells of.
    pub(crate) local: Vec<served::Volume>,
    /// Where it does so.
    pub(crate) places: Places,
    /// The configuration file.
    pub(crate) config: PathBuf,
    /// The schedules; why they are not known otherwise.
    pub(crate) schedules: Result<Vec<Schedule>, String>,
    /// Whether systemd runs this host.
    pub(crate) systemd: bool,
}

/// What became of asking the daemon.
#[derive(Debug)]
pub(crate) enum Daemon {
    /// It answered.
    Told(Box<Told>),
    /// It did not, and why.
    Silent(Report),
}

/// What the daemon knows.
#[derive(Default, Debug)]
pub(crate) struct Told {
    pub(crate) info: GetServerInfoResponse,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) snapshots: Vec<Snapshot>,
    pub(crate) repositories: Vec<Repository>,
    /// Those that run.
    pub(crate) operations: Vec<Operation>,
    /// The latest that are worse than news.
    pub(crate) warnings: Vec<Event>,
}

/// What is kept from one look to the next.
#[derive(Default, Debug)]
pub(crate) struct Memory {
    /// The last event that was seen.
    sequence: u64,
    warnings: VecDeque<Event>,
    /// The last events of every kind.
    pub(crate) events: VecDeque<Event>,
    schedules: Option<Result<Vec<Schedule>, String>>,
    looks: u32,
}

impl Overview {
    /// Looks at everything. What does not answer is part of it.
    pub(crate) async fn gather(args: &StatusArgs, context: &Context, memory: &mut Memory) -> Self {
        let asked = match timeout(ANSWER_WITHIN, ask(context, memory)).await {
            Ok(asked) => asked,
            Err(_) => {
                let message = format!("no answer within {}", units::span(ANSWER_WITHIN));
                Err(Fault::new(Exit::NoDaemon, message).into())
            }
        };
        let daemon = match asked {
            Ok(told) => Daemon::Told(Box::new(told)),
            Err(error) => Daemon::Silent(Report::of(&error)),
        };
        let config = args.config_of(match &daemon {
            Daemon::Told(told) => Some(&told.info),
            Daemon::Silent(_) => None,
        });
        let places = Places::of(&context.socket, &config);
        Self {
            now: units::now(),
            daemon,
            local: places.volumes(),
            places,
            schedules: memory.schedules(&config, &args.state_dir),
            config,
            systemd: command::has_systemd(),
        }
    }

    /// What the daemon told, if it did.
    pub(crate) fn told(&self) -> Option<&Told> {
        match &self.daemon {
            Daemon::Told(told) => Some(told),
            Daemon::Silent(_) => None,
        }
    }

    /// All of it.
    pub(crate) fn json(&self) -> Value {
        let told = self.told();
        let all = |list: fn(&Told) -> Vec<Value>| told.map(list);
        json!({
            "attention": attention::of(self).iter().map(attention::Attention::json).collect::<Vec<_>>(),
            "daemon_answers": told.is_some(),
            "daemon_error": match &self.daemon {
                Daemon::Told(_) => None,
                Daemon::Silent(report) => Some(&report.message),
            },
            "server": told.map(|told| as_json::server_info(&told.info)),
            "volumes": all(|told| told.volumes.iter().map(as_json::volume).collect()),
            "snapshots": all(|told| told.snapshots.iter().map(as_json::snapshot).collect()),
            "repositories": all(|told| told.repositories.iter().map(as_json::repository).collect()),
            "operations": all(|told| told.operations.iter().map(as_json::operation).collect()),
            "warnings": all(|told| told.warnings.iter().map(as_json::event).collect()),
            "schedules": self.schedules.as_ref().ok()
                .map(|all| all.iter().map(Schedule::json).collect::<Vec<_>>()),
            "schedules_error": self.schedules.as_ref().err(),
            "configuration_file": self.config.display().to_string(),
            "local": self.local.iter().map(served::Volume::json).collect::<Vec<_>>(),
        })
    }
}

async fn ask(context: &Context, memory: &mut Memory) -> anyhow::Result<Told> {
    let client = context.client().await?;
    let info = client
        .agent()
        .get_server_info(GetServerInfoRequest {})
        .await?;
    let snapshots = client
        .snapshots()
        .list_snapshots(ListSnapshotsRequest::default())
        .await?;
    memory.take_events(&client).await?;
    Ok(Told {
        info: info.into_inner(),
        volumes: volume::list(&client).await?,
        snapshots: snapshots.into_inner().snapshots,
        repositories: repo::list_if_any(&client).await?,
        operations: job::list(&client, true).await?,
        warnings: memory.warnings.iter().cloned().collect(),
    })
}

impl Memory {
    /// Takes in the events since the last look.
    async fn take_events(&mut self, client: &Client) -> anyhow::Result<()> {
        let request = WatchEventsRequest {
            after_sequence: self.sequence,
            no_follow: true,
            ..Default::default()
        };
        let mut stream = client.events().watch_events(request).await?.into_inner();
        while let Some(reply) = stream.message().await? {
            let Some(event) = reply.event else { continue };
            self.sequence = event.sequence;
            if event.severity >= Severity::Warning as i32 {
                keep(&mut self.warnings, event.clone());
            }
            keep(&mut self.events, event);
        }
        Ok(())
    }

    /// Read anew from time to time: systemd is asked about each.
    fn schedules(&mut self, config: &Path, state_dir: &Path) -> Result<Vec<Schedule>, String> {
        let due = self.looks.is_multiple_of(SCHEDULES_EVERY);
        self.looks = self.looks.wrapping_add(1);
        if due {
            self.schedules = None;
        }
        self.schedules
            .get_or_insert_with(|| schedules(config, state_dir))
            .clone()
    }
}

fn keep(list: &mut VecDeque<Event>, event: Event) {
    list.push_back(event);
    if list.len() > KEPT {
        list.pop_front();
    }
}

/// The schedules of a file that may not be there, with how they went.
fn schedules(config: &Path, state_dir: &Path) -> Result<Vec<Schedule>, String> {
    let read = match tidemark_config::load(config) {
        Ok(read) => read,
        Err(LoadError::Missing(_)) => Configuration::default(),
        // The daemon's own word on it has the lines.
        Err(LoadError::Wrong(_)) => return Err(format!("{} is wrong", config.display())),
        Err(error) => return Err(error.to_string()),
    };
    crate::cmd::schedule::known(&read, config, state_dir).map_err(|error| format!("{error:#}"))
}
