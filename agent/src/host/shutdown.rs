//! Whether the host is being stopped.

use std::{
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use super::child;

/// systemd answers at once, or is in trouble of its own.
const WITHIN: Duration = Duration::from_secs(5);

/// Whether systemd is stopping the host; `false` where there is no systemd, or no answer.
pub fn is_under_way() -> bool {
    // sd_booted(3)
    Path::new("/run/systemd/system").is_dir() && state().as_deref() == Some("stopping")
}

/// What `systemctl is-system-running` prints; its status is not 0 for most of it.
fn state() -> Option<String> {
    let mut running = Command::new("systemctl")
        .arg("is-system-running")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .ok()?;
    let printed = running.stdout.take().map(|pipe| {
        child::collect(pipe, |pipe| {
            let mut word = String::new();
            pipe.take(64).read_to_string(&mut word).ok()?;
            Some(word)
        })
    });
    let Ok(Some(_)) = child::wait(&mut running, WITHIN) else {
        child::end(running);
        return None;
    };
    let word = child::collected(printed).flatten()?;
    Some(word.trim_end().to_owned())
}
