//! The volume comes first: whatever is wrong with us, the machine boots, its file systems are
//! mounted without us, and we say that tracking is broken and why.

use super::Host;

const OURS: (&str, &str) = ("tidemark", "the story breaks it");
/// The unit of the device vg/data-area.
const AREA: (&str, &str) = (r"dev-vg-data\x2darea.device", "the story takes it away");

/// How the operator learns of it.
const SAID: &str = r#"
    is_without_us
    eventually "the daemon answers" tidemark volume list
    await_volume .trust.trust BROKEN
    [ -n "$(volume .trust.reason)" ] || fail "no reason"
    say "$(volume .trust.reason)"
    (tidemark status || is "its status" $? 15) | grep BROKEN
"#;

/// Breaks it one way and mends it again: two boots, of which the first must come up without us.
fn breaks(story: &'static str, breaking: &str, mending: &str) {
    let mut host = Host::new(story);
    host.boot("is broken", &format!("protect_data\n{breaking}"));
    host.boot_allowing(
        "boots without us",
        &format!("{SAID}\n{mending}"),
        &[OURS, AREA],
    );
    host.boot(
        "is tracked again",
        r#"
        await_volume .state ATTACHED
        is_over_ublk
        point=$(back_up)
        [ -n "$(jq -r .full_reason <<<"$point")" ] || fail "an incremental backup over a gap"
        assert_backed_up
        "#,
    );
}

#[test]
#[ignore = "the package; make test-vm tells it"]
fn no_ublk_driver() {
    breaks(
        "no-ublk",
        "echo 'install ublk_drv /bin/false' >/etc/modprobe.d/no-ublk.conf",
        "rm /etc/modprobe.d/no-ublk.conf",
    );
}

#[test]
#[ignore = "the package; make test-vm tells it"]
fn the_area_is_missing() {
    breaks(
        "no-area",
        // Behind our back: the next boot finds no such volume.
        "lvrename --quiet vg data-area hidden",
        "lvrename --quiet vg hidden data-area",
    );
}

/// A program that cannot even start: nobody is there to say anything until it is mended.
#[test]
#[ignore = "the package; make test-vm tells it"]
fn the_program_is_broken() {
    let mut host = Host::new("broken-program");
    host.boot(
        "is broken",
        r"
        protect_data
        # Over a new file: the one that runs keeps its own.
        cp -p /usr/sbin/tidemarkd /root/tidemarkd
        printf 'no program' >/root/broken && chmod 755 /root/broken
        mv /root/broken /usr/sbin/tidemarkd
        ",
    );
    host.boot_allowing(
        "boots without us",
        r#"
        is_without_us
        # The generator is the same program: nothing was even asked of the volume.
        is "the volume's unit" "$(systemctl is-active tidemark-volume@data.service)" inactive
        journalctl --boot --unit tidemarkd | grep 203/EXEC
        (tidemark status || is "its status" $? 10) | grep 'systemctl status tidemarkd'
        cp -p /root/tidemarkd /usr/sbin/tidemarkd
        systemctl reset-failed 'tidemark*'
        systemctl restart tidemarkd
        eventually 'the daemon answers' tidemark volume list
        await_volume .state ATTACHED
        "#,
        &[OURS],
    );
}

/// The configuration is the control plane's: the volume is assembled all the same.
#[test]
#[ignore = "the package; make test-vm tells it"]
fn the_configuration_is_wrong() {
    let mut host = Host::new("wrong-configuration");
    host.boot(
        "is misconfigured",
        r"
        protect_data
        printf '[volume.data]\ndevise = 1\n' >/etc/tidemark/tidemark.toml
        ! tidemark config check
        ",
    );
    host.boot_allowing(
        "is tracked and says what is wrong",
        r#"
        is_over_ublk
        eventually "the daemon answers" tidemark volume list
        await_volume .state ATTACHED
        is_same_lineage
        (tidemark status || is "its status" $? 15) | grep 'next: tidemark config check'
        "#,
        &[OURS],
    );
}
