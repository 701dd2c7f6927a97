//! The demo's dealings with the host: programs, places, mounts.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::Context;
use nix::{
    mount::{MntFlags, umount2},
    sys::statfs::{TMPFS_MAGIC, statfs},
    unistd::mkdtemp,
};
use tokio::process::Command;

use crate::{
    exit::{Exit, Fault},
    host::program::{find_in_path, find_program},
    units,
};

/// Programs that the demo calls, and the Debian package of each.
const PROGRAMS: [(&str, &str); 6] = [
    ("mkfs.ext4", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("mount", "mount"),
    ("losetup", "mount"),
    ("fstrim", "util-linux"),
    ("sqlite3", "sqlite3"),
];
/// The agent's program, in both its roles.
const AGENT: &str = "tidemarkd";
/// Devices without which the portable transport cannot work.
const DEVICES: [&str; 2] = ["/dev/fuse", "/dev/loop-control"];
/// Image, area, pulled image, restored image and a copy to check, were each written whole.
const SPACE_FACTOR: u64 = 4;

/// Finds the agent, and everything that would be missed later; all of it is told at once.
pub(super) fn check() -> anyhow::Result<PathBuf> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root: mounting and freezing need it".to_owned());
    }
    let agent = find_program(AGENT);
    if agent.is_none() {
        missing.push("tidemarkd: neither beside this command nor in PATH".to_owned());
    }
    for (program, package) in PROGRAMS {
        if find_in_path(program).is_none() {
            missing.push(format!("{program}: apt-get install {package}"));
        }
    }
    for device in DEVICES {
        if !Path::new(device).exists() {
            missing.push(format!("{device}: the kernel lacks it"));
        }
    }
    match agent.filter(|_| missing.is_empty()) {
        Some(agent) => Ok(agent),
        None => {
            let exit = if missing.iter().any(|one| one.starts_with("root")) {
                Exit::Denied
            } else {
                Exit::Failed
            };
            Err(
                Fault::new(exit, format!("the demo lacks {}", missing.join("; ")))
                    .advise("`tidemark doctor` looks further")
                    .into(),
            )
        }
    }
}

/// Makes a directory of its own for the demo, where there is room for a volume of `size` bytes.
pub(super) fn make_work_dir(size: u64) -> anyhow::Result<PathBuf> {
    let parent = std::env::temp_dir();
    let context = || parent.display().to_string();
    let told = statfs(&parent).with_context(context)?;
    let block = u64::try_from(told.block_size()).unwrap_or(0);
    let free = told.blocks_available().saturating_mul(block);
    let needed = size.saturating_mul(SPACE_FACTOR);
    if free < needed {
        return Err(Fault::new(
            Exit::Failed,
            format!(
                "{} has {} free; the demo may need {}",
                parent.display(),
                units::bytes(free),
                units::bytes(needed)
            ),
        )
        .advise("give a smaller --size, or set TMPDIR to a roomier place")
        .into());
    }
    let dir = mkdtemp(&parent.join("tidemark-demo-XXXXXX")).with_context(context)?;
    dir.canonicalize().with_context(context)
}

/// A runtime directory in memory where there is one, so that it all goes with the demo; else one
/// in the work directory.
pub(super) fn make_runtime_dir(work: &Path) -> anyhow::Result<PathBuf> {
    for place in ["/run", "/dev/shm"] {
        if !statfs(place).is_ok_and(|told| told.filesystem_type() == TMPFS_MAGIC) {
            continue;
        }
        if let Ok(dir) = mkdtemp(&Path::new(place).join("tidemark-demo-XXXXXX")) {
            return Ok(dir);
        }
    }
    let dir = work.join("run");
    std::fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

/// Runs a program to its end; its output, whatever the end was. Dies with the caller.
pub(super) async fn output(
    program: &str,
    arguments: &[&dyn AsRef<OsStr>],
) -> anyhow::Result<Output> {
    let path = find_in_path(program).unwrap_or_else(|| program.into());
    let mut command = Command::new(path);
    command.args(arguments.iter().map(|argument| argument.as_ref()));
    // A group of its own: ^C is for us, who then put everything away in order.
    command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .process_group(0);
    command.output().await.with_context(|| program.to_owned())
}

/// Runs a program that has to succeed; what it printed.
pub(super) async fn run(program: &str, arguments: &[&dyn AsRef<OsStr>]) -> anyhow::Result<String> {
    let output = output(program, arguments).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(Fault::new(
        Exit::Failed,
        format!("{program} ended with {}: {}", output.status, told.trim()),
    )
    .into())
}

/// Everything mounted under any of `roots`, innermost last.
pub(super) fn mounts_under(roots: &[PathBuf]) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|point| roots.iter().any(|root| point.starts_with(root)))
        .collect()
}

/// The kernel writes blanks and backslashes in octal.
fn unescape(field: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(field.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

/// Unmounts; with `lazily` also what is busy.
pub(super) fn unmount(point: &Path, lazily: bool) -> Result<(), nix::Error> {
    let flags = if lazily {
        MntFlags::MNT_DETACH
    } else {
        MntFlags::empty()
    };
    umount2(point, flags)
}

/// Loop devices over a file under any of `roots`.
pub(super) fn loops_under(roots: &[PathBuf]) -> Vec<PathBuf> {
    let Ok(devices) = std::fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    let over = |device: &std::fs::DirEntry| {
        let backing = std::fs::read_to_string(device.path().join("loop/backing_file"));
        backing.is_ok_and(|path| {
            roots
                .iter()
                .any(|root| Path::new(path.trim_end()).starts_with(root))
        })
    };
    devices
        .flatten()
        .filter(over)
        .map(|device| Path::new("/dev").join(device.file_name()))
        .collect()
}

/// Agents' processes that were given a path under any of `roots`.
pub(super) fn agents_with(roots: &[PathBuf]) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ours = |line: &[u8]| {
        let mut words = line
            .split(|byte| *byte == 0)
            .map(|word| Path::new(OsStr::from_bytes(word)));
        let program = words.next().and_then(Path::file_name);
        program.is_some_and(|name| name == AGENT)
            && words.any(|word| roots.iter().any(|root| word.starts_with(root)))
    };
    entries
        .flatten()
        .filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| ours(&line)))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_read_as_they_are_written() {
        assert_eq!(unescape("/a\\040b"), "/a b");
        assert!(mounts_under(&[PathBuf::from("/")]).contains(&PathBuf::from("/proc")));
        assert!(mounts_under(&[PathBuf::from("/no/such/root")]).is_empty());
    }

    #[tokio::test]
    async fn a_program_that_fails_says_why() {
        assert_eq!(run("echo", &[&"x"]).await.unwrap(), "x\n");
        let error = run("ls", &[&"/no/such/root"]).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/root"), "{error}");
    }
}
