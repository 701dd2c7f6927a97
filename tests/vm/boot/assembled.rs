//! A volume that is assembled and mounted at boot, through a reboot, a power cut and the package's
//! end.

use super::{Host, last_number};

#[test]
fn a_volume_is_tracked_over_a_reboot_and_a_power_cut_and_left_whole_by_a_purge() {
    let mut host = Host::new("assembled");
    host.boot(
        "is installed and attached while mounted",
        r"
        protect_data
        echo more >/srv/data/more
        sync
        ",
    );
    let cut = host.cut(
        "comes up tracked and is cut while it writes",
        r#"
        is_over_ublk
        came_before tidemark-volume@data.service local-fs-pre.target
        came_before tidemark-volume@data.service srv-data.mount
        came_before local-fs.target tidemarkd.service
        await_volume .state ATTACHED
        is_same_lineage
        is "trust" "$(volume .trust.trust)" CONTINUOUS
        is_small "$(back_up)" 16
        assert_backed_up
        write_numbers
        "#,
        "written 25",
    );
    let number = last_number(&cut);
    host.boot(
        "comes up tracked after the cut and is purged",
        &format!(
            r#"
            is_over_ublk
            assert_number {number}
            await_volume .state ATTACHED
            is_same_lineage
            point=$(back_up)
            is "its trust" "$(jq -r .trust <<<"$point")" SUPERSET
            # A region is 1 MiB, and 64 of them are told of ahead of a sequential writer.
            is_small "$point" 96
            assert_backed_up

            DEBIAN_FRONTEND=noninteractive apt-get purge --quiet=2 --yes tidemark
            is_without_us
            is "logical volumes" "$(lvs --noheadings --options lv_name vg | tr -d ' ')" data
            is "mapped devices" "$(dmsetup ls --noheadings | cut -f1)" vg-data
            ! grep -s tidemark /proc/[0-9]*/comm || fail "a process is left"
            for left in /etc/tidemark /var/lib/tidemark /run/tidemark /usr/sbin/tidemarkd; do
                [ ! -e $left ] || fail "$left is left"
            done
            [ -n "$(ls -A /var/backups/vault)" ] || fail "the repository is gone"
            "#
        ),
    );
    host.boot(
        "comes up without it",
        r#"
        is_without_us
        umount /srv/data
        e2fsck -fn /dev/vg/data
        "#,
    );
}
