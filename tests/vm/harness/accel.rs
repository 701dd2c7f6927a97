//! How a guest's processor is made: by KVM where it boots a stock kernel, else by emulation.
//!
//! Benchmarks count instead: the guest's clock goes by its instructions, one a nanosecond, and
//! jumps over idleness. So a disk of 100 us takes as long as 100,000 instructions, about as on
//! real hardware; what is measured is the same in each run and whatever else the host does. What
//! caches and memory cost is not in it.
//!
//! A /dev/kvm that can be opened is not enough: nested and restricted ones fail at the first
//! instruction that they lack. So a tiny guest is booted once, and the answer kept for as long as
//! the host runs.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{archive::Archive, borrowed, cache, kernel::Kernel};

/// With KVM a tiny guest is up in a second or two.
const PROBE_BOUND: Duration = Duration::from_secs(30);
const SIGN: &str = "@@tidemark alive";

/// The ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The processor's own virtualisation.
    Kvm,
    /// QEMU's emulation, some 18 times slower.
    Tcg,
    /// Emulation in counted time, both processors in turns. Only when asked for.
    Count,
}

impl Accel {
    /// The best that works here. `TIDEMARK_VM_ACCEL` (`kvm`, `tcg` or `count`) decides instead.
    pub fn choose(kernel: &Kernel) -> Self {
        if let Ok(forced) = std::env::var("TIDEMARK_VM_ACCEL") {
            return Self::named(&forced)
                .unwrap_or_else(|| panic!("TIDEMARK_VM_ACCEL={forced}: say kvm, tcg or count"));
        }
        if fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_err()
        {
            return Self::Tcg;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let answer = cache::folder("accel").join(boot.trim());
        cache::ensure(&answer, |work| {
            let found = if boots_with_kvm(kernel) {
                Self::Kvm
            } else {
                Self::Tcg
            };
            fs::write(work, found.name()).expect("the cache can be written");
        });
        let kept = fs::read_to_string(&answer).unwrap_or_default();
        Self::named(&kept).unwrap_or(Self::Tcg)
    }

    fn named(text: &str) -> Option<Self> {
        [Self::Kvm, Self::Tcg, Self::Count]
            .into_iter()
            .find(|accel| accel.name() == text)
    }

    /// As the environment calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
            Self::Count => "count",
        }
    }

    /// QEMU's options for it.
    pub fn options(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            // With cx16, QEMU 7.2 gives a double fault in Linux 6.12 around cmpxchg16b.
            Self::Tcg => &["-accel", "tcg,thread=multi", "-cpu", "max,-cx16"],
            Self::Count => &[
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=0,sleep=off",
                "-cpu",
                // Copying by a repeated instruction would count each byte.
                "max,-cx16,-erms,-fsrm",
            ],
        }
    }
}

fn boots_with_kvm(kernel: &Kernel) -> bool {
    let folder = cache::scratch();
    let initrd = folder.path().join("initrd");
    let log = folder.path().join("log");
    write_probe(&initrd).expect("a probe can be written");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(Accel::Kvm.options())
        .args([
            "-m",
            "512",
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
            "-nodefaults",
        ])
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(&initrd)
        .args(["-append", "console=ttyS0 panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut child) = qemu.spawn() else {
        return false;
    };
    let start = Instant::now();
    while start.elapsed() < PROBE_BOUND && matches!(child.try_wait(), Ok(None)) && !alive(&log) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = child.kill();
    let _ = child.wait();
    alive(&log)
}

fn alive(log: &Path) -> bool {
    fs::read(log).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(SIGN))
}

fn write_probe(to: &Path) -> std::io::Result<()> {
    let busybox = borrowed::find("busybox").expect("busybox is installed; `make deps` installs it");
    let mut archive = Archive::create(to)?;
    archive.file("bin/busybox", &busybox)?;
    archive.character_device("dev/console", 5, 1)?;
    let init =
        format!("#!/bin/busybox sh\necho '{SIGN}'\n/bin/busybox sleep 1\n/bin/busybox reboot -f\n");
    archive.bytes("init", init.as_bytes())?;
    archive.finish().map(drop)
}
