//! Every `tidemark` line of README and of the guides is one that this program reads.

use std::{fs, path::Path};

use clap::{Parser, error::ErrorKind};

use super::Args;

/// The documents, by their paths in the tree.
fn documents() -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let guides = fs::read_dir(top.join("docs")).unwrap();
    let guides = guides.map(|entry| entry.unwrap().path());
    guides
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .chain([top.join("README.md")])
        .map(|path| {
            (
                path.display().to_string(),
                fs::read_to_string(path).unwrap(),
            )
        })
        .collect()
}

/// What is typed in a document's blocks of a console.
fn typed(text: &str) -> Vec<&str> {
    let blocks = text.split("```").skip(1).step_by(2);
    blocks
        .filter_map(|block| block.strip_prefix("console\n"))
        .flat_map(str::lines)
        .filter_map(|line| line.strip_prefix("# ").or_else(|| line.strip_prefix("$ ")))
        .collect()
}

/// The commands of a line, without its remark.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    for word in line.split_whitespace() {
        match word {
            "#" => break,
            "|" | "&&" | ";" | "||" => all.push(Vec::new()),
            word => {
                let ends = word.ends_with(';');
                let word = word.trim_end_matches(';').replace(['\'', '"'], "");
                all.last_mut().unwrap().push(word);
                if ends {
                    all.push(Vec::new());
                }
            }
        }
    }
    all.retain(|words| words.first().is_some_and(|first| first == "tidemark"));
    all
}

#[test]
fn no_guide_names_an_option_that_does_not_exist() {
    let mut read = 0;
    for (path, text) in documents() {
        for words in typed(&text).into_iter().flat_map(commands) {
            let line = words.join(" ");
            match Args::try_parse_from(words) {
                Ok(_) => read += 1,
                Err(error) if error.kind() == ErrorKind::DisplayHelp => read += 1,
                Err(error) => panic!("{path}: {line}: {error}"),
            }
        }
    }
    assert!(read > 50, "only {read} lines were found");
}

#[test]
fn lines_are_taken_apart_as_a_shell_does() {
    let line = "tidemark a 'b' | ssh x; tidemark c && tidemark d  # tidemark e";
    assert_eq!(
        commands(line),
        [
            vec!["tidemark", "a", "b"],
            vec!["tidemark", "c"],
            vec!["tidemark", "d"]
        ]
    );
    assert_eq!(
        typed("x\n```console\n# one\nsaid\n```\n```toml\n# no\n```"),
        ["one"]
    );
}
