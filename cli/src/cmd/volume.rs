//! `tidemark volume`: what is protected.

mod area;
mod each;

use std::{
    path::{Component, Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use serde_json::Value;
use tidemark_proto::v1::{
    AreaLogicalVolume, AttachVolumeRequest, Candidate, FullPolicy, GetVolumeRequest,
    ListCandidatesRequest, ListVolumesRequest, ResetTrackingRequest, StoreConfig,
    TrackingDurability, TransportKind, Volume,
};
use uuid::Uuid;

use crate::{
    client::Client,
    context::Context,
    exit::{Exit, Fault},
    json as as_json,
    output::fill_bar,
    select::malformed,
    units,
};

use area::Area;

/// The longest that a writer is delayed by `--policy slow` when nothing else is said.
const DEFAULT_WRITE_DELAY: &str = "50ms";

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Put an interposer over an image file or a device
    Attach(AttachArgs),
    /// Take the interposer away; tracking of the volume ends
    Detach {
        #[command(flatten)]
        which: each::Which,
        /// Release live snapshots rather than refuse
        #[arg(long)]
        force: bool,
    },
    /// Show the volumes, a line each
    List,
    /// Show everything about one volume, or about all
    Status {
        /// The volume
        name: Option<String>,
    },
    /// Show the devices of the host, and why each can or cannot be attached
    Candidates,
    /// Go on with the server that is installed now, as after an upgrade; writes wait for a moment
    HandOver {
        #[command(flatten)]
        which: each::Which,
    },
    /// Start tracking anew: every older checkpoint requires a full backup
    Reset {
        /// The volume
        name: String,
        /// Why; recorded, and told to whoever asks against an old checkpoint
        #[arg(long)]
        reason: String,
    },
}

#[derive(clap::Args, Debug)]
pub(crate) struct AttachArgs {
    /// The volume's name: a-z, 0-9, '-' and '_'
    name: String,
    /// The image file or block device to interpose on; logical volumes and other
    /// device-mapper devices may be mounted, where the host has ublk
    origin: PathBuf,
    /// What holds the snapshot store and the tracking: a file on another file system than the
    /// volume, a device, or `lv` for a logical volume that is made in the origin's volume group,
    /// and removed by detach; `lv:NAME` names it. A file of that name is ./lv
    #[arg(long, value_name = "FILE|DEVICE|lv[:NAME]", value_parser = area::parse)]
    area: Area,
    /// Size to create the area with, for example 10G; an existing area keeps its own, and a
    /// logical volume has a tenth of the volume's size, at least 256M, when nothing is said
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, default_value = "0")]
    area_size: u64,
    /// Unit of tracking, a power of two from 4K to 64K
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, default_value = "4K")]
    block_size: u64,
    /// What happens when the store fills; the host's writes always go on
    #[arg(long, value_enum, default_value = "drop")]
    policy: Policy,
    /// With --policy slow: the longest that one write may be delayed
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = DEFAULT_WRITE_DELAY)]
    max_write_delay: Duration,
    /// How the volume is presented to the host
    #[arg(long, value_enum, default_value = "auto")]
    transport: Transport,
    /// Whether tracking survives a restart or a power cut of the host
    #[arg(long, value_enum, default_value = "auto")]
    durability: Durability,
    /// Snapshots survive it too; the first write to a block under one then waits for the area's disk
    #[arg(long)]
    durable_snapshots: bool,
}

#[derive(Clone, Copy, ValueEnum, PartialEq, Eq, Debug)]
enum Durability {
    /// It does, unless the area lies in memory
    Auto,
    /// It does not: the backup after a restart is a full one
    Volatile,
    /// It does; the area must be on a disk
    Durable,
}

impl From<Durability> for TrackingDurability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Auto => Self::Unspecified,
            Durability::Volatile => Self::Volatile,
            Durability::Durable => Self::Durable,
        }
    }
}

#[derive(Clone, Copy, ValueEnum, PartialEq, Eq, Debug)]
enum Transport {
    /// By ublk for block devices where the host has it, else portable
    Auto,
    /// FUSE and a loop device
    Portable,
    /// A block device of the kernel's ublk driver
    Ublk,
}

impl From<Transport> for TransportKind {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Auto => Self::Unspecified,
            Transport::Portable => Self::Portable,
            Transport::Ublk => Self::Ublk,
        }
    }
}

