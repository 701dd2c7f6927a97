//! What a path is, and whether an interposer can go over it.

use std::{
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use super::{DmVolume, Refusal, stacked::interposer_under};
use crate::host::{
    claim::swaps,
    device::{Anchor, DeviceNumber},
    dm::{Address, Control, Info, Line, Slot, Table, disk},
    mounts::MountTable,
    stack::{explain, lies_on},
};

/// Targets of which two instances with the same parameters do no harm: they keep nothing, or
/// share what they keep (thin: the pool's).
const CLONEABLE: [&str; 11] = [
    "crypt",
    "delay",
    "dust",
    "error",
    "flakey",
    "linear",
    "snapshot-origin",
    "striped",
    "thin",
    "unstriped",
    "zero",
];

/// Targets that the kernel never replaces by others (`DM_TARGET_IMMUTABLE`).
const IMMUTABLE: [&str; 3] = ["multipath", "thin-pool", "verity"];

/// How an interposer can go over a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// A device-mapper device: the interposer goes under it, mounted or not.
    Live(DmVolume),
    /// A file, or a block device that is not mounted: the interposer goes over it, and what it
    /// presents is mounted instead. [`crate::host::claim`] has the last word on it.
    Assembled,
}

/// Looks at what `path` is. `protected` are our own files (state, area, logs, sockets), which
/// must not lie on it; they need not exist yet.
pub fn check(path: &Path, protected: &[PathBuf]) -> Result<Found, Refusal> {
    let failed = |source| Refusal::Io {
        path: path.to_owned(),
        source,
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    let kind = metadata.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(Refusal::WrongType {
            path: path.to_owned(),
        });
    }
    let anchor = Anchor::of(&metadata);
    let found = match anchor {
        Anchor::File(_) => Found::Assembled,
        Anchor::Device(device) => check_device(path, device)?,
    };
    for file in protected {
        if let Some(chain) = lies_on(file, &[anchor]).map_err(failed)? {
            return Err(Refusal::HoldsOurs {
                path: path.to_owned(),
                protected: file.clone(),
                chain: explain(&chain),
            });
        }
    }
    Ok(found)
}

fn check_device(path: &Path, device: DeviceNumber) -> Result<Found, Refusal> {
    let path = || path.to_owned();
    if disk::is_zoned(device) {
        return Err(Refusal::Zoned { path: path() });
    }
    refuse_swap(&path(), device)?;
    let found = if disk::is_dm(device) {
        Found::Live(check_dm(&path(), device)?)
    } else {
        refuse_mounted(&path(), device)?;
        Found::Assembled
    };
    // After the targets: some are read-only, and the kind says more.
    if device.is_read_only() {
        return Err(Refusal::ReadOnly { path: path() });
    }
    Ok(found)
}

fn check_dm(path: &Path, device: DeviceNumber) -> Result<DmVolume, Refusal> {
    let control = Control::open()?;
    let (info, table) = control.table(Address::Number(device), Slot::Live)?;
    refuse_state(path, &info)?;
    refuse_targets(path, &info.name, &table)?;
    if disk::is_request_based(device) {
        return Err(Refusal::RequestBased {
            path: path.to_owned(),
            kind: table.0.first().map(|l| l.kind.clone()).unwrap_or_default(),
        });
    }
    if disk::is_dax(device) {
        return Err(Refusal::Dax {
            path: path.to_owned(),
        });
    }
    if let Some(over) = interposer_under(&control, &table)? {
        return Err(Refusal::AlreadyInterposed {
            path: path.to_owned(),
            over: over.node(),
        });
    }
    Ok(DmVolume::of(&info))
}

/// Refuses a device that another program is at work on.
pub(super) fn refuse_state(path: &Path, info: &Info) -> Result<(), Refusal> {
    let (path, name) = (path.to_owned(), info.name.clone());
    if info.suspended {
        return Err(Refusal::Suspended { path, name });
    }
    if info.pending {
        return Err(Refusal::PendingTable { path, name });
    }
    if !info.active {
        return Err(Refusal::NoTable { path, name });
    }
    Ok(())
}

/// Refuses a table of which there cannot be a second instance, or which cannot be replaced.
pub(super) fn refuse_targets(path: &Path, name: &str, table: &Table) -> Result<(), Refusal> {
    let kind_of = |line: &Line| line.kind.clone();
    let path = path.to_owned();
    for line in &table.0 {
        let kind = line.kind.as_str();
        if IMMUTABLE.contains(&kind) {
            let kind = kind_of(line);
            return Err(Refusal::Immutable { path, kind });
        }
        if !CLONEABLE.contains(&kind) {
            let kind = kind_of(line);
            return Err(Refusal::KeepsState { path, kind });
        }
        if has_key_in_keyring(line) {
            let name = name.to_owned();
            return Err(Refusal::KeyInKeyring { path, name });
        }
    }
    if table.sectors() == 0 {
        let name = name.to_owned();
        return Err(Refusal::NoTable { path, name });
    }
    Ok(())
}

