//! Schedules: systemd's calendar expressions.

use std::{
    io,
    process::{Command, Output},
};

/// Longer is no schedule.
const MAX_BYTES: usize = 256;
/// What stands for a whole expression.
const WORDS: [&str; 9] = [
    "minutely",
    "hourly",
    "daily",
    "weekly",
    "monthly",
    "quarterly",
    "semiannually",
    "yearly",
    "annually",
];
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// What is wrong with an expression, as far as that can be seen without systemd. What passes holds no
/// character that would mean something else in a unit.
pub fn plain(expression: &str) -> Result<(), String> {
    let refuse = |why: &str| {
        Err(format!(
            "\"{}\" is no schedule: {why}; write for example \"daily\", \"Mon..Fri 02:30\" or \"*-*-01 04:00\"",
            expression.escape_debug()
        ))
    };
    if expression.len() > MAX_BYTES {
        return refuse("it is too long");
    }
    let letters = |c: char| c.is_ascii_alphanumeric() || " *-:.,/~_+".contains(c);
    if let Some(strange) = expression.chars().find(|c| !letters(*c)) {
        return refuse(&format!("'{}' is not used in one", strange.escape_debug()));
    }
    let lower = expression.to_ascii_lowercase();
    let Some(first) = lower.split(' ').find(|word| !word.is_empty()) else {
        return refuse("it is empty");
    };
    let like_a_day = DAYS.iter().any(|day| first.starts_with(day));
    let like_a_time =
        first.contains([':', '-']) && first.contains(|c: char| c == '*' || c.is_ascii_digit());
    if WORDS.contains(&first) || like_a_day || like_a_time {
        return Ok(());
    }
    refuse("it begins with neither a day, a date, a time nor a word like daily")
}

/// What `systemd-analyze calendar` says of an expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is one; when it elapses next, as systemd writes it.
    Good(String),
    /// It is none, and why.
    Wrong(String),
    /// There is no systemd here to ask.
    Unchecked,
}

/// Asks systemd.
pub fn ask_systemd(expression: &str) -> Verdict {
    if let Err(why) = plain(expression) {
        return Verdict::Wrong(why);
    }
    match calendar("--iterations=1", expression) {
        Ok(told) if told.status.success() => {
            let told = String::from_utf8_lossy(&told.stdout);
            let next = behind(&told, "Next elapse: ");
            Verdict::Good(next.unwrap_or("never").to_owned())
        }
        Ok(told) => {
            let why = String::from_utf8_lossy(&told.stderr);
            let why = why.lines().next().unwrap_or_default().trim();
            Verdict::Wrong(format!(
                "\"{expression}\" is no schedule of systemd's ({why}); `systemd-analyze calendar` explains \
                 expressions"
            ))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Verdict::Unchecked,
        Err(error) => Verdict::Wrong(format!("systemd-analyze cannot be run: {error}")),
    }
}

/// When an expression elapses first after `base`, in seconds since the UNIX epoch; as RFC 3339 has it, in
/// UTC. Nothing where it never does, or systemd is not there to say so.
pub fn first_after(expression: &str, base: u64) -> Option<String> {
    plain(expression).ok()?;
    let told = calendar(&format!("--base-time=@{base}"), expression).ok()?;
    let told = String::from_utf8_lossy(&told.stdout);
    // The second is there where the host's own time is another.
    let elapses = behind(&told, "(in UTC): ").or_else(|| behind(&told, "Next elapse: "))?;
    let mut words = elapses.split(' ');
    match [(); 4].map(|()| words.next()) {
        [Some(_), Some(date), Some(time), Some("UTC")] => Some(format!("{date}T{time}Z")),
        _ => None,
    }
}

fn calendar(option: &str, expression: &str) -> io::Result<Output> {
    Command::new("systemd-analyze")
        .env("LC_ALL", "C")
        .args(["calendar", option, "--", expression])
        .output()
}

/// The first line's rest behind a label.
fn behind<'a>(told: &'a str, label: &str) -> Option<&'a str> {
    told.lines()
        .find_map(|line| line.trim().strip_prefix(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_moment_after_another_is_systemds() {
        let after = |expression| first_after(expression, 1_000_000_000);
        let utc = "2001-09-10T00:00:00Z".to_owned();
        assert_eq!(after("*-*-* 00:00:00 UTC"), Some(utc));
        let vienna = "2001-09-09T22:00:00Z".to_owned();
        assert_eq!(after("*-*-* 00:00:00 Europe/Vienna"), Some(vienna));
        assert_eq!(after("2000-01-01 00:00:00"), None);
        assert_eq!(after("often"), None);
    }

    #[test]
    fn what_systemd_takes_passes_and_what_would_mean_more_does_not() {
        for good in [
            "daily",
            "Mon..Fri 02:30",
            "mon,tue *-*-* 00:00:00",
            "*-*-01 04:00:00 Europe/Vienna",
            "*:0/15",
            "2026-*-* 1:00",
            "Sat *-*~07/1 18:00",
        ] {
            assert_eq!(plain(good), Ok(()), "{good}");
        }
        for wrong in [
            "",
            "  ",
            "often",
            "daily\nUnit=x",
            "%H:00",
            "01:00;02:00",
            "12",
        ] {
            assert!(plain(wrong).is_err(), "{wrong}");
        }
    }
}
