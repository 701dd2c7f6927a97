//! One scrape, as the stock parser understands it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::{Command, Stdio},
};

use serde_json::Value;
use tidemark_tests::{Daemon, programs::workspace};

const REQUEST: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
const HEADER: &str = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the parser found.
#[derive(Debug)]
pub(crate) struct Scrape {
    families: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

/// One line.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Scrape {
    /// By the agent's socket.
    pub(crate) fn by_socket(daemon: &Daemon) -> Self {
        let socket = daemon.path("run").join("metrics.sock");
        let mut connected = None;
        // The agent listens soon after it answers calls.
        tidemark_tests::host::eventually("metrics are served", || {
            connected = UnixStream::connect(&socket).ok();
            connected.is_some()
        });
        Self::over(connected.expect("it was waited for"))
    }

    /// By a port of the loopback.
    pub(crate) fn by_tcp(port: u16) -> Self {
        Self::over(TcpStream::connect(("127.0.0.1", port)).expect("metrics are served"))
    }

    fn over(mut stream: impl Read + Write) -> Self {
        stream
            .write_all(REQUEST.as_bytes())
            .expect("a request is taken");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("an answer in UTF-8");
        let (header, text) = answer.split_once("\r\n\r\n").expect("a header");
        assert!(header.starts_with("HTTP/1.1 200 "), "{header}");
        assert!(header.lines().any(|line| line == HEADER), "{header}");
        Self::parsed(text)
    }

    fn parsed(text: &str) -> Self {
        // Debian's own, where its packages are seen.
        let mut parser = Command::new("/usr/bin/python3")
            .arg(workspace().join("tests/metrics/parse.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut input = parser.stdin.take().expect("a pipe");
        input
            .write_all(text.as_bytes())
            .expect("it reads all of its input");
        drop(input);
        let parsed = parser.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&parsed.stderr);
        assert!(parsed.status.success(), "{said}\n{text}");
        let found: Value = serde_json::from_slice(&parsed.stdout).expect("a document");
        Self::of(&found)
    }

    fn of(found: &Value) -> Self {
        let words = |value: &Value| -> BTreeMap<String, String> {
            let words = value.as_object().expect("an object").iter();
            words
                .map(|(key, value)| (key.clone(), text(value)))
                .collect()
        };
        let sample = |one: &Value| Sample {
            name: text(&one["name"]),
            labels: words(&one["labels"]),
            value: one["value"].as_f64().expect("a number"),
        };
        let samples = found["samples"].as_array().expect("a list");
        Self {
            families: words(&found["families"]),
            samples: samples.iter().map(sample).collect(),
        }
    }

    /// Every family with its type.
    pub(crate) fn families(&self) -> &BTreeMap<String, String> {
        &self.families
    }

    /// The names that samples of its families have.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let suffixes = |kind: &str| match kind {
            "counter" => &["_total"][..],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        let families = self.families.iter();
        families
            .flat_map(|(name, kind)| suffixes(kind).iter().map(move |end| format!("{name}{end}")))
            .collect()
    }

    /// The samples of a name.
    pub(crate) fn all(&self, name: &str) -> Vec<&Sample> {
        self.samples.iter().filter(|one| one.name == name).collect()
    }

    /// The one sample of a name that has these labels, and maybe others.
    pub(crate) fn one(&self, name: &str, labels: &[(&str, &str)]) -> &Sample {
        let found = self.with(name, labels);
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0]
    }

    /// Its value.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.one(name, labels).value
    }

    /// How many are within each bound of a histogram, by ascending bounds.
    pub(crate) fn buckets(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let mut buckets = self.with(&format!("{name}_bucket"), labels);
        buckets.sort_by(|one, other| bound(one).total_cmp(&bound(other)));
        buckets.iter().map(|one| one.value).collect()
    }

    fn with(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let fits = |one: &&Sample| {
            let mut labels = labels.iter();
            labels.all(|(key, value)| one.labels.get(*key).is_some_and(|has| has == value))
        };
        self.all(name).into_iter().filter(fits).collect()
    }
}

/// "+Inf" is infinity to Rust too.
fn bound(sample: &Sample) -> f64 {
    sample.labels["le"].parse().expect("a number")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
