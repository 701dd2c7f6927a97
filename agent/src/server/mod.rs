//! The volume server: one small process a volume, the data plane.
//!
//! ```text
//! start    claim origin and area, open the engine, mount, listen, say `ready`
//! serve    FUSE threads -> engine; connection threads -> calls -> engine; housekeeping
//! stop     refuse while in use; device away, mount away, area given up
//! leave    at a signal: as stop, but the area keeps what was tracked for the next start
//! fall back  when servers die again and again: the host gets its volume back, untracked
//! ```
//!
//! It has a session of its own and outlives the control plane that started it. No async runtime,
//! no database and no network are in this process.

mod area;
mod backend;
mod calls;
mod fallback;
mod guard;
mod hardening;
mod leave;
mod left;
mod listen;
mod origin;
pub mod outcome;
mod presented;
mod served;
mod start;
mod start_error;
mod stop;
pub mod wire;

use std::{
    path::PathBuf,
    process,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::ValueEnum;
use futures_lite::future::block_on;
use sd_notify::NotifyState;
use tidemark_store::units::Id;
use tracing_subscriber::EnvFilter;

use crate::{
    host::NOT_STARTED,
    log,
    transport::{portable::MAX_THREADS, ublk::Ublk},
    volume::FullPolicy,
};
use hardening::StopSignals;
use outcome::Outcome;
use served::{Ending, StopRequest};
use start_error::StartError;

/// How long the engine's clean-up may rest.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// Arguments of `tidemarkd volume`.
#[derive(Clone, Debug, clap::Args)]
pub struct VolumeArgs {
    /// Name of the volume
    pub name: String,
    /// Where sockets, views and logs live
    #[arg(long)]
    pub runtime_dir: PathBuf,
    /// Image file or unmounted block device to protect
    #[arg(long)]
    pub origin: PathBuf,
    /// File or block device of the snapshot store; not on the volume itself
    #[arg(long)]
    pub area: PathBuf,
    /// Size to create the area with, in bytes; an area that exists keeps its size
    #[arg(long)]
    pub area_size: Option<u64>,
    /// Unit of tracking in bytes: a power of two from 4096 to 65536
    #[arg(long, default_value_t = 4096)]
    pub block_bytes: u32,
    /// What happens when the snapshot store fills
    #[arg(long, value_enum, default_value_t = PolicyArg::Drop)]
    pub policy: PolicyArg,
    /// With `--policy slow`: longest delay of one write before the oldest snapshot is dropped
    #[arg(long, default_value_t = 0)]
    pub max_write_delay_ms: u64,
    /// Identity of the volume: 32 hex digits
    #[arg(long, value_parser = parse_id)]
    pub volume_id: Id,
    /// Requests served at once
    #[arg(long, default_value_t = 8, value_parser = parse_queues)]
    pub queues: usize,
    /// How the volume is presented to the host
    #[arg(long, value_enum, default_value_t = TransportArg::Auto)]
    pub transport: TransportArg,
    /// Whether tracking outlives the host
    #[arg(long, value_enum, default_value_t = DurabilityArg::Auto)]
    pub durability: DurabilityArg,
    /// Snapshots outlive it too
    #[arg(long)]
    pub durable_snapshots: bool,
    /// The volume was attached before: a start without its state is a loss of tracking
    #[arg(long)]
    pub again: bool,
    /// What the origin was when it was served last; another one begins a new lineage
    #[arg(long, value_name = "IDENTITY")]
    pub expected_origin: Option<String>,
    /// What the area tells of earlier tracking must not be believed, for this reason
    #[arg(long, value_name = "CAUSE")]
    pub distrust: Option<String>,
    /// To be served before file systems are mounted; for `tidemarkd generate`
    #[arg(long)]
    pub early: bool,
    /// Serve no more: give the volume its own table back, for this reason
    #[arg(long, value_name = "CAUSE")]
    pub fall_back: Option<String>,
}

/// How a volume is presented, on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum TransportArg {
    /// By ublk for block devices where the host has it, else portable
    Auto,
    /// FUSE and a loop device
    Portable,
    /// A block device of the kernel's; device-mapper volumes also while mounted
    Ublk,
}

