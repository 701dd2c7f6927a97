//! A table that is being read: keys are asked for one by one, and those that nobody asked for are unknown.

use std::{cell::RefCell, collections::HashMap};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{unknown, value::Wrong};

/// What is wrong, and where each value stands, gathered while tables are read.
#[derive(Default)]
pub(crate) struct Notes {
    problems: RefCell<Vec<(usize, String)>>,
    places: RefCell<HashMap<String, usize>>,
}

impl Notes {
    /// Something is wrong at a byte of the text.
    pub(crate) fn complain(&self, offset: usize, message: String) {
        self.problems.borrow_mut().push((offset, message));
    }

    /// Something is wrong with what was read by this name, for example `backup.nightly.repository`.
    pub(crate) fn complain_of(&self, name: &str, message: String) {
        let place = self.places.borrow().get(name).copied();
        self.complain(place.unwrap_or(0), message);
    }

    pub(super) fn into_problems(self) -> Vec<(usize, String)> {
        self.problems.into_inner()
    }

    fn found(&self, name: String, offset: usize) {
        self.places.borrow_mut().insert(name, offset);
    }
}

/// One table of the file.
pub(crate) struct Table<'a> {
    notes: &'a Notes,
    /// `volume.data`; empty for the file itself.
    name: String,
    /// Where it begins.
    offset: usize,
    entries: &'a DeTable<'a>,
    asked: Vec<&'static str>,
    /// The text is TOML throughout: what is not there was left out.
    whole: bool,
}

impl<'a> Table<'a> {
    pub(super) fn root(entries: &'a DeTable<'a>, notes: &'a Notes, whole: bool) -> Self {
        Self {
            notes,
            name: String::new(),
            offset: 0,
            entries,
            asked: Vec::new(),
            whole,
        }
    }

    fn below(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Option<Self> {
        let name = self.name_of(key);
        self.notes.found(name.clone(), value.span().start);
        let DeValue::Table(entries) = value.get_ref() else {
            let why = format!("\"{key}\" is a table; write [{name}] and its keys below it");
            self.notes.complain(value.span().start, why);
            return None;
        };
        Some(Self {
            notes: self.notes,
            offset: value.span().start,
            name,
            entries,
            asked: Vec::new(),
            whole: self.whole,
        })
    }

    fn name_of(&self, key: &str) -> String {
        match self.name.as_str() {
            "" => key.to_owned(),
            name => format!("{name}.{key}"),
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.push(key);
        let found = self.entries.iter().find(|(name, _)| name.get_ref() == key);
        found.map(|(_, value)| value)
    }

    /// The table below a key, if there is one.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Self> {
        let value = self.get(key)?;
        self.below(key, value)
    }

    /// All tables below this one, which has nothing else.
    pub(super) fn named(self) -> Vec<(String, Self)> {
        let entries = self.entries.iter();
        entries
            .filter_map(|(key, value)| {
                let table = self.below(key.get_ref(), value)?;
                Some((key.get_ref().to_string(), table))
            })
            .collect()
    }

    /// The names of tables below each key: what others may refer to, also when it could not be read.
    pub(super) fn known_names(&self) -> HashMap<String, Vec<String>> {
        let names = |value: &Spanned<DeValue<'_>>| {
            let table = value.get_ref().as_table()?;
            Some(table.keys().map(|key| key.get_ref().to_string()).collect())
        };
        self.entries
            .iter()
            .filter_map(|(key, value)| Some((key.get_ref().to_string(), names(value)?)))
            .collect()
    }

    /// A value that may be left out.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.get(key)?;
        self.notes.found(self.name_of(key), value.span().start);
        // Where each of a list stands, for whoever looks across tables.
        for (index, item) in value.get_ref().as_array().into_iter().flatten().enumerate() {
            let name = format!("{}.{index}", self.name_of(key));
            self.notes.found(name, item.span().start);
        }
        match read(value.get_ref()) {
            Ok(read) => Some(read),
            Err(wrong) => {
                let offset = wrong.offset.unwrap_or(value.span().start);
                let why = format!("\"{key}\": {}", wrong.message);
                self.notes.complain(offset, why);
                None
            }
        }
    }

    /// A value with a default.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Wrong>,
        usual: T,
    ) -> T {
        self.optional(key, read).unwrap_or(usual)
    }

    /// A value that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        if !self.has(key) && self.whole {
            let why = format!(
                "\"{key}\" is missing in [{}]; write {key} = {example}",
                self.name
            );
            self.complain(why);
        }
        self.optional(key, read)
    }

    /// Whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.keys().any(|name| name.get_ref() == key)
    }

    /// Something is wrong with the table as a whole.
    pub(super) fn complain(&self, message: String) {
        self.notes.complain(self.offset, message);
    }

    /// Something is wrong with a value that could be read.
    pub(super) fn complain_of(&self, key: &str, message: String) {
        self.notes.complain_of(&self.name_of(key), message);
    }

    /// Complains of every key that was not asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.entries {
            if !self.asked.contains(&key.get_ref().as_ref()) {
                let why = unknown(key, &self.name, &self.asked);
                self.notes.complain(key.span().start, why);
            }
        }
    }
}
