//! Which processes have a file or block device open.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use super::device::Anchor;

/// A process that has a file open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opener {
    /// Its number.
    pub pid: u32,
    /// Its name, as the kernel keeps it.
    pub command: String,
    /// It can write.
    pub writes: bool,
}

impl fmt::Display for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

/// Processes other than this one that have `wanted` open, which is known as `path`.
///
/// An answer for people and a second opinion, not proof: a file that was opened under another
/// hard link is not found, nor are processes of other PID namespaces. Descriptors are told by
/// their names first, since asking about one of another file system may wait for a FUSE server
/// that hangs.
pub fn openers(path: &Path, wanted: Anchor) -> Vec<Opener> {
    let name = fs::canonicalize(path).ok();
    let name = name.as_deref().and_then(Path::file_name);
    let is_candidate = |target: &Path| match wanted {
        Anchor::Device(_) => target.starts_with("/dev"),
        Anchor::File(_) => target.file_name() == name,
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .filter_map(|pid: u32| opener(pid, wanted, is_candidate))
        .collect()
}

fn opener(pid: u32, wanted: Anchor, is_candidate: impl Fn(&Path) -> bool) -> Option<Opener> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let descriptors = fs::read_dir(process.join("fd")).ok()?.flatten();
    let mut found = None;
    for descriptor in descriptors.map(|entry| entry.path()) {
        let Ok(target) = fs::read_link(&descriptor) else {
            continue;
        };
        if !is_candidate(&target) || Anchor::of_path(&descriptor).ok() != Some(wanted) {
            continue;
        }
        let Some(number) = descriptor.file_name() else {
            continue;
        };
        found = Some(found == Some(true) || is_writable(&process.join("fdinfo").join(number)));
    }
    let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
    Some(Opener {
        pid,
        command: command.trim().to_owned(),
        writes: found?,
    })
}

/// Whether a descriptor was opened for writing, by the octal flags in its fdinfo.
fn is_writable(fdinfo: &Path) -> bool {
    let text = fs::read_to_string(fdinfo).unwrap_or_default();
    text.lines()
        .find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok())
        .is_some_and(|flags| flags & libc::O_PATH == 0 && flags & libc::O_ACCMODE != libc::O_RDONLY)
}
