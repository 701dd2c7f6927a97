//! Makes the gate's source, and copies of it with one mistake each, ready to be included.
//!
//! The gate is built from its own file, because the agent's other dependencies cannot be built
//! under `--cfg loom`. A mistake is a piece of its text that must be there exactly once: when the
//! gate is changed, this fails until its mistakes are chosen anew.

use std::{env, fs, path::Path};

const GATE: &str = "../../agent/src/volume/gate.rs";

/// Name of the copy, what is taken out of it, and what is put there.
const MISTAKES: [(&str, &str, &str); 7] = [
    ("real", "", ""),
    (
        "overtaking",
        ".any(|earlier| earlier.blocks.overlaps(blocks))",
        ".any(|_| false)",
    ),
    ("never_closed", "!self.closed\n", "true\n"),
    (
        "no_second_look",
        "if self.try_enter(ticket) {\n                break;\n            }\n",
        "",
    ),
    (
        "closed_in_a_hurry",
        "if self.lock().in_flight > 0 {\n",
        "if true {\n",
    ),
    (
        "closer_forgotten",
        "let waiters = state.closed || ",
        "let waiters = ",
    ),
    (
        "opened_in_silence",
        "self.lock().closed = false;\n        self.changed.notify(usize::MAX);",
        "self.lock().closed = false;",
    ),
];

fn main() {
    println!("cargo::rerun-if-changed={GATE}");
    println!("cargo::rerun-if-changed=build.rs");
    let Some(out) = env::var_os("OUT_DIR").filter(|_| env::var_os("CARGO_CFG_LOOM").is_some())
    else {
        return;
    };
    let gate = fs::read_to_string(GATE).unwrap_or_else(|why| panic!("{GATE}: {why}"));
    let gate = gate.split("#[cfg(test)]").next().unwrap_or_default();
    // An included file has no comment of its own.
    let body: String = gate
        .lines()
        .filter(|line| !line.starts_with("//!"))
        .map(|line| format!("{line}\n"))
        .collect();
    for (name, right, wrong) in MISTAKES {
        let times = body.matches(right).count();
        assert!(
            times == 1 || right.is_empty(),
            "{GATE} has {times} times {right:?}, which {name} takes out"
        );
        let text = if right.is_empty() {
            body.clone()
        } else {
            body.replace(right, wrong)
        };
        let path = Path::new(&out).join(format!("gate_{name}.rs"));
        fs::write(&path, text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    }
}
