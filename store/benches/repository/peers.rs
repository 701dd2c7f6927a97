//! Other programs, where they are installed.

use std::{fs, path::Path, process::Command};

use super::{Row, bytes_in, data::Images, timed};

/// A program's three commands over a folder of its own; `IMAGE` and `TARGET` are replaced.
struct Peer {
    name: &'static str,
    init: &'static str,
    back_up: &'static str,
    restore: &'static str,
}

const PEERS: [Peer; 3] = [
    Peer {
        name: "restic",
        init: "restic init -q",
        back_up: "restic backup -q --no-scan IMAGE || restic backup -q IMAGE",
        restore: "restic restore -q latest --target TARGET",
    },
    Peer {
        name: "borg",
        init: "borg init -e none",
        back_up: "borg create --chunker-params fixed,65536 -C zstd,3 ::{now:%s%f} IMAGE",
        restore: "mkdir -p TARGET && cd TARGET && borg extract ::$(borg list --last 1 --format '{archive}')",
    },
    Peer {
        name: "desync",
        init: "mkdir -p store",
        back_up: "desync make -s store index IMAGE",
        restore: "mkdir -p TARGET && desync extract -s store index TARGET/image",
    },
];

/// Full, incremental and restore of each program that is there.
pub(crate) fn measure(folder: &Path, images: &Images, rows: &mut Vec<Row>) {
    for peer in PEERS {
        let there = Command::new("sh")
            .args(["-c", &format!("command -v {}", peer.name)])
            .output();
        if !there.is_ok_and(|there| there.status.success()) {
            println!("{} is not installed", peer.name);
            continue;
        }
        let home = folder.join(peer.name);
        let (image, target) = (home.join("image"), home.join("target"));
        fs::create_dir_all(&home).expect("a folder for a peer");
        let run = |command: &str| {
            let command = command
                .replace("IMAGE", &image.to_string_lossy())
                .replace("TARGET", &target.to_string_lossy());
            let mut shell = Command::new("sh");
            shell.args(["-c", &command]).current_dir(&home);
            shell.env("RESTIC_REPOSITORY", home.join("kept"));
            shell.env("RESTIC_PASSWORD", "benchmark");
            shell.env("RESTIC_CACHE_DIR", home.join("cache"));
            shell.env("BORG_REPO", home.join("kept"));
            shell.env("BORG_BASE_DIR", home.join("cache"));
            shell
        };
        timed(peer.name, &mut run(peer.init), None);
        let size = || bytes_in(&home.join("kept")) + bytes_in(&home.join("store"));
        for (what, source) in [("full", &images.base), ("incremental", &images.changed)] {
            fs::copy(source, &image).expect("room for a peer's image");
            let what = format!("{}, {what}", peer.name);
            rows.push(timed(&what, &mut run(peer.back_up), Some(&size)));
        }
        fs::remove_file(&image).expect("a peer's image is there");
        let what = format!("{}, restore", peer.name);
        rows.push(timed(&what, &mut run(peer.restore), None));
        fs::remove_dir_all(&home).expect("a peer's folder is there");
    }
}
