//! An upgrade of the package while its volume is written to.

use super::Host;

#[test]
#[ignore = "the package; make test-vm tells it"]
fn an_upgrade_under_load_meets_no_error_and_the_new_program_serves() {
    let mut host = Host::new("upgraded");
    let successor = host.package.successor(host.system.folder());
    host.system.with(successor.path());
    host.boot(
        "is upgraded under load",
        r#"
        protect_data
        old=$(volume .server_pid)
        fio --name=load --directory=/srv/data --size=24M --rw=randwrite --bs=4k --iodepth=8 \
            --ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 --verify_backlog=256 \
            --time_based --runtime=1h --output=/root/fio.txt --eta=never &
        fio=$!
        written() {
            volume .stats.write_requests
        }
        before=$(written)
        eventually "the load goes on" eval '[ "$(written)" -gt $((before + 200)) ]'
        DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes /run/story/with/successor.deb
        await_volume .state ATTACHED
        new=$(volume .server_pid)
        [ "$new" != "$old" ] || fail "the old process $old serves still"
        is "its program" "$(readlink /proc/$new/exe)" /usr/sbin/tidemarkd
        is "its unit's process" "$(systemctl show --value -p MainPID tidemark-volume@data)" "$new"
        before=$(written)
        eventually "the load goes on with the new program" eval '[ "$(written)" -gt $((before + 200)) ]'
        kill -INT $fio
        status=0
        wait $fio || status=$?
        # Its answer to an interrupt when nothing else was wrong.
        is "fio's status" $status 128
        grep -q 'err= 0' /root/fio.txt || fail "$(cat /root/fio.txt)"
        rm /srv/data/load*
        is_same_lineage
        is_small "$(back_up)" 96
        assert_backed_up
        "#,
    );
    host.boot(
        "comes up with the new program",
        r#"
        await_volume .state ATTACHED
        is_over_ublk
        is_same_lineage
        "#,
    );
}
