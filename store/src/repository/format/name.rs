//! What objects are called in the storage.

use crate::{repository::id::Digest, units::Id};

/// The configuration's name.
pub const CONFIG: &str = "config";
/// Before the names of key objects.
pub const KEYS: &str = "keys/";
/// Before the names of packs.
pub const PACKS: &str = "packs/";
/// Before the names of indexes.
pub const INDEXES: &str = "index/";
/// Before the names of recovery points.
pub const POINTS: &str = "points/";
/// Before the names of condemnations.
pub const CONDEMNED: &str = "condemned/";

/// A pack's name.
pub fn pack(name: Digest) -> String {
    let hex = name.to_string();
    format!("{PACKS}{}/{hex}", &hex[..2])
}

/// The pack of this name; `None`: it is none of ours.
pub fn parse_pack(name: &str) -> Option<Digest> {
    let (folder, hex) = name.strip_prefix(PACKS)?.split_once('/')?;
    hex.starts_with(folder)
        .then(|| Digest::parse(hex).filter(|_| folder.len() == 2))?
}

/// An index's name.
pub fn index(name: Digest) -> String {
    format!("{INDEXES}{name}")
}

/// The index of this name.
pub fn parse_index(name: &str) -> Option<Digest> {
    Digest::parse(name.strip_prefix(INDEXES)?)
}

/// The name of an object with a random id, behind its prefix.
pub fn with_id(prefix: &str, id: Id) -> String {
    format!("{prefix}{id}")
}

/// The id in an object's name behind its prefix.
pub fn parse_id(prefix: &str, name: &str) -> Option<Id> {
    let hex = name.strip_prefix(prefix)?;
    Id::parse(hex).filter(|id| id.to_string() == hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_strangers_do_not() {
        let digest = Digest([0xab; 32]);
        assert_eq!(parse_pack(&pack(digest)), Some(digest));
        assert_eq!(parse_index(&index(digest)), Some(digest));
        assert_eq!(
            parse_id(POINTS, &with_id(POINTS, Id([7; 16]))),
            Some(Id([7; 16]))
        );
        assert_eq!(parse_pack(&format!("packs/ac/{digest}")), None);
        assert_eq!(parse_pack(&format!("packs//{digest}")), None);
        assert_eq!(
            parse_id(POINTS, &format!("points/{}", "AB".repeat(16))),
            None
        );
    }
}
