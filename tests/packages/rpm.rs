//! The .rpm as it comes and goes. No system of rpm's own takes part: Debian's rpm puts it into a Debian, whose systemd
//! its scripts meet, and is not asked about dependencies.

use tidemark_tests::{packaged::rpm, sources::complain};

use crate::{
    listing::Listing,
    root::{RELEASES, Root},
};

/// What removal leaves, and why.
const LEFT: [(&str, &str); 7] = [
    ("etc/group", "as the .deb does; with the one before"),
    ("etc/gshadow", "as etc/group"),
    ("etc/needrestart", "a folder of another package"),
    (
        "usr/share/fish/vendor_completions.d",
        "a folder of another package",
    ),
    ("var/lib/tidemark", "rpm has no purge: the catalog stays"),
    ("rpm", "rpm's own books"),
    ("data.img", "the volume"),
];

#[test]
fn it_comes_and_goes_and_refuses_to_go_under_a_mounted_volume() {
    let mut root = Root::of(RELEASES[1]);
    let before = Listing::of(&root.path("/"));
    root.put(&rpm(), "/package.rpm");
    let package = root.path("/package.rpm");
    let package = package.to_str().expect("a path of ours");
    root.rpm(&["--install", "--nodeps", package]).unwrap();
    root.ok("getent group tidemark && test -d /run/tidemark/devices");
    for unit in ["tidemarkd.service", "tidemarkd.socket"] {
        root.ok(&format!("systemctl is-enabled {unit}"));
    }
    root.ok("systemctl disable tidemarkd.service");

    let serve = "tidemarkd serve >/var/log/tidemarkd 2>&1 & until test -S /run/tidemark/tidemark.sock; do sleep 0.1; done";
    root.ok(serve);
    root.ok("truncate -s 64M /data.img && mkfs.ext4 -q /data.img");
    root.ok("tidemark volume attach data /data.img --area /run/data.area --area-size 64M --transport portable");
    root.ok("mount $(readlink -f /run/tidemark/volumes/data/device) /mnt && echo kept > /mnt/file && sync -f /mnt");
    let said = root.rpm(&["--erase", "tidemark"]).unwrap_err();
    for words in ["data", "still attached", "the package stays"] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
    root.ok("tidemark volume list && grep -q kept /mnt/file && echo more >> /mnt/file");

    // Over itself, as an upgrade: volumes, decisions and configuration stay.
    root.ok("echo '# ours' >> /etc/tidemark/tidemark.toml");
    let said = root
        .rpm(&["--upgrade", "--force", "--nodeps", package])
        .unwrap();
    assert!(said.contains("not handed over: data"), "{said}");
    root.ok("grep -q '^# ours' /etc/tidemark/tidemark.toml && grep -q more /mnt/file");
    assert_ne!(root.run("systemctl is-enabled tidemarkd.service").0, 0);

    root.ok("umount /mnt");
    root.rpm(&["--erase", "tidemark"]).unwrap();
    root.ok("e2fsck -fn /data.img && debugfs -R 'cat /file' /data.img | grep -q more");
    root.ok("test -f /run/data.area && test ! -e /run/tidemark");
    root.ok("grep -q '^# ours' /etc/tidemark/tidemark.toml.rpmsave");
    root.ok("rm -r /package.rpm /etc/tidemark");
    let left = Listing::of(&root.path("/")).since(&before);
    let unexpected = left
        .into_iter()
        .filter(|path| LEFT.iter().all(|(known, _)| !path.starts_with(known)));
    complain(unexpected.map(|path| format!("/{path} is not as before")));
}
