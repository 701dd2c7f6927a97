//! `/etc/tidemark/tidemark.toml`: what it may say, read whole and checked.
//!
//! A file is either understood in full or refused in full, and what is refused is told all at once, each
//! with its line and column:
//!
//! ```text
//! text --toml--> tables --read--> Configuration --check--> Configuration
//!                  └────────┴───────── problems ──┴──> sorted by their places
//! ```
//!
//! Nothing here asks the host whether a device or a repository is there: the file may be checked on
//! another machine than it is meant for. Only [`calendar`] runs a program.

pub mod calendar;
mod check;
mod load;
mod model;
pub mod names;
mod near;
mod print;
mod problem;
mod read;
pub mod runs;
pub mod units;

pub use load::{DEFAULT_PATH, LoadError, load, load_with};
pub use model::{
    Area, Assemble, Backup, BackupHooks, Configuration, Daemon, Durability, FreezeHooks, Keep, Key,
    Location, Prune, Repository, S3, Transport, Volume, WhenFull,
};
pub use print::{Sink, Value};
pub use problem::{Problem, Problems};

impl Configuration {
    /// Reads a file's text. Whether schedules are such is only looked at plainly.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        Self::parse_with(text, &calendar::plain)
    }

    /// The same, where `calendar` says what is wrong with a schedule.
    pub fn parse_with(text: &str, calendar: &Calendar<'_>) -> Result<Self, Vec<Problem>> {
        read::configuration(text, calendar)
    }
}

/// Says what is wrong with a schedule.
pub type Calendar<'a> = dyn Fn(&str) -> Result<(), String> + 'a;

#[cfg(test)]
mod tests;
