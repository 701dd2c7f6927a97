//! The file: a tar archive, compressed, that only its owner reads.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    exit::{Exit, Fault},
    units,
};

/// Text compresses well; the slower levels gain little.
const LEVEL: i32 = 9;
const MODE: u32 = 0o600;

/// A part, and what is to be known of it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Its name in the archive.
    pub(super) name: String,
    /// It, or why it could not be had.
    pub(super) content: Result<String, String>,
    /// What was left out of it, and why; empty where nothing was.
    pub(super) left_out: String,
}

impl Part {
    pub(super) fn new(
        name: impl Into<String>,
        content: Result<String, String>,
        left_out: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            content,
            left_out: left_out.into(),
        }
    }

    /// As JSON, without the content.
    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "bytes": self.content.as_ref().map(String::len).ok(),
            "error": self.content.as_ref().err(),
            "left_out": self.left_out,
        })
    }

    fn line(&self) -> String {
        let mut line = match &self.content {
            Ok(content) => format!("{}  {}\n", self.name, units::bytes(content.len() as u64)),
            Err(error) => format!("{}  NOT WITHIN: {error}\n", self.name),
        };
        if !self.left_out.is_empty() {
            line.push_str(&format!("    left out: {}\n", self.left_out));
        }
        line
    }
}

/// A file that is being made. One that is not finished is removed.
pub(super) struct Bundle {
    path: PathBuf,
    file: File,
    made_at: u64,
    finished: bool,
}

impl Bundle {
    /// A new file; one that is there is left alone.
    pub(super) fn create(path: &Path, made_at: u64) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(path)
            .map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => anyhow::Error::from(
                    Fault::new(Exit::Usage, format!("{} is there already", path.display()))
                        .advise("name another with --output"),
                ),
                _ => anyhow::Error::from(error).context(path.display().to_string()),
            })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            made_at,
            finished: false,
        })
    }

    /// Writes all parts and the manifest before them; gives the file's size in bytes.
    pub(super) fn write(mut self, parts: &[Part]) -> anyhow::Result<u64> {
        let context = || self.path.display().to_string();
        let written = self.archive(parts).with_context(context)?;
        self.finished = true;
        Ok(written)
    }

    fn archive(&self, parts: &[Part]) -> io::Result<u64> {
        let encoder = zstd::Encoder::new(&self.file, LEVEL)?;
        let mut archive = tar::Builder::new(encoder);
        let manifest = manifest(parts, self.made_at);
        self.append(&mut archive, "MANIFEST", &manifest)?;
        for part in parts {
            if let Ok(content) = &part.content {
                self.append(&mut archive, &part.name, content)?;
            }
        }
        archive.into_inner()?.finish()?.flush()?;
        self.file.sync_all()?;
        Ok(self.file.metadata()?.len())
    }

    fn append<W: Write>(
        &self,
        archive: &mut tar::Builder<W>,
        name: &str,
        content: &str,
    ) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(MODE);
        header.set_mtime(self.made_at);
        header.set_entry_type(tar::EntryType::Regular);
        let path = format!("tidemark-diagnostics/{name}");
        archive.append_data(&mut header, path, content.as_bytes())
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if !self.finished {
            // Half a file helps nobody; one that stays says so by being cut off.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn manifest(parts: &[Part], made_at: u64) -> String {
    let head = format!(
        "Tidemark diagnostics, made {} by tidemark {}\n\n\
         Keys, passwords, commands that give them, credentials, arguments and output of hooks, labels of\n\
         snapshots, and what URLs carry before their host and after their path are left out everywhere. What was\n\
         found as a secret of this host's configuration is struck out as [left out] wherever it stands.\n\n",
        units::moment(made_at),
        env!("CARGO_PKG_VERSION"),
    );
    parts.iter().fold(head, |text, part| text + &part.line())
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn a_part_that_cannot_be_had_is_noted_and_the_rest_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.tar.zst");
        let parts = [
            Part::new("a.txt", Ok("first\n".to_owned()), "nothing much"),
            Part::new("b/c.txt", Err("it hangs".to_owned()), ""),
        ];
        let bytes = Bundle::create(&path, 1_000_000_000)
            .unwrap()
            .write(&parts)
            .unwrap();
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.len(), found.mode() & 0o777), (bytes, 0o600));
        let mut archive =
            tar::Archive::new(zstd::Decoder::new(File::open(&path).unwrap()).unwrap());
        let mut read = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            read.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].0, "tidemark-diagnostics/MANIFEST");
        assert!(
            read[0]
                .1
                .contains("a.txt  6 B\n    left out: nothing much\n")
        );
        assert!(read[0].1.contains("b/c.txt  NOT WITHIN: it hangs\n"));
        assert_eq!(read[1].1, "first\n");
    }

    #[test]
    fn an_older_file_is_left_alone_and_half_a_new_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        drop(Bundle::create(&path, 0).unwrap());
        assert!(!path.exists());
        std::fs::write(&path, "old").unwrap();
        assert!(Bundle::create(&path, 0).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
    }
}
