//! What an operator sees: status, the live view, doctor.

mod diagnostics;
mod terminal;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::Value;
use tidemark_tests::{Daemon, MIB, cli::code, host, image};

use terminal::Terminal;

const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

fn levels<'a>(findings: &'a Value, level: &str) -> Vec<&'a str> {
    let checks = findings["checks"].as_array().expect("checks");
    checks
        .iter()
        .filter(|check| check["level"] == level)
        .map(|check| check["name"].as_str().expect("a name"))
        .collect()
}

#[test]
fn status_says_whether_all_is_well_and_what_goes_on_without_the_daemon() {
    let mut daemon = Daemon::start();
    daemon.attach_new("data", 16 * MIB, 16 * MIB);
    let page = daemon.cli().ok(&["status"]);
    assert!(page.starts_with("All is well: 1 volume, "), "{page}");
    assert!(page.contains("every change is known"), "{page}");
    let all = daemon.cli().json(&["status"]);
    assert_eq!(all["attention"].as_array().map(Vec::len), Some(0), "{all}");
    assert_eq!(all["local"][0]["served"], true, "{all}");

    daemon.kill();
    let silent = daemon.cli().run(&["status"]);
    assert_eq!(silent.code, Some(code::NO_DAEMON), "{silent:?}");
    for words in [
        "1 thing needs you:",
        "reads and writes of the volumes go on",
        "data  its server runs",
    ] {
        assert!(silent.stdout.contains(words), "{words}: {silent:?}");
    }
    // A boot at which the server could not be started, as its unit has it noted.
    let outcome = daemon.path("run-home.outcome");
    fs::write(outcome, "error UNSUPPORTED this host has no ublk\n").expect("a file can be written");
    let silent = daemon.cli().run(&["status"]);
    let told = "home: its server did not start (UNSUPPORTED: this host has no ublk)";
    assert!(silent.stdout.contains(told), "{silent:?}");
    assert!(silent.stdout.contains("tracking is BROKEN"), "{silent:?}");
    let found = daemon.cli().run(&["doctor", "--json"]);
    let found: Value = serde_json::from_str(&found.stdout).expect("a document");
    let missing = levels(&found, "MISSING");
    assert!(missing.contains(&"volume home"), "{found}");
    assert!(missing.contains(&"daemon"), "{found}");
    daemon.restart();
}

#[test]
fn the_live_view_is_drawn_in_place_and_puts_the_terminal_back() {
    let daemon = Daemon::start();
    daemon.attach_new("data", 16 * MIB, 16 * MIB);
    let command = daemon
        .cli()
        .command(&["status", "--watch", "--interval", "1"]);
    let mut terminal = Terminal::run(&command);
    host::eventually("the view is drawn again", || {
        let shown = terminal.shown();
        shown.matches("\x1b[H").count() >= 3 && shown.contains("preserved")
    });
    let shown = terminal.shown();
    assert!(shown.contains("\x1b[?1049h"), "{shown:?}");
    assert!(shown.contains("All is well: 1 volume"), "{shown:?}");
    assert!(shown.contains("data  ATTACHED  CONTINUOUS"), "{shown:?}");
    assert!(!terminal.echoes());
    // A line is never longer than the window.
    terminal.resize(4, 30);
    host::eventually("the view follows the window", || {
        terminal.shown().contains("more lines: a ta")
    });
    terminal.press("\x03");
    let mut ended = None;
    host::eventually("Ctrl-C ends it", || {
        ended = terminal.ended();
        ended.is_some()
    });
    assert_eq!(ended, Some(code::OK));
    host::eventually("the terminal is put back", || {
        terminal.shown().ends_with(LEAVE)
    });
    assert!(terminal.echoes());
}

#[test]
fn off_a_terminal_there_is_a_document_for_each_interval() {
    let daemon = Daemon::start();
    daemon.attach_new("data", 16 * MIB, 16 * MIB);
    let mut child = daemon
        .cli()
        .command(&["status", "--watch", "--interval", "1", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command can be started");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let documents: Vec<Value> = lines
        .take(2)
        .map(|line| serde_json::from_str(&line.expect("a line")).expect("a document"))
        .collect();
    assert_eq!(documents[0]["rates"]["data"], Value::Null);
    let rates = &documents[1]["rates"]["data"];
    assert!(rates["write_bytes_per_second"].is_u64(), "{rates}");
    // Its reader went away.
    host::eventually("it ends", || {
        child
            .try_wait()
            .expect("a child can be waited for")
            .is_some()
    });
}

#[test]
fn the_doctor_names_what_is_missing_and_the_command_that_mends_it() {
    let daemon = Daemon::configured(|world| {
        image::sparse(&world.path("data.img"), 16 * MIB);
        format!(
            "[volume.data]\ndevice = \"{0}/data.img\"\narea = \"{0}/data.area\"\narea-size = \"16MiB\"\n\
             [repository.vault]\nlocation = \"{0}/vault\"\n\
             [backup.nightly]\nvolumes = [\"data\"]\nrepository = \"vault\"\n",
            world.root().display()
        )
    });
    let cli = daemon.cli();
    let text = |name: &str| daemon.path(name).display().to_string();
    let state = text("state");
    let doctor = |more: &[&str]| {
        let words = [&["doctor", "--state-dir", &state][..], more].concat();
        cli.run(&words)
    };
    let run = || {
        let places = ["--config", &text("tidemark.toml"), "--state-dir", &state];
        cli.run(&[&["schedule", "run", "nightly"][..], &places].concat())
    };
    // The configuration names a repository that is not there.
    host::eventually("what is not in force is told", || {
        let found = doctor(&[]);
        let told = found.stdout.contains("MISSING  configuration");
        told && found.code == Some(code::ATTENTION)
    });
    cli.ok(&["repo", "init", "vault", &text("vault")]);
    cli.ok(&["config", "reload"]);
    let found = doctor(&[]);
    assert_eq!(found.code, Some(code::OK), "{found:?}");
    assert!(found.stdout.contains("it has never run"), "{found:?}");
    let mend = "mend: tidemark schedule run nightly";
    assert!(found.stdout.contains(mend), "{found:?}");
    assert_eq!(run().code, Some(code::OK));
    let page = cli.ok(&["status", "--state-dir", &state]);
    assert!(page.contains("nightly succeeded"), "{page}");

    // As with a disk that is not mounted.
    fs::rename(daemon.path("vault"), daemon.path("gone")).expect("a folder can be moved");
    assert_ne!(run().code, Some(code::OK));
    let found = doctor(&["--json"]);
    assert_eq!(found.code, Some(code::ATTENTION), "{found:?}");
    let found: Value = serde_json::from_str(&found.stdout).expect("a document");
    let missing = levels(&found, "MISSING");
    assert_eq!(missing, ["schedule nightly", "repository vault"], "{found}");
    let status = cli.run(&["status", "--state-dir", &state]);
    assert_eq!(status.code, Some(code::ATTENTION));
    let told = "schedule nightly failed: no backup";
    assert!(status.stdout.contains(told), "{status:?}");

    fs::write(daemon.config(), "[daemon]\ngruop = \"x\"\n").expect("a file can be written");
    let found = doctor(&[]);
    assert_eq!(found.code, Some(code::ATTENTION), "{found:?}");
    assert!(
        found
            .stdout
            .contains("tidemark.toml:2:1: \"gruop\" means nothing"),
        "{found:?}"
    );
}
