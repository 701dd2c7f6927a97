//! What the kernel and systemd know.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use super::{
    bundle::Part,
    redact::{self, Secrets},
};
use crate::{
    cmd::status::overview::Overview,
    host::command::{self, SHORT},
    units,
};

/// Devices may be slow to answer.
const WITHIN: Duration = Duration::from_secs(30);
/// Of each log, its end, in bytes.
const LOG_TAIL: u64 = 256 << 10;
/// More files than our directories hold on any host.
const MAX_FILES: usize = 5_000;
const MAX_DEPTH: usize = 6;
/// Modules that volumes are made of, and those that are often under them.
const MODULES: [&str; 12] = [
    "ublk_drv", "dm_", "loop", "fuse", "md_mod", "raid", "nvme", "ext4", "xfs", "btrfs", "zfs",
    "drbd",
];

/// All of these.
pub(super) async fn parts(overview: &Overview, state_dir: &Path, secrets: &Secrets) -> Vec<Part> {
    let mut parts = vec![kernel(), modules()];
    for (name, program, words) in [
        ("dmsetup-table.txt", "dmsetup", &["table"][..]),
        ("dmsetup-status.txt", "dmsetup", &["status"]),
        ("dmsetup-deps.txt", "dmsetup", &["deps", "-o", "devname"]),
        (
            "lsblk.txt",
            "lsblk",
            &[
                "--output",
                "NAME,KNAME,TYPE,SIZE,RO,FSTYPE,MOUNTPOINTS,LOG-SEC,PHY-SEC",
            ],
        ),
        (
            "units.txt",
            "systemctl",
            &["--no-pager", "--all", "list-units", "tidemark*"],
        ),
        (
            "timers.txt",
            "systemctl",
            &["--no-pager", "--all", "list-timers", "tidemark*"],
        ),
    ] {
        let printed = printed(program, words).await;
        let printed = printed.map(|text| match program {
            "dmsetup" => redact::tables(&text),
            _ => text,
        });
        parts.push(Part::new(
            name,
            printed.map(|text| secrets.strike(&text)),
            "",
        ));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string());
    parts.push(Part::new(
        "mounts.txt",
        mounts.map(|text| secrets.strike(&redact::mounts(&text))),
        "options that name or hold a credential",
    ));
    parts.push(files(overview, state_dir));
    parts.extend(logs(overview, secrets));
    parts
}

async fn printed(program: &str, words: &[&str]) -> Result<String, String> {
    let printed = command::run(program, words, WITHIN, 4 * SHORT).await?;
    match printed.succeeded {
        true => Ok(printed.stdout),
        false => Err(printed.stderr.lines().next().unwrap_or_default().to_owned()),
    }
}

fn kernel() -> Part {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let text = format!(
        "{}tainted {}{}",
        read("/proc/version"),
        read("/proc/sys/kernel/tainted"),
        read("/etc/os-release"),
    );
    Part::new("kernel.txt", Ok(text), "")
}

fn modules() -> Part {
    let all = fs::read_to_string("/proc/modules").map_err(|error| error.to_string());
    let ours = |text: String| {
        let lines = text.lines();
        lines
            .filter(|line| MODULES.iter().any(|module| line.starts_with(module)))
            .map(|line| format!("{line}\n"))
            .collect()
    };
    Part::new(
        "modules.txt",
        all.map(ours),
        "modules that are not of volumes",
    )
}

/// Names, sizes and modes in our directories.
fn files(overview: &Overview, state_dir: &Path) -> Part {
    let mut lines = Vec::new();
    let config = overview.config.parent().unwrap_or(Path::new("/"));
    let mut roots = vec![state_dir, overview.places.runtime_dir()];
    // A configuration elsewhere lies among what is not ours.
    if config.ends_with("tidemark") {
        roots.push(config);
    }
    for root in roots {
        list(root, 0, &mut lines);
    }
    Part::new("files.txt", Ok(lines.concat()), "what the files hold")
}

fn list(path: &Path, depth: usize, lines: &mut Vec<String>) {
    if lines.len() >= MAX_FILES || depth > MAX_DEPTH {
        return;
    }
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) => return lines.push(format!("{}: {error}\n", path.display())),
    };
    lines.push(format!(
        "{:06o} {}:{} {:>12} {} {}\n",
        found.mode(),
        found.uid(),
        found.gid(),
        found.size(),
        units::moment(u64::try_from(found.mtime()).unwrap_or(0)),
        path.display()
    ));
    // Views of volumes are as large as they are, and not ours to walk.
    if !found.is_dir() || path.file_name().is_some_and(|name| name == "fs") {
        return;
    }
    let mut below: Vec<_> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    below.sort();
    for path in below {
        list(&path, depth + 1, lines);
    }
}

/// Of volume servers that no unit started: theirs go into the journal.
fn logs(overview: &Overview, secrets: &Secrets) -> Vec<Part> {
    let volumes = overview.local.iter();
    volumes
        .filter_map(|volume| {
            let text = tail(&overview.places.log(&volume.name)).ok()?;
            let name = format!("logs/{}.log", volume.name);
            Some(Part::new(
                name,
                Ok(secrets.strike(&text)),
                "all but its end",
            ))
        })
        .collect()
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
