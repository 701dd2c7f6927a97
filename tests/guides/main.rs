//! What docs/write-a-client.md says, done as it says: its command makes the stubs, its client runs against a
//! daemon.
//!
//! That every `tidemark` line of every guide is one that the program reads is looked at where the
//! program's parser is, in cli/src/args/guides.rs.

mod proxy;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tidemark_proto::v1::ResetTrackingRequest;
use tidemark_tests::{
    Daemon, MIB, Random, image,
    programs::{run, succeed, workspace},
};

use proxy::Proxy;

const VOLUME_BYTES: u64 = 24 * MIB;

/// The guide's example, with stubs made by the guide's command.
struct Client {
    stubs: PathBuf,
}

impl Client {
    fn new(daemon: &Daemon) -> Self {
        let stubs = daemon.path("stubs");
        fs::create_dir(&stubs).expect("a folder can be made");
        let guide = fs::read_to_string(workspace().join("docs/write-a-client.md"))
            .expect("the guide can be read");
        let line = guide
            .lines()
            .find_map(|line| line.strip_prefix("# protoc "))
            .expect("the guide tells how stubs are made");
        let line = line.replace("_out=stubs", &format!("_out={}", stubs.display()));
        succeed(
            Command::new("sh")
                .args(["-c", &format!("protoc {line}")])
                .current_dir(workspace()),
        );
        Self { stubs }
    }

    fn command(&self, socket: &Path, volume: &str, image: &Path) -> Command {
        let mut command = Command::new(workspace().join("docs/examples/client.py"));
        command
            .env("PYTHONPATH", &self.stubs)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(socket)
            .arg(volume)
            .arg(image);
        command
    }
}

#[test]
fn the_client_of_the_guide_keeps_an_image_up_to_date() {
    let daemon = Daemon::start();
    let mut random = Random::new(7);
    let origin = daemon.path("data.img");
    image::filled(&origin, VOLUME_BYTES, &mut random);
    let volume = daemon
        .attach("data", &origin, 16 * MIB)
        .expect("the volume is attached");
    let live = PathBuf::from(&volume.live_path);
    let client = Client::new(&daemon);
    let copy = daemon.path("copy.img");
    let pull = || succeed(&mut client.command(&daemon.socket(), "data", &copy));

    let told = pull();
    assert!(told.starts_with("full: "), "{told}");
    image::assert_same(&copy, &live);

    image::scribble(&live, 5 * MIB, 40_960, &mut random);
    let told = pull();
    assert_eq!(told.split(' ').nth(1), Some("40960"), "{told}");
    assert!(told.starts_with("incremental: "), "{told}");
    image::assert_same(&copy, &live);

    // What it cannot be given as a diff is read whole, by the reason.
    let api = daemon.api();
    let reset = ResetTrackingRequest {
        name: "data".to_owned(),
        reason: "the story wants it".to_owned(),
    };
    api.call(api.volumes().reset_tracking(reset))
        .expect("tracking starts anew");
    image::scribble(&live, MIB, 4096, &mut random);
    let output = run(&mut client.command(&daemon.socket(), "data", &copy));
    let (told, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(told.starts_with("full: "), "{told}{said}");
    assert_eq!(said, "everything is read: TRACKING_RESET\n");
    image::assert_same(&copy, &live);

    // It leaves no snapshot behind, and says by its reason what fails.
    assert_eq!(api.volume("data").expect("a volume").live_snapshots, 0);
    let output = run(&mut client.command(&daemon.socket(), "other", &copy));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.starts_with("VOLUME_NOT_FOUND: "), "{said}");
}

#[test]
fn the_client_of_the_guide_goes_on_where_its_connection_was_cut() {
    const CUTS: &[u64] = &[3 * MIB, 9 * MIB];
    let daemon = Daemon::start();
    let origin = daemon.path("data.img");
    image::filled(&origin, VOLUME_BYTES, &mut Random::new(11));
    let volume = daemon
        .attach("data", &origin, 16 * MIB)
        .expect("the volume is attached");
    let client = Client::new(&daemon);
    let copy = daemon.path("copy.img");
    let proxy = Proxy::start(daemon.path("cut.sock"), &daemon.socket(), CUTS);

    let told = succeed(&mut client.command(proxy.socket(), "data", &copy));
    assert!(told.starts_with("full: "), "{told}");
    image::assert_same(&copy, Path::new(&volume.live_path));
    assert_eq!(proxy.connections(), CUTS.len() + 1);
    // The last stream began where the one before was cut.
    let bytes: u64 = told.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(bytes > 0 && bytes < VOLUME_BYTES, "{told}");
    assert_eq!(daemon.api().volume("data").unwrap().live_snapshots, 0);
}
