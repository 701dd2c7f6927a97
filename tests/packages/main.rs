//! The packages: what is in them, and how they come and go in clean systems.

mod attached;
mod listing;
mod root;
mod rpm;
mod sandbox;
mod units;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tidemark_tests::{
    World,
    packaged::{Package, rpm, successor},
    programs::{printed, run, succeed, workspace},
    sources::{complain, files},
};

use listing::Listing;
use root::{RELEASES, Root};

/// What purging leaves, and why.
const LEFT: [(&str, &str); 4] = [
    (
        "etc/group",
        "a number that files may carry is not given to another group",
    ),
    ("etc/group-", "the one before"),
    ("etc/gshadow", "as etc/group"),
    ("etc/gshadow-", "the one before"),
];

/// The .deb's files in a folder.
fn unpacked() -> World {
    let world = World::new();
    succeed(
        Command::new("dpkg-deb")
            .arg("-x")
            .args([Package::under_test().path(), world.root()]),
    );
    world
}

#[test]
fn lintian_sees_no_fault_without_a_reason() {
    let said = printed(&run(Command::new("lintian")
        .args(["--allow-root", "--display-info", "--tag-display-limit", "0"])
        .arg(Package::under_test().path())));
    let faults = said.lines().filter(|line| {
        line.starts_with("E: ") || line.starts_with("W: ") || line.contains("mismatched-override")
    });
    complain(faults.map(ToOwned::to_owned));
    let overrides = workspace().join("packaging/lintian/tidemark");
    let overrides = fs::read_to_string(&overrides).expect("the overrides are there");
    assert!(overrides.starts_with("# "), "the first has no reason");
}

#[test]
fn rpmlint_sees_no_fault_without_a_reason() {
    let said = printed(&run(Command::new("rpmlint")
        .arg("--config")
        .arg(workspace().join("packaging/rpm/rpmlint.toml"))
        .arg(rpm())));
    assert!(said.contains("1 packages"), "{said}");
    let faults = said
        .lines()
        .filter(|line| line.contains(": E: ") || line.contains(": W: "));
    complain(faults.map(ToOwned::to_owned));
}

#[test]
fn both_packages_hold_the_same() {
    let tree = unpacked();
    let inside = |path: PathBuf| {
        let path = path.strip_prefix(tree.root()).expect("it lies there");
        format!("/{}", path.display())
    };
    let deb = everything(tree.root()).into_iter().map(inside);
    let ask = |what: &str| {
        let mut command = Command::new("rpm");
        succeed(command.args(["-qp", what]).arg(rpm()))
    };
    let rpm = ask("--list");
    // Where distributions differ, and what only Debian asks for.
    let place = |path: &str| {
        path.replace("/56-tidemark", "/12-tidemark")
            .replace("/vendor-completions/", "/site-functions/")
    };
    let debian = [
        "copyright",
        "changelog.Debian.gz",
        "lintian/overrides/tidemark",
    ];
    let deb: BTreeSet<_> = deb
        .filter(|path| !debian.iter().any(|end| path.ends_with(end)))
        .map(|path| place(&path))
        .collect();
    let rpm: BTreeSet<_> = rpm.lines().map(ToOwned::to_owned).collect();
    assert_eq!(deb, rpm);
    let conffiles = "/etc/needrestart/conf.d/tidemark.conf\n/etc/tidemark/tidemark.toml\n";
    assert_eq!(ask("--configfiles"), conffiles);
    let scripts = ask("--scripts");
    for words in [
        "postinstall",
        "volumes upgraded",
        "volumes removing || exit 1",
    ] {
        assert!(scripts.contains(words), "{words} is not in\n{scripts}");
    }
}

#[test]
fn the_manual_is_well_formed_and_whole() {
    let tree = unpacked();
    let mut pages = files(&tree.path("usr/share/man"), "gz");
    succeed(Command::new("gunzip").args(&pages));
    pages.iter_mut().for_each(|page| {
        page.set_extension("");
    });
    assert!(pages.len() > 50, "{} pages", pages.len());
    let lint = run(Command::new("mandoc")
        .args(["-T", "lint", "-W", "warning"])
        .args(pages.iter().filter(|page| !is_alias(page))));
    assert!(lint.status.success(), "{}", printed(&lint));
    let names: BTreeSet<_> = pages
        .iter()
        .filter_map(|page| page.file_name()?.to_str())
        .collect();
    let mut missing = Vec::new();
    for unit in everything(&tree.path("usr/lib/systemd/system")) {
        let text = fs::read_to_string(&unit).expect("a unit is text");
        let pages = text
            .lines()
            .filter_map(|line| line.strip_prefix("Documentation="));
        for page in pages.flat_map(|line| line.split(' ')) {
            let name = page
                .trim_start_matches("man:")
                .replace('(', ".")
                .replace(')', "");
            if !names.contains(name.as_str()) {
                missing.push(format!("{}: {page}", unit.display()));
            }
        }
    }
    complain(missing);
}

