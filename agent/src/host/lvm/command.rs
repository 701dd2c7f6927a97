//! Running one of LVM's commands, within a bound.

use std::{
    env,
    io::Read,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use super::{LvmError, argv::Argv};
use crate::host::child;

/// A command waits for another one's lock without end. Most take a fraction of a second.
const WITHIN: Duration = Duration::from_secs(60);
/// A group of ten thousand volumes prints 3 MB; more is not read.
const MOST_PRINTED: u64 = 32 << 20;
/// Where administration programs are when PATH leaves them out.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// How much of what it said is told on.
const MOST_TOLD_CHARS: usize = 600;

/// LVM's one program.
#[derive(Debug)]
pub(super) struct Program(PathBuf);

impl Program {
    pub(super) fn find() -> Result<Self, LvmError> {
        let path = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&path)
            .chain(PLACES.map(PathBuf::from))
            .map(|dir| dir.join("lvm"))
            .find(|program| program.is_absolute() && program.is_file());
        found.map(Self).ok_or(LvmError::NoProgram)
    }

    /// Runs a command to its end; gives what it printed.
    pub(super) fn run(&self, argv: &Argv) -> Result<String, LvmError> {
        run(&self.0, argv, WITHIN)
    }
}

fn run(program: &Path, argv: &Argv, within: Duration) -> Result<String, LvmError> {
    let failed = |source| LvmError::Start {
        command: argv.to_string(),
        source,
    };
    tracing::debug!(command = %argv, "asking LVM");
    let mut running = Command::new(program)
        .args(argv.words())
        // What it says is told in an error, and must read alike everywhere.
        .env("LC_ALL", "C")
        .env("LVM_SUPPRESS_FD_WARNINGS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir("/")
        // A terminal's interrupt is for us to act upon.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let printed = running.stdout.take().map(|pipe| child::collect(pipe, text));
    let said = running.stderr.take().map(|pipe| child::collect(pipe, text));
    let Some(status) = child::wait(&mut running, within).map_err(failed)? else {
        child::end(running);
        return Err(LvmError::Late {
            command: argv.to_string(),
            within,
        });
    };
    let printed = child::collected(printed).unwrap_or_default();
    let said = child::collected(said).unwrap_or_default();
    if status.success() {
        if !said.is_empty() {
            tracing::debug!(command = %argv, said, "LVM warned");
        }
        return Ok(printed);
    }
    let words: Vec<_> = said.split_whitespace().collect();
    Err(LvmError::Failed {
        command: argv.to_string(),
        status,
        said: words.join(" ").chars().take(MOST_TOLD_CHARS).collect(),
    })
}

fn text(pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is all there is.
    let _ = pipe.take(MOST_PRINTED).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::host::lvm::Name;

    fn script(folder: &Path, body: &str) -> PathBuf {
        let path = folder.join("lvm");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn activate() -> Argv {
        Argv::activate(&Name::new("vg", "lv").unwrap())
    }

    #[test]
    fn what_is_printed_comes_back_and_what_is_said_is_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), "echo \"$*|$LC_ALL\"; echo careful >&2");
        let printed = run(&program, &activate(), WITHIN).unwrap();
        assert_eq!(printed, "lvchange --activate y vg/lv|C\n");
        let program = script(folder.path(), "echo '  no\n  such thing' >&2; exit 5");
        let error = run(&program, &activate(), WITHIN).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`lvm lvchange --activate y vg/lv` failed (exit status: 5): no such thing"
        );
    }

    #[test]
    fn one_that_does_not_end_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let ended = folder.path().join("ended");
        let body = format!(
            "trap 'echo > {}; exit 1' TERM\nwhile :; do sleep 0.05; done",
            ended.display()
        );
        let program = script(folder.path(), &body);
        let error = run(&program, &activate(), Duration::from_millis(300)).unwrap_err();
        assert!(matches!(error, LvmError::Late { .. }), "{error}");
        assert!(ended.exists(), "it was asked before it was made to");
    }

    #[test]
    fn more_than_a_pipe_holds_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let body = "head -c 300000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero >&2";
        let printed = run(&script(folder.path(), body), &activate(), WITHIN).unwrap();
        assert_eq!(printed.len(), 300_000);
    }
}
