//! A volume server of tests: the private protocol without an engine.
//!
//! It does what a good server does, and fails the calls that a test asks it to fail. All servers
//! of one test write what they are asked to one journal, so that a test sees the order.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use prost::Message;
use tidemark_proto::private::{
    CheckpointInfo, CutReply, Description, Done, EventPage, ExtentPage, Failure, FailureKind, Held,
    HelloReply, Histogram, Measurements, Range, RangeKind, Reply, Request, RequestKind,
    RequestMeasurements, SnapshotFate, SnapshotInfo, VolumeEvent, VolumeEventKind,
    reply::Result as Answer, request::Call,
};
use tidemark_store::units::Id;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Notify,
    task::JoinHandle,
};

use crate::{paths::VolumePaths, server::wire};

/// What all servers of a test were asked, in order.
pub(crate) type Journal = Arc<Mutex<Vec<String>>>;

pub(crate) const CAPACITY: u64 = 1 << 30;

/// What a test sees and sets.
pub(crate) struct State {
    pub(crate) lineage: Id,
    pub(crate) cause: String,
    pub(crate) epoch: u64,
    pub(crate) snapshots: BTreeMap<Id, (u64, SnapshotFate)>,
    pub(crate) checkpoints: Vec<u64>,
    pub(crate) device_path: String,
    pub(crate) pid: i32,
    /// Calls to fail, by name, until taken away.
    pub(crate) fail: HashMap<&'static str, FailureKind>,
    /// How long a Hold takes.
    pub(crate) drain: Duration,
    held: Option<u64>,
    tokens: u64,
    events: Vec<VolumeEvent>,
}

