//! Files of arguments, one a line: what `@FILE` stands for on the command line of a volume server.
//!
//! The control plane keeps one for each volume where systemd starts the servers, so that they can be
//! started before it, and before the file system that has its catalog.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::Path,
};

/// The argument of a volume that is to be served before file systems are mounted.
pub const EARLY: &str = "--early";
/// More than any volume has, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// The arguments in a file.
pub fn read(path: &Path) -> io::Result<Vec<OsString>> {
    if fs::metadata(path)?.len() > MAX_BYTES {
        return Err(io::Error::other("it is too long for a file of arguments"));
    }
    let bytes = fs::read(path)?;
    let Some(lines) = bytes.strip_suffix(b"\n") else {
        return Err(io::Error::other("its last line has no end"));
    };
    let lines = lines.split(|byte| *byte == b'\n');
    Ok(lines
        .map(|line| OsString::from_vec(line.to_vec()))
        .collect())
}

/// Puts a file of arguments in the place of an earlier one; what was there last survives a power
/// cut whole.
pub fn write(path: &Path, arguments: &[OsString]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for argument in arguments {
        if argument.as_bytes().contains(&b'\n') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{argument:?} has more than one line"),
            ));
        }
        bytes.extend_from_slice(argument.as_bytes());
        bytes.push(b'\n');
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let new = path.with_extension("new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

/// A command line in which each `@FILE` is replaced by what that file has.
pub fn expand(words: impl Iterator<Item = OsString>) -> io::Result<Vec<OsString>> {
    let mut expanded = Vec::new();
    for (number, word) in words.enumerate() {
        // The first word is the program's name, which systemd may have begin so.
        match word.as_bytes().strip_prefix(b"@").filter(|_| number > 0) {
            None => expanded.push(word),
            Some(path) => {
                let path = Path::new(OsStr::from_bytes(path));
                let read = read(path).map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                });
                expanded.extend(read?);
            }
        }
    }
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn what_is_written_takes_the_place_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volumes/data.args");
        let mut arguments = words(&["data", "--origin", "/dev/a b", "--distrust", ""]);
        arguments.push(OsString::from_vec(b"/\xff".to_vec()));
        for _ in 0..2 {
            write(&path, &arguments).unwrap();
            assert_eq!(read(&path).unwrap(), arguments);
        }
        let mut line = words(&["@tidemarkd", "volume"]);
        line.push(format!("@{}", path.display()).into());
        let expanded = expand(line.into_iter()).unwrap();
        assert_eq!(expanded[..3], words(&["@tidemarkd", "volume", "data"]));
        assert_eq!(expanded[3..], arguments[1..]);
    }

    #[test]
    fn what_was_cut_short_is_an_error_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.args");
        fs::write(&path, "data\n--origin").unwrap();
        assert!(read(&path).is_err());
        let missing = format!("@{}/none", dir.path().display());
        let line = words(&["tidemarkd", &missing]);
        let error = expand(line.into_iter()).unwrap_err();
        assert!(error.to_string().contains("/none"), "{error}");
        assert!(write(&path, &words(&["a\nb"])).is_err());
    }
}
