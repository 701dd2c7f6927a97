//! What can only be seen across tables.

use std::collections::HashMap;

use crate::{Area, Backup, Configuration, Location, near::nearest, read::Notes};

/// `names` has what each kind of table is called, also of those that could not be read.
pub(crate) fn across(read: &Configuration, notes: &Notes, names: &HashMap<String, Vec<String>>) {
    let none = Vec::new();
    let of = |kind: &str| names.get(kind).unwrap_or(&none);
    for (name, backup) in &read.backups {
        volumes(name, backup, of("volume"), notes);
        let key = format!("backup.{name}.repository");
        known(
            &key,
            &backup.repository,
            "repository",
            of("repository"),
            notes,
        );
    }
    origins(read, notes);
    let locations = read.repositories.iter().map(|(name, one)| {
        let place = match &one.location {
            Location::Directory(path) => path.display().to_string(),
            Location::S3(url, _) => url.clone(),
        };
        (place, name)
    });
    once(
        locations,
        notes,
        |name| format!("repository.{name}.location"),
        |other| {
            format!(
                "repository \"{other}\" is there; one place has one name: remove one of the two"
            )
        },
    );
}

fn volumes(name: &str, backup: &Backup, volumes: &[String], notes: &Notes) {
    for (index, volume) in backup.volumes.iter().enumerate() {
        let key = format!("backup.{name}.volumes.{index}");
        known(&key, volume, "volume", volumes, notes);
        if backup.volumes[..index].contains(volume) {
            notes.complain_of(&key, format!("\"{volume}\" is there twice; name it once"));
        }
    }
}

fn known(key: &str, word: &str, kind: &str, known: &[String], notes: &Notes) {
    if known.iter().any(|name| name == word) {
        return;
    }
    let shown = word.escape_debug();
    let advice = match nearest(word, known.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("write [{kind}.{shown}] and its keys, or name one that is there"),
    };
    let why = format!("there is no {kind} \"{shown}\" in this file; {advice}");
    notes.complain_of(key, why);
}

/// One device is under one volume, and one area has the data of one.
fn origins(read: &Configuration, notes: &Notes) {
    let devices = read
        .volumes
        .iter()
        .map(|(name, one)| (one.device.clone(), name));
    once(
        devices,
        notes,
        |name| format!("volume.{name}.device"),
        |other| {
            format!(
                "volume \"{other}\" has this device; a device is under one volume: remove one of the two"
            )
        },
    );
    let areas = read
        .volumes
        .iter()
        .filter_map(|(name, one)| match &one.area {
            Area::At(path) => Some((path.clone(), name)),
            Area::LogicalVolume(_) => None,
        });
    once(
        areas,
        notes,
        |name| format!("volume.{name}.area"),
        |other| format!("volume \"{other}\" has this area; give each volume its own"),
    );
    for (name, volume) in &read.volumes {
        let Area::At(area) = &volume.area else {
            continue;
        };
        let mut others = read.volumes.iter().filter(|(other, _)| *other != name);
        if let Some((other, _)) = others.find(|(_, other)| other.device == *area) {
            let why = format!("this is the device of volume \"{other}\"; put the area elsewhere");
            notes.complain_of(&format!("volume.{name}.area"), why);
        }
    }
}

/// Complains of every value that an earlier one has too.
fn once<'a, T: PartialEq>(
    values: impl Iterator<Item = (T, &'a String)>,
    notes: &Notes,
    key: impl Fn(&str) -> String,
    why: impl Fn(&str) -> String,
) {
    let mut seen: Vec<(T, &String)> = Vec::new();
    for (value, name) in values {
        match seen.iter().find(|(earlier, _)| *earlier == value) {
            Some((_, other)) => notes.complain_of(&key(name), why(other)),
            None => seen.push((value, name)),
        }
    }
}
