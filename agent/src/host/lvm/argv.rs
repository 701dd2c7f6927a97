//! What LVM is asked, word by word; no shell reads it.

use std::fmt;

use super::{Name, Wanted};

/// What [`super::report`] reads of each volume.
const FIELDS: &str = "vg_name,vg_uuid,vg_extent_size,vg_free_count,lv_name,lv_uuid,lv_size,lv_tags";

/// The words of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Argv(Vec<String>);

impl Argv {
    fn of(words: &[&str]) -> Self {
        Self(words.iter().map(|word| (*word).to_owned()).collect())
    }

    fn and(mut self, words: &[&str]) -> Self {
        self.0.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// All volumes of a group, with those that LVM hides: their names are taken too.
    pub(super) fn list(group: &str) -> Self {
        Self::of(&["lvs", "--all"]).reported().and(&[group])
    }

    /// The volumes of a group that have a tag.
    pub(super) fn list_tagged(group: &str, tag: &str) -> Self {
        let tagged = tagged(tag);
        let list = Self::of(&["lvs"]).reported();
        list.and(&["--select", &tagged, group])
    }

    fn reported(self) -> Self {
        self.and(&["--reportformat", "json", "--units", "b", "--nosuffix"])
            .and(&["--options", FIELDS])
    }

    /// Signatures in the extents are wiped without a question: they are free, so what they hold
    /// was given up, and a file system found in an area would be mounted by somebody.
    pub(super) fn create(wanted: &Wanted) -> Self {
        let bytes = format!("{}b", wanted.bytes);
        let mut argv = Self::of(&["lvcreate", "--yes", "--type", "linear"])
            .and(&["--activate", "y", "--zero", "y", "--wipesignatures", "y"])
            .and(&["--name", &wanted.name.volume, "--size", &bytes]);
        for tag in &wanted.tags {
            argv = argv.and(&["--addtag", tag]);
        }
        argv.and(&[&wanted.name.group])
    }

    pub(super) fn activate(name: &Name) -> Self {
        Self::of(&["lvchange", "--activate", "y", &name.word()])
    }

    /// LVM selects by the tag under its own lock.
    pub(super) fn remove(group: &str, tag: &str) -> Self {
        Self::of(&["lvremove", "--yes", "--select", &tagged(tag), group])
    }

    pub(super) fn words(&self) -> &[String] {
        &self.0
    }
}

/// LVM's selection of what has this tag, among others that it may have.
fn tagged(tag: &str) -> String {
    format!("lv_tags={{\"{tag}\"}}")
}

impl fmt::Display for Argv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lvm {}", self.0.join(" "))
    }
}
