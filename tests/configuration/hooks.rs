//! Hooks around a freeze, as an application's administrator sees them.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use tidemark_proto::v1::{CreateSnapshotRequest, EventKind, FreezeMode};
use tidemark_tests::{Daemon, FsKind, Mounted, World, api::leased, host};

use super::{happened, volume};

/// A program that writes to the volume and tells a file of it: a write that a freeze holds up would end in the
/// hook's timeout.
fn script(world: &World, name: &str, ending: &str) -> String {
    let path = world.path(name);
    let text = format!(
        "#!/bin/sh\necho \"saying $TIDEMARK_HOOK\"\ntouch \"{mnt}/$TIDEMARK_HOOK\" && sync -f \"{mnt}\"\n\
         echo \"$TIDEMARK_HOOK $TIDEMARK_VOLUME ${{TIDEMARK_OUTCOME:-none}}\" >> \"{told}\"\n{ending}\n",
        mnt = world.text("mnt"),
        told = world.text("told"),
    );
    fs::write(&path, text).expect("a file can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    world.text(name)
}

fn with_hooks(before: &str, after: &str) -> (Daemon, Mounted) {
    let daemon = Daemon::configured(|world| {
        let hook = |name: &str, ending: &str| script(world, name, ending);
        format!(
            "{}[volume.data.hooks]\nbefore-freeze = [\"{}\"]\nafter-thaw = [\"{}\"]\ntimeout = \"40s\"\n",
            volume(world, "data"),
            hook("before", before),
            hook("after", after)
        )
    });
    host::eventually("the volume is attached", || {
        daemon.api().volume("data").is_ok()
    });
    let device = daemon.api().volume("data").expect("a volume").device_path;
    let mounted = Mounted::fresh(FsKind::Ext4, Path::new(&device), &daemon.path("mnt"));
    (daemon, mounted)
}

fn told(daemon: &Daemon) -> Vec<String> {
    let text = fs::read_to_string(daemon.path("told")).unwrap_or_default();
    text.lines().map(ToOwned::to_owned).collect()
}

fn frozen() -> CreateSnapshotRequest {
    CreateSnapshotRequest {
        freeze: FreezeMode::Require.into(),
        ..leased(&["data"], 60)
    }
}

#[test]
fn an_application_rests_around_the_freeze_and_can_still_write() {
    let (daemon, _mounted) = with_hooks("", "");
    daemon.api().snapshot_as(frozen()).expect("a snapshot");
    assert_eq!(
        told(&daemon),
        ["before-freeze data none", "after-thaw data succeeded"]
    );
    let log = fs::read_to_string(daemon.path("serve.log")).expect("a log");
    assert!(
        log.contains("saying before-freeze"),
        "what a hook prints is logged"
    );
    assert!(!happened(&daemon, EventKind::HookFailed));
    // Both could write: the file system was not frozen when they ran.
    for hook in ["before-freeze", "after-thaw"] {
        assert!(daemon.path("mnt").join(hook).exists(), "{hook}");
    }
}

#[test]
fn an_application_that_cannot_rest_refuses_the_snapshot_and_is_woken() {
    let (daemon, _mounted) = with_hooks("exit 5", "");
    let refusal = daemon.api().snapshot_as(frozen()).expect_err("a refusal");
    assert_eq!(refusal.reason, "HOOK_FAILED");
    assert_eq!(
        told(&daemon),
        ["before-freeze data none", "after-thaw data failed"]
    );
    assert!(happened(&daemon, EventKind::HookFailed));
    // Unless it need not.
    let text = fs::read_to_string(daemon.config()).expect("a file") + "required = false\n";
    fs::write(daemon.config(), text).expect("a file can be written");
    daemon.cli().ok(&["config", "reload"]);
    daemon.api().snapshot_as(frozen()).expect("a snapshot");
    assert_eq!(
        told(&daemon).last().map(String::as_str),
        Some("after-thaw data succeeded")
    );
}
