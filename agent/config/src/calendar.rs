//! Schedules: systemd's calendar expressions.

use std::{io, process::Command};

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
    let asked = Command::new("systemd-analyze")
        .env("LC_ALL", "C")
        .args(["calendar", "--iterations=1", "--", expression])
        .output();
    match asked {
        Ok(told) if told.status.success() => {
            let told = String::from_utf8_lossy(&told.stdout);
            let next = told
                .lines()
                .find_map(|line| line.trim().strip_prefix("Next elapse: "));
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

#[cfg(test)]
mod tests {
    use super::*;

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
