//! One thing that was looked at.

use serde_json::{Value, json};

use crate::text::plain;

/// How it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or not for long.
    Advice,
    /// Something does not work.
    Missing,
}

/// One thing, how it stands, and what mends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) level: Level,
    pub(super) detail: String,
    /// A command; empty where nothing needs to be mended.
    pub(super) mend: String,
}

impl Check {
    /// As it should be.
    pub(super) fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Level::Ok, detail, "")
    }

    /// It could be better.
    pub(super) fn advice(
        name: impl Into<String>,
        detail: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::new(name, Level::Advice, detail, mend)
    }

    /// It does not work.
    pub(super) fn missing(
        name: impl Into<String>,
        detail: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::new(name, Level::Missing, detail, mend)
    }

    /// At a level that was decided before.
    pub(super) fn new(
        name: impl Into<String>,
        level: Level,
        detail: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            level,
            detail: plain(&detail.into()),
            mend: mend.into(),
        }
    }

    /// A line, and one that mends it.
    pub(super) fn lines(&self) -> Vec<String> {
        let level = match self.level {
            Level::Ok => "OK",
            Level::Advice => "ADVICE",
            Level::Missing => "MISSING",
        };
        let mut lines = vec![format!("{level:<8} {:<18} {}", self.name, self.detail)];
        if !self.mend.is_empty() {
            lines.push(format!("{:<8} {:<18} mend: {}", "", "", self.mend));
        }
        lines
    }

    /// As JSON.
    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "level": match self.level {
                Level::Ok => "OK",
                Level::Advice => "ADVICE",
                Level::Missing => "MISSING",
            },
            "ok": self.level == Level::Ok,
            "detail": self.detail,
            "mend": self.mend,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_has_the_line_that_mends_it() {
        let ok = Check::ok("fuse", "/dev/fuse opens");
        assert_eq!(ok.lines(), ["OK       fuse               /dev/fuse opens"]);
        let missing = Check::missing("loop devices", "no\nsuch file", "modprobe loop");
        assert_eq!(
            missing.lines(),
            [
                "MISSING  loop devices       no\u{fffd}such file",
                "                            mend: modprobe loop",
            ]
        );
    }
}
