//! `tidemark manual DIRECTORY`: the manual's pages, from the same definition as the command line.

use std::{fs, path::Path};

use anyhow::Context as _;
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::args::Args;

/// Of the last change to the command line that its users need to read about.
const DATE: &str = "2026-11-22";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What a page of a command refers to besides the pages of its own.
const SEE_ALSO: &str =
    ".SH \"SEE ALSO\"\n.BR tidemark (1),\n.BR tidemark.toml (5),\n.BR tidemarkd (8)\n";

/// Writes a page for the program and for each of its commands.
pub(crate) fn run(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let mut all = Args::command();
    all.build();
    write(&all, directory)
}

fn write(command: &Command, directory: &Path) -> anyhow::Result<()> {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name());
    let path = directory.join(format!("{name}.1"));
    fs::write(&path, page(command, name)?).with_context(|| path.display().to_string())?;
    for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        write(one, directory)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str) -> anyhow::Result<String> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|one| !one.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let body = String::from_utf8(page).context("a page is not UTF-8")?;
    // Its breaks around an empty line are one too many for mandoc.
    let body = body.replace("\n.br\n\n.br\n", "\n.sp\n");
    let title = name.to_uppercase();
    let mut page = format!(".TH {title} 1 {DATE} \"Tidemark {VERSION}\" Tidemark\n{body}");
    if let Some(more) = command.get_after_help() {
        page.push_str(&as_it_is(&more.to_string()));
    }
    page.push_str(SEE_ALSO);
    Ok(page)
}

/// A heading and the lines under it, as `--help` has them.
fn as_it_is(text: &str) -> String {
    let (heading, lines) = text.split_once('\n').unwrap_or((text, ""));
    let heading = heading.trim_end_matches(':').to_uppercase();
    let lines = lines.replace('\\', "\\e").replace('-', "\\-");
    let lines: Vec<_> = lines.lines().map(|line| format!("\\&{line}\n")).collect();
    format!(".SH \"{heading}\"\n.nf\n{}.fi\n", lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path()).unwrap();
        for (name, text) in [
            ("tidemark.1", ".SH \"EXIT CODES\"\n.nf\n\\&  0  done\n"),
            ("tidemark-volume-attach.1", "\\-\\-max\\-write\\-delay"),
            ("tidemark-restore.1", "TIDEMARK_SOCKET"),
        ] {
            let page = fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(page.contains(text), "{name}:\n{page}");
            assert!(page.contains(SEE_ALSO));
        }
        // The command that writes them is for those who package.
        assert!(!folder.path().join("tidemark-manual.1").exists());
    }
}
