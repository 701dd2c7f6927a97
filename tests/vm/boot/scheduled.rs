//! A backup that a timer starts.

use super::Host;

#[test]
#[ignore = "the package; make test-vm tells it"]
fn a_scheduled_backup_runs_by_itself_with_its_hooks_and_again_when_its_time_was_slept_through() {
    let mut host = Host::new("scheduled");
    host.boot(
        "is configured",
        r#"
        protect_data
        # Mounting is what the daemon itself may not do: hooks run outside of its sandbox.
        cat >/usr/local/bin/hook <<-'END'
			#!/bin/sh -e
			mount -t tmpfs none /mnt
			umount /mnt
			echo "$1 $TIDEMARK_HOOK $TIDEMARK_VOLUME $TIDEMARK_OUTCOME" >>/root/hooks
		END
        chmod 755 /usr/local/bin/hook
        cat >/etc/tidemark/tidemark.toml <<-END
			[volume.data]
			device = "/dev/vg/data"
			area = "lv:data-area"
			[volume.data.hooks]
			before-freeze = ["/usr/local/bin/hook", "down"]
			after-thaw = ["/usr/local/bin/hook", "up"]
			[repository.vault]
			location = "/var/backups/vault"
			[backup.often]
			volumes = ["data"]
			repository = "vault"
			schedule = "*:*:00/20"
			tags = ["often"]
			keep = { last = 2 }
			[backup.yearly]
			volumes = ["data"]
			repository = "vault"
			schedule = "yearly"
			tags = ["yearly"]
			keep = { last = 2 }
		END
        tidemark config check
        systemctl reload tidemarkd
        systemctl daemon-reload
        is "calendars" "$(systemctl list-unit-files --no-legend 'tidemark-backup@*.timer' | wc -l)" 1
        "#,
    );
    host.boot(
        "backs up often",
        r#"
        points() {
            tidemark --json snapshots vault | jq "[.points[] | select(.tags | index(\"$1\"))] | length"
        }
        two_are_kept() {
            [ "$(points often)" = 2 ] && journalctl --quiet --unit tidemark-backup@often --grep Finished | sed -n 3p | grep -q .
        }
        eventually "three ran and two are kept" two_are_kept
        is "hooks" "$(sort -u /root/hooks)" "down before-freeze data 
up after-thaw data succeeded"
        [ "$(grep -c ^down /root/hooks)" -ge 3 ] || fail "$(cat /root/hooks)"
        systemctl is-active tidemark-backup@often.timer tidemark-backup@yearly.timer
        is "those that failed" "$(systemctl --failed --no-legend 'tidemark-backup@*')" ""
        systemctl stop tidemark-backup@often.timer
        eventually "none runs" eval '[ "$(systemctl is-active tidemark-backup@often)" = inactive ]'
        # Persistent: the last time that it is known to have run was years ago.
        is "yearly ones" "$(points yearly)" 0
        touch --date 2001-01-01 /var/lib/systemd/timers/stamp-tidemark-backup@yearly.timer
        "#,
    );
    host.boot(
        "makes up for what was slept through",
        r#"
        # Else one would be under way when the host is stopped, and say that it was cancelled.
        systemctl stop tidemark-backup@often.timer
        eventually "none runs" eval '[ "$(systemctl is-active tidemark-backup@often)" = inactive ]'
        points() {
            tidemark --json snapshots vault | jq "[.points[] | select(.tags | index(\"$1\"))] | length"
        }
        yearly_ran() {
            [ "$(points yearly)" = 1 ]
        }
        eventually "the yearly one ran" yearly_ran
        assert_backed_up
        "#,
    );
}
