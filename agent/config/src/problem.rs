//! What is wrong with a file, and where.

use std::{fmt, path::PathBuf};

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// Counts from 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong, and after a semicolon what to do.
    pub message: String,
}

impl Problem {
    /// At a byte of the text.
    pub(crate) fn at(text: &str, offset: usize, message: String) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let in_line = before.get(line_start..).unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: in_line.chars().count() + 1,
            message,
        }
    }
}

/// All that is wrong with a file: one a line, `path:line:column: what; what to do`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problems {
    /// The file.
    pub path: PathBuf,
    /// At least one, by their places.
    pub problems: Vec<Problem>,
}

impl Problems {
    /// The lines that tell it.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|problem| {
            let path = self.path.display();
            format!(
                "{path}:{}:{}: {}",
                problem.line, problem.column, problem.message
            )
        })
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for Problems {}
