//! What a guest boots into.
//!
//! Two archives, one after the other: a base with the kernel's modules and the host's programs,
//! made once and kept under a key of all that it is made of; and over it our own programs with
//! the script to run, made anew for each boot, so that a rerun after a change costs seconds.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    archive::Archive,
    borrowed::{self, Files},
    cache,
    kernel::Kernel,
};
use crate::programs;

const INIT: &str = include_str!("init.sh");

/// No udev runs in a guest unless one is asked for: LVM makes its own nodes and waits for nobody.
const LVM_CONF: &str = "activation {\n\tudev_sync = 0\n\tudev_rules = 0\n\tverify_udev_operations = 0\n}\n\
    devices {\n\tobtain_device_list_from_udev = 0\n\tuse_devicesfile = 0\n\tmulti_component_detection = 1\n}\n\
    global {\n\tuse_lvmpolld = 0\n}\n";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n";
const GROUP: &str = "root:x:0:\ndisk:x:6:\n";
const MKE2FS_CONF: &str = "/etc/mke2fs.conf";

/// Our programs in a guest: those of the workspace and the one that holds the stories.
const OURS: [&str; 2] = ["tidemarkd", "tidemark"];

/// The base for a kernel.
pub fn base(kernel: &Kernel) -> PathBuf {
    let files = borrowed::programs();
    let key = key(kernel, &files);
    let path = cache::folder("initramfs").join(format!("{}-{key}.cpio", kernel.release));
    cache::ensure(&path, |work| {
        write_base(kernel, &files, work)
            .unwrap_or_else(|e| panic!("the base of {kernel} cannot be written: {e}"));
    })
}

