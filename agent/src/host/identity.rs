//! Which device or file an origin is, beyond its path: a clone, or another one in its place, differs.
//!
//! | of | identity |
//! |---|---|
//! | a device-mapper device | the UUID that it was made with |
//! | a disk | its world-wide name, or else its serial number |
//! | a partition | its disk's identity and where on it the partition begins |
//! | a file | its inode number and when it was made |
//!
//! An identity is a word that says of which kind it is, and a value. Where there is none, as of a
//! loop device or of a file on a file system that does not tell when it was made, nothing is said.

use std::{fs::File, io, os::unix::fs::MetadataExt, time::UNIX_EPOCH};

use super::device::DeviceNumber;

/// Longest identity that is believed, in bytes.
const MAX_BYTES: usize = 300;

/// Of a block device.
pub fn of_device(device: DeviceNumber) -> Option<String> {
    let disk = device.whole_disk();
    let start = disk.and_then(|_| device.attribute("start"));
    of_attributes(
        |name| disk.unwrap_or(device).attribute(name),
        disk.map(|_| start),
    )
}

/// Of a block device by what /sys says of it, or of the disk that it is a partition of; `start` is
/// then where the partition begins.
fn of_attributes(
    attribute: impl Fn(&str) -> Option<String>,
    start: Option<Option<String>>,
) -> Option<String> {
    const SOURCES: [(&str, &str); 6] = [
        ("dm/uuid", "dm-uuid"),
        ("wwid", "wwid"),
        ("device/wwid", "wwid"),
        ("md/uuid", "md-uuid"),
        ("serial", "serial"),
        ("device/serial", "serial"),
    ];
    let (kind, value) = SOURCES.iter().find_map(|(file, kind)| {
        let value = attribute(file)?;
        let words: Vec<_> = value.split_whitespace().collect();
        (!words.is_empty()).then(|| (*kind, words.join("_")))
    })?;
    let identity = match start {
        None => format!("{kind} {value}"),
        Some(start) => format!("partition-on-{kind} {value}+{}", start?),
    };
    (identity.len() <= MAX_BYTES).then_some(identity)
}

/// Of a file.
pub fn of_file(file: &File) -> io::Result<Option<String>> {
    let metadata = file.metadata()?;
    // A file system without it may make inode numbers up, too.
    let Ok(made) = metadata.created() else {
        return Ok(None);
    };
    let made = made.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Some(format!(
        "file {}-{}.{:09}",
        metadata.ino(),
        made.as_secs(),
        made.subsec_nanos()
    )))
}

/// Why what is found is not what was expected; `None` where it is, or where nobody can tell.
pub fn difference(expected: Option<&str>, found: Option<&str>) -> Option<String> {
    let (expected, found) = (expected?, found?);
    let kind = |identity: &str| identity.split_once(' ').map(|(kind, _)| kind.to_owned());
    let differ = expected != found && kind(expected)? == kind(found)?;
    differ.then(|| {
        format!(
            "the origin is another one than before: {expected} was expected, and {found} is there"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;

    #[test]
    fn devices_are_known_by_what_is_theirs_alone() {
        let of = |attributes: &[(&str, &str)], start: Option<&str>| {
            let known: BTreeMap<_, _> = attributes.iter().copied().collect();
            let attribute = |name: &str| known.get(name).map(|value| (*value).to_owned());
            of_attributes(attribute, start.map(|start| Some(start.to_owned())))
        };
        let lv = [("dm/uuid", "LVM-abc"), ("wwid", "")];
        assert_eq!(of(&lv, None).as_deref(), Some("dm-uuid LVM-abc"));
        let disk = [("wwid", "t10.ATA  QEMU   1"), ("serial", "x")];
        assert_eq!(of(&disk, None).as_deref(), Some("wwid t10.ATA_QEMU_1"));
        let part = of(&disk, Some("2048"));
        let expected = "partition-on-wwid t10.ATA_QEMU_1+2048";
        assert_eq!(part.as_deref(), Some(expected));
        assert_eq!(of(&[("dm/uuid", ""), ("serial", " ")], None), None);
        assert_eq!(of(&[("serial", &"x".repeat(400))], None), None);
    }

    #[test]
    fn only_values_of_one_kind_can_differ() {
        let differ = |expected, found| difference(expected, found).is_some();
        assert!(differ(Some("wwid a"), Some("wwid b")));
        for (expected, found) in [
            (Some("wwid a"), Some("wwid a")),
            (Some("wwid a"), Some("serial b")),
            (Some("wwid a"), None),
            (None, Some("wwid b")),
            (Some("a"), Some("b")),
        ] {
            assert!(!differ(expected, found), "{expected:?} {found:?}");
        }
        let why = difference(Some("file 1"), Some("file 2")).unwrap();
        assert!(why.contains("file 1") && why.contains("file 2"), "{why}");
    }

    #[test]
    fn a_copy_in_a_files_place_is_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let [path, copy] = ["image", "copy"].map(|name| dir.path().join(name));
        fs::write(&path, [1; 4096]).unwrap();
        let of = || of_file(&File::open(&path).unwrap()).unwrap();
        let Some(before) = of() else {
            println!("the file system here does not say when files were made");
            return;
        };
        fs::write(&path, [2; 4096]).unwrap();
        assert_eq!(of().as_deref(), Some(&*before), "it was only written to");
        fs::copy(&path, &copy).unwrap();
        fs::rename(&copy, &path).unwrap();
        assert_ne!(of().as_deref(), Some(&*before));
    }
}