#[test]
fn completions_are_scripts_of_their_shells() {
    let tree = unpacked();
    let bash = tree.path("usr/share/bash-completion/completions/tidemark");
    let asked =
        "COMP_WORDS=(tidemark vol); COMP_CWORD=1; _tidemark tidemark vol tidemark; echo $COMPREPLY";
    let script = format!("source {}; {asked}", bash.display());
    assert_eq!(
        succeed(Command::new("bash").args(["-c", &script])),
        "volume\n"
    );
    for (path, begins) in [
        (
            "usr/share/zsh/vendor-completions/_tidemark",
            "#compdef tidemark",
        ),
        (
            "usr/share/fish/vendor_completions.d/tidemark.fish",
            "# Print an optspec",
        ),
    ] {
        let text = fs::read_to_string(tree.path(path)).expect("a completion is there");
        assert!(text.starts_with(begins), "{path}: {}", &text[..80]);
    }
}

/// What is so after either package was installed.
fn assert_installed(root: &mut Root) {
    root.ok("getent group tidemark");
    root.ok("test -d /run/tidemark/devices && test ! -e /run/tidemark/tidemark.sock");
    for unit in ["tidemarkd.service", "tidemarkd.socket"] {
        assert_eq!(
            root.ok(&format!("systemctl is-enabled {unit}")).trim(),
            "enabled"
        );
    }
    root.ok("tidemark --version && tidemarkd --version");
}

#[test]
fn it_comes_and_goes_and_leaves_nothing() {
    for release in RELEASES {
        let mut root = Root::of(release);
        let before = Listing::of(&root.path("/"));
        root.install(Package::under_test().path());
        assert_installed(&mut root);

        // What an administrator decided survives an upgrade.
        root.ok("systemctl disable tidemarkd.service");
        root.ok("echo '# ours' >> /etc/tidemark/tidemark.toml");
        root.install(successor().path());
        let version = root.ok("dpkg-query -Wf '${Version}' tidemark");
        assert!(version.trim().ends_with("+successor"), "{version}");
        assert_ne!(root.run("systemctl is-enabled tidemarkd.service").0, 0);
        root.ok("grep -q '^# ours' /etc/tidemark/tidemark.toml");

        root.ok("apt-get -qq --yes remove tidemark");
        root.ok("test -f /etc/tidemark/tidemark.toml && test ! -e /run/tidemark");
        root.ok("apt-get -qq --yes purge tidemark");
        Listing::of(&root.path("/")).hold_against(&before, &LEFT, release);
        root.ok(
            "diff /etc/group- /etc/group | grep '^[<>]' | grep -qv '^> tidemark:' && exit 1; true",
        );
    }
}

#[test]
fn purging_keeps_what_is_not_the_packages_own() {
    let mut root = Root::of(RELEASES[0]);
    root.install(Package::under_test().path());
    let kept = [
        "/etc/tidemark/vault.password",
        "/var/lib/tidemark/vault/config",
        "/var/lib/tidemark/data.area",
    ];
    root.ok("mkdir -p /var/lib/tidemark/vault");
    root.ok("touch /var/lib/tidemark/catalog.db /etc/tidemark/volumes/data.args");
    for file in kept {
        root.ok(&format!("echo precious > {file}"));
    }
    let said = root.ok("apt-get -qq --yes purge tidemark");
    for file in kept {
        root.ok(&format!("grep -q precious {file}"));
    }
    root.ok("test ! -e /var/lib/tidemark/catalog.db && test ! -e /etc/tidemark/volumes");
    for folder in ["/etc/tidemark", "/var/lib/tidemark"] {
        let words = format!("{folder} stays, since it holds what is not the package's");
        assert!(said.contains(&words), "{said}");
    }
}

/// Whether a page only names another one: a link would do, which rpms made by cargo cannot hold.
fn is_alias(page: &Path) -> bool {
    fs::read_to_string(page).is_ok_and(|text| text.starts_with(".so "))
}

/// Every file below a folder.
fn everything(folder: &Path) -> Vec<PathBuf> {
    let found = succeed(
        Command::new("find")
            .arg(folder)
            .args(["-type", "f", "-print"]),
    );
    found.lines().map(PathBuf::from).collect()
}
