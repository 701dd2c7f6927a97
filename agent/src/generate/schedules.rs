//! The timers of backups, which have their calendars from the configuration.

use std::path::Path;

use tidemark_config::{Backup, LoadError};

use super::{want, write as write_file};

/// Writes them all. An error says why there are none.
pub(super) fn write(units: &Path, configuration: &Path) -> Result<(), String> {
    // Whether systemd understands a calendar it says itself, by its own log.
    let read = tidemark_config::load_with(configuration, &|_| Ok(()));
    let configuration = match read {
        Ok(configuration) => configuration,
        Err(LoadError::Missing(_)) => return Ok(()),
        Err(error) => return Err(format!("no backup has its schedule: {error}")),
    };
    for (name, backup) in &configuration.backups {
        if let Some(calendar) = &backup.schedule {
            let unit = format!("tidemark-backup@{name}.timer");
            let path = units.join(format!("{unit}.d/50-schedule.conf"));
            write_file(&path, &text(calendar, backup))
                .and_then(|()| want(units, "timers.target", &unit, "tidemark-backup@.timer"))
                .map_err(|error| format!("the schedule of {name}: {error}"))?;
        }
    }
    Ok(())
}

fn text(calendar: &str, backup: &Backup) -> String {
    let delay = backup.random_delay.as_secs();
    format!("[Timer]\nOnCalendar={calendar}\nRandomizedDelaySec={delay}s\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CONFIGURATION: &str = r#"
[volume.data]
device = "/dev/vg/data"
area = "/dev/vg/area"
[repository.vault]
location = "/backup/vault"
[backup.nightly]
volumes = ["data"]
repository = "vault"
schedule = "Mon..Fri 02:30"
random-delay = "10min"
keep = { last = 3 }
[backup.byhand]
volumes = ["data"]
repository = "vault"
keep = { last = 3 }
"#;

    #[test]
    fn what_has_a_schedule_has_a_timer() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tidemark.toml");
        let units = dir.path().join("units");
        write(&units, &file).unwrap();
        assert!(!units.exists(), "there is no configuration");
        fs::write(&file, CONFIGURATION).unwrap();
        write(&units, &file).unwrap();
        let conf = units.join("tidemark-backup@nightly.timer.d/50-schedule.conf");
        let conf = fs::read_to_string(conf).unwrap();
        assert_eq!(
            conf,
            "[Timer]\nOnCalendar=Mon..Fri 02:30\nRandomizedDelaySec=600s\n"
        );
        let wanted = fs::read_dir(units.join("timers.target.wants")).unwrap();
        let names: Vec<_> = wanted.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["tidemark-backup@nightly.timer"]);
    }

    #[test]
    fn a_wrong_configuration_says_where() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tidemark.toml");
        fs::write(&file, "[backup.nightly]\nschedule = 3\n").unwrap();
        let error = write(&dir.path().join("units"), &file).unwrap_err();
        assert!(error.contains("tidemark.toml:2:"), "{error}");
    }
}
