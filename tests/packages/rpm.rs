//! The .rpm as it comes and goes. No system of rpm's own takes part: Debian's rpm puts it into a Debian, whose systemd
//! its scripts meet, and is not asked about dependencies.

use tidemark_tests::packaged::rpm;

use crate::{
    LEFT, assert_installed,
    attached::{IS_WHOLE, MOUNT, assert_refused, attach},
    listing::Listing,
    root::{RELEASES, Root},
};

/// What removal leaves beside what purging the .deb does, and why.
const LEFT_TOO: [(&str, &str); 5] = [
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
    assert_installed(&mut root);
    root.ok("systemctl disable tidemarkd.service");

    attach(&mut root);
    root.ok(MOUNT);
    assert_refused(&root.rpm(&["--erase", "tidemark"]).unwrap_err());
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
    root.ok(IS_WHOLE);
    root.ok("test -f /run/data.area && test ! -e /run/tidemark");
    root.ok("grep -q '^# ours' /etc/tidemark/tidemark.toml.rpmsave");
    root.ok("rm -r /package.rpm /etc/tidemark");
    let known = [&LEFT[..], &LEFT_TOO].concat();
    Listing::of(&root.path("/")).hold_against(&before, &known, ".rpm");
}
