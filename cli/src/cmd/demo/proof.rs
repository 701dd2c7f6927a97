//! The proofs: each looks at what is there, with other means than those that made it.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{host, load::DATABASE};
use crate::context::Interrupt;

/// How much of a file is hashed at a time.
const CHUNK: usize = 1 << 20;

/// One thing that was to be shown.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// What.
    pub(super) claim: &'static str,
    /// Whether it holds.
    pub(super) holds: bool,
    /// What was seen.
    pub(super) seen: String,
}

impl Verdict {
    /// A verdict.
    pub(super) fn new(claim: &'static str, holds: bool, seen: impl Into<String>) -> Self {
        Self {
            claim,
            holds,
            seen: seen.into(),
        }
    }
}

/// BLAKE3 of two files; they are the same, or where they came to differ in size.
pub(super) async fn same_bytes(
    claim: &'static str,
    a: &Path,
    b: &Path,
    interrupt: &Interrupt,
) -> anyhow::Result<Verdict> {
    let one = hash(a.to_owned(), interrupt.clone()).await?;
    let two = hash(b.to_owned(), interrupt.clone()).await?;
    let seen = if one == two {
        format!("BLAKE3 {:.16}, {} bytes", one.0.to_hex(), one.1)
    } else {
        format!(
            "{:.16} of {} bytes, {:.16} of {}",
            one.0.to_hex(),
            one.1,
            two.0.to_hex(),
            two.1
        )
    };
    Ok(Verdict::new(claim, one == two, seen))
}

async fn hash(path: PathBuf, interrupt: Interrupt) -> anyhow::Result<(blake3::Hash, u64)> {
    tokio::task::spawn_blocking(move || {
        let mut file = File::open(&path).with_context(|| path.display().to_string())?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        let mut size = 0;
        loop {
            if interrupt.is_set() {
                return Err(crate::exit::Fault::interrupted().into());
            }
            let read = match file.read(&mut buffer) {
                Ok(0) => return Ok((hasher.finalize(), size)),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            };
            hasher.update(buffer.get(..read).unwrap_or(&buffer));
            size += read as u64;
        }
    })
    .await?
}

/// Checks the file system of an image, without writing to it; a journal that is not empty is
/// replayed on a copy first.
pub(super) async fn file_system(image: &Path, scratch: &Path) -> anyhow::Result<Verdict> {
    const CLAIM: &str = "file system clean (e2fsck -fn)";
    let first = host::output("e2fsck", &[&"-fn", &image]).await?;
    if first.status.success() {
        return Ok(Verdict::new(CLAIM, true, last_line(&first.stdout)));
    }
    let copy = scratch.join("replayed.img");
    host::run("cp", &[&"--sparse=always", &image, &copy]).await?;
    let replayed = host::output("e2fsck", &[&"-y", &"-E", &"journal_only", &copy]).await?;
    let second = host::output("e2fsck", &[&"-fn", &copy]).await?;
    let seen = if second.status.success() {
        format!(
            "after its journal was replayed: {}",
            last_line(&second.stdout)
        )
    } else {
        format!(
            "{}; replay: {}; then: {}",
            last_line(&first.stdout),
            last_line(&replayed.stdout),
            String::from_utf8_lossy(&second.stdout)
                .trim()
                .replace('\n', "; ")
        )
    };
    // The copy is only good for this.
    let _ = fs::remove_file(copy);
    Ok(Verdict::new(CLAIM, second.status.success(), seen))
}

fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.trim().lines().last().unwrap_or("nothing was said");
    // e2fsck repeats the path, which means nothing to the reader.
    line.rsplit_once(": ")
        .map_or(line, |(_, rest)| rest)
        .to_owned()
}

/// Mounts an image read-only at `point`, which [`super::undo`] knows of.
pub(super) async fn mount_image(image: &Path, point: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(point).with_context(|| point.display().to_string())?;
    // noload: what the freeze left must do without a replay.
    host::run(
        "mount",
        &[&"-o", &"ro,loop,noload", &"-t", &"ext4", &image, &point],
    )
    .await?;
    Ok(())
}

/// Checks the database of a mounted image, and that it holds every transaction that was
/// committed before the cut and none from after.
pub(super) async fn database(
    mounted: &Path,
    scratch: &Path,
    before: u64,
    after: u64,
) -> anyhow::Result<[Verdict; 2]> {
    let copy = scratch.join("database");
    fs::create_dir_all(&copy).with_context(|| copy.display().to_string())?;
    // SQLite has to write to its journal, and the image is read-only.
    let from = mounted.join(DATABASE);
    let to = copy.join("orders.db");
    for suffix in ["", "-wal"] {
        let [from, to] = [&from, &to].map(|path| {
            let mut path = path.clone().into_os_string();
            path.push(suffix);
            PathBuf::from(path)
        });
        match fs::copy(&from, &to) {
            Err(error) if suffix.is_empty() || error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| from.display().to_string());
            }
            _ => {}
        }
    }
    let said = host::output("sqlite3", &[&to, &"PRAGMA integrity_check"]).await?;
    let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    let sound = Verdict::new(
        "database sound (PRAGMA integrity_check)",
        said == "ok",
        said.clone(),
    );
    let counted = host::run(
        "sqlite3",
        &[&to, &"SELECT count(*), max(n) FROM transactions"],
    )
    .await?;
    let mut numbers = counted.trim().split('|').map(str::parse::<u64>);
    let (count, last) = (numbers.next(), numbers.next());
    let complete = matches!((count, last), (Some(Ok(count)), Some(Ok(last)))
        if count == last && (before..=after).contains(&last));
    let whole = Verdict::new(
        "every transaction committed before the cut is there",
        complete,
        format!(
            "{} transactions; {before} were committed before the cut, {after} after it",
            counted.trim().split('|').next().unwrap_or_default()
        ),
    );
    Ok([sound, whole])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_byte_makes_the_difference() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, vec![1; 3_000_000]).unwrap();
        fs::write(&b, vec![1; 3_000_000]).unwrap();
        let (_tell, interrupt) = Interrupt::manual();
        assert!(same_bytes("c", &a, &b, &interrupt).await.unwrap().holds);
        fs::write(&b, vec![1; 3_000_001]).unwrap();
        assert!(!same_bytes("c", &a, &b, &interrupt).await.unwrap().holds);
        assert!(
            same_bytes("c", &a, &dir.path().join("none"), &interrupt)
                .await
                .is_err()
        );
    }

    #[test]
    fn the_end_of_what_a_program_said() {
        assert_eq!(last_line(b"Pass 1\n/x/y.img: 11/64 files\n"), "11/64 files");
        assert_eq!(last_line(b""), "nothing was said");
    }
}
