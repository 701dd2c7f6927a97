//! What the kernel and the system's programs give.

use std::{fs, fs::OpenOptions, path::Path};

use super::check::{Check, Level};
use crate::host::{command, program::find_in_path};

/// The first Linux whose ublk outlives its server as volumes need it, for `a mounted volume is attached`.
const UBLK_SINCE: (u32, u32) = (6, 12);

/// The kernel, its drivers, and programs of others that we run.
pub(super) async fn checks() -> Vec<Check> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel(release.trim());
    let ublk = driver(
        Driver {
            name: "ublk",
            device: "/dev/ublk-control",
            module: "ublk_drv",
            lack: "volumes are served by the portable transport, which costs more and cannot be put under a mounted one",
        },
        Level::Advice,
    )
    .await;
    // Either transport will do.
    let portable = match ublk.level {
        Level::Ok => Level::Advice,
        Level::Advice | Level::Missing => Level::Missing,
    };
    let mut checks = vec![kernel, ublk];
    for (driver_of, level) in [
        (
            Driver {
                name: "device-mapper",
                device: "/dev/mapper/control",
                module: "dm_mod",
                lack: "logical volumes cannot be attached",
            },
            Level::Advice,
        ),
        (
            Driver {
                name: "fuse",
                device: "/dev/fuse",
                module: "fuse",
                lack: "the portable transport does not work",
            },
            portable,
        ),
        (
            Driver {
                name: "loop devices",
                device: "/dev/loop-control",
                module: "loop",
                lack: "the portable transport gives no device to mount",
            },
            portable,
        ),
    ] {
        checks.push(driver(driver_of, level).await);
    }
    checks.push(lvm());
    checks.extend(fusermount(portable));
    checks
}

fn kernel(release: &str) -> Check {
    let (major, minor) = UBLK_SINCE;
    match version(release) {
        Some(found) if found < UBLK_SINCE => Check::advice(
            "kernel",
            format!("Linux {release}: mounted volumes can be attached from {major}.{minor} on"),
            "install a newer kernel, as Debian 12 has in bookworm-backports: apt install -t bookworm-backports linux-image-amd64",
        ),
        Some(_) => Check::ok("kernel", format!("Linux {release}")),
        None => Check::advice("kernel", format!("\"{release}\" is no version"), "uname -r"),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

struct Driver {
    name: &'static str,
    device: &'static str,
    module: &'static str,
    /// What is not possible without it.
    lack: &'static str,
}

/// Tells a driver that is not loaded from one that is not there.
async fn driver(driver: Driver, without: Level) -> Check {
    let Driver {
        name,
        device,
        module,
        lack,
    } = driver;
    let Err(error) = OpenOptions::new().read(true).write(true).open(device) else {
        return Check::ok(name, format!("{device} opens"));
    };
    if Path::new(device).exists() {
        let mend = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "sudo tidemark doctor",
            _ => "ls -l /dev, and let containers have the device",
        };
        return Check::new(name, without, format!("{device}: {error}: {lack}"), mend);
    }
    let words = ["--dry-run", "--quiet", module];
    let known = command::run("modprobe", &words, command::USUAL, command::SHORT).await;
    let (why, mend) = match known {
        Ok(printed) if printed.succeeded => (
            format!("the module {module} is not loaded: {lack}"),
            format!("modprobe {module}"),
        ),
        Ok(_) => (
            format!("this kernel has no module {module}: {lack}"),
            format!("install the modules of this kernel, then: modprobe {module}"),
        ),
        Err(error) => (
            format!("{device} is not there ({error}): {lack}"),
            format!("apt install kmod && modprobe {module}"),
        ),
    };
    Check::new(name, without, why, mend)
}

fn lvm() -> Check {
    match find_in_path("lvm") {
        Some(path) => Check::ok("LVM", path.display().to_string()),
        None => Check::advice(
            "LVM",
            "lvm is not installed: areas cannot be made as logical volumes",
            "apt install lvm2",
        ),
    }
}

/// Root mounts without it.
fn fusermount(without: Level) -> Option<Check> {
    if nix::unistd::geteuid().is_root() {
        return None;
    }
    Some(match find_in_path("fusermount3") {
        Some(path) => Check::ok("fusermount3", path.display().to_string()),
        None => Check::new(
            "fusermount3",
            without,
            "not in PATH: only root can mount",
            "apt install fuse3",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("6.12-rc1"), Some((6, 12)));
        assert_eq!(version("next"), None);
        assert_eq!(kernel("6.1.0-18-amd64").level, Level::Advice);
        assert_eq!(kernel("6.12.0").level, Level::Ok);
        assert_eq!(kernel("7.2").level, Level::Ok);
    }

    #[tokio::test]
    async fn a_driver_that_is_not_there_has_a_command() {
        let absent = Driver {
            name: "none",
            device: "/dev/no-such-device",
            module: "no_such_module_at_all",
            lack: "nothing works",
        };
        let check = driver(absent, Level::Missing).await;
        assert_eq!(check.level, Level::Missing);
        assert!(check.mend.ends_with("modprobe no_such_module_at_all"));
    }
}
