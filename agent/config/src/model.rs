//! What a configuration says. Every field is filled in: a key that the file leaves out has its default.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

/// The whole file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Configuration {
    /// `[daemon]`
    pub daemon: Daemon,
    /// `[volume.NAME]`
    pub volumes: BTreeMap<String, Volume>,
    /// `[repository.NAME]`
    pub repositories: BTreeMap<String, Repository>,
    /// `[backup.NAME]`
    pub backups: BTreeMap<String, Backup>,
}

/// The control plane itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Daemon {
    /// Members may make snapshots, read them and restore.
    pub group: String,
    /// What to log: a level, or tracing's directives.
    pub log: String,
    /// Where metrics are served by TCP too; a loopback address.
    pub metrics: Option<SocketAddr>,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            group: "tidemark".to_owned(),
            log: "info".to_owned(),
            metrics: None,
        }
    }
}

/// A volume that is to be attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// The image file or block device under it.
    pub device: PathBuf,
    /// Where old data and the journal are kept.
    pub area: Area,
    /// Size that a new area is made with; 0 is the agent's choice.
    pub area_size: u64,
    /// Unit of tracking in bytes.
    pub block_size: u32,
    /// What happens when the store fills.
    pub when_full: WhenFull,
    /// Whether tracking outlives the host.
    pub durability: Durability,
    /// Whether snapshots do.
    pub durable_snapshots: bool,
    /// How the host sees the volume.
    pub transport: Transport,
    /// When it is assembled at boot.
    pub assemble: Assemble,
    /// Programs around a freeze.
    pub hooks: FreezeHooks,
}

/// Where an area is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Area {
    /// A file or device.
    At(PathBuf),
    /// A logical volume that is made in the device's group; the agent names it when this is empty.
    LogicalVolume(String),
}

/// What happens when the store fills. The host's write always goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenFull {
    /// The oldest snapshot is dropped.
    Drop,
    /// Writers are delayed first, each so long at most.
    Slow(Duration),
}

/// Whether tracking outlives the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// It does, unless the area lies in memory.
    Auto,
    /// It does.
    Durable,
    /// It does not.
    Volatile,
}

/// How the host sees a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// By ublk for block devices where the host has it, else portable.
    Auto,
    /// A block device of the kernel's ublk driver.
    Ublk,
    /// A FUSE file and a loop device.
    Portable,
}

/// When a volume is assembled at boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Assemble {
    /// As `Boot` where the device is a device-mapper volume, as `Late` otherwise.
    Auto,
    /// Before local file systems are mounted.
    Boot,
    /// When the control plane starts.
    Late,
}

/// Programs that run before a volume is frozen and after it is thawed. Each is a program and its arguments;
/// empty: none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FreezeHooks {
    /// Brings an application to rest.
    pub before_freeze: Vec<String>,
    /// Lets it go on. Runs whatever became of the freeze.
    pub after_thaw: Vec<String>,
    /// For how long each may run.
    pub timeout: Duration,
    /// No snapshot when `before_freeze` fails.
    pub required: bool,
}

impl Default for FreezeHooks {
    fn default() -> Self {
        Self {
            before_freeze: Vec::new(),
            after_thaw: Vec::new(),
            timeout: Duration::from_secs(30),
            required: true,
        }
    }
}

/// A repository that is to be known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Repository {
    /// Where it is.
    pub location: Location,
    /// Where its key is taken from; `None`: it is not encrypted.
    pub key: Option<Key>,
    /// Nothing of it is deleted by this host.
    pub append_only: bool,
}

/// Where a repository is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Location {
    /// A directory of this host.
    Directory(PathBuf),
    /// A bucket and prefix: `s3://BUCKET/PREFIX`.
    S3(String, S3),
}

/// How an object service is reached. Empty is the service's own default.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct S3 {
    /// Its URL.
    pub endpoint: String,
    /// The bucket's region.
    pub region: String,
    /// Buckets are paths.
    pub path_style: bool,
    /// Plain http will do.
    pub allow_http: bool,
    /// A file with the access key.
    pub credentials_file: Option<PathBuf>,
    /// The machine's metadata service lends an access key.
    pub instance_credentials: bool,
}

/// Where a key is taken from. The secret itself never stands in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Key {
    /// A password: a file's first line.
    PasswordFile(PathBuf),
    /// A password: the first line that a program prints, run by `sh -c`.
    PasswordCommand(String),
    /// A password: a systemd credential, by its name.
    PasswordCredential(String),
    /// A key file.
    KeyFile(PathBuf),
    /// A key file as a systemd credential.
    KeyCredential(String),
}

/// Backups of volumes at one moment, and their care.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backup {
    /// Names of `[volume.NAME]`.
    pub volumes: Vec<String>,
    /// Name of a `[repository.NAME]`.
    pub repository: String,
    /// When it runs, as systemd's OnCalendar; `None`: only by hand.
    pub schedule: Option<String>,
    /// Runs begin up to so much later, each host at its own time.
    pub random_delay: Duration,
    /// Further tags of its recovery points; see also [`Backup::own_tag`].
    pub tags: Vec<String>,
    /// Which of its recovery points stay; `None`: all.
    pub keep: Option<Keep>,
    /// When space is given back.
    pub prune: Prune,
    /// How much of the repository's data is read and checked after each run; 0: nothing is checked.
    pub check_data_percent: u32,
    /// Programs after a run.
    pub hooks: BackupHooks,
}

impl Backup {
    /// The tag of all recovery points of the schedule `name`, and of no others.
    pub fn own_tag(name: &str) -> String {
        format!("schedule:{name}")
    }
}

/// Which recovery points of a volume stay: the last of each of so many hours, days and so on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Keep {
    /// The last points.
    pub last: u32,
    /// Of hours that have a point.
    pub hourly: u32,
    /// Of days.
    pub daily: u32,
    /// Of weeks.
    pub weekly: u32,
    /// Of months.
    pub monthly: u32,
    /// Of years.
    pub yearly: u32,
    /// All that are not older; zero: none for their age.
    pub within: Duration,
}

/// When a schedule gives space back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prune {
    /// After each run.
    Always,
    /// Once a week.
    Weekly,
    /// Somebody else does.
    Never,
}

/// Programs that run after a backup. Each is a program and its arguments; empty: none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackupHooks {
    /// After a run that did all it should.
    pub after_backup: Vec<String>,
    /// After any other.
    pub on_failure: Vec<String>,
    /// For how long each may run.
    pub timeout: Duration,
}

impl Default for BackupHooks {
    fn default() -> Self {
        Self {
            after_backup: Vec::new(),
            on_failure: Vec::new(),
            timeout: Duration::from_secs(300),
        }
    }
}
