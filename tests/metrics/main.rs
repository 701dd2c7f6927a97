//! Metrics as a monitoring system scrapes them, read by a stock OpenMetrics parser: Debian's
//! python3-prometheus-client.

mod documents;
mod scrape;

use std::{net::TcpListener, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tidemark_proto::v1::Volume;
use tidemark_tests::{
    Daemon, MIB, Random,
    cli::code,
    host, image,
    repositories::{Repositories, key_file},
};

use scrape::Scrape;

const VOLUME_BYTES: u64 = 16 * MIB;
const WRITTEN_BYTES: u64 = 2 * MIB;

fn written(volume: &Volume, random: &mut Random) {
    image::scribble(volume.device_path.as_ref(), 0, WRITTEN_BYTES, random);
}

#[test]
fn what_was_done_is_what_is_told() {
    let daemon = Daemon::start();
    let mut random = Random::announced("metrics");
    // A name that must be escaped, and comes back as it is.
    let origin = daemon.path("we\\ird \"name\".img");
    image::sparse(&origin, VOLUME_BYTES);
    let volume = daemon.attach("data", &origin, 32 * MIB).expect("an attach");
    written(&volume, &mut random);
    daemon.api().snapshot("data");
    written(&volume, &mut random);
    let scrape = Scrape::by_socket(&daemon);
    let info = scrape.one("tidemark_volume_info", &[]);
    assert_eq!(info.labels["origin"], origin.to_str().expect("it is text"));
    assert_eq!(info.labels["transport"], "portable");
    let of = |name: &str| scrape.value(name, &[("volume", "data")]);
    assert_eq!(of("tidemark_volume_up"), 1.0);
    assert_eq!(of("tidemark_volume_size_bytes"), VOLUME_BYTES as f64);
    assert_eq!(of("tidemark_volume_snapshots"), 1.0);
    assert_eq!(of("tidemark_volume_hold_duration_seconds_count"), 1.0);
    assert_eq!(of("tidemark_volume_changed_bytes"), WRITTEN_BYTES as f64);
    assert_eq!(
        of("tidemark_volume_preserved_bytes_total"),
        WRITTEN_BYTES as f64
    );
    let (used, free) = (
        of("tidemark_volume_store_used_bytes"),
        of("tidemark_volume_store_free_bytes"),
    );
    assert_eq!(used, WRITTEN_BYTES as f64);
    assert_eq!(used + free, of("tidemark_volume_store_capacity_bytes"));
    for (trust, set) in [("continuous", 1.0), ("superset", 0.0), ("broken", 0.0)] {
        let labels = [("volume", "data"), ("trust", trust)];
        assert_eq!(scrape.value("tidemark_volume_trust", &labels), set);
    }
    // Nobody uses the volume now, so that both tell the same.
    let counters = daemon.api().volume("data").expect("a volume").stats;
    let counters = counters.expect("a volume that is served counts");
    assert!(counters.write_bytes >= 2 * WRITTEN_BYTES, "{counters:?}");
    for (kind, requests, bytes) in [
        ("read", counters.read_requests, counters.read_bytes),
        ("write", counters.write_requests, counters.write_bytes),
        ("flush", counters.flush_requests, 0),
    ] {
        let scrape = Scrape::by_socket(&daemon);
        let labels = [("volume", "data"), ("kind", kind)];
        let of = |name: &str| scrape.value(name, &labels);
        let count = of("tidemark_volume_request_duration_seconds_count");
        assert_eq!(count, requests as f64, "{kind}");
        assert_eq!(
            of("tidemark_volume_request_bytes_total"),
            bytes as f64,
            "{kind}"
        );
        assert_eq!(of("tidemark_volume_request_failures_total"), 0.0, "{kind}");
        let sum = of("tidemark_volume_request_duration_seconds_sum");
        assert!(count == 0.0 || sum > 0.0, "{kind}: {sum} s");
        let buckets = scrape.buckets("tidemark_volume_request_duration_seconds", &labels);
        assert_eq!(buckets.len(), 20, "{kind}");
        assert!(buckets.is_sorted(), "{kind}: {buckets:?}");
        assert_eq!(buckets.last(), Some(&count), "{kind}");
    }
}

#[test]
fn a_server_that_hangs_is_down_and_one_that_died_is_replaced() {
    let daemon = Daemon::start();
    let hangs = daemon.attach_new("hangs", VOLUME_BYTES, 32 * MIB);
    daemon.attach_new("well", VOLUME_BYTES, 32 * MIB);
    let pid = Pid::from_raw(hangs.server_pid);
    kill(pid, Signal::SIGSTOP).expect("a server can be stopped");
    let scrape = Scrape::by_socket(&daemon);
    kill(pid, Signal::SIGCONT).expect("a server can be woken");
    let up = |scrape: &Scrape, name| scrape.value("tidemark_volume_up", &[("volume", name)]);
    assert_eq!((up(&scrape, "hangs"), up(&scrape, "well")), (0.0, 1.0));
    assert!(scrape.all("tidemark_volume_size_bytes").len() == 1);
    host::eventually("it is up again", || {
        up(&Scrape::by_socket(&daemon), "hangs") == 1.0
    });
    host::kill_now(hangs.server_pid);
    host::eventually("another has taken its place", || {
        let scrape = Scrape::by_socket(&daemon);
        let labels = [("volume", "hangs")];
        let replaced = scrape.value("tidemark_volume_server_restarts_total", &labels);
        replaced == 1.0 && up(&scrape, "hangs") == 1.0
    });
}

fn configure(daemon: &Daemon, port: u16) {
    let text = format!("[daemon]\nmetrics = \"127.0.0.1:{port}\"\n");
    std::fs::write(daemon.config(), text).expect("a file can be written");
}

#[test]
fn a_reload_moves_the_address_and_tells_of_a_port_that_is_taken() {
    let daemon = Daemon::start();
    let cli = daemon.cli();
    let busy = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = busy.local_addr().expect("an address").port();
    configure(&daemon, port);
    let reloaded = cli.run(&["config", "reload"]);
    let told = format!("metrics are not served at 127.0.0.1:{port}");
    assert!(reloaded.stdout.contains(&told), "{reloaded:?}");
    let status = cli.run(&["status"]);
    assert_eq!(status.code, Some(code::ATTENTION));
    assert!(status.stdout.contains(&told), "{status:?}");
    // The other way is there all the same.
    assert_eq!(
        Scrape::by_socket(&daemon).value("tidemark_state_up", &[]),
        1.0
    );
    drop(busy);
    host::eventually("the port is taken over", || {
        cli.run(&["config", "reload"]).code == Some(code::OK)
    });
    let scrape = Scrape::by_tcp(port);
    assert_eq!(scrape.families(), Scrape::by_socket(&daemon).families());
    std::fs::write(daemon.config(), "").expect("a file can be written");
    let reloaded = cli.ok(&["config", "reload"]);
    assert!(reloaded.contains("no longer served"), "{reloaded}");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

/// A volume, a repository and a schedule whose records lie where the agent looks.
fn scheduled() -> Daemon {
    let daemon = Daemon::configured(|world| {
        image::sparse(&world.path("data.img"), VOLUME_BYTES);
        let key = key_file(world.path("key"), 5);
        format!(
            "[volume.data]\ndevice = \"{}\"\narea = \"{}\"\narea-size = \"32MiB\"\n\
             [repository.vault]\nlocation = \"{}\"\nkey-file = \"{}\"\n\
             [backup.nightly]\nvolumes = [\"data\"]\nrepository = \"vault\"\n",
            world.text("data.img"),
            world.text("data.area"),
            world.text("vault"),
            key.display()
        )
    });
    host::eventually("the volume is attached", || {
        daemon.api().volume("data").is_ok()
    });
    daemon
}

fn run_schedule(daemon: &Daemon) -> Option<i32> {
    let text = |path: &Path| path.display().to_string();
    let (config, state) = (text(&daemon.config()), text(&daemon.path("state")));
    let words = [
        "schedule",
        "run",
        "nightly",
        "--config",
        &config,
        "--state-dir",
        &state,
    ];
    daemon.cli().run(&words).code
}

#[test]
fn backups_and_schedules_are_told_as_they_went() {
    let daemon = scheduled();
    let scrape = Scrape::by_socket(&daemon);
    assert_eq!(scrape.all("tidemark_schedule_info").len(), 1);
    assert!(scrape.all("tidemark_schedule_last_outcome").is_empty());
    // There is no repository yet.
    assert_ne!(run_schedule(&daemon), Some(code::OK));
    assert_ne!(run_schedule(&daemon), Some(code::OK));
    let of = |scrape: &Scrape, name: &str| scrape.value(name, &[("schedule", "nightly")]);
    let outcome = |scrape: &Scrape, outcome| {
        let labels = [("schedule", "nightly"), ("outcome", outcome)];
        scrape.value("tidemark_schedule_last_outcome", &labels)
    };
    let scrape = Scrape::by_socket(&daemon);
    assert_eq!(of(&scrape, "tidemark_schedule_failures_in_a_row"), 2.0);
    assert_eq!(outcome(&scrape, "failed"), 1.0);
    assert!(
        scrape
            .all("tidemark_volume_last_backup_timestamp_seconds")
            .is_empty()
    );
    let key = daemon.path("key");
    let made = Repositories(daemon.api()).init("vault", &daemon.path("vault"), Some(&key));
    made.expect("a repository");
    assert_eq!(run_schedule(&daemon), Some(code::OK));
    let scrape = Scrape::by_socket(&daemon);
    assert_eq!(of(&scrape, "tidemark_schedule_failures_in_a_row"), 0.0);
    assert_eq!(
        (outcome(&scrape, "failed"), outcome(&scrape, "succeeded")),
        (0.0, 1.0)
    );
    let ended = of(&scrape, "tidemark_schedule_last_end_timestamp_seconds");
    assert_eq!(
        of(&scrape, "tidemark_schedule_last_success_timestamp_seconds"),
        ended
    );
    let backups = [("kind", "backup"), ("outcome", "succeeded")];
    assert_eq!(scrape.value("tidemark_operations_total", &backups), 1.0);
    let of_repository = [("repository", "vault")];
    let last = scrape.value(
        "tidemark_repository_last_backup_timestamp_seconds",
        &of_repository,
    );
    assert!(
        last >= of(&scrape, "tidemark_schedule_last_start_timestamp_seconds"),
        "{last}"
    );
    assert_eq!(
        scrape.value(
            "tidemark_volume_last_backup_timestamp_seconds",
            &[("volume", "data")]
        ),
        last
    );
}
