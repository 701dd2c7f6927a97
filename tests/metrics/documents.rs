//! What is written about metrics is true of a scrape: the table, the dashboard, the alert rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;
use tidemark_tests::{Daemon, MIB, programs::workspace, sources::complain};

use crate::scrape::Scrape;

fn document(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).expect("a document of ours")
}

/// The names of metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("tidemark_"))
        .map(ToOwned::to_owned)
        .collect()
}

/// Every string that Grafana has Prometheus evaluate.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("expr" | "query" | "definition", Value::String(text)) => {
                        found.push(text.clone());
                    }
                    (_, value) => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn documents_name_what_a_scrape_has() {
    let daemon = Daemon::start();
    daemon.attach_new("data", 16 * MIB, 32 * MIB);
    let scrape = Scrape::by_socket(&daemon);
    let names = scrape.names();

    let dashboard: Value =
        serde_json::from_str(&document("packaging/grafana/tidemark.json")).expect("JSON");
    let mut asked = Vec::new();
    expressions(&dashboard, &mut asked);
    let rules = document("packaging/prometheus/tidemark.rules.yml");
    let mut wrong = Vec::new();
    for (place, used) in [
        ("dashboard", named(&asked.join(" "))),
        ("rules", named(&rules)),
    ] {
        assert!(used.len() > 8, "{place} names only {used:?}");
        let strangers = used.difference(&names);
        wrong.extend(strangers.map(|name| format!("{place}: no scrape has {name}")));
    }
    complain(wrong);

    let table = document("docs/metrics.md");
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let family = cells.next()?.trim_end_matches('`').to_owned();
        Some((family, cells.next()?.to_owned()))
    });
    assert_eq!(&rows.collect::<BTreeMap<_, _>>(), scrape.families());
}

#[test]
fn panels_of_the_dashboard_are_whole() {
    let dashboard: Value =
        serde_json::from_str(&document("packaging/grafana/tidemark.json")).expect("JSON");
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36));
    let variables = dashboard["templating"]["list"].as_array().expect("a list");
    assert!(
        variables
            .iter()
            .any(|one| one["type"] == "datasource" && one["name"] == "datasource")
    );
    let panels = dashboard["panels"].as_array().expect("a list");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = &panel["title"];
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert_ne!(
            panel["description"].as_str().unwrap_or_default(),
            "",
            "{title}"
        );
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title}");
        let place = &panel["gridPos"];
        let edge = |key: &str| {
            place[key]
                .as_u64()
                .unwrap_or_else(|| panic!("{title}: {key}"))
        };
        assert!(edge("x") + edge("w") <= 24 && edge("h") > 0, "{title}");
    }
}