#[derive(Clone, Copy, ValueEnum, PartialEq, Eq, Debug)]
enum Policy {
    /// Drop the oldest snapshot at once
    Drop,
    /// Delay writers up to a bound, then drop
    Slow,
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let out = &context.out;
    match command {
        Command::Attach(args) => attach(args, &client, context).await,
        Command::Detach { which, force } => {
            let act = |name| each::detach(name, force, &client, context);
            which.each("detached", &client, context, act).await
        }
        Command::List => {
            let all = list(&client).await?;
            out.document(&Value::Array(all.iter().map(as_json::volume).collect()));
            out.table(&HEADING, &all.iter().map(row).collect::<Vec<_>>());
            Ok(())
        }
        Command::Status { name } => status(name, &client, context).await,
        Command::Candidates => candidates(&client, context).await,
        Command::HandOver { which } => {
            let act = |name| each::hand_over(name, &client, context);
            which.each("handed over", &client, context, act).await
        }
        Command::Reset { name, reason } => {
            let request = ResetTrackingRequest { name, reason };
            let volume = client
                .volumes()
                .reset_tracking(request)
                .await?
                .into_inner()
                .volume
                .ok_or_else(|| malformed("ResetTracking", "volume"))?;
            out.document(&as_json::volume(&volume));
            out.say(format!(
                "volume {}: new lineage {}",
                volume.name, volume.lineage
            ));
            Ok(())
        }
    }
}

async fn attach(args: AttachArgs, client: &Client, context: &Context) -> anyhow::Result<()> {
    let block_bytes = u32::try_from(args.block_size)
        .map_err(|_| Fault::new(Exit::Usage, "--block-size is at most 64K"))?;
    let slow = args.policy == Policy::Slow;
    let full_policy = if slow {
        FullPolicy::Slow
    } else {
        FullPolicy::Drop
    };
    let (area_path, logical_volume) = match &args.area {
        Area::At(path) => (absolute(path)?, None),
        Area::LogicalVolume(name) => {
            let wanted = AreaLogicalVolume { name: name.clone() };
            (String::new(), Some(wanted))
        }
    };
    let store = StoreConfig {
        area_path,
        logical_volume,
        area_size_bytes: args.area_size,
        full_policy: full_policy.into(),
        max_write_delay: slow.then(|| units::to_proto(args.max_write_delay)),
        durability: TrackingDurability::from(args.durability).into(),
        durable_snapshots: args.durable_snapshots,
    };
    let request = AttachVolumeRequest {
        name: args.name,
        origin_path: absolute(&args.origin)?,
        block_bytes,
        store: Some(store),
        request_id: Uuid::new_v4().to_string(),
        transport: TransportKind::from(args.transport).into(),
    };
    let volume = client
        .volumes()
        .attach_volume(request)
        .await?
        .into_inner()
        .volume
        .ok_or_else(|| malformed("AttachVolume", "volume"))?;
    let out = &context.out;
    out.document(&as_json::volume(&volume));
    out.say(format!(
        "volume {} attached: {} of {} blocks",
        volume.name,
        units::bytes(volume.capacity_bytes),
        units::bytes(volume.block_bytes.into())
    ));
    if let Some(config) = volume
        .store
        .as_ref()
        .filter(|one| one.logical_volume.is_some())
    {
        let size = units::bytes(config.area_size_bytes);
        out.say(format!("area {} of {size} made", config.area_path));
    }
    match volume.device_path.as_str() {
        "" => out.say(format!(
            "no device could be made; the live volume is the file {}",
            volume.live_path
        )),
        device => out.say(format!(
            "mount {device}, not the origin: writes to the origin are not tracked"
        )),
    }
    Ok(())
}

/// The daemon runs elsewhere, so relative paths mean nothing to it, and `..` could mean another
/// place tomorrow. Symbolic links stay as they are: a device's may be its only lasting name.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<String> {
    let context = || path.display().to_string();
    let mut whole = std::path::absolute(path).with_context(context)?;
    if whole.components().any(|part| part == Component::ParentDir)
        && let (Some(dir), Some(name)) = (whole.parent(), whole.file_name())
    {
        whole = dir.canonicalize().with_context(context)?.join(name);
    }
    whole
        .into_os_string()
        .into_string()
        .map_err(|path| Fault::new(Exit::Usage, format!("{} is not UTF-8", path.display())).into())
}

/// Every volume.
pub(crate) async fn list(client: &Client) -> anyhow::Result<Vec<Volume>> {
    let reply = client.volumes().list_volumes(ListVolumesRequest {}).await?;
    Ok(reply.into_inner().volumes)
}

/// One volume.
pub(crate) async fn get(client: &Client, name: &str) -> anyhow::Result<Volume> {
    let request = GetVolumeRequest {
        name: name.to_owned(),
    };
    let reply = client.volumes().get_volume(request).await?;
    reply
        .into_inner()
        .volume
        .ok_or_else(|| malformed("GetVolume", "volume"))
}

async fn status(name: Option<String>, client: &Client, context: &Context) -> anyhow::Result<()> {
    let out = &context.out;
    if let Some(name) = name {
        let volume = get(client, &name).await?;
        out.document(&as_json::volume(&volume));
        describe(&volume).iter().for_each(|line| out.line(line));
        return Ok(());
    }
    let all = list(client).await?;
    out.document(&Value::Array(all.iter().map(as_json::volume).collect()));
    for volume in &all {
        describe(volume).iter().for_each(|line| out.line(line));
    }
    Ok(())
}

