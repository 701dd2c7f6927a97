//! A configuration told key by key, defaults filled in: as a file again, or however somebody else writes it.

use std::{
    fmt::{self, Display, Write},
    path::Path,
    time::Duration,
};

use crate::{
    Area, Assemble, Backup, Configuration, Durability, Key, Location, Prune, Repository, Transport,
    Volume, WhenFull, units,
};

/// What takes a configuration's keys, one after the other.
pub trait Sink {
    /// What follows belongs to the table of this path.
    fn table(&mut self, path: &[&str]);
    /// One key of the table.
    fn key(&mut self, key: &str, value: Value<'_>);
}

/// A key's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// A text, a size or a time span.
    Text(String),
    /// A number.
    Number(u32),
    /// A choice.
    Flag(bool),
    /// Texts.
    List(&'a [String]),
}

impl Configuration {
    /// Tells all of it.
    pub fn tell(&self, out: &mut impl Sink) {
        out.table(&["daemon"]);
        out.key("group", text(&self.daemon.group));
        out.key("log", text(&self.daemon.log));
        if let Some(address) = self.daemon.metrics {
            out.key("metrics", text(address));
        }
        for (name, one) in &self.volumes {
            volume(out, name, one);
        }
        for (name, one) in &self.repositories {
            repository(out, name, one);
        }
        for (name, one) in &self.backups {
            backup(out, name, one);
        }
    }
}

/// As a file that reads as the same configuration.
impl Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut file = File(String::new());
        self.tell(&mut file);
        f.write_str(&file.0)
    }
}

fn volume(out: &mut impl Sink, name: &str, volume: &Volume) {
    out.table(&["volume", name]);
    out.key("device", path(&volume.device));
    out.key(
        "area",
        match &volume.area {
            Area::At(at) => path(at),
            Area::LogicalVolume(name) if name.is_empty() => text("lv"),
            Area::LogicalVolume(name) => text(format!("lv:{name}")),
        },
    );
    out.key("area-size", text(units::exact_size(volume.area_size)));
    let block_size = units::exact_size(volume.block_size.into());
    out.key("block-size", text(block_size));
    match volume.when_full {
        WhenFull::Drop => out.key("when-full", text("drop")),
        WhenFull::Slow(delay) => {
            out.key("when-full", text("slow"));
            out.key("max-write-delay", span(delay));
        }
    }
    out.key(
        "durability",
        text(match volume.durability {
            Durability::Auto => "auto",
            Durability::Durable => "durable",
            Durability::Volatile => "volatile",
        }),
    );
    out.key("durable-snapshots", Value::Flag(volume.durable_snapshots));
    out.key(
        "transport",
        text(match volume.transport {
            Transport::Auto => "auto",
            Transport::Ublk => "ublk",
            Transport::Portable => "portable",
        }),
    );
    out.key(
        "assemble",
        text(match volume.assemble {
            Assemble::Auto => "auto",
            Assemble::Boot => "boot",
            Assemble::Late => "late",
        }),
    );
    out.table(&["volume", name, "hooks"]);
    out.key("before-freeze", Value::List(&volume.hooks.before_freeze));
    out.key("after-thaw", Value::List(&volume.hooks.after_thaw));
    out.key("timeout", span(volume.hooks.timeout));
    out.key("required", Value::Flag(volume.hooks.required));
}

fn repository(out: &mut impl Sink, name: &str, repository: &Repository) {
    out.table(&["repository", name]);
    match &repository.location {
        Location::Directory(at) => out.key("location", path(at)),
        Location::S3(url, s3) => {
            out.key("location", text(url));
            for (key, word) in [("endpoint", &s3.endpoint), ("region", &s3.region)] {
                if !word.is_empty() {
                    out.key(key, text(word));
                }
            }
            out.key("path-style", Value::Flag(s3.path_style));
            out.key("allow-http", Value::Flag(s3.allow_http));
            if let Some(file) = &s3.credentials_file {
                out.key("credentials-file", path(file));
            }
            out.key("instance-credentials", Value::Flag(s3.instance_credentials));
        }
    }
    match &repository.key {
        None => {}
        Some(Key::PasswordFile(file)) => out.key("password-file", path(file)),
        Some(Key::PasswordCommand(command)) => out.key("password-command", text(command)),
        Some(Key::PasswordCredential(name)) => out.key("password-credential", text(name)),
        Some(Key::KeyFile(file)) => out.key("key-file", path(file)),
        Some(Key::KeyCredential(name)) => out.key("key-credential", text(name)),
    }
    out.key("append-only", Value::Flag(repository.append_only));
}

fn backup(out: &mut impl Sink, name: &str, backup: &Backup) {
    out.table(&["backup", name]);
    out.key("volumes", Value::List(&backup.volumes));
    out.key("repository", text(&backup.repository));
    if let Some(schedule) = &backup.schedule {
        out.key("schedule", text(schedule));
        out.key("random-delay", span(backup.random_delay));
    }
    out.key("tags", Value::List(&backup.tags));
    out.key(
        "prune",
        text(match backup.prune {
            Prune::Always => "always",
            Prune::Weekly => "weekly",
            Prune::Never => "never",
        }),
    );
    out.key(
        "check-data-percent",
        Value::Number(backup.check_data_percent),
    );
    if let Some(keep) = &backup.keep {
        out.table(&["backup", name, "keep"]);
        for (key, count) in [
            ("last", keep.last),
            ("hourly", keep.hourly),
            ("daily", keep.daily),
            ("weekly", keep.weekly),
            ("monthly", keep.monthly),
            ("yearly", keep.yearly),
        ] {
            out.key(key, Value::Number(count));
        }
        out.key("within", span(keep.within));
    }
    out.table(&["backup", name, "hooks"]);
    out.key("after-backup", Value::List(&backup.hooks.after_backup));
    out.key("on-failure", Value::List(&backup.hooks.on_failure));
    out.key("timeout", span(backup.hooks.timeout));
}

fn text(text: impl Display) -> Value<'static> {
    Value::Text(text.to_string())
}

fn path(path: &Path) -> Value<'static> {
    text(path.display())
}

fn span(span: Duration) -> Value<'static> {
    text(units::exact_duration(span))
}

/// Lines of TOML.
struct File(String);

impl Sink for File {
    fn table(&mut self, path: &[&str]) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        // A String takes everything.
        let _ = writeln!(self.0, "{gap}[{}]", path.join("."));
    }

    fn key(&mut self, key: &str, value: Value<'_>) {
        let value = match value {
            Value::Text(text) => quoted(&text),
            Value::Number(number) => number.to_string(),
            Value::Flag(flag) => flag.to_string(),
            Value::List(words) => {
                let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
                format!("[{}]", words.join(", "))
            }
        };
        let _ = writeln!(self.0, "{key} = {value}");
    }
}

/// A basic string. What was read has no control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
