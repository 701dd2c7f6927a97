//! Names of units (systemd.unit(5), "String escaping for inclusion in unit names").

use std::{
    os::unix::ffi::OsStrExt,
    path::{Component, Path},
};

/// The unit that is there when a device is; `None` for what is no device.
pub(super) fn of_device(path: &Path) -> Option<String> {
    path.starts_with("/dev")
        .then(|| format!("{}.device", escaped(path)))
}

/// An absolute path as a part of a unit's name.
fn escaped(path: &Path) -> String {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.as_bytes()),
        _ => None,
    });
    let mut name = String::new();
    for part in parts {
        if !name.is_empty() {
            name.push('-');
        }
        for byte in part {
            let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'.');
            match plain && !(name.is_empty() && *byte == b'.') {
                true => name.push(char::from(*byte)),
                false => name.push_str(&format!("\\x{byte:02x}")),
            }
        }
    }
    if name.is_empty() {
        name.push('-');
    }
    name
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn names_are_those_of_systemd() {
        for (path, name) in [
            ("/dev/vg/data", "dev-vg-data"),
            (
                "/dev//mapper/vg-my--data",
                r"dev-mapper-vg\x2dmy\x2d\x2ddata",
            ),
            ("/.hidden/a b", r"\x2ehidden-a\x20b"),
            ("/", "-"),
            ("/dev/ä", r"dev-\xc3\xa4"),
        ] {
            assert_eq!(escaped(Path::new(path)), name);
            // Where systemd is, it has the last word.
            if let Ok(told) = Command::new("systemd-escape")
                .args(["--path", path])
                .output()
            {
                assert_eq!(String::from_utf8_lossy(&told.stdout).trim_end(), name);
            }
        }
        let device = of_device("/dev/sda1".as_ref());
        assert_eq!(device.as_deref(), Some("dev-sda1.device"));
        assert_eq!(of_device("/var/lib/area".as_ref()), None);
    }
}
