//! What is printed: lines and tables for people, JSON for programs, progress on a terminal.

use std::{
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

/// How this run talks.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    progress: bool,
    colour: bool,
    closed: AtomicBool,
    /// What was said, where a test listens.
    #[cfg(test)]
    heard: Option<Heard>,
}

/// What a test hears: lines of standard output, and remarks beside it after `note: `.
#[cfg(test)]
pub(crate) type Heard = std::sync::Arc<std::sync::Mutex<Vec<String>>>;

impl Output {
    /// Reads the options together with what standard output and error are.
    pub(crate) fn new(json: bool, quiet: bool, no_progress: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            json,
            quiet,
            progress: !json && !quiet && !no_progress && io::stderr().is_terminal(),
            colour: !plain && io::stdout().is_terminal(),
            closed: AtomicBool::new(false),
            #[cfg(test)]
            heard: None,
        }
    }

    /// For tests.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self {
            json: false,
            quiet: true,
            progress: false,
            colour: false,
            closed: AtomicBool::new(false),
            heard: None,
        }
    }

    /// For tests that listen.
    #[cfg(test)]
    pub(crate) fn listened_to(json: bool) -> (Self, Heard) {
        let heard = Heard::default();
        let out = Self {
            json,
            quiet: false,
            heard: Some(Heard::clone(&heard)),
            ..Self::silent()
        };
        (out, heard)
    }

    /// Lets a test hear it; whether one listens.
    #[cfg(test)]
    fn overheard(&self, text: String) -> bool {
        let Some(heard) = &self.heard else {
            return false;
        };
        heard.lock().unwrap().push(text);
        true
    }

    /// The same, for a command within a command.
    pub(crate) fn twin(&self) -> Self {
        Self {
            json: self.json,
            quiet: self.quiet,
            progress: self.progress,
            colour: self.colour,
            closed: AtomicBool::new(false),
            #[cfg(test)]
            heard: self.heard.clone(),
        }
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether colours may be used on standard output.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Whether the reader of standard output went away: streams end then.
    pub(crate) fn closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The reader went away, as somebody else saw.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// A line that was asked for; `--quiet` does not silence it, `--json` does.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            self.write(text.as_ref());
        }
    }

    /// A line that is nice to have.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        if !self.json && !self.quiet {
            self.write(text.as_ref());
        }
    }

    /// A remark beside the result, on standard error.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if !self.json && !self.quiet {
            #[cfg(test)]
            if self.overheard(format!("note: {}", text.as_ref())) {
                return;
            }
            eprintln!("{}", text.as_ref());
        }
    }

    /// A document, or one line of a stream of them, when JSON was asked for.
    pub(crate) fn document(&self, value: &Value) {
        if self.json {
            self.write(&value.to_string());
        }
    }

    /// A table with a heading, columns aligned; numbers should come formatted.
    pub(crate) fn table(&self, heading: &[&str], rows: &[Vec<String>]) {
        for line in layout(heading, rows) {
            self.line(line);
        }
    }

    /// A progress bar in bytes, hidden unless on a terminal.
    pub(crate) fn bar(&self, label: &'static str, total: u64) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(total), self.target());
        let style = "{prefix:12} [{bar:32}] {binary_bytes:>10} / {binary_total_bytes} {binary_bytes_per_sec:>12} {eta:>4} {msg}";
        // The template is a constant; were it wrong, the plain bar would still do.
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.with_prefix(label)
    }

    fn target(&self) -> ProgressDrawTarget {
        if self.progress {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        }
    }

    /// `println!` would panic when a pager goes away; that is no failure of ours.
    fn write(&self, text: &str) {
        #[cfg(test)]
        if self.overheard(text.to_owned()) {
            return;
        }
        let mut out = io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            self.closed.store(true, Ordering::Relaxed);
        }
    }
}

/// The lines of a table.
pub(crate) fn layout(heading: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let render = |cells: Vec<&str>| {
        let mut line = String::new();
        for (cell, width) in cells.into_iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        line.trim_end().to_owned()
    };
    let head = render(heading.to_vec());
    let body = rows
        .iter()
        .map(|row| render(row.iter().map(String::as_str).collect()));
    std::iter::once(head).chain(body).collect()
}

/// `1 volume`, `2 volumes`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// `[######----]`: how full something is, `width` cells wide.
pub(crate) fn fill_bar(used: u64, capacity: u64, width: usize) -> String {
    let cells = u128::try_from(width).unwrap_or(0);
    let full = match capacity {
        0 => 0,
        _ => (u128::from(used) * cells).div_ceil(u128::from(capacity)),
    };
    let full = usize::try_from(full).unwrap_or(width).min(width);
    format!("[{}{}]", "#".repeat(full), "-".repeat(width - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["a".to_owned(), "longer".to_owned()],
            vec!["bbbb".to_owned(), "x".to_owned()],
        ];
        let lines = layout(&["ID", "NAME"], &rows);
        assert_eq!(lines, ["ID    NAME", "a     longer", "bbbb  x"]);
    }

    #[test]
    fn a_store_that_holds_anything_shows_it() {
        assert_eq!(fill_bar(0, 100, 4), "[----]");
        assert_eq!(fill_bar(1, 100, 4), "[#---]");
        assert_eq!(fill_bar(100, 100, 4), "[####]");
        assert_eq!(fill_bar(200, 100, 4), "[####]");
        assert_eq!(fill_bar(5, 0, 4), "[----]");
    }
}
