//! Imports go one way: between crates, between the agent's parts, and to crates of others.

use std::collections::BTreeSet;

use tidemark_tests::{
    programs::workspace,
    sources::{self, Source, complain, read},
};

/// What each part of the agent may use of the others; agent/src/lib.rs says it in a line.
const LAYERS: [(&str, &[&str]); 16] = [
    ("argfile", &[]),
    ("paths", &[]),
    ("generate", &["argfile"]),
    ("log", &[]),
    ("request", &[]),
    ("disk", &["request"]),
    ("volume", &["disk", "request"]),
    ("host", &["disk", "paths"]),
    ("insertion", &["host"]),
    ("transport", &["disk", "request", "host", "paths"]),
    (
        "server",
        &[
            "transport",
            "volume",
            "insertion",
            "disk",
            "request",
            "host",
            "log",
            "paths",
        ],
    ),
    ("manager", &["server", "volume", "host", "paths", "argfile"]),
    ("backup", &["manager", "host", "paths"]),
    ("metrics", &["backup", "manager", "host"]),
    ("configuration", &["metrics", "backup", "manager"]),
    (
        "rpc",
        &[
            "configuration",
            "metrics",
            "backup",
            "manager",
            "log",
            "host",
            "paths",
        ],
    ),
];

/// All that the control plane may name of the data plane: the protocol, and what it tells.
const SHARED: [(&str, &[&str]); 2] = [
    ("server::", &["wire"]),
    ("volume::", &["Counters", "Extent", "ExtentPage", "Kind"]),
];

/// Crates that only some folders may name.
const HOMES: [(&str, &[&str]); 16] = [
    ("tonic", &["agent/src/rpc", "cli/src", "proto", "tests"]),
    (
        "tokio",
        &[
            "agent/src/backup",
            "agent/src/configuration",
            "agent/src/metrics",
            "agent/src/rpc",
            "agent/src/manager",
            "cli/src",
            "tests",
        ],
    ),
    ("hyper", &["agent/src/metrics"]),
    ("prometheus_client", &["agent/src/metrics"]),
    ("object_store", &["agent/src/backup"]),
    ("rustls", &["agent/src/backup"]),
    ("rusqlite", &["store/src/catalog"]),
    ("toml", &["agent/config"]),
    ("argon2", &["store/src/repository/crypto"]),
    ("chacha20poly1305", &["store/src/repository/crypto"]),
    (
        "tidemark_store::repository",
        &["agent/src/backup", "store/benches", "store/tests"],
    ),
    ("fuser", &["agent/src/transport/portable"]),
    (
        "libublk",
        &["agent/src/transport/ublk", "agent/src/disk/ring"],
    ),
    ("devicemapper", &["agent/src/host/dm"]),
    (
        "tidemark_store::catalog",
        &["agent/src/manager", "agent/src/rpc"],
    ),
    (
        "anyhow",
        &[
            "agent/src/main.rs",
            "agent/src/rpc",
            "agent/src/server",
            "agent/src/host/freeze",
            "cli/src",
        ],
    ),
];

/// Which of our crates each crate depends on outside its tests.
const CRATES: [(&str, &[&str]); 8] = [
    ("proto", &[]),
    ("store", &[]),
    ("agent/config", &[]),
    (
        "agent",
        &["tidemark-config", "tidemark-proto", "tidemark-store"],
    ),
    ("cli", &["tidemark-config", "tidemark-proto"]),
    (
        "tests",
        &[
            "tidemark-agent",
            "tidemark-config",
            "tidemark-proto",
            "tidemark-store",
        ],
    ),
    ("tests/concurrency", &["tidemark-store"]),
    (
        "tests/fuzz",
        &[
            "tidemark-agent",
            "tidemark-config",
            "tidemark-proto",
            "tidemark-store",
        ],
    ),
];

#[test]
fn the_agents_parts_import_one_way() {
    let mut wrong = Vec::new();
    for source in sources::all() {
        let Some(part) = part_of(&source.path).filter(|_| !source.is_test()) else {
            continue;
        };
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == part) else {
            wrong.push(format!("{}: {part} has no layer", source.path));
            continue;
        };
        for used in parts_used(&source) {
            if used != part && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: {part} uses {used}", source.path));
            }
        }
    }
    complain(wrong);
}

