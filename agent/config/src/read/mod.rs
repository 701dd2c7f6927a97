//! From text to tables to a configuration. Whatever is wrong is noted with its place, and reading goes on.

mod backup;
mod repository;
mod table;
mod value;
mod volume;

use std::collections::BTreeMap;

use toml::{Spanned, de::DeTable};

use crate::{Calendar, Configuration, Daemon, Problem, check, names, near::nearest};
pub(crate) use table::{Notes, Table};

/// Reads the whole text.
pub(crate) fn configuration(
    text: &str,
    calendar: &Calendar<'_>,
) -> Result<Configuration, Vec<Problem>> {
    let (tables, errors) = DeTable::parse_recoverable(text);
    let notes = Notes::default();
    let broken: Vec<Problem> = errors
        .iter()
        .map(|error| syntax(text, error.message(), error.span()))
        .collect();
    let read = root(tables.get_ref(), &notes, calendar, broken.is_empty());
    let mut problems: Vec<Problem> = notes
        .into_problems()
        .into_iter()
        .map(|(offset, message)| Problem::at(text, offset, message))
        // What stands on a line that is no TOML is not what was meant.
        .filter(|problem| broken.iter().all(|other| other.line != problem.line))
        .collect();
    problems.extend(broken);
    problems.sort();
    problems.dedup();
    match problems.is_empty() {
        true => Ok(read),
        false => Err(problems),
    }
}

fn syntax(text: &str, message: &str, span: Option<std::ops::Range<usize>>) -> Problem {
    let what = match message {
        "duplicate key" => "this was set before; keep one of the two".to_owned(),
        other => format!("this is no TOML: {other}; `man tidemark.toml` has examples"),
    };
    let offset = span.map_or(text.len(), |span| span.start);
    Problem::at(text, offset, what)
}

fn root(
    tables: &DeTable<'_>,
    notes: &Notes,
    calendar: &Calendar<'_>,
    whole: bool,
) -> Configuration {
    let mut root = Table::root(tables, notes, whole);
    let read = Configuration {
        daemon: root.table("daemon").map(daemon).unwrap_or_default(),
        volumes: named(root.table("volume"), volume::read),
        repositories: named(root.table("repository"), repository::read),
        backups: named(root.table("backup"), |table| backup::read(table, calendar)),
    };
    let asked_for = root.known_names();
    root.finish();
    if whole {
        check::across(&read, notes, &asked_for);
    }
    read
}

fn daemon(mut table: Table<'_>) -> Daemon {
    let usual = Daemon::default();
    let read = Daemon {
        group: table.or("group", value::word, usual.group),
        log: table.or("log", value::log, usual.log),
        metrics: table.optional("metrics", value::loopback),
    };
    table.finish();
    read
}

/// Reads each table of a kind, by its name.
fn named<T>(
    tables: Option<Table<'_>>,
    read: impl Fn(Table<'_>) -> Option<T>,
) -> BTreeMap<String, T> {
    let mut found = BTreeMap::new();
    for (name, table) in tables.into_iter().flat_map(Table::named) {
        if !names::is_name(&name) {
            table.complain(names::refusal(&name));
        }
        if let Some(one) = read(table) {
            found.insert(name, one);
        }
    }
    found
}

/// What to say of a key that means nothing.
fn unknown(
    key: &Spanned<std::borrow::Cow<'_, str>>,
    table: &str,
    known: &[&'static str],
) -> String {
    const SECRETS: [&str; 9] = [
        "password",
        "passphrase",
        "secret",
        "key",
        "access-key",
        "secret-key",
        "aws_access_key_id",
        "aws_secret_access_key",
        "token",
    ];
    let word = key.get_ref().escape_debug();
    if SECRETS.contains(&key.get_ref().as_ref()) {
        return format!(
            "secrets do not belong in this file; name where \"{word}\" is kept instead: password-file, \
             password-command, password-credential, key-file, key-credential or credentials-file"
        );
    }
    let place = match table {
        "" => "here".to_owned(),
        table => format!("in [{table}]"),
    };
    match nearest(key.get_ref(), known.iter().copied()) {
        Some(meant) => format!("\"{word}\" means nothing {place}; did you mean \"{meant}\"?"),
        None => format!(
            "\"{word}\" means nothing {place}; remove it, or use one of {}",
            known.join(", ")
        ),
    }
}
