//! The units, as the systemd of each release understands them.

use tidemark_tests::packaged::Package;

use crate::root::{RELEASES, Root};

/// What each may be exposed to at most, by `systemd-analyze security`.
///
/// 1.5 was asked for of the control plane. It is root with CAP_SYS_ADMIN, since it freezes file systems, on
/// the host's devices, network and users, since it reads volumes and speaks to object services: these
/// alone are 2.5. The rest is that it reads and writes where the administrator says.
const EXPOSURE: [(&str, &str); 3] = [
    ("tidemark-volume@.service", "20"),
    ("tidemark-rescue@.service", "20"),
    ("tidemarkd.service", "32"),
];

const UNITS: [&str; 6] = [
    "tidemarkd.service",
    "tidemarkd.socket",
    "tidemark-volume@data.service",
    "tidemark-rescue@data.service",
    "tidemark-backup@nightly.service",
    "tidemark-backup@nightly.timer",
];

/// A volume that is needed before what is mounted, as the generator arranges it. Wanted by local-fs.target,
/// since nothing need want local-fs-pre.target but the volume itself.
const EARLY: &str = "mkdir -p /etc/systemd/system/local-fs.target.wants \
    /etc/systemd/system/tidemark-volume@data.service.d; \
    ln -s /usr/lib/systemd/system/tidemark-volume@.service \
    /etc/systemd/system/local-fs.target.wants/tidemark-volume@data.service; \
    printf '[Unit]\\nAfter=dev-vg-data.device\\nWants=dev-vg-data.device\\n' \
    > /etc/systemd/system/tidemark-volume@data.service.d/devices.conf; \
    printf '[Unit]\\nBefore=local-fs.target\\n[Mount]\\nWhat=/dev/vg/data\\nWhere=/data\\n' \
    > /etc/systemd/system/data.mount; \
    mkdir -p /etc/systemd/system/local-fs.target.requires; \
    ln -s ../data.mount /etc/systemd/system/local-fs.target.requires/; \
    printf '[Timer]\\nOnCalendar=daily\\n' > /schedule.conf; \
    mkdir -p /etc/systemd/system/tidemark-backup@nightly.timer.d; \
    mv /schedule.conf /etc/systemd/system/tidemark-backup@nightly.timer.d/";

#[test]
fn every_release_understands_them() {
    for release in RELEASES {
        let mut root = Root::of(release);
        root.install(Package::under_test().path());
        root.ok(EARLY);
        for unit in UNITS {
            let said = root.ok(&format!("systemd-analyze verify --man=no {unit}"));
            assert_eq!(said.trim(), "", "{release}: {unit}");
        }
        for (unit, most) in EXPOSURE {
            root.ok(&format!(
                "systemd-analyze security --no-pager --offline=true --threshold={most} \
                 /usr/lib/systemd/system/{unit} > /measured || {{ cat /measured; false; }}"
            ));
        }
        root.ok("sh -n /usr/lib/tidemark/volumes");
        if root.run("udevadm verify --help").0 == 0 {
            root.ok("udevadm verify --no-style /usr/lib/udev/rules.d/56-tidemark.rules");
        }
        // Without the program a machine must boot all the same.
        let generator = "/usr/lib/systemd/system-generators/tidemark-generator /tmp /tmp /tmp";
        root.ok(&format!("mv /usr/sbin/tidemarkd /kept; {generator}"));
    }
}

#[test]
fn an_early_volume_makes_no_cycle_at_boot() {
    for release in RELEASES {
        let mut root = Root::of(release);
        root.install(Package::under_test().path());
        root.ok(EARLY);
        let boot = "systemd-analyze verify --man=no default.target";
        let said = root.ok(boot);
        assert!(!said.contains("cycle"), "{release}: {said}");
        // That the check sees one.
        root.ok("printf '[Unit]\\nAfter=local-fs.target\\n' \
             > /etc/systemd/system/tidemark-volume@data.service.d/cycle.conf");
        let (_, said) = root.run(boot);
        assert!(said.contains("ordering cycle"), "{release}: {said}");
    }
}

#[test]
fn the_portable_transport_stays_in_the_hosts_namespace_of_mounts() {
    let mut root = Root::of(RELEASES[1]);
    root.install(Package::under_test().path());
    let drop_ins = "/etc/systemd/system/tidemark-volume@.service.d";
    root.ok(&format!(
        "mkdir -p {drop_ins} && cp /usr/lib/tidemark/portable.conf {drop_ins}"
    ));
    root.ok("systemd-analyze verify --man=no tidemark-volume@data.service");
    // Each of these would unshare it: exec_needs_mount_namespace() in systemd's sources.
    let whole = root.ok(&format!(
        "cat /usr/lib/systemd/system/tidemark-volume@.service {drop_ins}/portable.conf"
    ));
    for setting in [
        "PrivateMounts",
        "PrivateNetwork",
        "PrivateTmp",
        "PrivateDevices",
        "ProtectSystem",
        "ProtectHome",
        "ProtectHostname",
        "ProtectControlGroups",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "ProtectProc",
        "ReadWritePaths",
    ] {
        let begins = format!("{setting}=");
        let last = whole
            .lines()
            .filter_map(|line| line.strip_prefix(&begins))
            .next_back();
        assert!(
            matches!(last, Some("no" | "default" | "")),
            "{setting}={last:?}"
        );
    }
}
