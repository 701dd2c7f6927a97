//! Volumes that are attached while the package comes and goes, with the real agent.

use tidemark_tests::packaged::{Package, successor};

use crate::root::{RELEASES, Root};

/// Mounts the volume and puts a file into it.
pub(crate) const MOUNT: &str = "mount $(readlink -f /run/tidemark/volumes/data/device) /mnt && echo kept > /mnt/file && sync -f /mnt";
/// Whether its image is sound, and has what was appended to the file.
pub(crate) const IS_WHOLE: &str =
    "e2fsck -fn /data.img && debugfs -R 'cat /file' /data.img | grep -q more";

/// Has the agent of an installed package serve a volume of a file, by FUSE.
pub(crate) fn attach(root: &mut Root) {
    root.ok("tidemarkd serve >/var/log/tidemarkd 2>&1 & sleep 0; \
             until test -S /run/tidemark/tidemark.sock; do sleep 0.1; done");
    root.ok("truncate -s 64M /data.img && mkfs.ext4 -q /data.img");
    root.ok("tidemark volume attach data /data.img --area /run/data.area --area-size 64M --transport portable");
}

/// The package's words when it does not go from under a volume.
pub(crate) fn assert_refused(said: &str) {
    for words in ["data", "still attached", "the package stays"] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
}

/// A system with the .deb and a volume.
fn with_a_volume() -> Root {
    let mut root = Root::of(RELEASES[0]);
    root.install(Package::under_test().path());
    attach(&mut root);
    root
}

#[test]
fn removal_detaches_first_or_refuses() {
    let mut root = with_a_volume();
    root.ok(MOUNT);

    // In use: the package stays, and so does the volume.
    let (status, said) = root.run("apt-get -qq --yes remove tidemark");
    assert_ne!(status, 0, "{said}");
    assert_refused(&said);
    root.ok("grep -q kept /mnt/file && echo more >> /mnt/file && sync -f /mnt");

    root.ok("umount /mnt");
    root.ok("apt-get -qq --yes remove tidemark");
    root.ok("test ! -e /usr/sbin/tidemarkd && test ! -e /run/tidemark");
    root.ok(IS_WHOLE);
    root.ok("test -f /run/data.area");
}

#[test]
fn removal_refuses_where_nobody_can_detach() {
    let mut root = with_a_volume();
    root.ok("kill $(pidof tidemarkd | tr ' ' '\\n' | sort -n | head -n 1); sleep 1");
    let (status, said) = root.run("apt-get -qq --yes remove tidemark");
    assert_ne!(status, 0, "{said}");
    assert!(
        said.contains("still attached, and needed by what uses them: data"),
        "{said}"
    );
    root.ok("tidemarkd serve >/var/log/tidemarkd 2>&1 & \
             until tidemark volume list; do sleep 0.1; done; apt-get -qq --yes remove tidemark");
}

#[test]
fn an_upgrade_says_which_volumes_it_could_not_hand_over() {
    let mut root = with_a_volume();
    // By FUSE there is no hand-over. tests/vm tells of those by ublk, under load.
    let said = root.install(successor().path());
    for words in ["not handed over: data", "tidemark volume hand-over --all"] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
    assert_eq!(
        root.ok("dpkg-query -Wf '${Status}' tidemark").trim(),
        "install ok installed"
    );
    root.ok("tidemark volume detach --all");
}
