//! A control plane over fake volume servers and a fake kernel, in a directory of its own.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tidemark_proto::v1::FreezeMode;
use tidemark_store::catalog::{EventRecord, FullPolicy};

use super::fake::{Fake, Journal};
use crate::{
    host::{
        hook::{Hook, HookEnded},
        lvm::{Found, Group, LvmError, Name, Wanted},
    },
    manager::{
        AreaChoice, AttachArgs, Clock, Config, CreateArgs, Error, FreezeFailed, Frozen, HostOps,
        LogicalVolumes, Manager, Mounts, Pending, Snapshot, Thawed, Volume,
    },
    paths::Paths,
};

/// Wall time when a test begins.
const START_US: u64 = 1_800_000_000_000_000;

pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) journal: Journal,
    pub(crate) kernel: Arc<Kernel>,
    now_us: Arc<AtomicU64>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let journal = Journal::default();
        Self {
            dir: tempfile::tempdir().unwrap(),
            kernel: Arc::new(Kernel {
                journal: Arc::clone(&journal),
                ..Kernel::default()
            }),
            journal,
            now_us: Arc::new(AtomicU64::new(START_US)),
        }
    }

    pub(crate) fn paths(&self) -> Paths {
        Paths {
            runtime_dir: self.dir.path().join("run"),
            state_dir: self.dir.path().join("state"),
        }
    }

    /// Starts the control plane, again after [`Bench::kill`].
    pub(crate) async fn start(&self) -> Arc<Manager> {
        self.start_with("/nonexistent/tidemarkd".as_ref()).await
    }

    pub(crate) async fn start_with(&self, program: &Path) -> Arc<Manager> {
        let now_us = Arc::clone(&self.now_us);
        let config = Config {
            paths: self.paths(),
            program: program.to_owned(),
            clock: Clock::new(move || now_us.load(Ordering::SeqCst)),
            host: Arc::clone(&self.kernel) as Arc<dyn HostOps>,
            units: None,
        };
        Manager::start(config).await.unwrap()
    }

    /// Lets wall time pass.
    pub(crate) fn pass(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap();
        self.now_us.fetch_add(us, Ordering::SeqCst);
    }

    /// Ends a control plane, and waits until it has given the catalog up.
    pub(crate) async fn kill(&self, manager: Arc<Manager>) {
        manager.shut_down();
        let weak = Arc::downgrade(&manager);
        drop(manager);
        while weak.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) fn fake(&self, name: &str) -> Arc<Fake> {
        Fake::start(name, &self.paths().volume(name), &self.journal)
    }

    /// What to attach a volume with; its origin is made.
    pub(crate) fn attach_args(&self, name: &str) -> AttachArgs {
        let origin_path = self.dir.path().join(format!("{name}.img"));
        std::fs::write(&origin_path, b"origin").unwrap();
        AttachArgs {
            name: name.to_owned(),
            origin_path,
            block_bytes: 0,
            area: AreaChoice::At(self.area_path(name)),
            area_size_bytes: 1 << 20,
            policy: FullPolicy::Drop,
            transport: tidemark_store::catalog::Transport::Auto,
            durability: tidemark_store::catalog::Durability::Auto,
            durable_snapshots: false,
            request_id: String::new(),
        }
    }

    /// Where that area is.
    pub(crate) fn area_path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.area"))
    }

    /// Attaches a volume that is served by a fake.
    pub(crate) async fn attach(&self, manager: &Arc<Manager>, name: &str) -> Arc<Fake> {
        let fake = self.fake(name);
        manager.attach(self.attach_args(name)).await.unwrap();
        fake
    }

    pub(crate) fn journal(&self) -> Vec<String> {
        self.journal.lock().unwrap().clone()
    }
}

pub(crate) fn create_args(volumes: &[&str]) -> CreateArgs {
    CreateArgs {
        volumes: volumes.iter().map(|&name| name.to_owned()).collect(),
        group: String::new(),
        freeze: FreezeMode::Auto,
        lease: None,
        labels: BTreeMap::new(),
        request_id: String::new(),
        max_freeze: None,
    }
}

pub(crate) async fn create(manager: &Arc<Manager>, volume: &str) -> Snapshot {
    let mut made = manager
        .create_snapshots(create_args(&[volume]))
        .await
        .unwrap();
    made.remove(0)
}

/// Every kept event.
pub(crate) async fn events(manager: &Manager) -> Vec<EventRecord> {
    let mut reader = manager.events().read(0, None, false);
    let mut events = Vec::new();
    while let Some(event) = reader.next().await.unwrap() {
        events.push(event);
    }
    events
}

/// How many kept events are of this kind.
pub(crate) async fn count(manager: &Manager, kind: &str) -> usize {
    let kind = format!("EVENT_KIND_{kind}");
    let events = events(manager).await;
    events
        .iter()
        .filter(|record| record.event.kind == kind)
        .count()
}