/// A server that listens.
pub(crate) struct Fake {
    name: String,
    socket: PathBuf,
    journal: Journal,
    state: Arc<Mutex<State>>,
    told: Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Fake {
    /// A server for a volume of this name, listening where the volume's paths say.
    pub(crate) fn start(name: &str, paths: &VolumePaths, journal: &Journal) -> Arc<Self> {
        std::fs::create_dir_all(paths.dir()).unwrap();
        let fake = Arc::new(Self {
            name: name.to_owned(),
            socket: paths.control_socket(),
            journal: Arc::clone(journal),
            state: Arc::new(Mutex::new(State {
                lineage: Id([1; 16]),
                cause: "attached".to_owned(),
                epoch: 1,
                snapshots: BTreeMap::new(),
                checkpoints: Vec::new(),
                device_path: String::new(),
                pid: 4242,
                fail: HashMap::new(),
                drain: Duration::ZERO,
                held: None,
                tokens: 0,
                events: Vec::new(),
            })),
            told: Arc::default(),
            task: Mutex::default(),
        });
        fake.listen();
        fake
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Listens, again after [`Fake::die`].
    pub(crate) fn listen(self: &Arc<Self>) {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).unwrap();
        let fake = Arc::clone(self);
        *self.task.lock().unwrap() = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(Arc::clone(&fake).serve(stream));
            }
        }));
    }

    /// Ends without a word, as if killed.
    pub(crate) async fn die(&self) {
        let task = self.task.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    /// Tells an event to whoever waits.
    pub(crate) fn tell(&self, kind: VolumeEventKind, snapshot: Option<Id>, message: &str) {
        let mut state = self.state();
        let sequence = state.events.len() as u64 + 1;
        state.events.push(VolumeEvent {
            sequence,
            at_us: 77,
            kind: kind.into(),
            snapshot_id: snapshot.map(|id| id.0.to_vec()).unwrap_or_default().into(),
            message: message.to_owned(),
        });
        drop(state);
        self.told.notify_waiters();
    }

    async fn serve(self: Arc<Self>, mut stream: UnixStream) {
        while let Some(request) = read(&mut stream).await {
            let stop = matches!(request.call, Some(Call::Stop(_)));
            let answer = self.answer(request.call.unwrap()).await;
            let stopped = stop && matches!(answer, Answer::Done(_));
            let reply = Reply {
                result: Some(answer),
            };
            if stopped {
                // Nobody finds the server once it has answered.
                let _ = std::fs::remove_file(&self.socket);
            }
            let sent = stream.write_all(&wire::encode(&reply).unwrap()).await;
            if sent.is_err() || stopped {
                return;
            }
        }
    }

    async fn answer(&self, call: Call) -> Answer {
        let name = call_name(&call);
        if !matches!(name, "Hello" | "Describe" | "Measure" | "WaitEvents") {
            self.journal
                .lock()
                .unwrap()
                .push(format!("{} {name}", self.name));
        }
        let failure = self.state().fail.get(name).copied();
        if let Some(kind) = failure {
            return failed(kind);
        }
        match call {
            Call::WaitEvents(wait) => self.wait(wait.after_sequence, wait.wait_us).await,
            Call::Hold(_) => {
                let drain = self.state().drain;
                tokio::time::sleep(drain).await;
                let mut state = self.state();
                state.tokens += 1;
                state.held = Some(state.tokens);
                Answer::Held(Held {
                    token: state.tokens,
                })
            }
            call => self.at_once(call),
        }
    }

    fn at_once(&self, call: Call) -> Answer {
        let mut state = self.state();
        match call {
            Call::Hello(_) => Answer::Hello(HelloReply {
                version: wire::VERSION,
                volume: self.name.clone(),
                pid: state.pid,
                agent_version: "test".to_owned(),
            }),
            Call::Describe(_) => Answer::Description(self.describe(&state)),
            Call::Cut(cut) => {
                if state.held.take() != Some(cut.token) {
                    return failed(FailureKind::CutTimeout);
                }
                let epoch = state.epoch;
                let id = Id::from_slice(&cut.snapshot_id).unwrap();
                state.snapshots.insert(id, (epoch, SnapshotFate::Live));
                state.checkpoints.push(epoch);
                state.epoch += 1;
                Answer::Cut(CutReply {
                    lineage: state.lineage.0.to_vec().into(),
                    epoch,
                    held_us: 150,
                    view_path: format!("/views/{id}"),
                    created_us: 1_000_000 + epoch,
                })
            }
            Call::Measure(_) => Answer::Measurements(measurements()),
            Call::PresentViews(_) => Answer::Done(Done {}),
            Call::Unhold(_) => {
                state.held = None;
                Answer::Done(Done {})
            }
            Call::ReleaseSnapshot(release) => {
                let id = Id::from_slice(&release.snapshot_id).unwrap();
                match state.snapshots.get_mut(&id) {
                    Some((_, fate)) => {
                        *fate = SnapshotFate::Released;
                        Answer::Done(Done {})
                    }
                    None => failed(FailureKind::SnapshotNotFound),
                }
            }
            Call::ForgetCheckpoint(forget) => {
                let before = state.checkpoints.len();
                state.checkpoints.retain(|epoch| *epoch != forget.epoch);
                if state.checkpoints.len() == before {
                    return failed(FailureKind::CheckpointGone);
                }
                Answer::Done(Done {})
            }
            Call::Changes(asked) if asked.lineage.as_ref() != state.lineage.0 => {
                failed(FailureKind::TrackingReset)
            }
            Call::Changes(asked) if !state.checkpoints.contains(&asked.since_epoch) => {
                failed(FailureKind::CheckpointGone)
            }
            Call::Changes(_) | Call::Allocated(_) => Answer::Extents(ExtentPage {
                ranges: vec![Range {
                    offset_bytes: 4096,
                    length_bytes: 8192,
                    kind: RangeKind::Data.into(),
                }],
                next_bytes: CAPACITY,
                last: true,
                over_report_bytes: 0,
            }),
            Call::ResetTracking(reset) => {
                state.begin_lineage(&reset.reason);
                Answer::Done(Done {})
            }
            Call::HandOver(_) => {
                state.pid += 1;
                Answer::Done(Done {})
            }
            Call::Stop(stop) => {
                let live = state
                    .snapshots
                    .values()
                    .any(|(_, fate)| *fate == SnapshotFate::Live);
                if live && !stop.force {
                    return failed(FailureKind::Busy);
                }
                Answer::Done(Done {})
            }
            Call::Hold(_) | Call::WaitEvents(_) => unreachable!("answered before"),
        }
    }

    fn describe(&self, state: &State) -> Description {
        let snapshot = |(id, (epoch, fate)): (&Id, &(u64, SnapshotFate))| SnapshotInfo {
            id: id.0.to_vec().into(),
            epoch: *epoch,
            fate: (*fate).into(),
            view_path: match fate {
                SnapshotFate::Live => format!("/views/{id}"),
                _ => String::new(),
            },
            preserved_bytes: 4096,
            created_us: 1_000_000 + epoch,
        };
        Description {
            name: self.name.clone(),
            volume_id: vec![5; 16].into(),
            capacity_bytes: CAPACITY,
            block_bytes: 4096,
            device_path: state.device_path.clone(),
            lineage: state.lineage.0.to_vec().into(),
            lineage_cause: state.cause.clone(),
            lineage_since_us: 3,
            epoch: state.epoch,
            snapshots: state.snapshots.iter().map(snapshot).collect(),
            checkpoints: state
                .checkpoints
                .iter()
                .map(|epoch| CheckpointInfo {
                    epoch: *epoch,
                    created_us: 1_000_000 + epoch,
                })
                .collect(),
            pid: state.pid,
            ..Description::default()
        }
    }

    async fn wait(&self, after: u64, wait_us: u64) -> Answer {
        let mut told = std::pin::pin!(self.told.notified());
        told.as_mut().enable();
        let after_all = |state: &State| -> Vec<VolumeEvent> {
            let later = state.events.iter().filter(|event| event.sequence > after);
            later.cloned().collect()
        };
        let mut events = after_all(&self.state());
        if events.is_empty() {
            let _ = tokio::time::timeout(Duration::from_micros(wait_us), told).await;
            events = after_all(&self.state());
        }
        Answer::Events(EventPage { events, gap: false })
    }
}