#[test]
fn the_control_plane_never_holds_the_engine() {
    let mut wrong = Vec::new();
    let folder = "agent/src/manager/";
    for source in sources::all() {
        if !source.path.starts_with(folder) || source.is_test() {
            continue;
        }
        for (number, line) in source.code() {
            for (part, allowed) in SHARED {
                let strangers = named_after(line, part)
                    .into_iter()
                    .filter(|name| !allowed.contains(&name.as_str()));
                wrong.extend(
                    strangers.map(|name| format!("{}:{number}: {part}{name}", source.path)),
                );
            }
        }
    }
    complain(wrong);
}

/// What a line takes from the agent's own `part`; paths within the manager are not meant.
fn named_after(line: &str, part: &str) -> Vec<String> {
    let line = line.trim_start();
    let starts = line
        .find(&format!("crate::{part}"))
        .map(|at| at + "crate::".len());
    // Within the braces of `use crate::{`, rustfmt starts a line with the part.
    let starts = starts.or(line.starts_with(part).then_some(0));
    let Some(rest) = starts.map(|at| &line[at + part.len()..]) else {
        return Vec::new();
    };
    match rest.strip_prefix('{') {
        Some(list) => first_names(list),
        None => word(rest).into_iter().collect(),
    }
}

fn part_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("agent/src/")?;
    let part = rest.split('/').next()?.trim_end_matches(".rs");
    (!matches!(part, "lib" | "main")).then_some(part)
}

/// The first names after `crate::`, also within `use crate::{...}`.
fn parts_used(source: &Source) -> BTreeSet<String> {
    let names: BTreeSet<_> = LAYERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut used = BTreeSet::new();
    let code: String = source
        .code()
        .take_while(|(_, line)| *line != "#[cfg(test)]")
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => used.extend(first_names(list)),
            None => used.extend(word(rest)),
        }
    }
    used.retain(|name| names.contains(name));
    used
}

/// The outermost names of a braced list.
fn first_names(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut names = vec![String::new()];
    for character in list.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(String::new()),
            _ if depth == 0 => names.last_mut().expect("it is never empty").push(character),
            _ => {}
        }
    }
    names.iter().filter_map(|name| word(name.trim())).collect()
}

fn word(text: &str) -> Option<String> {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

#[test]
fn each_outside_crate_has_its_home() {
    let mut wrong = Vec::new();
    for source in sources::all() {
        for (name, homes) in HOMES {
            let path = format!("{name}::");
            let at_home = homes.iter().any(|home| source.path.starts_with(home))
                || source.path.starts_with("tests/");
            let used = source.code().find(|(_, line)| names(line, &path));
            if let (Some((line, _)), false) = (used, at_home) {
                wrong.push(format!(
                    "{}:{line}: {name} belongs in {homes:?}",
                    source.path
                ));
            }
        }
    }
    complain(wrong);
}

/// Whether a line has a path that starts so.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}

#[test]
fn crates_depend_one_way() {
    let mut wrong = Vec::new();
    for (name, allowed) in CRATES {
        let manifest = read(&workspace().join(name).join("Cargo.toml"));
        let manifest = manifest
            .split("[dev-dependencies]")
            .next()
            .unwrap_or_default();
        let dependencies = manifest.lines().filter_map(|line| {
            let key = line.split(['.', ' ', '=']).next()?;
            key.starts_with("tidemark-").then_some(key)
        });
        let strangers = dependencies.filter(|dependency| !allowed.contains(dependency));
        wrong.extend(strangers.map(|stranger| format!("{name} depends on {stranger}")));
        if name == "store" {
            let heavy = ["tokio", "tonic", "libublk", "fuser"];
            wrong.extend(
                heavy
                    .iter()
                    .filter(|heavy| manifest.lines().any(|line| line.starts_with(*heavy)))
                    .map(|heavy| format!("store depends on {heavy}")),
            );
        }
    }
    complain(wrong);
}
