//! A schedule, run as its timer runs it.

use std::fs;

use tidemark_tests::{
    Daemon, Random,
    cli::code,
    host, image,
    repositories::{Repositories, key_file},
};

use super::volume;

/// A volume, a repository and a schedule that keeps two points.
fn scheduled(more: &str) -> (Daemon, Repositories) {
    let daemon = Daemon::configured(|world| {
        let key = key_file(world.path("key"), 9);
        format!(
            "{}[repository.vault]\nlocation = \"{}\"\nkey-file = \"{}\"\n\
             [backup.nightly]\nvolumes = [\"data\"]\nrepository = \"vault\"\nkeep = {{ last = 2 }}\n\
             tags = [\"mine\"]\ncheck-data-percent = 100\n{more}\n",
            volume(world, "data"),
            world.text("vault"),
            key.display()
        )
    });
    host::eventually("the volume is attached", || {
        daemon.api().volume("data").is_ok()
    });
    let repositories = Repositories(daemon.api());
    let key = daemon.path("key");
    repositories
        .init("vault", &daemon.path("vault"), Some(&key))
        .expect("a repository");
    (daemon, repositories)
}

fn run(daemon: &Daemon) -> tidemark_tests::cli::Ended {
    let (config, state) = (daemon.config(), daemon.path("schedules-state"));
    daemon.cli().run(&[
        "schedule",
        "run",
        "nightly",
        "--config",
        &config.display().to_string(),
        "--state-dir",
        &state.display().to_string(),
    ])
}

#[test]
fn runs_keep_what_they_should_of_their_own_and_touch_nothing_else() {
    let (daemon, repositories) = scheduled("");
    let by_hand = repositories.back_up("vault", "data");
    let mut random = Random::announced("schedule");
    let device = daemon.api().volume("data").expect("a volume").device_path;
    let mut made = Vec::new();
    for _ in 0..3 {
        image::scribble(device.as_ref(), 0, 1 << 20, &mut random);
        let ended = run(&daemon);
        assert_eq!(ended.code, Some(code::OK), "{ended:?}");
        assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
        assert!(
            ended.stdout.starts_with("schedule nightly: succeeded in "),
            "{ended:?}"
        );
        let newest = repositories.points("vault").pop().expect("a point");
        assert_eq!(newest.tags, ["mine", "schedule:nightly"]);
        made.push(newest.id);
    }
    let mut there: Vec<_> = repositories
        .points("vault")
        .into_iter()
        .map(|point| point.id)
        .collect();
    let mut kept = vec![by_hand.id, made[1].clone(), made[2].clone()];
    there.sort();
    kept.sort();
    assert_eq!(there, kept);
    let record = fs::read(daemon.path("schedules-state/schedules/nightly.json")).expect("a record");
    let record: serde_json::Value = serde_json::from_slice(&record).expect("a record");
    assert_eq!(record["points"][0], made[2].as_str());
    assert_eq!(repositories.check("vault").total_findings, 0);
}

#[test]
fn a_failure_has_its_code_its_hook_and_one_line() {
    let (daemon, _repositories) = scheduled(
        "[backup.nightly.hooks]\non-failure = [\"/bin/sh\", \"-c\", \"echo $TIDEMARK_REASON > $0\", \"PLACE\"]",
    );
    let told = daemon.path("told");
    let text = fs::read_to_string(daemon.config()).expect("a file");
    let text = text.replace("PLACE", &told.display().to_string());
    fs::write(daemon.config(), text).expect("a file can be written");
    daemon.api().detach("data", true).expect("a detach");
    let ended = run(&daemon);
    assert_eq!(ended.code, Some(code::FAILED), "{ended:?}");
    assert!(
        ended.stdout.starts_with("schedule nightly: failed in "),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("no volume is named \"data\""),
        "{ended:?}"
    );
    assert_eq!(
        fs::read_to_string(told).expect("the hook ran"),
        "VOLUME_NOT_FOUND\n"
    );
    let config = daemon.config().display().to_string();
    let state = daemon.path("schedules-state").display().to_string();
    let listed = daemon.cli().json(&[
        "schedule",
        "list",
        "--config",
        &config,
        "--state-dir",
        &state,
    ]);
    assert_eq!(listed[0]["last"]["outcome"], "failed");
    assert_eq!(listed[0]["last"]["reason"], "VOLUME_NOT_FOUND");
}
