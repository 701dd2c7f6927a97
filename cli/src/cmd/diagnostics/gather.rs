//! The parts, in the order in which they are read.

use std::fs;

use serde_json::{Value, json};
use tidemark_config::LoadError;
use tidemark_proto::v1::WatchEventsRequest;

use super::{
    bundle::Part,
    journal,
    redact::{Secrets, unquoted},
    system,
};
use crate::{
    client::Client,
    cmd::{
        config,
        doctor::{self, DoctorArgs},
        job,
        status::{
            StatusArgs,
            overview::{Memory, Overview},
        },
    },
    context::Context,
    host::command::{self, SHORT, USUAL},
    json as as_json,
};

/// Of events and operations, the latest.
const LATEST: usize = 5_000;
const NO_SECRETS: &str = "values that are secrets, or may hold some";

/// How everything stands.
pub(super) async fn overview(places: &DoctorArgs, context: &Context) -> Overview {
    let args = StatusArgs::of_places(places.config.clone(), places.state_dir.clone());
    Overview::gather(&args, context, &mut Memory::default()).await
}

/// All parts.
pub(super) async fn parts(
    places: &DoctorArgs,
    overview: &Overview,
    secrets: &Secrets,
    context: &Context,
) -> Vec<Part> {
    let document = |name: &str, value: Value| {
        let told = secrets.document(&without_quotes(value));
        let text = serde_json::to_string_pretty(&told).map_err(|error| error.to_string());
        Part::new(name, text.map(|text| text + "\n"), NO_SECRETS)
    };
    let findings = doctor::examine(places, context).await;
    let mut parts = vec![
        Part::new("versions.txt", Ok(versions(overview).await), ""),
        document("doctor.json", findings.json()),
        document("status.json", overview.json()),
        configuration(overview, secrets),
    ];
    parts.extend(arguments(overview, secrets));
    match context.client().await {
        Ok(client) => {
            for (name, asked) in [
                ("events.json", events(&client).await),
                ("operations.json", operations(&client).await),
            ] {
                parts.push(match asked {
                    Ok(value) => document(name, value),
                    Err(error) => Part::new(name, Err(secrets.strike(&format!("{error:#}"))), ""),
                });
            }
        }
        Err(error) => {
            let why = secrets.strike(&format!("{error:#}"));
            parts.push(Part::new("events.json", Err(why.clone()), ""));
            parts.push(Part::new("operations.json", Err(why), ""));
        }
    }
    parts.extend(system::parts(overview, &places.state_dir, secrets).await);
    parts.push(journal::part(secrets).await);
    parts
}

async fn versions(overview: &Overview) -> String {
    let mut text = format!("tidemark {}\n", env!("CARGO_PKG_VERSION"));
    if let Some(told) = overview.told() {
        text.push_str(&format!(
            "tidemarkd {} (running, API {}) on Linux {}\n",
            told.info.version, told.info.api_version, told.info.kernel_release
        ));
    }
    for (program, words) in [
        ("tidemarkd", &["--version"][..]),
        ("systemctl", &["--version"]),
        ("lvm", &["version"]),
        ("dmsetup", &["version"]),
    ] {
        let line = match command::run(program, words, USUAL, SHORT).await {
            Ok(printed) => printed.stdout.lines().next().unwrap_or_default().to_owned(),
            Err(why) => why,
        };
        text.push_str(&format!("{program}: {}\n", line.trim()));
    }
    text
}

/// What a configuration's problems quote may be a value of the file.
fn without_quotes(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains(".toml:") => json!(unquoted(&text)),
        Value::Array(all) => all.into_iter().map(without_quotes).collect(),
        Value::Object(all) => all
            .into_iter()
            .map(|(key, value)| (key, without_quotes(value)))
            .collect(),
        other => other,
    }
}

/// As it is understood, so that remarks in the file stay where they are.
fn configuration(overview: &Overview, secrets: &Secrets) -> Part {
    let content = match tidemark_config::load(&overview.config) {
        Ok(read) => serde_json::to_string_pretty(&secrets.document(&config::as_json(&read)))
            .map(|text| text + "\n")
            .map_err(|error| error.to_string()),
        Err(LoadError::Wrong(wrong)) => {
            let lines: Vec<_> = wrong.lines().map(|line| unquoted(&line)).collect();
            Err(secrets.strike(&lines.join("; ")))
        }
        Err(error) => Err(error.to_string()),
    };
    Part::new("configuration.json", content, NO_SECRETS)
}

/// What systemd starts volume servers with.
fn arguments(overview: &Overview, secrets: &Secrets) -> Vec<Part> {
    let with_units = overview.local.iter().filter(|one| one.unit.is_some());
    let parts = with_units.map(|volume| {
        let file = format!("{}.args", volume.name);
        let text = fs::read_to_string(overview.places.arguments().join(&file));
        let text = text.map_err(|error| error.to_string());
        let name = format!("volumes/{file}");
        Part::new(name, text.map(|text| secrets.strike(&text)), "")
    });
    parts.collect()
}

async fn events(client: &Client) -> anyhow::Result<Value> {
    let request = WatchEventsRequest {
        no_follow: true,
        ..WatchEventsRequest::default()
    };
    let mut stream = client.events().watch_events(request).await?.into_inner();
    let mut kept = std::collections::VecDeque::new();
    while let Some(reply) = stream.message().await? {
        kept.extend(reply.event.as_ref().map(as_json::event));
        if kept.len() > LATEST {
            kept.pop_front();
        }
    }
    Ok(kept.into_iter().collect())
}

async fn operations(client: &Client) -> anyhow::Result<Value> {
    let all = job::list(client, false).await?;
    let skipped = all.len().saturating_sub(LATEST);
    Ok(all.iter().skip(skipped).map(as_json::operation).collect())
}
