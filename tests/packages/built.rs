//! The packages under test: of the programs that the other tests drive, made once a run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use tidemark_tests::programs::{ours, succeed, workspace};

/// Both packages, and a later version of one.
pub(crate) struct Built {
    /// The .deb.
    pub(crate) deb: PathBuf,
    /// The same under a higher version.
    pub(crate) newer: PathBuf,
    /// The .rpm.
    pub(crate) rpm: PathBuf,
}

/// Makes them.
pub(crate) fn packages() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let programs = ours("tidemarkd");
        let out = workspace().join("target/packages/test");
        succeed(
            Command::new(workspace().join("packaging/package.sh"))
                .arg(programs.parent().expect("a program lies in a folder"))
                .arg(&out)
                .env("TIDEMARK_PACKAGE_QUICK", "1"),
        );
        let deb = out.join("tidemark.deb");
        Built {
            newer: newer(&deb),
            deb,
            rpm: out.join("tidemark.rpm"),
        }
    })
}

fn newer(deb: &Path) -> PathBuf {
    let (folder, newer) = (deb.with_file_name("newer"), deb.with_file_name("newer.deb"));
    let _ = fs::remove_dir_all(&folder);
    succeed(Command::new("dpkg-deb").arg("-R").arg(deb).arg(&folder));
    let control = folder.join("DEBIAN/control");
    let text = fs::read_to_string(&control).expect("a package has a control file");
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("Version: "))
        .expect("a package has a version");
    let text = text.replace(version, "99.0-1");
    fs::write(&control, text).unwrap_or_else(|e| panic!("{}: {e}", control.display()));
    succeed(
        Command::new("dpkg-deb")
            .args(["-Zgzip", "-z1", "--root-owner-group", "-b"])
            .args([&folder, &newer]),
    );
    newer
}
