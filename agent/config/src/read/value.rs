//! Single values: what they may be, and what to write where they are not that.

use std::{
    net::SocketAddr,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use toml::de::DeValue;

use crate::units;

/// Why a value will not do.
pub(super) struct Wrong {
    /// Where, when it is not at the value's beginning.
    pub(super) offset: Option<usize>,
    /// What is wrong; what to do.
    pub(super) message: String,
}

impl From<String> for Wrong {
    fn from(message: String) -> Self {
        let offset = None;
        Self { offset, message }
    }
}

fn other(value: &DeValue<'_>, wanted: &str) -> Wrong {
    format!("this is {}; write {wanted}", kind(value)).into()
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A text without control characters.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, Wrong> {
    let DeValue::String(text) = value else {
        return Err(other(value, "a text in quotes"));
    };
    if text.contains(char::is_control) {
        let why = "it has a control character, such as a new line; write it without";
        return Err(why.to_owned().into());
    }
    Ok(text.to_string())
}

/// A text that says something.
pub(super) fn word(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = text(value)?;
    if text.trim().is_empty() {
        return Err("it is empty; leave the key out for its default"
            .to_owned()
            .into());
    }
    Ok(text)
}

/// Levels, or targets with theirs, as tracing has them. A bare word that is no level would be a target.
pub(super) fn log(value: &DeValue<'_>) -> Result<String, Wrong> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let text = word(value)?;
    let level = |part: &str| {
        let level = part.rsplit('=').next().unwrap_or_default();
        LEVELS.contains(&level.trim())
    };
    match text.split(',').all(level) {
        true => Ok(text),
        false => Err(format!(
            "\"{text}\" does not end each of its parts with a level; write one of {}, or for example \
             \"info,tidemark_agent::manager=debug\"",
            LEVELS.join(", ")
        )
        .into()),
    }
}

pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, Wrong> {
    value
        .as_bool()
        .ok_or_else(|| other(value, "true or false, without quotes"))
}

/// A number from `0` to `most`.
pub(super) fn number(most: u32) -> impl Fn(&DeValue<'_>) -> Result<u32, Wrong> {
    move |value| {
        let wanted = format!("a number from 0 to {most}, without quotes");
        let Some(number) = value.as_integer() else {
            return Err(other(value, &wanted));
        };
        u32::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| *number <= most)
            .ok_or_else(|| format!("{number} does not fit; write {wanted}").into())
    }
}

/// `"2GiB"`, or a number of bytes.
pub(super) fn size(value: &DeValue<'_>) -> Result<u64, Wrong> {
    match value {
        DeValue::String(text) => units::parse_size(text).map_err(Wrong::from),
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| format!("{number} is no size; write for example \"2GiB\"").into()),
        _ => Err(other(value, "a size, for example \"2GiB\"")),
    }
}

/// `"30s"`, from `least` to `most`.
pub(super) fn duration(
    least: Duration,
    most: Duration,
) -> impl Fn(&DeValue<'_>) -> Result<Duration, Wrong> {
    move |value| {
        let DeValue::String(text) = value else {
            return Err(other(
                value,
                "a time span with its unit, for example \"30s\"",
            ));
        };
        let span = units::parse_duration(text)?;
        if !(least..=most).contains(&span) {
            let (least, most) = (units::exact_duration(least), units::exact_duration(most));
            let why = format!("'{text}' does not fit; write a time span from {least} to {most}");
            return Err(why.into());
        }
        Ok(span)
    }
}

/// An absolute path without `..`, which could mean another place tomorrow. One place, one writing.
pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    let text = text(value)?;
    absolute(&text).ok_or_else(|| {
        format!("\"{text}\" is no absolute path; write it from / on, without \"..\"").into()
    })
}

pub(super) fn absolute(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let up = path.components().any(|part| part == Component::ParentDir);
    (path.is_absolute() && !up).then(|| path.components().collect())
}

/// A list of texts.
pub(super) fn words(value: &DeValue<'_>) -> Result<Vec<String>, Wrong> {
    let Some(items) = value.as_array() else {
        return Err(other(value, "a list, for example [\"one\", \"two\"]"));
    };
    items
        .iter()
        .map(|item| {
            text(item.get_ref()).map_err(|wrong| Wrong {
                offset: Some(item.span().start),
                ..wrong
            })
        })
        .collect()
}

/// A program by its absolute path, and its arguments; an empty list is none.
pub(super) fn program(value: &DeValue<'_>) -> Result<Vec<String>, Wrong> {
    let words = words(value)?;
    match words.first() {
        Some(program) if !program.starts_with('/') => Err(format!(
            "\"{program}\" is no absolute path of a program; write for example [\"/etc/tidemark/hooks/quiesce\", \
             \"db\"], the arguments behind it"
        )
        .into()),
        _ => Ok(words),
    }
}

/// One of some words, each with its meaning.
pub(super) fn one_of<T: Copy>(
    known: &'static [(&'static str, T)],
) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| {
        let words: Vec<_> = known
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        let words = words.join(", ");
        let DeValue::String(text) = value else {
            return Err(other(value, &format!("one of {words}")));
        };
        let meant = known.iter().find(|(word, _)| word == text);
        meant.map(|(_, meaning)| *meaning).ok_or_else(|| {
            format!(
                "\"{}\" is not known; write one of {words}",
                text.escape_debug()
            )
            .into()
        })
    }
}

/// An address that only this host reaches.
pub(super) fn loopback(value: &DeValue<'_>) -> Result<SocketAddr, Wrong> {
    let text = text(value)?;
    let address: Option<SocketAddr> = text.parse().ok();
    address.filter(|address| address.ip().is_loopback()).ok_or_else(|| {
        format!(
            "\"{text}\" is no loopback address with a port; write for example \"127.0.0.1:9477\", and put a \
             proxy before it where others are to read it"
        )
        .into()
    })
}
