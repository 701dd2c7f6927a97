//! Other programs, where they are installed.

use std::{fs, path::Path, process::Command};

use super::{
    data::Images,
    measure::{Row, bytes_in, timed},
    verdict::{FULL, INCREMENTAL, RESTORE, of_peer},
};

/// A program's commands over a folder of its own; `IMAGE` and `TARGET` are replaced.
struct Peer {
    name: &'static str,
    /// Not timed.
    init: &'static str,
    back_up: &'static str,
    restore: &'static str,
}

const PEERS: [Peer; 3] = [
    Peer {
        name: "restic",
        // The second version compresses. Not to count the files first is a newer program's.
        init: "restic init -q --repository-version 2 && \
               if restic backup --help | grep -q -e --no-scan; then echo --no-scan; fi > options",
        back_up: "restic backup -q --compression auto $(cat options) IMAGE",
        restore: "restic restore -q latest --target TARGET",
    },
    Peer {
        name: "borg",
        init: "borg init -e none",
        // Not with `--sparse`, which begins chunks anew at holes, wherever these are.
        back_up: "borg create --chunker-params fixed,65536 -C zstd,3 ::{now:%s%f} IMAGE",
        restore: "mkdir -p TARGET && cd TARGET && \
                  borg extract --sparse ::$(borg list --last 1 --format '{archive}')",
    },
    Peer {
        name: "casync",
        init: "mkdir -p kept",
        // A snapshot is an index.
        back_up: "casync make --compression=zstd --store=kept kept/$(date +%s%N).caibx IMAGE",
        restore: "mkdir -p TARGET && \
                  casync extract --store=kept $(ls kept/*.caibx | tail -1) TARGET/image",
    },
];

/// All that can take part.
pub(crate) fn names() -> Vec<&'static str> {
    PEERS.iter().map(|peer| peer.name).collect()
}

/// Full, incremental and restore of each program that is there.
pub(crate) fn measure(folder: &Path, images: &Images) -> Vec<Row> {
    let mut rows = Vec::new();
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
        timed(peer.name, &run(peer.init), &[], None);
        let kept = home.join("kept");
        let size = || bytes_in(&kept);
        for (what, source) in [(FULL, &images.base), (INCREMENTAL, &images.changed)] {
            fs::hard_link(source, &image).expect("a name for a peer's image");
            let what = of_peer(peer.name, what);
            let reads = [source.as_path(), &kept];
            rows.push(timed(&what, &run(peer.back_up), &reads, Some(&size)));
            fs::remove_file(&image).expect("a peer's image is there");
        }
        let what = of_peer(peer.name, RESTORE);
        rows.push(timed(&what, &run(peer.restore), &[&kept], None));
        fs::remove_dir_all(&home).expect("a peer's folder is there");
    }
    rows
}
