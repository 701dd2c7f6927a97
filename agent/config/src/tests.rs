//! Every error with its place, all at once; and what is printed reads as what it was.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use proptest::{collection, option, prelude::*, sample::select};

use super::*;

/// The lines that a text is refused with, without the message's advice.
fn refused(text: &str) -> Vec<String> {
    let problems = Configuration::parse(text).expect_err(text);
    problems
        .into_iter()
        .map(|problem| {
            let what = problem.message.split(';').next().unwrap_or_default();
            format!("{}:{}: {what}", problem.line, problem.column)
        })
        .collect()
}

#[test]
fn an_empty_file_is_a_configuration() {
    assert_eq!(Configuration::parse(""), Ok(Configuration::default()));
}

#[test]
fn all_that_is_wrong_is_told_at_once_and_where() {
    let text = r#"
[deamon]
group = "x"

[volume.data]
devcie = "/dev/vg/data"
area = "lv:vg/data"
block-size = 5000
when-full = "often"
durable-snapshots = "yes"

[volume.Home]
device = "home"
area = "/srv/area"

[repository.vault]
location = "vault"
password = "secret"

[backup.nightly]
volumes = ["data", "hme", "data"]
repository = "valt"
schedule = "sometimes"
keep = { last = 0 }
check-data-percent = 101
"#;
    assert_eq!(
        refused(text),
        [
            "2:2: \"deamon\" means nothing here",
            "5:1: \"device\" is missing in [volume.data]",
            "6:1: \"devcie\" means nothing in [volume.data]",
            "7:8: \"area\": \"vg/data\" is no name of a logical volume",
            "8:14: \"block-size\": 5000 is no power of two from 4KiB to 64KiB",
            "9:13: \"when-full\": \"often\" is not known",
            "10:21: \"durable-snapshots\": this is a text",
            "12:1: \"Home\" is no name: use 1 to 64 of a-z, 0-9, '-' and '_', the first a letter or digit",
            "13:10: \"device\": \"home\" is no absolute path",
            "17:12: \"location\": \"vault\" is neither an absolute path nor s3://BUCKET/PREFIX",
            "18:1: secrets do not belong in this file",
            "21:20: there is no volume \"hme\" in this file",
            "21:27: \"data\" is there twice",
            "22:14: there is no repository \"valt\" in this file",
            "23:12: \"schedule\": \"sometimes\" is no schedule: it begins with neither a day, a date, a time \
             nor a word like daily",
            "24:8: it keeps nothing",
            "25:22: \"check-data-percent\": 101 does not fit",
        ]
    );
}

#[test]
fn broken_lines_hide_neither_each_other_nor_the_rest() {
    let text = "[daemon]\ngroup = \nlog = \"info\"\nlog = \"warn\"\nmetrics = \"0.0.0.0:1\"\n[x\n";
    let lines: Vec<_> = refused(text)
        .iter()
        .filter_map(|told| told.split(':').next().map(ToOwned::to_owned))
        .collect();
    assert_eq!(lines, ["2", "4", "5", "6"]);
}

#[test]
fn what_is_told_says_what_to_do() {
    let problems = Configuration::parse("[volumes.data]\n").expect_err("a wrong name");
    assert_eq!(
        problems[0].message,
        "\"volumes\" means nothing here; did you mean \"volume\"?"
    );
    let path = PathBuf::from("/etc/x.toml");
    let told = Problems { path, problems }.to_string();
    assert!(told.starts_with("/etc/x.toml:1:2: "), "{told}");
}

#[test]
fn columns_count_characters() {
    let text = "volume = { \"\u{e4}\u{f6}\" = {}, data = 1 }";
    let told = refused(text);
    assert!(
        told.iter().any(|line| line.starts_with("1:30: ")),
        "{told:?}"
    );
}

