//! Starting a volume server: a process of its own session that outlives the control plane.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::Stdio,
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use tidemark_store::catalog::{FullPolicy, VolumeRecord};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

use super::{Error, ErrorReason, endurance::End, registry::Entry};
use crate::paths::{Paths, VolumePaths};

/// Making an area may take a while; after this the start has failed.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest first line of a volume server, in bytes.
const MAX_LINE: u64 = 4096;

/// Starts the server of a volume and waits until it says that it is ready; gives which device or
/// file the origin is, where that can be told.
pub(super) async fn start(
    program: &Path,
    paths: &Paths,
    entry: &Entry,
    again: bool,
) -> Result<Option<String>, Error> {
    run(program, arguments_of(paths, entry, again), entry).await
}

/// All that a volume's next server is told. `again`: the volume had one before.
pub(super) fn arguments_of(paths: &Paths, entry: &Entry, again: bool) -> Vec<OsString> {
    let mut arguments = arguments(paths, &entry.record);
    if again {
        arguments.push("--again".into());
    }
    if let Some(identity) = entry.origin_identity() {
        arguments.push("--expected-origin".into());
        arguments.push(identity.into());
    }
    if let Some(why) = entry.distrust() {
        arguments.push("--distrust".into());
        arguments.push(why.into());
    }
    arguments
}

/// Has a volume given back to its host: starts the process that does it, and waits for its end.
pub(super) async fn fall_back(
    program: &Path,
    paths: &Paths,
    entry: &Entry,
    cause: &str,
) -> Result<(), Error> {
    let mut arguments = arguments(paths, &entry.record);
    arguments.push("--fall-back".into());
    arguments.push(cause.into());
    run(program, arguments, entry).await.map(drop)
}

async fn run(
    program: &Path,
    arguments: Vec<OsString>,
    entry: &Entry,
) -> Result<Option<String>, Error> {
    let (name, volume_paths) = (entry.name().to_owned(), &entry.paths);
    super::prepare_dir(volume_paths.dir(), 0o700)?;
    entry.end().send_replace(None);
    let mut child = launch(program, &arguments, volume_paths).map_err(|error| {
        Error::internal(format!("starting {}: {error}", program.display())).on_volume(&name)
    })?;
    let verdict = timeout(START_TIMEOUT, first_line(&mut child)).await;
    let ready = match verdict {
        Ok(Ok(line)) => parse(&name, line.trim_end()),
        Ok(Err(error)) => Err(Error::internal(format!("reading from its server: {error}"))),
        Err(_) => Err(Error::unavailable(
            &name,
            format!("not ready within {START_TIMEOUT:?}"),
        )),
    };
    match ready {
        Ok(origin) => {
            tokio::spawn(reap(name, child, entry.end()));
            Ok(origin)
        }
        Err(error) => Err(end(entry, child, error).await.on_volume(&name)),
    }
}

/// Whether a volume server lives: it holds its lock for as long as it does.
pub(super) fn is_running(paths: &VolumePaths) -> bool {
    let Ok(file) = File::open(paths.lock()) else {
        return false;
    };
    matches!(
        Flock::lock(file, FlockArg::LockSharedNonblock),
        Err((_, nix::errno::Errno::EWOULDBLOCK))
    )
}

fn launch(program: &Path, arguments: &[OsString], volume: &VolumePaths) -> io::Result<Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(volume.log())?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(false);
    // SAFETY: between fork and exec the closure calls only setsid, which is async-signal-safe
    // and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
    }
    command.spawn()
}

fn arguments(paths: &Paths, record: &VolumeRecord) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["volume".into(), record.name.clone().into()];
    let mut add = |option: &str, value: OsString| {
        arguments.push(option.into());
        arguments.push(value);
    };
    add("--runtime-dir", paths.runtime_dir.clone().into());
    add("--origin", record.origin_path.clone().into());
    add("--area", record.area_path.clone().into());
    if record.area_size_bytes > 0 {
        add("--area-size", record.area_size_bytes.to_string().into());
    }
    add("--block-bytes", record.block_bytes.to_string().into());
    let (policy, delay) = match record.policy {
        FullPolicy::Drop => ("drop", 0),
        FullPolicy::Slow { max_write_delay_ms } => ("slow", max_write_delay_ms),
    };
    add("--policy", policy.into());
    add("--max-write-delay-ms", delay.to_string().into());
    add("--volume-id", record.id.to_string().into());
    add("--transport", record.transport.name().into());
    add("--durability", record.durability.name().into());
    if record.durable_snapshots {
        arguments.push("--durable-snapshots".into());
    }
    arguments
}

async fn first_line(child: &mut Child) -> io::Result<String> {
    let Some(stdout) = child.stdout.take() else {
        return Err(io::Error::other("its standard output is not ours"));
    };
    let mut line = String::new();
    BufReader::new(stdout.take(MAX_LINE))
        .read_line(&mut line)
        .await?;
    Ok(line)
}

