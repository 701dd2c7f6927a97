//! `[backup.NAME]`

use std::time::Duration;

use toml::de::DeValue;

use super::{
    Table,
    value::{self, Wrong},
};
use crate::{Backup, BackupHooks, Calendar, Keep, Prune};

/// Limits of the agent's: tags of a recovery point, of which the schedule has one itself.
const MAX_TAGS: usize = 63;
const MAX_TAG_BYTES: usize = 128;
/// Volumes of one cut.
const MAX_VOLUMES: usize = 64;
const MAX_DELAY: Duration = Duration::from_secs(7 * 86_400);
const MAX_HOOK: Duration = Duration::from_secs(86_400);
const MAX_WITHIN: Duration = Duration::from_secs(100 * 366 * 86_400);
/// What is more is a mistyped number.
const MAX_KEPT: u32 = 1_000_000;

const PRUNES: [(&str, Prune); 3] = [
    ("always", Prune::Always),
    ("weekly", Prune::Weekly),
    ("never", Prune::Never),
];

pub(super) fn read(mut table: Table<'_>, calendar: &Calendar<'_>) -> Option<Backup> {
    let volumes = table.required("volumes", "[\"data\"]", volumes);
    let repository = table.required("repository", "\"vault\"", value::word);
    let backup = Backup {
        volumes: volumes.clone().unwrap_or_default(),
        repository: repository.clone().unwrap_or_default(),
        schedule: table.optional("schedule", |value| schedule(value, calendar)),
        random_delay: table.or(
            "random-delay",
            value::duration(Duration::ZERO, MAX_DELAY),
            Duration::ZERO,
        ),
        tags: table.or("tags", tags, Vec::new()),
        keep: table.table("keep").and_then(keep),
        prune: table.or("prune", value::one_of(&PRUNES), Prune::Weekly),
        check_data_percent: table.or("check-data-percent", value::number(100), 1),
        hooks: table.table("hooks").map(hooks).unwrap_or_default(),
    };
    if backup.schedule.is_none() && !table.has("schedule") && table.has("random-delay") {
        let why = "there is no schedule to delay; set one, or remove this";
        table.complain_of("random-delay", why.to_owned());
    }
    table.finish();
    volumes.and(repository).map(|_| backup)
}

fn volumes(value: &DeValue<'_>) -> Result<Vec<String>, Wrong> {
    let volumes = value::words(value)?;
    if volumes.is_empty() {
        return Err("name at least one volume".to_owned().into());
    }
    if volumes.len() > MAX_VOLUMES {
        let why = format!(
            "{} volumes, {MAX_VOLUMES} are the limit; split it in two",
            volumes.len()
        );
        return Err(why.into());
    }
    Ok(volumes)
}

fn schedule(value: &DeValue<'_>, calendar: &Calendar<'_>) -> Result<String, Wrong> {
    let schedule = value::text(value)?;
    calendar(&schedule)?;
    Ok(schedule)
}

fn tags(value: &DeValue<'_>) -> Result<Vec<String>, Wrong> {
    let mut tags = value::words(value)?;
    let own = Backup::own_tag("");
    let bad = |tag: &&String| tag.is_empty() || tag.len() > MAX_TAG_BYTES || tag.starts_with(&own);
    if let Some(tag) = tags.iter().find(bad) {
        let why = format!(
            "\"{tag}\" is no tag; use 1 to {MAX_TAG_BYTES} bytes, and not \"{own}\" before it"
        );
        return Err(why.into());
    }
    if tags.len() > MAX_TAGS {
        return Err(format!("{} tags, {MAX_TAGS} are the limit; use fewer", tags.len()).into());
    }
    tags.sort();
    tags.dedup();
    Ok(tags)
}

fn keep(mut table: Table<'_>) -> Option<Keep> {
    let mut count = |key| table.or(key, value::number(MAX_KEPT), 0);
    let mut keep = Keep {
        last: count("last"),
        hourly: count("hourly"),
        daily: count("daily"),
        weekly: count("weekly"),
        monthly: count("monthly"),
        yearly: count("yearly"),
        within: Duration::ZERO,
    };
    let span = value::duration(Duration::ZERO, MAX_WITHIN);
    keep.within = table.or("within", span, Duration::ZERO);
    if keep == Keep::default() {
        let why = "it keeps nothing; set at least one above 0, or leave \"keep\" out to keep all";
        table.complain(why.to_owned());
    }
    table.finish();
    Some(keep)
}

fn hooks(mut table: Table<'_>) -> BackupHooks {
    let usual = BackupHooks::default();
    let span = value::duration(Duration::from_secs(1), MAX_HOOK);
    let read = BackupHooks {
        after_backup: table.or("after-backup", value::program, usual.after_backup),
        on_failure: table.or("on-failure", value::program, usual.on_failure),
        timeout: table.or("timeout", span, usual.timeout),
    };
    table.finish();
    read
}
