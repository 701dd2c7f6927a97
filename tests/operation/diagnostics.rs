//! The file for whoever helps: everything but secrets.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use tidemark_tests::{Daemon, MIB, cli::code, host, image, programs::succeed};

/// In every secret of this story.
const PLANTED: &str = "Secr3t";

/// Wherever a user can write one: files of keys and credentials, commands, hooks and what they print,
/// URLs, labels, remarks.
fn plant(daemon: &Daemon) {
    let file = |name: &str, text: String| {
        fs::write(daemon.path(name), text).expect("a file can be written");
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(daemon.path(name), mode).expect("a mode");
        daemon.path(name).display().to_string()
    };
    let password = file("password", format!("{PLANTED}-of-a-file\n"));
    let credentials = file(
        "credentials",
        format!("aws_access_key_id = {PLANTED}-id\naws_secret_access_key = {PLANTED}/key\n"),
    );
    let hook = file(
        "hook",
        format!("#!/bin/sh\necho {PLANTED}-printed\necho {PLANTED}-told >&2\nexit 1\n"),
    );
    fs::set_permissions(daemon.path("hook"), fs::Permissions::from_mode(0o755)).expect("a mode");
    image::sparse(&daemon.path("data.img"), 16 * MIB);
    let root = daemon.world().root().display();
    let text = format!(
        "# {PLANTED}-remark\n\
         [volume.data]\ndevice = \"{root}/data.img\"\narea = \"{root}/data.area\"\narea-size = \"16MiB\"\n\
         [volume.data.hooks]\nbefore-freeze = [\"{hook}\", \"--token={PLANTED}-argument\"]\n\
         [repository.local]\nlocation = \"{root}/vault\"\npassword-file = \"{password}\"\n\
         [repository.cloud]\nlocation = \"s3://bucket/prefix\"\ncredentials-file = \"{credentials}\"\n\
         endpoint = \"http://127.0.0.1:9/\"\nallow-http = true\nregion = \"x\"\n\
         password-command = \"echo {PLANTED}-of-a-command\"\n\
         [backup.nightly]\nvolumes = [\"data\"]\nrepository = \"local\"\n\
         [backup.nightly.hooks]\non-failure = [\"{hook}\", \"{PLANTED}-alarm\"]\n"
    );
    fs::write(daemon.config(), text).expect("a file can be written");
    let cli = daemon.cli();
    let vault = daemon.path("vault").display().to_string();
    cli.ok(&[
        "repo",
        "init",
        "local",
        &vault,
        "--password-file",
        &password,
    ]);
    let second = daemon.path("second").display().to_string();
    let command = format!("echo {PLANTED}-known-to-the-daemon");
    cli.ok(&[
        "repo",
        "init",
        "second",
        &second,
        "--password-command",
        &command,
    ]);
    cli.run(&["config", "reload"]);
    // The hook refuses the snapshot, and says so everywhere.
    let label = format!("ticket={PLANTED}-label");
    assert_eq!(
        cli.run(&["snapshot", "create", "data"]).code,
        Some(code::FAILED)
    );
    daemon.attach_new("other", 16 * MIB, 16 * MIB);
    cli.ok(&["snapshot", "create", "other", "--label", &label]);
    // What went wrong quotes what it was given.
    let place = format!("s3://bucket/p?token={PLANTED}-query");
    cli.run(&["repo", "add", "wrong", &place]);
    let endpoint = format!("http://user:{PLANTED}-user@127.0.0.1:9/");
    let words = ["--s3-endpoint", &endpoint, "--s3-allow-http"];
    cli.run(&[&["repo", "add", "third", "s3://bucket/p"][..], &words].concat());
}

fn read_all(folder: &Path, all: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => read_all(&path, all),
            false => all.push((
                path.display().to_string(),
                fs::read(&path).expect("a file can be read"),
            )),
        }
    }
}

fn unpacked(daemon: &Daemon, file: &str, to: &str) -> Vec<(String, Vec<u8>)> {
    let folder = daemon.path(to);
    fs::create_dir(&folder).expect("a folder can be made");
    succeed(
        Command::new("tar")
            .args(["--zstd", "-xf", file, "-C"])
            .arg(&folder),
    );
    let mut all = Vec::new();
    read_all(&folder, &mut all);
    for (name, content) in &all {
        let text = String::from_utf8_lossy(content);
        let line = text.lines().find(|line| line.contains(PLANTED));
        assert_eq!(line, None, "{name}");
    }
    all
}

#[test]
fn no_secret_gets_into_the_file_whether_the_configuration_is_right_or_wrong() {
    let mut daemon = Daemon::start();
    plant(&daemon);
    let file = daemon.path("first.tar.zst").display().to_string();
    let config = daemon.config().display().to_string();
    let state = daemon.path("state").display().to_string();
    let make = |file: &str| {
        let words = [
            "diagnostics",
            "--output",
            file,
            "--config",
            &config,
            "--state-dir",
            &state,
        ];
        daemon.cli().ok(&words)
    };
    make(&file);
    let mode = fs::metadata(&file)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let all = unpacked(&daemon, &file, "first");
    let part = |name: &str| {
        let found = all.iter().find(|(path, _)| path.ends_with(name));
        let (_, content) = found.unwrap_or_else(|| panic!("{name} is within"));
        String::from_utf8_lossy(content).into_owned()
    };
    // It is of use all the same.
    assert!(part("status.json").contains("\"daemon_answers\": true"));
    assert!(part("doctor.json").contains("\"checks\""));
    assert!(part("configuration.json").contains("\"area-size\": \"16MiB\""));
    assert!(part("configuration.json").contains("\"password-command\": \"[left out]\""));
    assert!(part("events.json").contains("HOOK_FAILED"));
    // Whatever its server had to say.
    part("logs/data.log");
    assert!(part("files.txt").contains("/state/catalog.db"));
    assert!(part("MANIFEST").contains("status.json  "));
    // A file that is there already is left alone.
    let again = daemon.cli().run(&["diagnostics", "--output", &file]);
    assert_eq!(again.code, Some(code::USAGE), "{again:?}");

    let wrong = fs::read_to_string(daemon.config()).expect("a file can be read")
        + &format!("[repository.bad]\npasswort = \"{PLANTED}-misspelt\"\nlocation = 3\n");
    fs::write(daemon.config(), wrong).expect("a file can be written");
    daemon.cli().run(&["config", "reload"]);
    let file = daemon.path("second.tar.zst").display().to_string();
    make(&file);
    unpacked(&daemon, &file, "second-bundle");

    // And without the daemon, with what can be had.
    daemon.kill();
    let file = daemon.path("third.tar.zst").display().to_string();
    let words = [
        "diagnostics",
        "--output",
        &file,
        "--config",
        &config,
        "--state-dir",
        &state,
    ];
    daemon.cli().ok(&words);
    let all = unpacked(&daemon, &file, "third");
    let manifest = all.iter().find(|(path, _)| path.ends_with("MANIFEST"));
    let manifest = String::from_utf8_lossy(&manifest.expect("a manifest").1);
    assert!(manifest.contains("events.json  NOT WITHIN: "), "{manifest}");
    daemon.restart();
    host::eventually("it answers again", || daemon.api().volume("data").is_ok());
}
