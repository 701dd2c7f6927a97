//! The configuration file, as an administrator writes it and the agent lives by it.

mod hooks;
mod schedule;

use std::fs;

use tidemark_proto::v1::{EventKind, GetServerInfoRequest};
use tidemark_tests::{
    Daemon, MIB, World,
    cli::code,
    host, image,
    programs::workspace,
    repositories::{Repositories, key_file},
};

const VOLUME_BYTES: u64 = 32 * MIB;

/// `[volume.NAME]` over a new image; more keys may follow.
fn volume(world: &World, name: &str) -> String {
    image::sparse(&world.path(&format!("{name}.img")), VOLUME_BYTES);
    format!(
        "[volume.{name}]\ndevice = \"{}\"\narea = \"{}\"\narea-size = \"32MiB\"\n",
        world.text(&format!("{name}.img")),
        world.text(&format!("{name}.area")),
    )
}

fn problems(daemon: &Daemon) -> Vec<String> {
    let api = daemon.api();
    let info = api.call(api.agent().get_server_info(GetServerInfoRequest {}));
    let status = info.expect("an answer").configuration;
    status
        .expect("a daemon says how it stands to its file")
        .problems
}

fn happened(daemon: &Daemon, kind: EventKind) -> bool {
    daemon
        .api()
        .events()
        .iter()
        .any(|event| event.kind() == kind)
}

#[test]
fn a_start_attaches_what_the_file_names_and_a_restart_leaves_it() {
    let mut daemon = Daemon::configured(|world| volume(world, "data"));
    host::eventually("the volume is attached", || {
        daemon.api().volume("data").is_ok()
    });
    let lineage = daemon.api().volume("data").expect("a volume").lineage;
    daemon.stop();
    daemon.restart();
    host::eventually("its server answers", || {
        daemon
            .api()
            .volume("data")
            .is_ok_and(|volume| volume.lineage == lineage)
    });
    assert!(problems(&daemon).is_empty());
}

#[test]
fn a_reload_attaches_what_is_new_and_detaches_nothing() {
    let daemon = Daemon::start();
    let cli = daemon.cli();
    let (first, second) = (
        volume(daemon.world(), "first"),
        volume(daemon.world(), "second"),
    );
    fs::write(daemon.config(), &first).expect("a file can be written");
    assert!(
        cli.ok(&["config", "reload"])
            .contains("volume \"first\" was attached")
    );
    // By signal too, and what is gone from the file stays.
    fs::write(daemon.config(), &second).expect("a file can be written");
    daemon.hang_up();
    host::eventually("the second volume is attached", || {
        daemon.api().volume("second").is_ok()
    });
    assert!(daemon.api().volume("first").is_ok());
    fs::write(daemon.config(), second + &first).expect("a file can be written");
    let shown = cli.json(&["config", "reload"]);
    assert_eq!(shown["done"].as_array().map(Vec::len), Some(0), "{shown}");
    assert_eq!(shown["left"].as_array().map(Vec::len), Some(0), "{shown}");
    fs::write(daemon.config(), first).expect("a file can be written");
    let told = cli.ok(&["config", "reload"]);
    assert!(
        told.contains("`tidemark volume detach second` takes it away"),
        "{told}"
    );
}

#[test]
fn a_wrong_file_changes_nothing_and_its_lines_are_named_everywhere() {
    let daemon = Daemon::start();
    let cli = daemon.cli();
    let text = volume(daemon.world(), "data").replace("area-size", "area_size") + "[backup.x]\n";
    fs::write(daemon.config(), &text).expect("a file can be written");
    let file = daemon.config().display().to_string();
    let lines = [
        format!(
            "{file}:4:1: \"area_size\" means nothing in [volume.data]; did you mean \"area-size\"?"
        ),
        format!("{file}:5:1: \"repository\" is missing in [backup.x]"),
        format!("{file}:5:1: \"volumes\" is missing in [backup.x]"),
    ];
    let checked = cli.run(&["config", "check", &file]);
    assert_eq!(checked.code, Some(code::FAILED));
    let reloaded = cli.run(&["config", "reload"]);
    assert_eq!(reloaded.code, Some(code::FAILED));
    assert!(
        reloaded.stderr.contains("CONFIGURATION_WRONG"),
        "{reloaded:?}"
    );
    let status = cli.run(&["status"]);
    assert_eq!(status.code, Some(code::ATTENTION));
    let status = status.stdout;
    for line in &lines {
        assert!(checked.stdout.contains(line), "{line}\n{checked:?}");
        assert!(reloaded.stderr.contains(line), "{line}\n{reloaded:?}");
        assert!(status.contains(line), "{line}\n{status}");
    }
    assert!(daemon.api().volume("data").is_err());
    assert!(happened(&daemon, EventKind::ConfigurationWrong));
    // In JSON with places, and right once it is mended.
    let found = cli.run(&["config", "check", &file, "--json"]);
    let found: serde_json::Value = serde_json::from_str(&found.stdout).expect("a document");
    assert_eq!(
        (&found["ok"], &found["problems"][0]["line"]),
        (&false.into(), &4.into())
    );
    fs::write(
        daemon.config(),
        text.replace("area_size", "area-size")
            .replace("[backup.x]", ""),
    )
    .expect("a file can be written");
    cli.ok(&["config", "check", &file]);
    cli.ok(&["config", "reload"]);
    assert!(problems(&daemon).is_empty());
}