/// Whether the key is named and not given: `:32:logon:cryptsetup:...`.
///
/// Such a key is found only in the keyrings of the process that loads the table; cryptsetup
/// drops it from its own as it ends. Even where we could find it now, taking the interposer
/// away would need it once more, so it is never relied on.
fn has_key_in_keyring(line: &Line) -> bool {
    line.kind == "crypt" && line.param(1).is_some_and(|key| key.starts_with(':'))
}

fn refuse_swap(path: &Path, device: DeviceNumber) -> Result<(), Refusal> {
    let anchors = [Anchor::Device(device)];
    for swap in swaps() {
        // A swap file that was removed cannot be followed; nor can it be asked for.
        if lies_on(&swap, &anchors).is_ok_and(|chain| chain.is_some()) {
            return Err(Refusal::Swap {
                path: path.to_owned(),
                swap,
            });
        }
    }
    if disk::hibernation() == Some(device) {
        return Err(Refusal::Hibernation {
            path: path.to_owned(),
        });
    }
    Ok(())
}

fn refuse_mounted(path: &Path, device: DeviceNumber) -> Result<(), Refusal> {
    let mounts = MountTable::read().map_err(|source| Refusal::Io {
        path: path.to_owned(),
        source,
    })?;
    match mounts.on_device(device).next() {
        None => Ok(()),
        Some(mount) => Err(Refusal::MountedPlain {
            path: path.to_owned(),
            mount_point: mount.mount_point.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixtures::{Mounted, sparse_file};

    fn targets(lines: &[(&str, &str)]) -> Result<(), Refusal> {
        let lines = lines.iter().zip(0u64..);
        let lines = lines.map(|((kind, params), at)| Line::new(at * 8, 8, kind, params));
        refuse_targets(Path::new("/dev/dm-9"), "vol", &Table(lines.collect()))
    }

    #[test]
    fn tables_that_can_be_cloned_pass() {
        targets(&[("linear", "8:0 2048"), ("striped", "2 128 8:0 0 8:16 0")]).unwrap();
        targets(&[("crypt", "aes-xts-plain64 00ff 0 8:16 0")]).unwrap();
        targets(&[("thin", "253:4 1")]).unwrap();
        targets(&[("snapshot-origin", "253:4")]).unwrap();
    }

    #[test]
    fn tables_that_cannot_say_why_and_what_to_do() {
        let keyring = "aes-xts-plain64 :64:logon:cryptsetup:u-d0 0 8:16 0";
        let error = targets(&[("crypt", keyring)]).unwrap_err();
        assert!(matches!(error, Refusal::KeyInKeyring { .. }));
        assert!(
            error
                .to_string()
                .contains("cryptsetup refresh --disable-keyring vol")
        );
        for kind in IMMUTABLE {
            let error = targets(&[("linear", "8:0 0"), (kind, "")]).unwrap_err();
            assert!(matches!(error, Refusal::Immutable { .. }), "{kind}");
        }
        for kind in [
            "raid",
            "cache",
            "era",
            "integrity",
            "snapshot",
            "mirror",
            "vdo",
        ] {
            let error = targets(&[(kind, "")]).unwrap_err();
            assert!(matches!(error, Refusal::KeepsState { .. }), "{kind}");
        }
        assert!(matches!(targets(&[]), Err(Refusal::NoTable { .. })));
    }

    #[test]
    fn a_mounted_plain_device_is_refused_and_its_image_is_not() {
        let mounted = Mounted::ext4();
        let refused = check(mounted.device.path(), &[]);
        assert!(
            matches!(refused, Err(Refusal::MountedPlain { .. })),
            "{refused:?}"
        );
        // That a loop device has it is for `claim` to say.
        assert_eq!(check(&mounted.image, &[]).unwrap(), Found::Assembled);
    }

    #[test]
    fn what_holds_our_own_files_is_refused() {
        let mounted = Mounted::ext4();
        let ours = mounted.point.join("state");
        let refused = check(&mounted.image, std::slice::from_ref(&ours));
        let Err(Refusal::HoldsOurs { protected, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(protected, ours);
    }

    #[test]
    fn what_is_no_volume_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = check(folder.path(), &[]);
        assert!(matches!(refused, Err(Refusal::WrongType { .. })));
        let refused = check(&folder.path().join("none"), &[]);
        assert!(matches!(refused, Err(Refusal::Io { .. })));
        let image = folder.path().join("image");
        sparse_file(&image, 1 << 20);
        assert_eq!(check(&image, &[]).unwrap(), Found::Assembled);
    }
}