#[test]
fn volumes_keep_out_of_each_others_way() {
    let text = "\
[volume.a]
device = \"/dev/vg//a\"
area = \"/dev/b\"
[volume.b]
device = \"/dev/b\"
area = \"/dev/b\"
[volume.c]
device = \"/dev/vg/a\"
area = \"lv\"
[repository.r]
location = \"/r\"
[repository.s]
location = \"/r/\"
";
    assert_eq!(
        refused(text),
        [
            "3:8: this is the device of volume \"b\"",
            "6:8: the area is the volume's own device",
            "6:8: volume \"a\" has this area",
            "8:10: volume \"a\" has this device",
            "13:12: repository \"r\" is there",
        ]
    );
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9_-]{0,12}"
}

/// A text with what TOML has to quote.
fn words() -> impl Strategy<Value = Vec<String>> {
    collection::vec("[ -~\u{e4}\u{4e2d}]{0,12}", 0..4)
}

fn program() -> impl Strategy<Value = Vec<String>> {
    option::of(words()).prop_map(|arguments| {
        let words = arguments
            .into_iter()
            .flat_map(|rest| [vec!["/bin/hook".to_owned()], rest].concat());
        words.collect()
    })
}

fn seconds(most: u64) -> impl Strategy<Value = Duration> {
    (1..=most).prop_map(Duration::from_secs)
}

fn volume() -> impl Strategy<Value = Volume> {
    let when_full = prop_oneof![
        Just(WhenFull::Drop),
        (1..=60_000_u64).prop_map(|ms| WhenFull::Slow(Duration::from_millis(ms))),
    ];
    let kinds = (
        select(vec![
            Durability::Auto,
            Durability::Durable,
            Durability::Volatile,
        ]),
        any::<bool>(),
        select(vec![Transport::Auto, Transport::Ublk, Transport::Portable]),
        select(vec![Assemble::Auto, Assemble::Boot, Assemble::Late]),
    );
    let hooks = (program(), program(), seconds(3600), any::<bool>());
    let sizes = (0..=16_u64 << 40, 12..=16_u32);
    (option::of("[a-z]{0,5}"), sizes, when_full, kinds, hooks).prop_map(
        |(area, (area_size, block), when_full, kinds, hooks)| Volume {
            device: PathBuf::new(),
            area: area.map_or(Area::At(PathBuf::new()), Area::LogicalVolume),
            area_size,
            block_size: 1 << block,
            when_full,
            durability: kinds.0,
            durable_snapshots: kinds.1 && kinds.0 != Durability::Volatile,
            transport: kinds.2,
            assemble: kinds.3,
            hooks: FreezeHooks {
                before_freeze: hooks.0,
                after_thaw: hooks.1,
                timeout: hooks.2,
                required: hooks.3,
            },
        },
    )
}

fn repository() -> impl Strategy<Value = Repository> {
    let s3 = (
        option::of("https://[a-z]{3,9}"),
        "[a-z0-9-]{0,9}",
        any::<[bool; 3]>(),
    );
    let s3 = s3.prop_map(
        |(endpoint, region, [path_style, allow_http, instance])| S3 {
            endpoint: endpoint.unwrap_or_default(),
            region,
            path_style,
            allow_http,
            credentials_file: (!instance).then(|| "/etc/s3".into()),
            instance_credentials: instance,
        },
    );
    let key = select(vec![
        None,
        Some(Key::PasswordFile("/p".into())),
        Some(Key::PasswordCommand("pass \"show\" \\ x".into())),
        Some(Key::PasswordCredential("vault.password".into())),
        Some(Key::KeyFile("/k \u{e4}".into())),
        Some(Key::KeyCredential("key".into())),
    ]);
    (option::of(s3), key, any::<bool>()).prop_map(|(s3, key, append_only)| Repository {
        location: match s3 {
            Some(s3) => Location::S3(String::new(), s3),
            None => Location::Directory(PathBuf::new()),
        },
        key,
        append_only,
    })
}

