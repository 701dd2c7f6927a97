//! House rules that a machine can check. The numbers ratchet: lower them when the code allows it,
//! never raise them for convenience.

use std::{collections::BTreeMap, fs, path::Path};

use tidemark_tests::{
    programs::workspace,
    sources::{self, Source, complain, files, read},
};

/// The longest that any source file may be, in lines.
const MAX_FILE_LINES: usize = 500;
/// The longest that a function may be, in lines.
const MAX_FUNCTION_LINES: usize = 70;
/// Tables of cases and stories are long and flat.
const MAX_TEST_FUNCTION_LINES: usize = 110;

/// Everything at the top of the tree.
const TOP: [&str; 17] = [
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "README.md",
    "agent",
    "cli",
    "docs",
    "packaging",
    "proto",
    "store",
    "tests",
];

/// What tests import whole: the module that they test, and the prelude that proptest is used by.
const GLOBS: [&str; 2] = ["use super::*;", "use proptest::prelude::*;"];

/// The only files with `unsafe` in them; each block says why it is sound.
const UNSAFE: [&str; 11] = [
    "agent/src/disk/sys.rs",
    "agent/src/host/dm/ioctl.rs",
    "agent/src/host/ioctl.rs",
    "agent/src/manager/spawn.rs",
    "agent/src/rpc/inherited.rs",
    "agent/src/server/hardening.rs",
    "agent/src/transport/ublk/mend.rs",
    "store/src/media/mapping.rs",
    "tests/allocations.rs",
    "tests/fixtures/fault_disk/looped.rs",
    "tests/fuzz/src/memory.rs",
];

#[test]
fn files_are_small() {
    let mut lengths: Vec<_> = sources::all()
        .iter()
        .map(|source| source.text.lines().count())
        .collect();
    lengths.sort_unstable();
    println!(
        "{} files, median {} lines",
        lengths.len(),
        lengths[lengths.len() / 2]
    );
    complain(sources::all().iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > MAX_FILE_LINES).then(|| format!("{}: {lines} lines", source.path))
    }));
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    let mut lengths = Vec::new();
    for source in sources::all() {
        for (line, lines, in_test) in functions(&source) {
            lengths.push(lines);
            let limit = if in_test {
                MAX_TEST_FUNCTION_LINES
            } else {
                MAX_FUNCTION_LINES
            };
            if lines > limit {
                long.push(format!(
                    "{}:{line}: a function of {lines} lines",
                    source.path
                ));
            }
        }
    }
    lengths.sort_unstable();
    println!(
        "{} functions, median {} lines, longest {:?}",
        lengths.len(),
        lengths[lengths.len() / 2],
        lengths.last()
    );
    complain(long);
}

/// First line, length, and whether it belongs to tests. Counts on rustfmt's indentation.
fn functions(source: &Source) -> Vec<(usize, usize, bool)> {
    let lines: Vec<_> = source.text.lines().collect();
    let tests_from = lines
        .iter()
        .position(|line| *line == "#[cfg(test)]")
        .unwrap_or(lines.len());
    let mut found = Vec::new();
    for (first, line) in lines
        .iter()
        .enumerate()
        .filter(|(_, line)| starts_function(line))
    {
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let lines_after = lines[first..].iter().position(|line| *line == closing);
        let in_test = source.is_test() || first > tests_from;
        found.push((first + 1, lines_after.unwrap_or(0) + 1, in_test));
    }
    found
}

fn starts_function(line: &str) -> bool {
    let words = line.trim_start();
    let signature = words
        .split_once("fn ")
        .filter(|(before, _)| before.split(' ').all(is_modifier));
    // A body on the same line has no length worth a word.
    signature.is_some() && !words.ends_with('}') && !words.ends_with(';')
}

fn is_modifier(word: &str) -> bool {
    matches!(
        word,
        "" | "pub" | "const" | "async" | "unsafe" | "extern" | "\"C\""
    ) || word.starts_with("pub(")
}

