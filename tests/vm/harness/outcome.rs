//! What a boot left behind.

use std::{fmt, path::PathBuf, time::Duration};

use super::warnings::{self, Allowance};

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The script ended with this status.
    Exited(i32),
    /// It was killed, as its owner wished.
    Killed,
    /// It took longer than it may, and was killed.
    OutOfTime(Duration),
    /// It went without a word: a panic, a reboot, a dead QEMU.
    Died,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Killed => f.write_str("killed"),
            Self::OutOfTime(bound) => write!(f, "killed after {} s, its bound", bound.as_secs()),
            Self::Died => f.write_str("died: no exit status came"),
        }
    }
}

/// A boot that is over.
#[derive(Debug)]
pub struct Outcome {
    /// How.
    pub ended: Ended,
    /// What the script printed.
    pub console: String,
    /// What the kernel said from its start.
    pub kernel_log: String,
    /// What the journal of a whole system told, as it was written.
    pub journal: String,
    /// What QEMU itself complained about.
    pub complaints: String,
    /// A folder with what the guest left in /results; empty after a kill. It lives as long as the
    /// machine.
    pub results: PathBuf,
}

impl Outcome {
    /// Kernel warnings, those allowed left out.
    pub fn warnings(&self, allowed: &[Allowance]) -> Vec<String> {
        warnings::of(&self.kernel_log, allowed)
    }

    /// Panics unless the script ended well and the kernel had nothing to complain about.
    pub fn assert_good(&self, allowed: &[Allowance]) {
        let warnings = self.warnings(allowed);
        assert!(
            self.ended == Ended::Exited(0) && warnings.is_empty(),
            "the guest: {}; kernel warnings: {warnings:#?}\n{}",
            self.ended,
            self.report()
        );
    }

    /// Console and kernel log for a human: the ends of both.
    pub fn report(&self) -> String {
        format!(
            "--- console\n{}\n--- kernel\n{}\n--- journal\n{}\n--- qemu\n{}",
            tail(&self.console, 200),
            tail(&self.kernel_log, 120),
            tail(&self.journal, 200),
            self.complaints
        )
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
