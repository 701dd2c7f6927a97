//! Schedules: whether they run, and how they went.

use super::check::Check;
use crate::{
    cmd::{
        schedule::{Schedule, record::Outcome},
        status::overview::Overview,
    },
    host::command,
    units,
};

/// One line for each thing that is wrong with a schedule, or one that nothing is.
pub(super) async fn checks(overview: &Overview) -> Vec<Check> {
    let schedules = match &overview.schedules {
        Ok(schedules) => schedules,
        Err(why) => {
            let mend = format!("tidemark config check {}", overview.config.display());
            return vec![Check::missing("schedules", why.clone(), mend)];
        }
    };
    let mut checks = Vec::new();
    for schedule in schedules {
        let mut found: Vec<_> = run(schedule).into_iter().collect();
        if overview.systemd && schedule.calendar.is_some() {
            let timer = format!("tidemark-backup@{}.timer", schedule.name);
            let active = command::systemctl(&["is-active", "--quiet", &timer]).await;
            found.extend(active.is_err().then(|| inactive(schedule, &timer)));
        }
        if found.is_empty() {
            let next = schedule.next.as_deref().unwrap_or("by hand");
            found.push(Check::ok(named(schedule), format!("next: {next}")));
        }
        checks.extend(found);
    }
    checks
}

fn named(schedule: &Schedule) -> String {
    format!("schedule {}", schedule.name)
}

fn inactive(schedule: &Schedule, timer: &str) -> Check {
    Check::missing(
        named(schedule),
        format!("{timer} is not active: it does not run by itself"),
        format!("systemctl daemon-reload && systemctl start {timer}"),
    )
}

/// How it went last.
fn run(schedule: &Schedule) -> Option<Check> {
    let again = format!("tidemark schedule run {}", schedule.name);
    let Some(last) = &schedule.last else {
        return Some(Check::advice(named(schedule), "it has never run", again));
    };
    if schedule.running {
        return None;
    }
    let at = units::moment(last.ended_at.max(last.started_at));
    let why = last.failures.first().map_or("", String::as_str);
    let detail = match (last.ended_at < last.started_at, last.outcome) {
        (true, _) => format!("the run of {at} was ended before it was done"),
        (false, Outcome::Succeeded) => return None,
        (false, Outcome::Partial) => {
            format!("the run of {at} made its backup, and then failed: {why}")
        }
        (false, Outcome::Failed) => format!("the run of {at} failed: {why}"),
    };
    Some(Check::missing(named(schedule), detail, again))
}

#[cfg(test)]
mod tests {
    use super::{super::check::Level, *};
    use crate::cmd::schedule::record::Record;

    #[test]
    fn a_schedule_that_never_ran_or_failed_has_a_command() {
        let mut schedule = Schedule {
            name: "nightly".to_owned(),
            volumes: vec!["home".to_owned()],
            repository: "vault".to_owned(),
            calendar: None,
            next: None,
            due_by: None,
            last: None,
            running: false,
        };
        let never = run(&schedule).unwrap();
        assert_eq!(
            (never.level, never.mend.as_str()),
            (Level::Advice, "tidemark schedule run nightly")
        );
        let mut record = Record {
            started_at: 1_000_000_000,
            ended_at: 1_000_000_060,
            failures: vec!["no backup: the daemon is gone".to_owned()],
            ..Record::default()
        };
        schedule.last = Some(record.clone());
        let failed = run(&schedule).unwrap();
        assert_eq!(failed.level, Level::Missing);
        assert_eq!(
            failed.detail,
            "the run of 2001-09-09T01:47:40Z failed: no backup: the daemon is gone"
        );
        record.ended_at = 0;
        schedule.last = Some(record.clone());
        assert!(run(&schedule).unwrap().detail.contains("was ended before"));
        schedule.running = true;
        assert_eq!(run(&schedule), None);
        record.ended_at = record.started_at;
        record.outcome = Outcome::Succeeded;
        schedule.running = false;
        schedule.last = Some(record);
        assert_eq!(run(&schedule), None);
    }
}
