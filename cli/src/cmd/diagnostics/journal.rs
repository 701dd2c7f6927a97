//! This boot's journal of our units, without what hooks print.

use std::time::Duration;

use serde_json::Value;

use super::{
    bundle::Part,
    redact::{Secrets, unquoted},
};
use crate::{host::command, units};

/// The newest entries of the boot.
const ENTRIES: &str = "20000";
/// As journalctl writes them; the oldest go when there are more, in bytes.
const MOST: u64 = 24 << 20;
/// A journal on a slow disk takes its time.
const WITHIN: Duration = Duration::from_secs(60);
const UNITS: [&str; 5] = [
    "tidemarkd.service",
    "tidemarkd.socket",
    "tidemark-volume@*.service",
    "tidemark-rescue@*.service",
    "tidemark-backup@*.service",
];
/// Programs whose words are ours; systemd tells of the units.
const OURS: [&str; 4] = ["tidemark", "tidemarkd", "systemd", "(tidemarkd)"];

/// The part of it.
pub(super) async fn part(secrets: &Secrets) -> Part {
    let mut words = vec![
        "--no-pager",
        "--boot",
        "--reverse",
        "--output=json",
        "-n",
        ENTRIES,
    ];
    for unit in UNITS {
        words.extend(["-u", unit]);
    }
    let printed = match command::run("journalctl", &words, WITHIN, MOST).await {
        Ok(printed) if printed.succeeded => printed,
        Ok(printed) => {
            let why = printed.stderr.lines().next().unwrap_or_default();
            return Part::new("journal.txt", Err(secrets.strike(why)), "");
        }
        Err(why) => return Part::new("journal.txt", Err(why), ""),
    };
    let (text, hidden) = render(&printed.stdout, secrets);
    let cut = match printed.cut {
        true => "; the oldest entries, which did not fit",
        false => "",
    };
    Part::new(
        "journal.txt",
        Ok(text),
        format!("{hidden} entries that hooks and other programs wrote{cut}"),
    )
}

/// Entries as lines, the oldest first, and how many were not told.
fn render(entries: &str, secrets: &Secrets) -> (String, u64) {
    let mut lines = Vec::new();
    let mut hidden = 0;
    for entry in entries.lines() {
        // The last may be cut.
        let Ok(entry) = serde_json::from_str::<Value>(entry) else {
            continue;
        };
        match line(&entry) {
            Some(line) => lines.push(secrets.strike(&line)),
            None => hidden += 1,
        }
    }
    lines.reverse();
    (lines.concat(), hidden)
}

fn line(entry: &Value) -> Option<String> {
    let field = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let message = field("MESSAGE");
    let from_hook = entry.get("TIDEMARK_HOOK").is_some() || message.contains(" hook=");
    if from_hook || !OURS.contains(&field("_COMM")) {
        return None;
    }
    // Problems of the configuration quote what stands there.
    let message = match message.contains(".toml:") {
        true => unquoted(message),
        false => message.to_owned(),
    };
    let at = field("__REALTIME_TIMESTAMP").parse::<u64>().unwrap_or(0) / 1_000_000;
    let fields = entry.as_object()?.iter();
    let ours: String = fields
        .filter(|(name, _)| name.starts_with("TIDEMARK_"))
        .filter_map(|(name, value)| Some(format!(" {name}={}", value.as_str()?)))
        .collect();
    Some(format!(
        "{} <{}> {}[{}] {message}{ours}\n",
        units::moment(at),
        field("PRIORITY"),
        field("_COMM"),
        field("_PID"),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_our_own_words_are_told_the_oldest_first() {
        let entry = |comm: &str, message: &str| {
            json!({
                "_COMM": comm, "_PID": "7", "PRIORITY": "6", "MESSAGE": message,
                "__REALTIME_TIMESTAMP": "1000000000000000", "TIDEMARK_VOLUME": "home",
            })
        };
        let mut hook = entry("tidemarkd", "s3cret");
        hook["TIDEMARK_HOOK"] = json!("before-freeze");
        let entries: Vec<_> = [
            entry("tidemarkd", "second"),
            hook,
            entry("tidemarkd", "INFO hook=\"before-freeze\" s3cret"),
            entry("curl", "s3cret"),
            entry("tidemarkd", "/e/tidemark.toml:1:1: \"s3cret\" is no size"),
        ]
        .iter()
        .map(|one| format!("{one}\n"))
        .collect();
        let none = Secrets::found(std::path::Path::new("/no/such/file"), &[]);
        let (text, hidden) = render(&(entries.concat() + "{\"cut"), &none);
        assert_eq!(hidden, 3);
        assert_eq!(
            text,
            "2001-09-09T01:46:40Z <6> tidemarkd[7] /e/tidemark.toml:1:1: \"[left out]\" is no size TIDEMARK_VOLUME=home\n\
             2001-09-09T01:46:40Z <6> tidemarkd[7] second TIDEMARK_VOLUME=home\n"
        );
    }
}
