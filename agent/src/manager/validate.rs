//! Outside input: names, paths, ids, times. Each refusal names its field.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use tidemark_config::names;
use tidemark_store::units::{Epoch, Id, MAX_BLOCK_BYTES, MIN_BLOCK_BYTES};

use super::{Checkpoint, Error};
use crate::host::lvm;

/// Labels of one snapshot, and their lengths in bytes: 72 KiB at most.
const MAX_LABELS: usize = 64;
const MAX_LABEL_KEY: usize = 128;
const MAX_LABEL_VALUE: usize = 1024;
/// Volumes of one cut or group.
pub(super) const MAX_SET: usize = 64;
/// A lease that is longer is no lease.
const MAX_LEASE: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// Writers of a frozen file system wait for all of it.
const MAX_FREEZE: Duration = Duration::from_secs(300);
/// An area of 16 TiB keeps that much overwritten data; more is a mistyped size.
pub(super) const MAX_AREA_BYTES: u64 = 16 << 40;

/// A name: 1 to 64 of a-z, 0-9, '-' and '_', starting with a letter or digit.
pub(super) fn name(field: &str, name: &str) -> Result<(), Error> {
    match names::is_name(name) {
        true => Ok(()),
        false => Err(Error::invalid(field, names::refusal(name))),
    }
}

/// An absolute path without `..`, which could mean another place tomorrow.
pub(super) fn path(field: &str, path: &Path) -> Result<(), Error> {
    let text = path.as_os_str().as_encoded_bytes();
    let up = path
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    if text.is_empty() || !path.is_absolute() || up || text.contains(&0) {
        let why = format!("\"{}\" is not an absolute path", path.display());
        return Err(Error::invalid(field, why));
    }
    Ok(())
}

/// The unit of tracking; 0 takes the default.
pub(super) fn block_bytes(bytes: u32) -> Result<u32, Error> {
    match bytes {
        0 => Ok(MIN_BLOCK_BYTES),
        MIN_BLOCK_BYTES..=MAX_BLOCK_BYTES if bytes.is_power_of_two() => Ok(bytes),
        _ => Err(Error::invalid(
            "block_bytes",
            format!("{bytes} is not a power of two from {MIN_BLOCK_BYTES} to {MAX_BLOCK_BYTES}"),
        )),
    }
}

/// A logical volume that is to be made; empty lets us choose.
pub(super) fn volume_name(name: &str) -> Result<(), Error> {
    if name.is_empty() || lvm::Name::new("vg", name).is_some() {
        return Ok(());
    }
    let why = format!(
        "\"{}\" is no name of a logical volume: use letters, digits, '+', '_', '.' and '-', the \
         first no '-'; its group is the origin's",
        name.escape_debug()
    );
    Err(Error::invalid("store.logical_volume.name", why))
}

pub(super) fn area_size(bytes: u64) -> Result<(), Error> {
    if bytes > MAX_AREA_BYTES {
        let why = format!("{bytes} is more than {MAX_AREA_BYTES}");
        return Err(Error::invalid("store.area_size_bytes", why));
    }
    Ok(())
}

pub(super) fn lease(lease: Duration) -> Result<(), Error> {
    if lease > MAX_LEASE {
        return Err(Error::invalid("lease", "longer than ten years"));
    }
    Ok(())
}

pub(super) fn max_freeze(time: Duration) -> Result<(), Error> {
    if time.is_zero() || time > MAX_FREEZE {
        let why = format!("{time:?} is not between 0 and {MAX_FREEZE:?}");
        return Err(Error::invalid("max_freeze", why));
    }
    Ok(())
}

pub(super) fn labels(labels: &BTreeMap<String, String>) -> Result<(), Error> {
    if labels.len() > MAX_LABELS {
        let why = format!("{} labels, {MAX_LABELS} are the limit", labels.len());
        return Err(Error::invalid("labels", why));
    }
    for (key, value) in labels {
        if key.is_empty() || key.len() > MAX_LABEL_KEY {
            let why = format!("a key has {} bytes, not 1 to {MAX_LABEL_KEY}", key.len());
            return Err(Error::invalid("labels", why));
        }
        if value.len() > MAX_LABEL_VALUE {
            let why = format!(
                "\"{key}\" has {} bytes, at most {MAX_LABEL_VALUE}",
                value.len()
            );
            return Err(Error::invalid("labels", why));
        }
    }
    Ok(())
}

/// A set of volumes: at least one, none twice.
pub(super) fn set(field: &str, volumes: &[String]) -> Result<(), Error> {
    if volumes.is_empty() {
        return Err(Error::invalid(field, "name at least one volume"));
    }
    if volumes.len() > MAX_SET {
        let why = format!("{} volumes, {MAX_SET} are the limit", volumes.len());
        return Err(Error::invalid(field, why));
    }
    let mut seen = BTreeSet::new();
    match volumes.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(Error::invalid(field, format!("\"{twice}\" is there twice"))),
        None => Ok(()),
    }
}

/// 1 to 32 hex digits, made lower-case: an id or the beginning of one.
pub(super) fn id_prefix(field: &str, text: &str) -> Result<String, Error> {
    let good = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if good {
        return Ok(text.to_ascii_lowercase());
    }
    let shown = text.escape_debug();
    Err(Error::invalid(
        field,
        format!("\"{shown}\" is not 1 to 32 hex digits"),
    ))
}

/// A lineage: 32 hex digits.
pub fn lineage(field: &str, text: &str) -> Result<Id, Error> {
    Id::parse(text).ok_or_else(|| {
        let shown = text.escape_debug();
        Error::invalid(field, format!("\"{shown}\" is not 32 hex digits"))
    })
}

/// A checkpoint from its parts.
pub fn checkpoint(field: &str, lineage_text: &str, epoch: u64) -> Result<Checkpoint, Error> {
    if epoch == 0 {
        return Err(Error::invalid(field, "its epoch is 0; epochs count from 1"));
    }
    Ok(Checkpoint {
        lineage: lineage(field, lineage_text)?,
        epoch: Epoch(epoch),
    })
}