/// Waits until a volume is as wanted.
pub(crate) async fn until(manager: &Manager, name: &str, wanted: impl Fn(&Volume) -> bool) {
    loop {
        if wanted(&manager.volume(name).await.unwrap()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn reason(error: &Error) -> &'static str {
    error.reason_name()
}

/// A kernel whose mounts and freezes are what a test says.
#[derive(Default)]
pub(crate) struct Kernel {
    pub(crate) mounted: Mutex<BTreeMap<PathBuf, PathBuf>>,
    pub(crate) refuse: AtomicBool,
    pub(crate) watchdog_strikes: AtomicBool,
    pub(crate) group: Arc<FakeGroup>,
    /// Hooks that ran, and programs that fail.
    pub(crate) hooks: Mutex<Vec<Hook>>,
    pub(crate) failing_hooks: Mutex<Vec<String>>,
    journal: Journal,
}

impl Kernel {
    pub(crate) fn mount(&self, device: &str, point: &str) {
        self.mounted
            .lock()
            .unwrap()
            .insert(device.into(), point.into());
    }
}

impl HostOps for Kernel {
    fn mounts(&self, device: &Path) -> io::Result<Mounts> {
        let points: Vec<_> = self
            .mounted
            .lock()
            .unwrap()
            .get(device)
            .cloned()
            .into_iter()
            .collect();
        Ok(Mounts {
            file_systems: points.clone(),
            points,
        })
    }

    fn freeze(
        &self,
        file_systems: Vec<PathBuf>,
        _deadline: Duration,
    ) -> Pending<'_, Result<Box<dyn Frozen>, FreezeFailed>> {
        Box::pin(async move {
            if self.refuse.load(Ordering::SeqCst) {
                return Err(FreezeFailed("it cannot be frozen".to_owned()));
            }
            let count = file_systems.len();
            self.journal.lock().unwrap().push(format!("freeze {count}"));
            Ok(Box::new(FakeFrozen {
                journal: Arc::clone(&self.journal),
                held: !self.watchdog_strikes.load(Ordering::SeqCst),
            }) as Box<dyn Frozen>)
        })
    }

    fn hook(&self, hook: Hook) -> Pending<'_, HookEnded> {
        Box::pin(async move {
            let line = format!("hook {}", hook.words.join(" "));
            let failure = self.failing_hooks.lock().unwrap().contains(&hook.words[0]);
            self.journal.lock().unwrap().push(line);
            self.hooks.lock().unwrap().push(hook);
            HookEnded {
                failure: failure.then(|| "it ended with 3".to_owned()),
                output: "said so".to_owned(),
            }
        })
    }

    fn logical_volumes(&self) -> Arc<dyn LogicalVolumes> {
        Arc::clone(&self.group) as Arc<dyn LogicalVolumes>
    }
}

/// A volume group with one volume of 64 MiB, `home`, and whatever is made in it.
pub(crate) struct FakeGroup {
    pub(crate) made: Mutex<Vec<(Wanted, bool)>>,
    pub(crate) free_extents: AtomicU64,
    /// LVM does nothing but fail.
    pub(crate) broken: AtomicBool,
}

impl Default for FakeGroup {
    fn default() -> Self {
        Self {
            made: Mutex::default(),
            free_extents: AtomicU64::new(100),
            broken: AtomicBool::new(false),
        }
    }
}

impl FakeGroup {
    /// The names of what was made, and whether each is active.
    pub(crate) fn names(&self) -> Vec<(String, bool)> {
        let made = self.made.lock().unwrap();
        let named = made
            .iter()
            .map(|(one, active)| (one.name.volume().to_owned(), *active));
        named.collect()
    }

    fn check(&self) -> Result<(), LvmError> {
        match self.broken.load(Ordering::SeqCst) {
            true => Err(LvmError::NoProgram),
            false => Ok(()),
        }
    }
}

impl LogicalVolumes for FakeGroup {
    fn group_of(&self, _device: &Path) -> Result<Group, LvmError> {
        self.check()?;
        let taken = self.names().into_iter().map(|(name, _)| name);
        Ok(Group {
            name: "vg".to_owned(),
            extent_bytes: 4 << 20,
            free_extents: self.free_extents.load(Ordering::SeqCst),
            volume: "home".to_owned(),
            volume_bytes: 64 << 20,
            taken: taken.chain(["home".to_owned()]).collect(),
        })
    }

    fn find(&self, group: &str, tag: &str) -> Result<Option<Found>, LvmError> {
        self.check()?;
        assert_eq!(group, "vg");
        let made = self.made.lock().unwrap();
        let found = made
            .iter()
            .find(|(one, _)| one.tags.iter().any(|one| one == tag));
        Ok(found.map(|(one, _)| Found {
            name: one.name.clone(),
            bytes: one.bytes,
        }))
    }

    fn create(&self, wanted: &Wanted) -> Result<(), LvmError> {
        self.check()?;
        self.made.lock().unwrap().push((wanted.clone(), true));
        Ok(())
    }

    fn activate(&self, name: &Name) -> Result<(), LvmError> {
        self.check()?;
        let mut made = self.made.lock().unwrap();
        let found = made.iter_mut().find(|(one, _)| one.name == *name);
        found.expect("it was found before").1 = true;
        Ok(())
    }

    fn remove(&self, group: &str, tag: &str) -> Result<(), LvmError> {
        self.check()?;
        assert_eq!(group, "vg");
        let tagged = |one: &Wanted| one.tags.iter().any(|one| one == tag);
        self.made.lock().unwrap().retain(|(one, _)| !tagged(one));
        Ok(())
    }
}

struct FakeFrozen {
    journal: Journal,
    held: bool,
}

impl Frozen for FakeFrozen {
    fn thaw(self: Box<Self>) -> Pending<'static, Thawed> {
        Box::pin(async move {
            self.journal.lock().unwrap().push("thaw".to_owned());
            Thawed {
                frozen: Duration::from_micros(900),
                held: self.held,
                trouble: None,
            }
        })
    }
}
