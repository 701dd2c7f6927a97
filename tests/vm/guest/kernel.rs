//! What the guest's kernel offers, so that a missing part is a failure of its own.

use std::{fs, path::Path, process::Command};

use tidemark_tests::programs::succeed;

#[test]
#[ignore = "runs in a guest"]
fn offers_what_we_need() {
    succeed(Command::new("modprobe").args([
        "-a",
        "ublk_drv",
        "dm_mod",
        "dm_snapshot",
        "dm_thin_pool",
        "dm_era",
    ]));
    assert!(Path::new("/dev/ublk-control").exists(), "no ublk driver");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    println!("Linux {}", release.trim());
    let targets = succeed(Command::new("dmsetup").arg("targets"));
    println!("{targets}");
    for target in ["linear", "striped", "snapshot-origin", "thin-pool", "era"] {
        assert!(
            targets.lines().any(|line| line.starts_with(target)),
            "no dm target {target}"
        );
    }
}