/// A name for the content: changes with every part of it.
fn key(kernel: &Kernel, files: &Files) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut take = |part: &str| {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    };
    [INIT, LVM_CONF, PASSWD, GROUP, &kernel.version]
        .into_iter()
        .for_each(&mut take);
    take(&fingerprint(&kernel.image));
    for (path, host) in files {
        take(path);
        take(&fingerprint(host));
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Size and time of a file: a package's upgrade changes both.
fn fingerprint(path: &Path) -> String {
    let data = fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    format!("{} {:?}", data.len(), data.modified().ok())
}

fn write_base(kernel: &Kernel, files: &Files, to: &Path) -> io::Result<()> {
    let mut archive = Archive::create(to)?;
    for folder in [
        "usr/bin",
        "usr/lib",
        "usr/lib64",
        "proc",
        "sys",
        "dev",
        "tmp",
        "run",
        "root",
        "mnt",
        "etc",
        "var/lib",
        "tidemark/with",
    ] {
        archive.folder(folder)?;
    }
    // Everything lies below /usr; there is one folder for programs.
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("usr/sbin", "bin"),
        ("etc/mtab", "../proc/self/mounts"),
        ("var/run", "../run"),
    ] {
        archive.link(link, target)?;
    }
    archive.character_device("dev/console", 5, 1)?;
    archive.bytes("init", INIT.as_bytes())?;
    archive.bytes("etc/lvm/lvm.conf", LVM_CONF.as_bytes())?;
    archive.bytes("etc/passwd", PASSWD.as_bytes())?;
    archive.bytes("etc/group", GROUP.as_bytes())?;
    if Path::new(MKE2FS_CONF).exists() {
        archive.file(MKE2FS_CONF, Path::new(MKE2FS_CONF))?;
    }
    add_busybox(&mut archive, files)?;
    for (path, host) in files {
        archive.file(&below_usr(path), host)?;
    }
    for module in all_files(&kernel.modules.join("lib")) {
        let path = module
            .strip_prefix(&kernel.modules)
            .expect("it was found there");
        let path = path.to_str().expect("module names are UTF-8");
        archive.file(&format!("usr/{path}"), &module)?;
    }
    archive.finish().map(drop)
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(all_files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// busybox under each of its names that no program of the host has.
fn add_busybox(archive: &mut Archive<impl io::Write>, files: &Files) -> io::Result<()> {
    let busybox = borrowed::find("busybox").expect("busybox is installed; `make deps` installs it");
    assert!(
        borrowed::libraries(&busybox).is_empty(),
        "{} is not static; `make deps` installs busybox-static",
        busybox.display()
    );
    archive.file("usr/bin/busybox", &busybox)?;
    for name in borrowed::busybox_names(&busybox) {
        let path = format!("/usr/bin/{name}");
        if name != "busybox" && !files.contains_key(&path) {
            archive.link(&path, "busybox")?;
        }
    }
    for (name, program) in [
        ("lvs", "lvm"),
        ("vgs", "lvm"),
        ("pvs", "lvm"),
        ("lvcreate", "lvm"),
        ("lvchange", "lvm"),
        ("lvextend", "lvm"),
        ("lvremove", "lvm"),
        ("lvreduce", "lvm"),
        ("lvconvert", "lvm"),
        ("lvrename", "lvm"),
        ("pvcreate", "lvm"),
        ("pvmove", "lvm"),
        ("vgcreate", "lvm"),
        ("vgchange", "lvm"),
        ("vgextend", "lvm"),
        ("vgremove", "lvm"),
        ("vgscan", "lvm"),
        ("mkfs.ext3", "mkfs.ext4"),
        ("mke2fs", "mkfs.ext4"),
        ("fsck.ext4", "e2fsck"),
        ("blkdeactivate", "dmsetup"),
    ] {
        let path = format!("/usr/bin/{name}");
        if !files.contains_key(&path) {
            archive.link(&path, program)?;
        }
    }
    Ok(())
}

/// `/lib/x` and `/usr/sbin/x` as they are in a guest, where all lies below /usr.
fn below_usr(path: &str) -> String {
    let inner = path
        .strip_prefix("/usr/")
        .or_else(|| path.strip_prefix('/'));
    let inner = inner.unwrap_or(path);
    let inner = inner
        .strip_prefix("sbin/")
        .map_or_else(|| inner.to_owned(), |name| format!("bin/{name}"));
    format!("usr/{inner}")
}

/// Writes base and our own part into one file that QEMU can load.
pub fn assemble(kernel: &Kernel, script: &str, with: &Files, to: &Path) {
    let write = || -> io::Result<()> {
        let mut out = fs::File::create(to)?;
        io::copy(&mut fs::File::open(base(kernel))?, &mut out)?;
        let mut archive = Archive::new(io::BufWriter::new(out));
        let mut files = with.clone();
        files.extend(
            OURS.iter()
                .map(|name| (format!("/usr/bin/{name}"), stripped(&programs::ours(name)))),
        );
        for host in files.values().cloned().collect::<Vec<_>>() {
            for (path, library) in borrowed::libraries(&host) {
                files.entry(path).or_insert(library);
            }
        }
        for (path, host) in &files {
            archive.file(&below_usr_or_own(path), host)?;
        }
        archive.bytes("tidemark/run", script.as_bytes())?;
        archive.finish().map(drop)
    };
    write().unwrap_or_else(|e| panic!("{}: {e}", to.display()));
}

fn below_usr_or_own(path: &str) -> String {
    if path.starts_with("/tidemark/") || path.starts_with("/etc/") {
        return path.to_owned();
    }
    below_usr(path)
}

/// A program without its debugging tables, which make up most of it and no guest reads.
pub fn stripped(program: &Path) -> PathBuf {
    let name = program.file_name().and_then(|name| name.to_str());
    let name = name.expect("our programs have plain names");
    let key = blake3::hash(format!("{} {}", program.display(), fingerprint(program)).as_bytes());
    let path = cache::folder("stripped").join(format!("{name}-{}", &key.to_hex()[..16]));
    cache::ensure(&path, |work| {
        forget_older(&path, name);
        programs::succeed(
            Command::new("strip")
                .arg("--strip-debug")
                .arg("-o")
                .arg(work)
                .arg(program),
        );
    })
}

/// Removes stripped copies of earlier builds, but for the latest few, which a guest that is being
/// made ready elsewhere may want.
fn forget_older(path: &Path, name: &str) {
    const KEPT: usize = 4;
    let folder = path.parent().expect("the cache has folders");
    let mut copies: Vec<_> = fs::read_dir(folder)
        .map(|entries| entries.flatten().collect())
        .unwrap_or_default();
    copies.retain(|entry| {
        let file = entry.file_name();
        let stem = file.to_str().and_then(|file| file.rsplit_once('-'));
        stem.is_some_and(|(stem, _)| stem == name)
    });
    copies.sort_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok());
    let many = copies.len().saturating_sub(KEPT);
    for entry in &copies[..many] {
        let _ = fs::remove_file(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::below_usr;

    #[test]
    fn paths_of_the_host_lead_below_usr() {
        for (host, guest) in [
            ("/usr/sbin/lvm", "usr/bin/lvm"),
            ("/sbin/lvm", "usr/bin/lvm"),
            (
                "/lib64/ld-linux-x86-64.so.2",
                "usr/lib64/ld-linux-x86-64.so.2",
            ),
            ("/usr/bin/fio", "usr/bin/fio"),
        ] {
            assert_eq!(below_usr(host), guest);
        }
    }
}
