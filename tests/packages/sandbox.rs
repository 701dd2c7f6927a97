//! The units' sandboxes, put up by a systemd that boots in a container: what the processes need is
//! there, the rest is not.
//!
//! The host's kernel lends what it has, so this is the portable transport; tests/vm boots whole machines.

use std::{fs, process::Command};

use tidemark_tests::{
    packaged::Package,
    programs::{printed, run},
};

use crate::root::{RELEASES, Root};

/// Runs what is to be told, and ends the container: systemd halts at once on SIGRTMIN+13.
const STORY: &str = "[Service]\nType=oneshot\n\
    ExecStart=/bin/sh /story.sh\nStandardOutput=file:/story.log\nStandardError=inherit\n\
    ExecStopPost=/bin/sh -c \"kill -47 1\"\n";
/// A program of the base system in the place of the server: only what surrounds it is of interest.
const SLEEPER: &str = "[Service]\nType=exec\nExecStart=\nExecStart=/usr/bin/sleep 1000\n";
/// What has no place in a container, or takes time.
const MASKED: [&str; 8] = [
    "tidemarkd.service",
    "tidemarkd.socket",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "apt-daily.timer",
    "fstrim.timer",
];

/// Boots a system with the package, in which `prepare` was run before and `script` runs then; gives
/// what the script printed.
fn booted(prepare: &str, script: &str) -> String {
    let mut root = Root::of(RELEASES[0]);
    root.install(Package::under_test().path());
    for unit in MASKED {
        root.ok(&format!("systemctl mask {unit}"));
    }
    root.ok(prepare);
    root.ok("ln -s ../story.service /etc/systemd/system/multi-user.target.wants/");
    fs::write(root.path("/etc/systemd/system/story.service"), STORY).expect("a unit is written");
    fs::write(root.path("/story.sh"), script).expect("a script is written");
    let mut container = Command::new("timeout");
    container.args([
        "120",
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
    ]);
    container.args([
        "--capability=all",
        "--console=pipe",
        "--bind=/dev/fuse",
        "--bind=/dev/loop-control",
    ]);
    let ended = run(container.arg("--boot").arg("-D").arg(root.path("/")));
    let said = fs::read_to_string(root.path("/story.log")).unwrap_or_default();
    println!("{}\n{said}", printed(&ended));
    said
}

fn drop_in(unit: &str, text: &str) -> String {
    let folder = format!("/etc/systemd/system/{unit}.d");
    format!("mkdir -p {folder} && printf '%s' '{text}' > {folder}/test.conf; ")
}

#[test]
fn the_data_plane_may_set_queues_up_and_change_nothing_else() {
    let prepare =
        drop_in("tidemark-volume@.service", SLEEPER) + "touch /etc/tidemark/volumes/data.args";
    // A container's /sys is read-only, which is not what is asked about.
    let script = "mount -o remount,bind,rw /sys; systemctl start tidemark-volume@data.service
        pid=$(systemctl show -P MainPID tidemark-volume@data.service)
        look() { if nsenter -m -t $pid sh -c \"$1\"; then echo \"yes: $1\"; else echo \"no: $1\"; fi; }
        look 'test -w /sys/devices/virtual/block'
        look 'test -w /sys/kernel'
        look 'test -w /usr'
        look 'test -w /etc/tidemark'
        look 'touch /srv/data.area'
        look 'test -r /proc/swaps'
        nsenter -n -t $pid ls /sys/class/net | tr '\\n' ' '
        test -f /run/tidemark-data.outcome && test -d /run/tidemark/volumes/data && echo places";
    let said = booted(&prepare, script);
    for words in [
        "yes: test -w /sys/devices/virtual/block",
        "no: test -w /sys/kernel",
        "no: test -w /usr",
        "no: test -w /etc/tidemark",
        "yes: touch /srv/data.area",
        "yes: test -r /proc/swaps",
        "places",
    ] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
}