impl State {
    /// As a server does that lost its state, or was told to.
    pub(crate) fn begin_lineage(&mut self, cause: &str) {
        self.lineage = Id([self.lineage.0[0] + 1; 16]);
        cause.clone_into(&mut self.cause);
        self.epoch = 1;
        self.checkpoints.clear();
        self.snapshots.clear();
    }

    /// Snapshots that can be read.
    pub(crate) fn live(&self) -> Vec<Id> {
        let live = self
            .snapshots
            .iter()
            .filter(|(_, (_, fate))| *fate == SnapshotFate::Live);
        live.map(|(id, _)| *id).collect()
    }

    /// Whether writers wait.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }
}

async fn read(stream: &mut UnixStream) -> Option<Request> {
    let mut prefix = Vec::new();
    loop {
        prefix.push(stream.read_u8().await.ok()?);
        if let Some((len, _)) = wire::decode_length(&prefix).unwrap() {
            let mut bytes = vec![0; len];
            stream.read_exact(&mut bytes).await.ok()?;
            return Some(Request::decode(bytes.as_slice()).unwrap());
        }
    }
}

fn measurements() -> Measurements {
    let histogram = Histogram {
        counts: vec![3, 2, 1],
        sum_us: 4_000,
    };
    Measurements {
        bounds_us: vec![100, 1_000],
        requests: vec![RequestMeasurements {
            kind: RequestKind::Write.into(),
            duration: Some(histogram.clone()),
            bytes: 24_576,
            failures: 1,
        }],
        holds: Some(histogram),
    }
}

fn failed(kind: FailureKind) -> Answer {
    Answer::Failure(Failure {
        kind: kind.into(),
        message: format!("{} as the test asked", kind.as_str_name()),
    })
}

fn call_name(call: &Call) -> &'static str {
    match call {
        Call::Hello(_) => "Hello",
        Call::Describe(_) => "Describe",
        Call::Hold(_) => "Hold",
        Call::Cut(_) => "Cut",
        Call::Unhold(_) => "Unhold",
        Call::PresentViews(_) => "PresentViews",
        Call::ReleaseSnapshot(_) => "Release",
        Call::ForgetCheckpoint(_) => "Forget",
        Call::Changes(_) => "Changes",
        Call::Allocated(_) => "Allocated",
        Call::ResetTracking(_) => "Reset",
        Call::WaitEvents(_) => "WaitEvents",
        Call::Stop(_) => "Stop",
        Call::HandOver(_) => "HandOver",
        Call::Measure(_) => "Measure",
    }
}
