//! The kernel's initramfs format: cpio "newc", as Linux's own documentation describes it
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Archives can stand one after the other: later entries go over earlier ones.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Write},
    path::Path,
};

/// Archives are padded to this, so that another can follow.
const ALIGNMENT: u64 = 512;

const DIRECTORY: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const PROGRAM: u32 = 0o100_755;
const TEXT: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive under construction.
#[derive(Debug)]
pub struct Archive<W> {
    out: W,
    written: u64,
    inodes: u32,
    folders: BTreeSet<String>,
}

/// The header's fields that differ between entries.
#[derive(Default)]
struct Entry {
    mode: u32,
    size: u32,
    device: (u32, u32),
}

impl<W: Write> Archive<W> {
    /// An empty one.
    pub fn new(out: W) -> Self {
        Self {
            out,
            written: 0,
            inodes: 0,
            folders: BTreeSet::new(),
        }
    }

    /// Adds a folder and those above it, unless they are there.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let folder = &path[..end];
            if !folder.is_empty() && self.folders.insert(folder.to_owned()) {
                let entry = Entry {
                    mode: DIRECTORY,
                    ..Entry::default()
                };
                self.entry(folder, &entry, &[])?;
            }
        }
        Ok(())
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        let entry = Entry {
            mode: LINK,
            size: size(target.len())?,
            ..Entry::default()
        };
        self.parent(path)?;
        self.entry(path, &entry, target.as_bytes())
    }

    /// Adds a character device, for what runs before /dev is mounted.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        let entry = Entry {
            mode: CHARACTER_DEVICE,
            device: (major, minor),
            ..Entry::default()
        };
        self.parent(path)?;
        self.entry(path, &entry, &[])
    }

    /// Adds a file that can be run.
    pub fn bytes(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let entry = Entry {
            mode: PROGRAM,
            size: size(bytes.len())?,
            ..Entry::default()
        };
        self.parent(path)?;
        self.entry(path, &entry, bytes)
    }

    /// Adds a file that is only read.
    pub fn text(&mut self, path: &str, text: &str) -> io::Result<()> {
        let entry = Entry {
            mode: TEXT,
            size: size(text.len())?,
            ..Entry::default()
        };
        self.parent(path)?;
        self.entry(path, &entry, text.as_bytes())
    }

    /// Adds a file of the host; it can be run. Links are followed.
    pub fn file(&mut self, path: &str, host: &Path) -> io::Result<()> {
        let bytes = std::fs::read(host)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", host.display())))?;
        self.bytes(path, &bytes)
    }

    /// Ends it.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", &Entry::default(), &[])?;
        self.pad(ALIGNMENT)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parent(&mut self, path: &str) -> io::Result<()> {
        match path.trim_start_matches('/').rsplit_once('/') {
            Some((folder, _)) => self.folder(folder),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, entry: &Entry, content: &[u8]) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        self.inodes += 1;
        let links = if entry.mode == DIRECTORY { 2 } else { 1 };
        let (major, minor) = entry.device;
        let name_size = size(name.len() + 1)?;
        let mut header = String::from("070701");
        for field in [
            self.inodes,
            entry.mode,
            0,
            0,
            links,
            0,
            entry.size,
            0,
            0,
            major,
            minor,
            name_size,
            0,
        ] {
            header.push_str(&format!("{field:08x}"));
        }
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad(4)?;
        self.put(content)?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += u64::from(size(bytes.len())?);
        self.out.write_all(bytes)
    }

    fn pad(&mut self, alignment: u64) -> io::Result<()> {
        let missing = self.written.next_multiple_of(alignment) - self.written;
        let zeros = [0; 512];
        self.put(&zeros[..usize::try_from(missing).expect("padding is short")])
    }
}

impl Archive<io::BufWriter<File>> {
    /// An empty one in a new file.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self::new(io::BufWriter::new(File::create(path)?)))
    }
}

fn size(len: usize) -> io::Result<u32> {
    u32::try_from(len).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{len} bytes are more than the format holds"),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use super::Archive;

    #[test]
    fn cpio_reads_what_is_written() {
        let mut archive = Archive::new(Vec::new());
        archive.bytes("/usr/bin/odd", b"12345").expect("a file");
        archive.link("/bin", "usr/bin").expect("a link");
        archive.folder("usr/lib").expect("a folder");
        let bytes = archive.finish().expect("an archive");
        assert_eq!(bytes.len() % 512, 0);

        let mut cpio = Command::new("cpio")
            .args(["--list", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio runs");
        let mut input = cpio.stdin.take().expect("a pipe");
        input.write_all(&bytes).expect("cpio reads");
        drop(input);
        let output = cpio.wait_with_output().expect("cpio ends");
        assert!(output.status.success(), "{output:?}");
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        let names: Vec<_> = names.lines().collect();
        assert_eq!(names, ["usr", "usr/bin", "usr/bin/odd", "bin", "usr/lib"]);
    }
}
