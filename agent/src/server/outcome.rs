//! How a start went: told to the parent in one line on standard output, then never again.
//!
//! `ready`, with which device or file the origin is where that can be told, or `error KIND message`. The control plane maps the kind to a public reason.

use std::io::{self, Write};

/// The parent reads at most 4 KiB, and a character takes at most four bytes.
const MAX_MESSAGE_CHARS: usize = 1000;

/// Why a volume server did not start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartFailure {
    /// Something else uses the origin, or a server of this volume runs already.
    OriginInUse,
    /// The origin is not what can be protected.
    OriginUnsuitable,
    /// The area or the runtime directory lies on the volume itself.
    AreaOnVolume,
    /// Another volume uses the area.
    AreaInUse,
    /// The area's file is something else, damaged, or another volume's.
    AreaCorrupt,
    /// The area's file system has no room for it, or the area is too small to be of use.
    AreaNoSpace,
    /// This host lacks what it takes.
    Unsupported,
    /// Anything else.
    Internal,
}

impl StartFailure {
    const ALL: [Self; 8] = [
        Self::OriginInUse,
        Self::OriginUnsuitable,
        Self::AreaOnVolume,
        Self::AreaInUse,
        Self::AreaCorrupt,
        Self::AreaNoSpace,
        Self::Unsupported,
        Self::Internal,
    ];

    /// Its name on the wire, which is that of the public reason.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OriginInUse => "ORIGIN_IN_USE",
            Self::OriginUnsuitable => "ORIGIN_UNSUITABLE",
            Self::AreaOnVolume => "AREA_ON_VOLUME",
            Self::AreaInUse => "AREA_IN_USE",
            Self::AreaCorrupt => "AREA_CORRUPT",
            Self::AreaNoSpace => "AREA_NO_SPACE",
            Self::Unsupported => "UNSUPPORTED",
            Self::Internal => "INTERNAL",
        }
    }
}

/// How a start went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The volume is served.
    Ready {
        /// Which device or file its origin is, see [`crate::host::identity`].
        origin: Option<String>,
    },
    /// It is not; nothing is left behind.
    Failed {
        /// What kind of failure.
        kind: StartFailure,
        /// What happened and what to do.
        message: String,
    },
}

impl Outcome {
    /// Reads the line; `None` when it is no outcome, as from a process that died.
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end();
        if line == "ready" {
            return Some(Self::Ready { origin: None });
        }
        if let Some(origin) = line.strip_prefix("ready ") {
            let origin = Some(origin.to_owned());
            return Some(Self::Ready { origin });
        }
        let (name, message) = line.strip_prefix("error ")?.split_once(' ')?;
        let kind = StartFailure::ALL
            .into_iter()
            .find(|kind| kind.name() == name)?;
        Some(Self::Failed {
            kind,
            message: message.to_owned(),
        })
    }

    /// The line, without its end.
    fn line(&self) -> String {
        match self {
            Self::Ready { origin: None } => "ready".to_owned(),
            Self::Ready {
                origin: Some(origin),
            } => format!("ready {origin}"),
            Self::Failed { kind, message } => {
                let words: Vec<_> = message.split_whitespace().collect();
                let message: String = words.join(" ").chars().take(MAX_MESSAGE_CHARS).collect();
                format!("error {} {message}", kind.name())
            }
        }
    }

    /// Tells the parent. A parent that is gone need not know.
    pub(super) fn tell(&self) {
        let mut out = io::stdout().lock();
        let told = writeln!(out, "{}", self.line()).and_then(|()| out.flush());
        if let Err(error) = told {
            tracing::debug!(%error, "nobody waits for the outcome of the start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_back_from_their_lines() {
        for origin in [None, Some("wwid naa.5000".to_owned())] {
            let ready = Outcome::Ready { origin };
            assert_eq!(Outcome::parse(&(ready.line() + "\n")), Some(ready));
        }
        for kind in StartFailure::ALL {
            let failed = Outcome::Failed {
                kind,
                message: "the origin\nis mounted".to_owned(),
            };
            let parsed = Outcome::parse(&(failed.line() + "\n"));
            let message = "the origin is mounted".to_owned();
            assert_eq!(parsed, Some(Outcome::Failed { kind, message }));
        }
    }

    #[test]
    fn other_lines_are_no_outcome() {
        for line in [
            "",
            "ready?",
            "error",
            "error INTERNAL",
            "error NOVEL why",
            "thread panicked",
        ] {
            assert_eq!(Outcome::parse(line), None, "{line}");
        }
    }
}
