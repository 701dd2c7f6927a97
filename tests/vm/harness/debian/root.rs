//! The root that every Debian guest starts from: made once from Debian's packages, then kept under
//! a key of all that it is made of.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    MIB, image,
    programs::succeed,
    vm::{Kernel, cache, packages},
};

const SUITE: &str = "trixie";
/// What a host has on which Tidemark is installed, and what stories ask it with.
const PACKAGES: [&str; 12] = [
    "systemd",
    "systemd-sysv",
    "udev",
    "dbus",
    "kmod",
    "lvm2",
    "dmsetup",
    "fuse3",
    "e2fsprogs",
    "xfsprogs",
    "fio",
    "jq",
];
/// Units that nobody misses in a story. Those that fetch or tidy would run in the middle of one;
/// the others only take their time, which emulation makes long.
const MASKED: [&str; 28] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "xfs_scrub_all.timer",
    "systemd-tmpfiles-clean.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-logind.service",
    "systemd-user-sessions.service",
    "systemd-update-utmp.service",
    "systemd-hostnamed.socket",
    "systemd-udev-load-credentials.service",
    "systemd-network-generator.service",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "modprobe@drm.service",
    "modprobe@configfs.service",
    "modprobe@efi_pstore.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
    "systemd-pstore.service",
    "systemd-tpm2-setup-early.service",
];
/// Generators of what no guest has; each is a process, before anything else may begin.
const NOT_GENERATED: [&str; 7] = [
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-rc-local-generator",
    "systemd-ssh-generator",
    "systemd-sysv-generator",
    "systemd-tpm2-generator",
];
/// Sparse; a full package upgrade and a repository of a small volume fit.
const BYTES: u64 = 3072 * MIB;
/// Files as they are on a host that was installed: an empty machine-id would make each first boot
/// one of first-boot questions.
const FILES: [(&str, &str); 3] = [
    ("etc/machine-id", "5f0c0d2a9b7e4d5e8a1f3c6b7d8e9f00\n"),
    ("etc/hostname", "guest\n"),
    (
        "etc/fstab",
        "/dev/disk/by-id/virtio-disk0 / ext4 rw,relatime 0 1\n",
    ),
];

/// The image, made if it is not there. Not to be written to.
pub(super) fn image(kernel: &Kernel) -> PathBuf {
    let folder = cache::folder("debian");
    let name = format!("{SUITE}-{}-{}", kernel.release, key(kernel));
    let tree = folder.join(format!("{name}.tree"));
    cache::ensure(&folder.join(format!("{name}.raw")), |work| {
        println!("making a root of Debian {SUITE}");
        let _ = fs::remove_dir_all(&tree);
        bootstrap(&tree);
        furnish(&tree, kernel);
        image::sparse(work, BYTES);
        let mut make = Command::new("mke2fs");
        make.args(["-q", "-F", "-t", "ext4", "-L", "root", "-d"]);
        succeed(make.arg(&tree).arg(work));
        fs::remove_dir_all(&tree).unwrap_or_else(|e| panic!("{}: {e}", tree.display()));
    })
}

/// A name for the content: changes with every part of it that is chosen here.
fn key(kernel: &Kernel) -> String {
    let mut hasher = blake3::Hasher::new();
    let files = FILES.iter().flat_map(|(path, text)| [*path, *text]);
    let parts = PACKAGES.into_iter().chain(MASKED).chain(NOT_GENERATED);
    for part in parts
        .chain(files)
        .chain([kernel.version.as_str(), &BYTES.to_string()])
    {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

fn bootstrap(tree: &Path) {
    let source = format!(
        "deb [signed-by={}] {} {SUITE} main",
        packages::KEYRING,
        packages::mirror()
    );
    succeed(
        Command::new("mmdebstrap")
            .args(["--quiet", "--mode=root", "--variant=minbase"])
            .args(["--architectures=amd64", "--format=directory"])
            .arg(format!("--include={}", PACKAGES.join(",")))
            .arg(SUITE)
            .arg(tree)
            .arg(source)
            .env("LC_ALL", "C"),
    );
}

fn furnish(tree: &Path, kernel: &Kernel) {
    let modules = tree.join("usr/lib/modules");
    make(&modules);
    let from = kernel.modules.join("lib/modules").join(&kernel.release);
    succeed(Command::new("cp").arg("-a").arg(from).arg(&modules));
    for (path, text) in FILES {
        let path = tree.join(path);
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    mask(&tree.join("etc/systemd/system"), &MASKED);
    mask(&tree.join("etc/systemd/system-generators"), &NOT_GENERATED);
    // The journal is kept from boot to boot, and no mirror of this host's is in a guest.
    make(&tree.join("var/log/journal"));
    fs::write(tree.join("etc/apt/sources.list"), "").expect("a tree can be written");
    // What systemd compares with /usr to learn whether it must rebuild its caches.
    for stamp in ["etc/.updated", "var/.updated"] {
        fs::write(tree.join(stamp), "").expect("a tree can be written");
    }
}

fn mask(folder: &Path, names: &[&str]) {
    make(folder);
    for name in names {
        let path = folder.join(name);
        let _ = fs::remove_file(&path);
        symlink("/dev/null", &path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}

fn make(folder: &Path) {
    fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
}
