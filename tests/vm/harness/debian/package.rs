//! Debian packages for a guest: the one under test, and others made of it or beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::programs::{succeed, workspace};

/// What `make package` leaves.
const BUILT: &str = "target/packages/tidemark.deb";

/// A .deb.
#[derive(Clone, Debug)]
pub struct Package {
    path: PathBuf,
}

impl Package {
    /// Tidemark's own: what `TIDEMARK_DEB` names, else the one that `make package` built.
    pub fn under_test() -> Self {
        let named = std::env::var_os("TIDEMARK_DEB").map(PathBuf::from);
        let path = named.unwrap_or_else(|| workspace().join(BUILT));
        assert!(
            path.is_file(),
            "{} does not exist: `make package` builds it, TIDEMARK_DEB names another",
            path.display()
        );
        Self { path }
    }

    /// A package of no use, with one file and nothing to depend on.
    pub fn trivial(name: &str, folder: &Path) -> Self {
        let tree = folder.join(name);
        write(&tree.join("usr/share").join(name).join("word"), "here\n");
        let control = format!(
            "Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@localhost>\n\
             Description: proves that packages are installed\n"
        );
        write(&tree.join("DEBIAN/control"), &control);
        Self::built(&tree, &folder.join(format!("{name}.deb")))
    }

    /// The same package with a higher version.
    pub fn successor(&self, folder: &Path) -> Self {
        let tree = self.unpacked(&folder.join("successor"));
        let control = tree.join("DEBIAN/control");
        let text = fs::read_to_string(&control).expect("a package has a control file");
        let lines = text
            .lines()
            .map(|line| match line.strip_prefix("Version: ") {
                Some(version) => format!("Version: {version}+successor\n"),
                None => format!("{line}\n"),
            });
        write(&control, &lines.collect::<String>());
        Self::built(&tree, &folder.join("successor.deb"))
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn unpacked(&self, tree: &Path) -> PathBuf {
        let mut unpack = Command::new("dpkg-deb");
        succeed(unpack.arg("--raw-extract").arg(&self.path).arg(tree));
        tree.to_owned()
    }

    fn built(tree: &Path, path: &Path) -> Self {
        let mut build = Command::new("dpkg-deb");
        build.args(["--root-owner-group", "-Znone", "--build"]);
        succeed(build.arg(tree).arg(path));
        Self {
            path: path.to_owned(),
        }
    }
}

fn write(path: &Path, text: &str) {
    let folder = path.parent().expect("a file lies in a folder");
    fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