fn backup() -> impl Strategy<Value = Backup> {
    let schedule = option::of(select(vec!["daily", "Mon..Fri 02:30", "*-*-01 04:00"]));
    let keep = option::of((1..9_u32, any::<[u16; 5]>(), 0..99_u64));
    let care = (
        select(vec![Prune::Always, Prune::Weekly, Prune::Never]),
        0..=100_u32,
    );
    let hooks = (program(), program(), seconds(86_400));
    let tags = collection::btree_set("[ -9;-~]{1,9}", 0..4);
    (schedule, seconds(86_400), tags, keep, care, hooks).prop_map(
        |(schedule, delay, tags, keep, care, hooks)| Backup {
            volumes: Vec::new(),
            repository: String::new(),
            random_delay: schedule.map_or(Duration::ZERO, |_| delay),
            schedule: schedule.map(ToOwned::to_owned),
            tags: tags.into_iter().collect(),
            keep: keep.map(
                |(last, [hourly, daily, weekly, monthly, yearly], days)| Keep {
                    last,
                    hourly: hourly.into(),
                    daily: daily.into(),
                    weekly: weekly.into(),
                    monthly: monthly.into(),
                    yearly: yearly.into(),
                    within: Duration::from_secs(days * 86_400),
                },
            ),
            prune: care.0,
            check_data_percent: care.1,
            hooks: BackupHooks {
                after_backup: hooks.0,
                on_failure: hooks.1,
                timeout: hooks.2,
            },
        },
    )
}

/// Names are given last, so that everything refers to what is there and nothing is there twice.
fn configuration() -> impl Strategy<Value = Configuration> {
    let log = select(vec!["info", "debug,x::y=off", "warn,a=trace"]).prop_map(ToOwned::to_owned);
    let daemon = ("[a-z]{1,9}", log, option::of(1..=u16::MAX));
    let tables = (
        collection::btree_map(name(), volume(), 1..4),
        collection::btree_map(name(), repository(), 1..4),
        collection::btree_map(name(), backup(), 0..4),
    );
    (daemon, tables).prop_map(
        |((group, log, port), (mut volumes, mut repositories, mut backups))| {
            for (name, volume) in &mut volumes {
                volume.device = format!("/dev/vg/{name}").into();
                if volume.area == Area::At(PathBuf::new()) {
                    volume.area = Area::At(format!("/srv/areas/{name}").into());
                }
            }
            for (name, repository) in &mut repositories {
                match &mut repository.location {
                    Location::Directory(path) => *path = format!("/backup/{name}").into(),
                    Location::S3(url, _) => *url = format!("s3://bucket/{name}"),
                }
            }
            for backup in backups.values_mut() {
                backup.volumes = volumes.keys().cloned().collect();
                backup.repository = repositories.keys().next().cloned().unwrap_or_default();
            }
            let metrics = port.map(|port| ([127, 0, 0, 1], port).into());
            Configuration {
                daemon: Daemon {
                    group,
                    log,
                    metrics,
                },
                volumes,
                repositories,
                backups: BTreeMap::from_iter(backups),
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_printed_reads_as_what_it_was(written in configuration()) {
        let text = written.to_string();
        prop_assert_eq!(Configuration::parse(&text), Ok(written), "{}", text);
    }

    #[test]
    fn no_text_is_too_strange(text in "\\PC*") {
        let _ = Configuration::parse(&text);
    }

    #[test]
    fn no_damage_is_too_strange(
        written in configuration(),
        at in any::<prop::sample::Index>(),
        piece in "[\\[\\]\"'=.{}\n#,x0\u{e4}]{0,3}",
        length in 0..5_usize,
    ) {
        let text: Vec<char> = written.to_string().chars().collect();
        let at = at.index(text.len());
        let (before, after) = text.split_at(at);
        let damaged: String = before.iter().chain(&piece.chars().collect::<Vec<_>>())
            .chain(after.iter().skip(length)).collect();
        // Every problem lies within the text.
        if let Err(problems) = Configuration::parse(&damaged) {
            let lines = damaged.matches('\n').count() + 1;
            prop_assert!(!problems.is_empty() && problems.iter().all(|one| one.line <= lines));
        }
    }
}
