//! What a Debian does without Tidemark, so that what the other stories show is Tidemark's; and that
//! the harness sees what it is to see.

use tidemark_tests::{packaged::Package, vm::debian::System};

use super::last_number;

const NUMBERS: &str = "written 25";

#[test]
fn a_data_volume_comes_up_after_a_reboot_and_after_a_power_cut() {
    let mut host = System::new("plain");
    host.boot(
        "gets a volume",
        r#"
        is "the system" "$(systemctl is-system-running)" running
        make_data_volume
        echo kept >/srv/data/kept
        "#,
    );
    let cut = host.cut(
        "is cut while it writes",
        r#"
        is "what is mounted" "$(findmnt -no SOURCE /srv/data)" /dev/mapper/vg-data
        came_before srv-data.mount local-fs.target
        is "a file" "$(cat /srv/data/kept)" kept
        is "boots in the journal" "$(journalctl --list-boots --quiet | wc -l)" 2
        write_numbers
        "#,
        NUMBERS,
    );
    let number = last_number(&cut);
    host.boot(
        "comes up again",
        &format!(
            r#"
            assert_number {number}
            is "what failed" "$(systemctl --failed --no-legend)" ""
            umount /srv/data
            e2fsck -fn /dev/vg/data
            "#
        ),
    );
}

#[test]
#[ignore = "of the harness itself; make test-vm tells it"]
fn a_package_comes_and_goes_and_trouble_is_seen() {
    let mut host = System::new("trouble");
    let package = Package::trivial("trivial", host.folder());
    let successor = package.successor(host.folder());
    host.with(package.path());
    host.with(successor.path());
    host.boot(
        "gets units that are wrong",
        r#"
        apt-get install --quiet=2 --yes /run/story/with/trivial.deb
        is "a word" "$(cat /usr/share/trivial/word)" here
        apt-get install --quiet=2 --yes /run/story/with/successor.deb
        is "the version" "$(dpkg-query -Wf '${Version}' trivial)" 1+successor
        apt-get purge --quiet=2 --yes trivial
        [ ! -e /usr/share/trivial ]
        unit() {
            printf '[Unit]\n%s\n[Service]\nType=oneshot\nExecStart=%s\n' "$2" "$3" >/etc/systemd/system/$1
            systemctl add-wants multi-user.target "$1"
        }
        unit one.service After=two.service /bin/true
        unit two.service After=one.service /bin/true
        unit three.service "" /bin/false
        "#,
    );
    let boot = host.try_to_boot("has a cycle and a failed unit", "say fine");
    for sign in [
        "ordering cycle",
        "three.service: Failed with result 'exit-code'",
    ] {
        assert!(
            boot.faults.iter().any(|fault| fault.contains(sign)),
            "{sign:?} is not in {:#?}",
            boot.faults
        );
    }
}