#[test]
fn unsafe_stays_in_its_named_files() {
    let mut wrong = Vec::new();
    let mut seen = BTreeMap::new();
    for source in sources::all() {
        let blocks = source.code().filter(|(_, line)| is_unsafe(line)).count();
        let reasons = source.text.matches("// SAFETY:").count();
        if blocks == 0 {
            continue;
        }
        if !UNSAFE.contains(&source.path.as_str()) {
            wrong.push(format!("{}: unsafe, and not on the list", source.path));
        }
        if reasons < blocks {
            wrong.push(format!(
                "{}: {blocks} times unsafe, {reasons} reasons",
                source.path
            ));
        }
        seen.insert(source.path.clone(), blocks);
    }
    println!("unsafe: {seen:?}");
    let stale = UNSAFE.iter().filter(|path| !seen.contains_key(**path));
    wrong.extend(stale.map(|path| format!("{path}: safe now; take it off the list")));
    complain(wrong);
}

fn is_unsafe(line: &str) -> bool {
    line.contains(concat!("unsafe", " {")) || line.contains(concat!("unsafe", " impl"))
}

#[test]
fn nothing_is_left_half_done() {
    // Split, so that this file does not find itself.
    let words = [
        concat!("todo", "!"),
        concat!("unimplemented", "!"),
        concat!("dbg", "!"),
    ];
    let mut wrong = Vec::new();
    for source in sources::all() {
        for (number, line) in source.code() {
            if words.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
            let glob = line.trim_start().starts_with("use ") && line.ends_with("::*;");
            if glob && !GLOBS.contains(&line.trim()) {
                wrong.push(format!("{}:{number}: a glob import", source.path));
            }
        }
    }
    complain(wrong);
}

#[test]
fn there_is_no_drawer_for_odds_and_ends() {
    let drawers = ["util", "utils", "helper", "helpers", "misc", "common"];
    complain(sources::all().into_iter().filter_map(|source| {
        let drawer = Path::new(&source.path)
            .with_extension("")
            .components()
            .any(|part| drawers.iter().any(|drawer| part.as_os_str() == *drawer));
        drawer.then_some(source.path)
    }));
}

#[test]
fn the_contract_is_named_and_documented() {
    let mut wrong = Vec::new();
    for file in files(&workspace().join("proto"), "proto") {
        let text = read(&file);
        let lines: Vec<_> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let at = format!("{}:{}", file.display(), number + 1);
            if line.starts_with("service ") && !lines[number - 1].starts_with("//") {
                wrong.push(format!("{at}: a service without a word about it"));
            }
            let Some(rpc) = line.trim().strip_prefix("rpc ") else {
                continue;
            };
            let name = rpc.split('(').next().unwrap_or_default();
            for message in [format!("{name}Request"), format!("{name}Response")] {
                if !rpc.contains(&message) {
                    wrong.push(format!("{at}: {name} without a {message}"));
                }
            }
        }
    }
    complain(wrong);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    let guides = fs::read_dir(workspace().join("docs")).expect("docs is a folder");
    let guides = guides
        .flatten()
        .map(|entry| format!("docs/{}", entry.file_name().to_string_lossy()))
        .filter(|name| name.ends_with(".md"));
    let others = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "docs/metrics.md",
        "store/FORMAT.md",
    ];
    for name in others.map(ToOwned::to_owned).into_iter().chain(guides) {
        let path = workspace().join(&name);
        let text = read(&path);
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap_or_default();
            let folder = path.parent().expect("a document lies in a folder");
            if !folder.join(file).exists() {
                wrong.push(format!("{name}: {target} does not exist"));
            }
        }
    }
    complain(wrong);
}

#[test]
fn the_top_holds_only_what_is_named() {
    let entries = fs::read_dir(workspace()).expect("the workspace is a folder");
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let strangers = names.filter(|name| !TOP.contains(&name.as_str()));
    complain(
        strangers.filter(|name| !matches!(name.as_str(), ".git" | "target" | "tidemark-demo.svg")),
    );
}