/// `ready`, maybe with the origin's identity, or `error KIND message`.
pub(super) fn parse(volume: &str, line: &str) -> Result<Option<String>, Error> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "ready" => Ok((!rest.is_empty()).then(|| rest.to_owned())),
        "error" => {
            let (kind, message) = rest.split_once(' ').unwrap_or((rest, ""));
            Err(Error::new(
                reason(kind),
                format!("volume \"{volume}\": {message}"),
            ))
        }
        _ => Err(Error::unavailable(volume, "it ended before it was ready")),
    }
}

fn reason(kind: &str) -> ErrorReason {
    match kind {
        "ORIGIN_IN_USE" => ErrorReason::OriginInUse,
        "ORIGIN_UNSUITABLE" => ErrorReason::OriginUnsuitable,
        "AREA_ON_VOLUME" => ErrorReason::AreaOnVolume,
        "AREA_IN_USE" => ErrorReason::AreaInUse,
        "AREA_CORRUPT" => ErrorReason::AreaCorrupt,
        "AREA_NO_SPACE" => ErrorReason::AreaNoSpace,
        "UNSUPPORTED" => ErrorReason::Unsupported,
        _ => ErrorReason::Internal,
    }
}

/// A server that is not ready must not stay. One that ended by itself leaves its last words.
async fn end(entry: &Entry, mut child: Child, error: Error) -> Error {
    /// For how long a server that reported an error may take to end by itself.
    const GRACE: Duration = Duration::from_secs(10);
    let exit = match timeout(GRACE, child.wait()).await {
        Ok(exit) => exit,
        Err(_) => match child.start_kill() {
            Ok(()) => child.wait().await,
            Err(failure) => Err(failure),
        },
    };
    if let Ok(status) = exit {
        entry.end().send_replace(Some(status.into()));
    }
    match exit {
        Ok(status) if error.reason == ErrorReason::VolumeServerUnavailable => {
            let words = last_words(&entry.paths).await;
            Error {
                message: format!("{} ({status}{words})", error.message),
                ..error
            }
        }
        _ => error,
    }
}

async fn last_words(paths: &VolumePaths) -> String {
    let log = tokio::fs::read(paths.log()).await.unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let last = log.lines().rev().find(|line| !line.trim().is_empty());
    last.map(|line| format!("; its log ends with: {}", line.trim()))
        .unwrap_or_default()
}

async fn reap(volume: String, mut child: Child, end: watch::Sender<Option<End>>) {
    match child.wait().await {
        Ok(status) => {
            tracing::info!(volume, %status, "a volume server ended");
            end.send_replace(Some(status.into()));
        }
        Err(error) => tracing::warn!(volume, %error, "a volume server's end is not known"),
    }
}

#[cfg(test)]
mod tests {
    use tidemark_store::{
        catalog::{Durability, Transport},
        units::Id,
    };

    use super::*;

    fn record(policy: FullPolicy, area_size_bytes: u64) -> VolumeRecord {
        VolumeRecord {
            name: "data".to_owned(),
            id: Id([7; 16]),
            origin_path: "/images/a b".into(),
            area_path: "/areas/x".into(),
            area_size_bytes,
            area_made: false,
            block_bytes: 8192,
            policy,
            transport: Transport::Ublk,
            durability: Durability::Durable,
            durable_snapshots: true,
            distrust: None,
            origin_identity: None,
            attached_us: 0,
        }
    }

    fn paths() -> Paths {
        Paths {
            runtime_dir: "/run/t".into(),
            state_dir: "/var/t".into(),
        }
    }

    #[test]
    fn the_arguments_are_those_of_the_volume_role() {
        let slow = FullPolicy::Slow {
            max_write_delay_ms: 50,
        };
        let line: Vec<_> = arguments(&paths(), &record(slow, 1 << 20))
            .into_iter()
            .map(|part| part.into_string().unwrap())
            .collect();
        let expected = "volume|data|--runtime-dir|/run/t|--origin|/images/a b|--area|/areas/x|\
                        --area-size|1048576|--block-bytes|8192|--policy|slow|\
                        --max-write-delay-ms|50|--volume-id|07070707070707070707070707070707|\
                        --transport|ublk|--durability|durable|--durable-snapshots";
        assert_eq!(line.join("|"), expected);
        let kept = arguments(&paths(), &record(FullPolicy::Drop, 0));
        assert!(!kept.contains(&"--area-size".into()));
    }

    #[test]
    fn first_lines_are_told_apart() {
        assert_eq!(parse("v", "ready").unwrap(), None);
        let identity = parse("v", "ready wwid naa.5").unwrap();
        assert_eq!(identity.as_deref(), Some("wwid naa.5"));
        let error = parse("v", "error AREA_ON_VOLUME the area lies on it").unwrap_err();
        assert_eq!(error.reason, ErrorReason::AreaOnVolume);
        assert!(error.message.contains("the area lies on it"));
        for odd in ["", "error", "error ODD thing", "warning"] {
            assert!(parse("v", odd).is_err());
        }
    }
}
