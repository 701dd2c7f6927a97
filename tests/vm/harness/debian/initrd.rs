//! What a guest starts from before its own root is there.

use std::{fs, io, path::Path};

use crate::vm::{
    archive::Archive,
    borrowed::{self, Files},
    kernel::Kernel,
};

const INIT: &str = include_str!("init.sh");
const TELL: &str = include_str!("tell.sh");
const WORDS: &str = include_str!("words.sh");
const SERVICE: &str = include_str!("story.service");
const JOURNALD: &str = include_str!("journald.conf");

/// Writes it: the script of this boot, and files that come to /run/story/with.
///
/// A guest's path other than that of [`Machine::with`](crate::vm::Machine::with) is taken as it
/// is, below /run.
pub(in crate::vm) fn assemble(kernel: &Kernel, script: &str, with: &Files, to: &Path) {
    write(kernel, script, with, to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
}

fn write(kernel: &Kernel, script: &str, with: &Files, to: &Path) -> io::Result<()> {
    let mut archive = Archive::new(io::BufWriter::new(fs::File::create(to)?));
    for folder in ["proc", "sys", "dev", "root", "story/story/with"] {
        archive.folder(folder)?;
    }
    archive.character_device("dev/console", 5, 1)?;
    let busybox = borrowed::find("busybox").expect("busybox is installed; `make deps` installs it");
    archive.file("bin/busybox", &busybox)?;
    if let Some(module) = kernel.module("virtio_blk") {
        archive.file("virtio_blk.ko", &module)?;
    }
    archive.bytes("init", INIT.as_bytes())?;
    let units = "story/systemd/system";
    archive.text(&format!("{units}/story.service"), SERVICE)?;
    archive.link(
        &format!("{units}/multi-user.target.wants/story.service"),
        "../story.service",
    )?;
    archive.text("story/systemd/journald.conf.d/story.conf", JOURNALD)?;
    for (name, text) in [("tell", TELL), ("words", WORDS), ("boot", script)] {
        archive.text(&format!("story/story/{name}"), text)?;
    }
    for (path, host) in with {
        let path = path.strip_prefix("/tidemark/with/").map_or_else(
            || format!("story/{}", path.trim_start_matches('/')),
            |name| format!("story/story/with/{name}"),
        );
        archive.file(&path, host)?;
    }
    archive.finish().map(drop)
}
