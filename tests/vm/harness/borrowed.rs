//! Programs of the host that guests use, with the libraries that they are linked with.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use crate::programs::{run, succeed};

/// What guests can run beside busybox's own; each goes over busybox's of the same name.
const PROGRAMS: [&str; 39] = [
    "bash",
    "blkdiscard",
    "blkid",
    "blockdev",
    "btrfs",
    "cp",
    "cryptsetup",
    "debugfs",
    "dmsetup",
    "dumpe2fs",
    "e2fsck",
    "findmnt",
    "fio",
    "fs_mark",
    "fsfreeze",
    "fstrim",
    "fusermount3",
    "losetup",
    "lsblk",
    "lvm",
    "mkfs.btrfs",
    "mkfs.ext4",
    "mkfs.xfs",
    "mkswap",
    "mount",
    "partprobe",
    "resize2fs",
    "sfdisk",
    "sqlite3",
    "stat",
    "stress-ng",
    "strace",
    "swapoff",
    "swapon",
    "tune2fs",
    "umount",
    "xfs_db",
    "xfs_growfs",
    "xfs_repair",
];

/// Without these, stories would fail for a reason that is not theirs.
const REQUIRED: [&str; 9] = [
    "blkid",
    "cryptsetup",
    "dmsetup",
    "fio",
    "fs_mark",
    "lvm",
    "mkfs.ext4",
    "mkfs.xfs",
    "stress-ng",
];

/// Taken along where the host has them.
const LOAD_GENERATORS: [&str; 1] = ["dbench"];

/// Where programs are looked for, whatever PATH says.
const FOLDERS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Files for a guest: where there, from where here.
pub type Files = BTreeMap<String, PathBuf>;

/// All programs that the host has of those that guests use, with their libraries.
pub fn programs() -> Files {
    let mut files = Files::new();
    for name in PROGRAMS.iter().chain(&LOAD_GENERATORS) {
        match find(name) {
            Some(path) => {
                files.extend(libraries(&path));
                files.insert(format!("/usr/bin/{name}"), path);
            }
            None => assert!(
                !REQUIRED.contains(name),
                "guests need {name}, which is not installed; `make deps` installs it"
            ),
        }
    }
    files
}

/// Where the host has a program.
pub fn find(name: &str) -> Option<PathBuf> {
    let mut places = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    places.find(|path| path.is_file())
}

/// The libraries of a program, the loader among them; none when it is static.
pub fn libraries(program: &Path) -> Files {
    let output = run(Command::new("ldd").arg(program).env("LC_ALL", "C"));
    if !output.status.success() {
        // ldd's way to say that a program is static, or a script.
        return Files::new();
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        !text.contains("not found"),
        "{} lacks a library:\n{text}",
        program.display()
    );
    library_paths(&text)
        .map(|path| (path.to_owned(), PathBuf::from(path)))
        .collect()
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f..)` and `/lib64/ld-linux-x86-64.so.2 (0x..)`.
fn library_paths(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let words = line.split_once("=>").map_or(line, |(_, path)| path);
        let path = words.split_whitespace().next()?;
        path.starts_with('/').then_some(path)
    })
}

/// The names of busybox's programs.
pub fn busybox_names(busybox: &Path) -> Vec<String> {
    let text = succeed(Command::new(busybox).arg("--list"));
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_is_found() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths: Vec<_> = library_paths(text).collect();
        assert_eq!(paths, ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
