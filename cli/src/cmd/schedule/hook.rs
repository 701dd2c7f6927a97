//! Programs that run after a backup.

use std::{process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{process::Command, time::timeout};

use crate::units;

/// How long one that is told to end may take to put things right.
const GRACE: Duration = Duration::from_secs(10);

/// Runs a hook within its time; with nothing to run, nothing. What it prints goes to standard error,
/// since standard output is ours. It and all that it started are ended when it takes too long.
pub(super) async fn run(
    key: &str,
    words: &[String],
    within: Duration,
    environment: &[(&str, String)],
) -> Result<(), String> {
    let Some((program, arguments)) = words.split_first() else {
        return Ok(());
    };
    let failed = |why: String| Err(format!("hook {key}: {program}: {why}"));
    let spawned = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .process_group(0)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return failed(error.to_string()),
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    match timeout(within, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => failed(status.to_string()),
        Ok(Err(error)) => failed(error.to_string()),
        Err(_) => {
            let tell = |signal| {
                // It may have ended just now.
                let _ = group.map(|group| killpg(Pid::from_raw(group), signal));
            };
            tell(Signal::SIGTERM);
            // Its children too, once it had its time.
            let _ = timeout(GRACE, child.wait()).await;
            tell(Signal::SIGKILL);
            let _ = child.wait().await;
            failed(format!(
                "it took more than {} and was ended",
                units::span(within)
            ))
        }
    }
}