/// Whether tracking outlives the host, on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum DurabilityArg {
    /// It does, unless the area lies in memory
    Auto,
    /// It does not
    Volatile,
    /// It does
    Durable,
}

/// [`FullPolicy`] on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum PolicyArg {
    /// Drop the oldest snapshot
    Drop,
    /// Delay writers, then drop
    Slow,
}

impl VolumeArgs {
    fn full_policy(&self) -> FullPolicy {
        match self.policy {
            PolicyArg::Drop => FullPolicy::Drop,
            PolicyArg::Slow => FullPolicy::Slow(Duration::from_millis(self.max_write_delay_ms)),
        }
    }
}

fn parse_id(text: &str) -> Result<Id, String> {
    let id = Id::parse(text).filter(|id| *id != Id::NIL);
    id.ok_or_else(|| "an identity has 32 hex digits, not all of them 0".to_owned())
}

fn parse_queues(text: &str) -> Result<usize, String> {
    let queues = text
        .parse()
        .ok()
        .filter(|queues| (1..=MAX_THREADS).contains(queues));
    queues.ok_or_else(|| format!("from 1 to {MAX_THREADS}"))
}

/// Runs the volume server until it is stopped. Tells the parent in one line on standard output
/// how the start went (see [`outcome`]); logs to the journal or to standard error.
pub fn run(args: VolumeArgs) -> anyhow::Result<()> {
    start_log(&args.name);
    hardening::settle();
    if let Some(cause) = &args.fall_back {
        tell_failure(fallback::fall_back(&args, cause))?;
        Outcome::Ready { origin: None }.tell();
        return Ok(());
    }
    let signals = StopSignals::block().context("SIGTERM and SIGINT cannot be waited for")?;
    let (stop, stops) = mpsc::channel();
    let (wake, wakes) = mpsc::sync_channel(1);
    let mut running = match tell_failure(start::start(&args, stop.clone(), wake)) {
        Err(error) if Ublk::left_behind(args.volume_id).is_none() => {
            tracing::error!(%error, "not started");
            process::exit(NOT_STARTED);
        }
        started => started?,
    };
    let (listener, served) = running.door()?;
    let volume = running.volume();
    let views = Arc::clone(&served);
    spawn("housekeeping", move || {
        loop {
            // Woken or not, and also when nobody is left to wake it: it is time.
            let _ = wakes.recv_timeout(HOUSEKEEPING);
            volume.housekeep();
            views.settle_views();
        }
    })?;
    if let Some(guard) = served.guard.clone() {
        spawn("guard", move || guard.watch())?;
    }
    let volume = running.volume();
    spawn("journal", move || block_on(volume.keep_journal()))?;
    spawn("signals", move || pass_on(signals, &stop))?;
    spawn("accept", move || listen::accept(&listener, &served))?;
    hardening::lock_memory();
    let origin = running.origin_identity();
    Outcome::Ready { origin }.tell();
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!(%error, "systemd cannot be told that the volume is served");
    }
    stop::serve_until_stopped(&mut running, &stops)
}

fn tell_failure<T>(done: Result<T, StartError>) -> Result<T, StartError> {
    done.inspect_err(|error| {
        let message = error.to_string();
        Outcome::Failed {
            kind: error.kind(),
            message,
        }
        .tell();
    })
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.with_context(|| format!("no thread for {name}"))?;
    Ok(())
}

fn pass_on(signals: StopSignals, stop: &mpsc::Sender<StopRequest>) {
    loop {
        match signals.wait() {
            Ok(signal) => tracing::info!(%signal, "asked to stop"),
            Err(error) => return tracing::error!(%error, "signals can no longer be waited for"),
        }
        let request = StopRequest {
            ending: Ending::Leave,
            outcome: None,
            told: None,
        };
        if stop.send(request).is_err() {
            return;
        }
    }
}

fn start_log(volume: &str) {
    // fuser warns about every optional operation that is left to the kernel's default.
    let filter = EnvFilter::try_from_env("TIDEMARK_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,fuser=error,libublk=warn"));
    log::start_volume(volume, filter);
}