#[test]
fn the_volume_comes_first_also_where_the_file_is_wrong() {
    let mut daemon = Daemon::start();
    daemon.attach_new("data", VOLUME_BYTES, 32 * MIB);
    daemon.stop();
    fs::write(daemon.config(), "[daemon\n").expect("a file can be written");
    daemon.restart();
    assert_eq!(daemon.api().volume("data").expect("a volume").name, "data");
    assert!(
        problems(&daemon)[0].contains("tidemark.toml:1:"),
        "{:?}",
        problems(&daemon)
    );
    assert!(happened(&daemon, EventKind::ConfigurationWrong));
    let status = daemon.cli().run(&["status"]);
    assert_eq!(status.code, Some(code::ATTENTION));
    assert!(
        status.stdout.starts_with("1 thing needs you:"),
        "{status:?}"
    );
}

#[test]
fn a_repository_that_is_missing_is_told_and_taken_in_once_it_is_there() {
    let daemon = Daemon::start();
    let key = key_file(daemon.path("key"), 3);
    let text = format!(
        "[repository.vault]\nlocation = \"{}\"\nkey-file = \"{}\"\n",
        daemon.path("vault").display(),
        key.display()
    );
    fs::write(daemon.config(), text).expect("a file can be written");
    let told = daemon.cli().run(&["config", "reload"]);
    assert_eq!(told.code, Some(3), "{told:?}");
    assert!(
        told.stdout.contains("NOT DONE: repository \"vault\""),
        "{told:?}"
    );
    assert_eq!(problems(&daemon).len(), 1);
    // Made by another agent, under another name.
    let other = Daemon::start();
    let repositories = Repositories(other.api());
    repositories
        .init("else", &daemon.path("vault"), Some(&key))
        .expect("a repository");
    assert!(
        daemon
            .cli()
            .ok(&["config", "reload"])
            .contains("repository \"vault\" is known now")
    );
    assert!(problems(&daemon).is_empty());
}

#[test]
fn what_is_shown_reads_as_the_same() {
    let world = World::new();
    let daemon = Daemon::start();
    let file = world.path("tidemark.toml");
    fs::write(&file, uncommented()).expect("a file can be written");
    let shown = daemon
        .cli()
        .ok(&["config", "show", &world.text("tidemark.toml")]);
    let again = world.path("again.toml");
    fs::write(&again, &shown).expect("a file can be written");
    assert_eq!(
        daemon
            .cli()
            .ok(&["config", "show", &world.text("again.toml")]),
        shown
    );
    let tables = daemon
        .cli()
        .json(&["config", "show", &world.text("again.toml")]);
    assert_eq!(tables["backup"]["nightly"]["keep"]["within"], "3d");
}

/// Others must not write what runs as root.
#[test]
fn a_file_that_others_may_change_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = Daemon::start();
    fs::set_permissions(daemon.config(), fs::Permissions::from_mode(0o664)).expect("a mode");
    let told = daemon.cli().run(&["config", "reload"]);
    assert_eq!(told.code, Some(code::FAILED));
    assert!(told.stderr.contains("chmod go-w"), "{told:?}");
}

fn packaged() -> String {
    let path = workspace().join("packaging/etc/tidemark.toml");
    fs::read_to_string(path).expect("the packaged configuration")
}

/// With every key of the packaged file in force: a line that begins with '#' and no space after it is one.
fn uncommented() -> String {
    let lines = packaged();
    let lines = lines.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') && !key.is_empty() => key,
        _ => line,
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_packaged_file_is_right_as_it_is_and_with_every_line_in_force() {
    use tidemark_config::Configuration;
    assert_eq!(
        Configuration::parse(&packaged()),
        Ok(Configuration::default())
    );
    let text = uncommented();
    let read = Configuration::parse(&text).unwrap_or_else(|wrong| panic!("{wrong:#?}\n{text}"));
    assert_eq!(
        (
            read.volumes.len(),
            read.repositories.len(),
            read.backups.len()
        ),
        (1, 2, 1)
    );
    // Whatever can be told is there to be uncommented.
    for line in read.to_string().lines() {
        let Some((key, _)) = line.split_once(" = ") else {
            continue;
        };
        assert!(
            text.contains(&format!("{key} = ")),
            "{key} is not in the packaged file"
        );
    }
}
