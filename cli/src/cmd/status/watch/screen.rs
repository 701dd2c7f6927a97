//! Where views are drawn: a terminal, in place; or anything else, one after the other.

use std::io::{self, IsTerminal, Write};

use console::{Term, truncate_str};
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};

use super::frame::{Line, Tone};
use crate::output::Output;

/// The other screen, so that what was on this one comes back; no cursor; lines are cut, not wrapped.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const TO_END_OF_LINE: &str = "\x1b[K";
const TO_END_OF_SCREEN: &str = "\x1b[J";
const RESET: &str = "\x1b[0m";

/// Puts the terminal back when it is dropped.
pub(super) struct Screen {
    terminal: Option<Terminal>,
    colour: bool,
}

struct Terminal {
    term: Term,
    /// How the keyboard was set.
    before: Option<Termios>,
}

impl Screen {
    /// In place where standard output is a terminal and lines are asked for.
    pub(super) fn open(out: &Output) -> Self {
        let terminal = (io::stdout().is_terminal() && !out.is_json()).then(Terminal::enter);
        Self {
            terminal,
            colour: out.colour(),
        }
    }

    /// Shows a view.
    pub(super) fn draw(&self, lines: &[Line], out: &Output) {
        match &self.terminal {
            Some(_) => self.redraw(lines, out),
            None => {
                lines.iter().for_each(|line| out.line(&line.text));
                out.line("");
            }
        }
    }

    /// Shows it again in a window that has another size now.
    pub(super) fn redraw(&self, lines: &[Line], out: &Output) {
        let Some(terminal) = &self.terminal else {
            return;
        };
        let (rows, columns) = terminal.term.size();
        let picture = picture(lines, rows.into(), columns.into(), self.colour);
        if write(&picture).is_err() {
            out.close();
        }
    }
}

impl Terminal {
    fn enter() -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut quiet = before.clone();
            quiet.local_flags.remove(LocalFlags::ECHO);
            // Stopped by Ctrl-Z, it would leave the shell on the other screen.
            if let Some(key) = quiet
                .control_chars
                .get_mut(SpecialCharacterIndices::VSUSP as usize)
            {
                *key = 0;
            }
            // A picture with what is typed in it is better than none.
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &quiet);
        }
        // What cannot be written shows when the first view is.
        let _ = write(ENTER);
        let term = Term::stdout();
        Self { term, before }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone need not be put back.
        let _ = write(LEAVE);
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

/// At once, so that no half of it is seen.
fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What a terminal of this size is sent. The last line tells when there are more than fit.
fn picture(lines: &[Line], rows: usize, columns: usize, colour: bool) -> String {
    let fit = match lines.len() > rows {
        true => rows.saturating_sub(1),
        false => lines.len(),
    };
    let mut drawn: Vec<_> = lines
        .iter()
        .take(fit)
        .map(|line| painted(line, columns, colour))
        .collect();
    if fit < lines.len() && rows > 0 {
        let more = format!(
            "... {} more lines: a taller window shows them",
            lines.len() - fit
        );
        drawn.push(truncate_str(&more, columns, "").into_owned());
    }
    let body = drawn.join(&format!("{TO_END_OF_LINE}\r\n"));
    format!("{HOME}{body}{TO_END_OF_LINE}{TO_END_OF_SCREEN}")
}

fn painted(line: &Line, columns: usize, colour: bool) -> String {
    let text = truncate_str(&line.text, columns, "");
    let code = match line.tone {
        _ if !colour => return text.into_owned(),
        Tone::Plain => return text.into_owned(),
        Tone::Good => "\x1b[32m",
        Tone::Bad => "\x1b[1;31m",
        Tone::Aside => "\x1b[2m",
    };
    format!("{code}{text}{RESET}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> Vec<Line> {
        let line = |number| Line {
            tone: Tone::Bad,
            text: format!("line {number} of them"),
        };
        (1..=count).map(line).collect()
    }

    #[test]
    fn what_fits_is_drawn_and_the_rest_is_counted() {
        let whole = picture(&lines(2), 24, 80, false);
        assert_eq!(
            whole,
            "\x1b[Hline 1 of them\x1b[K\r\nline 2 of them\x1b[K\x1b[J"
        );
        let cut = picture(&lines(5), 3, 12, false);
        assert_eq!(
            cut,
            "\x1b[Hline 1 of th\x1b[K\r\nline 2 of th\x1b[K\r\n... 3 more l\x1b[K\x1b[J"
        );
    }

    #[test]
    fn colours_are_around_a_line_that_is_cut() {
        let picture = picture(&lines(1), 24, 6, true);
        assert_eq!(picture, "\x1b[H\x1b[1;31mline 1\x1b[0m\x1b[K\x1b[J");
    }
}