async fn candidates(client: &Client, context: &Context) -> anyhow::Result<()> {
    let reply = client
        .volumes()
        .list_candidates(ListCandidatesRequest {})
        .await?;
    let all = reply.into_inner().candidates;
    let out = &context.out;
    out.document(&Value::Array(all.iter().map(as_json::candidate).collect()));
    let row = |candidate: &Candidate| {
        vec![
            candidate.path.clone(),
            units::bytes(candidate.capacity_bytes),
            if candidate.attachable { "yes" } else { "no" }.to_owned(),
            candidate.reason.clone(),
        ]
    };
    out.table(
        &["DEVICE", "SIZE", "ATTACHABLE", "WHY"],
        &all.iter().map(row).collect::<Vec<_>>(),
    );
    Ok(())
}

const HEADING: [&str; 7] = [
    "VOLUME",
    "STATE",
    "SIZE",
    "TRUST",
    "SNAPSHOTS",
    "STORE",
    "DEVICE",
];

fn row(volume: &Volume) -> Vec<String> {
    let trust = volume
        .trust
        .as_ref()
        .map_or("UNKNOWN", |trust| as_json::trust_name(trust.trust));
    let store = volume.store_status.unwrap_or_default();
    vec![
        volume.name.clone(),
        as_json::volume_state(volume.state).to_owned(),
        units::bytes(volume.capacity_bytes),
        trust.to_owned(),
        volume.live_snapshots.to_string(),
        units::per_cent(store.used_bytes, store.capacity_bytes),
        volume.device_path.clone(),
    ]
}

/// Everything about a volume that an operator may need, one line a thing.
pub(crate) fn describe(volume: &Volume) -> Vec<String> {
    let head = format!(
        "{}  {}  {} of {} blocks",
        volume.name,
        as_json::volume_state(volume.state),
        units::bytes(volume.capacity_bytes),
        units::bytes(volume.block_bytes.into()),
    );
    let mut facts = vec![
        ("origin", volume.origin_path.clone()),
        ("device", device_line(volume)),
        ("tracking", tracking_line(volume)),
        (
            "changed",
            format!(
                "{} since the last cut (epoch {} of {})",
                units::bytes(volume.changed_bytes_in_epoch),
                volume.current_epoch,
                volume.lineage
            ),
        ),
        ("store", store_line(volume)),
    ];
    if let Some(config) = &volume.store {
        let policy = as_json::full_policy(config.full_policy).to_ascii_lowercase();
        facts.push((
            "area",
            format!("{}; when full: {policy}", area::line(config)),
        ));
    }
    facts.push((
        "snapshots",
        format!(
            "{} live, {} checkpoints",
            volume.live_snapshots, volume.checkpoints
        ),
    ));
    if let Some(stats) = &volume.stats {
        let served = format!(
            "{} read, {} written, {} preserved",
            units::bytes(stats.read_bytes),
            units::bytes(stats.write_bytes),
            units::bytes(stats.preserved_bytes)
        );
        facts.push(("served", served));
    }
    facts.push(("server", format!("process {}", volume.server_pid)));
    let lines = facts.into_iter().filter(|(_, fact)| !fact.is_empty());
    std::iter::once(head)
        .chain(lines.map(|(label, fact)| format!("  {label:<10} {fact}")))
        .collect()
}

fn device_line(volume: &Volume) -> String {
    let device = if volume.device_path.is_empty() {
        &volume.live_path
    } else {
        &volume.device_path
    };
    match volume.mount_points.as_slice() {
        [] => format!("{device} (not mounted)"),
        points => format!("{device} (mounted on {})", points.join(", ")),
    }
}

fn tracking_line(volume: &Volume) -> String {
    let Some(trust) = &volume.trust else {
        return String::new();
    };
    let mut line = as_json::trust_name(trust.trust).to_owned();
    if !trust.reason.is_empty() {
        line.push_str(&format!(": {}", trust.reason));
    }
    if let Some(since) = &trust.since {
        line.push_str(&format!(", tracked since {since}"));
    }
    match TrackingDurability::try_from(volume.durability) {
        Ok(TrackingDurability::Durable) => line.push_str(match &volume.store {
            Some(store) if store.durable_snapshots => {
                ", survives a restart of the host as snapshots do"
            }
            _ => ", survives a restart of the host",
        }),
        Ok(TrackingDurability::Volatile) => line.push_str(", ends with the host"),
        Ok(TrackingDurability::Suspended) => line.push_str(&format!(
            ", WOULD NOT SURVIVE a restart of the host now: {}",
            volume.durability_reason
        )),
        Ok(TrackingDurability::Unspecified) | Err(_) => {}
    }
    line
}

fn store_line(volume: &Volume) -> String {
    let Some(store) = volume.store_status else {
        return String::new();
    };
    format!(
        "{} {} of {} ({})",
        fill_bar(store.used_bytes, store.capacity_bytes, 30),
        units::bytes(store.used_bytes),
        units::bytes(store.capacity_bytes),
        units::per_cent(store.used_bytes, store.capacity_bytes)
    )
}
