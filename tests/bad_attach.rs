//! Attaches that cannot be: a clear answer, nothing lost, nothing half attached.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use tidemark_proto::v1::{AttachVolumeRequest, BeginRestoreRequest, begin_restore_request::Target};
use tidemark_tests::{
    Api, Daemon, FsKind, MIB, Mounted, Random,
    api::{Answer, attach_request, attach_with_volume},
    cli::code,
    host::Leftovers,
    image,
    programs::succeed,
    refused::{Case, assert_refused, case},
    world,
};
use tonic::Code;

const BYTES: u64 = 16 * MIB + 512;
const AREA: u64 = 16 * MIB;

#[test]
fn origins_that_cannot_be_attached() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let missing = attach_request("a", &daemon.path("none.img"), &daemon.path("a.area"), AREA);
    let directory = attach_request("a", &daemon.path("run"), &daemon.path("a.area"), AREA);
    let empty_path = daemon.path("empty.img");
    image::sparse(&empty_path, 0);
    let empty = attach_request("a", &empty_path, &daemon.path("a.area"), AREA);
    let looped = Looped::of(&new_image(&daemon, "looped.img"));
    let in_use = attach_request(
        "a",
        &daemon.path("looped.img"),
        &daemon.path("a.area"),
        AREA,
    );
    let device = Looped::of(&new_image(&daemon, "mounted.img"));
    let mounted = Mounted::fresh(FsKind::Ext4, &device.path, &daemon.path("mnt"));
    let of_mounted = attach_request("a", &device.path, &daemon.path("a.area"), AREA);
    let in_no_group = attach_with_volume("a", &new_image(&daemon, "plain.img"), "", AREA);
    let before = daemon.world().leftovers();

    assert_refused(
        &api,
        &[
            attach_case(
                "a logical volume in no group",
                Code::FailedPrecondition,
                "ORIGIN_UNSUITABLE",
                in_no_group,
            ),
            attach_case(
                "no such origin",
                Code::FailedPrecondition,
                "ORIGIN_UNSUITABLE",
                missing,
            ),
            attach_case(
                "a directory",
                Code::FailedPrecondition,
                "ORIGIN_UNSUITABLE",
                directory,
            ),
            attach_case(
                "an empty file",
                Code::FailedPrecondition,
                "ORIGIN_UNSUITABLE",
                empty,
            ),
            attach_case(
                "a looped image",
                Code::FailedPrecondition,
                "ORIGIN_IN_USE",
                in_use,
            ),
            attach_case(
                "a mounted device",
                Code::FailedPrecondition,
                "ORIGIN_IN_USE",
                of_mounted,
            ),
        ],
    );

    assert_eq!(
        daemon.world().leftovers(),
        before,
        "nothing is half attached"
    );
    let ended = daemon.cli().run(&[
        "volume",
        "attach",
        "a",
        &daemon.world().text("looped.img"),
        "--area",
        &daemon.world().text("a.area"),
        "--area-size",
        "16M",
    ]);
    assert_eq!(ended.code, Some(code::BUSY), "{ended:?}");
    drop(mounted);
    drop(device);
    drop(looped);
    // What refused before is welcome now.
    let again = attach_request(
        "a",
        &daemon.path("looped.img"),
        &daemon.path("a.area"),
        AREA,
    );
    api.attach(again).expect("an attach");
}

#[test]
fn a_second_attach_is_refused_and_the_first_goes_on() {
    let daemon = Daemon::start();
    let volume = daemon.attach_new("vol", BYTES, AREA);
    let api = daemon.api();
    let snapshot = api.snapshot("vol");
    let before = daemon.world().leftovers();
    let origin = daemon.path("vol.img");
    let other = new_image(&daemon, "other.img");
    let same_name = attach_request("vol", &other, &daemon.path("b.area"), AREA);
    let same_origin = attach_request("b", &origin, &daemon.path("b.area"), AREA);
    let same_area = attach_request("b", &other, &daemon.path("vol.area"), 0);
    let own_device = attach_request(
        "b",
        volume.device_path.as_ref(),
        &daemon.path("b.area"),
        AREA,
    );

    assert_refused(
        &api,
        &[
            attach_case("the name", Code::AlreadyExists, "VOLUME_EXISTS", same_name),
            attach_case(
                "the origin",
                Code::FailedPrecondition,
                "ORIGIN_IN_USE",
                same_origin,
            ),
            attach_case(
                "the area",
                Code::FailedPrecondition,
                "AREA_IN_USE",
                same_area,
            ),
            attach_case(
                "our own device",
                Code::FailedPrecondition,
                "ORIGIN_IN_USE",
                own_device,
            ),
            case(
                "a detach below a snapshot",
                Code::FailedPrecondition,
                "VOLUME_BUSY",
                |api| api.detach("vol", false),
            ),
        ],
    );

    assert_eq!(
        daemon.world().leftovers(),
        before,
        "nothing is half attached"
    );
    image::assert_same(snapshot.view_path.as_ref(), &origin);
}

#[test]
fn areas_that_cannot_be_used() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let area = daemon.path("vol.area");
    daemon.attach_new("vol", BYTES, AREA);
    let origin = daemon.path("vol.img");

    // Another volume's area as it is in use; the same with both superblocks damaged.
    let [foreign_area, corrupt_area] =
        ["foreign.area", "corrupt.area"].map(|name| daemon.path(name));
    for copy in [&foreign_area, &corrupt_area] {
        std::fs::copy(&area, copy).expect("an area can be copied");
    }
    flip(&corrupt_area, 0, 64 * 1024);
    api.detach("vol", false).expect("a detach");
    let other = new_image(&daemon, "other.img");
    let foreign = attach_request("other", &other, &foreign_area, 0);
    let corrupt = attach_request("vol", &origin, &corrupt_area, 0);
    let text_area = daemon.path("text.area");
    std::fs::write(
        &text_area,
        "notes that somebody wants to keep\n".repeat(100_000),
    )
    .expect("a file can be written");
    let text = attach_request("vol", &origin, &text_area, 0);
    let tiny = attach_request("vol", &origin, &daemon.path("tiny.area"), 4096);
    // A small file system of its own, so that the attempt cannot fill the host's.
    let small = daemon.path("small");
    std::fs::create_dir(&small).expect("a directory can be made");
    succeed(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(&small),
    );
    let huge = attach_request("vol", &origin, &small.join("huge.area"), AREA);
    let nowhere = attach_request("vol", &origin, &daemon.path("none/vol.area"), AREA);
    let itself = attach_request("vol", &origin, &origin, 0);
    let before = daemon.world().leftovers();

    assert_refused(
        &api,
        &[
            attach_case(
                "another's area",
                Code::FailedPrecondition,
                "AREA_CORRUPT",
                foreign,
            ),
            attach_case(
                "a corrupt area",
                Code::FailedPrecondition,
                "AREA_CORRUPT",
                corrupt,
            ),
            attach_case(
                "a text file",
                Code::FailedPrecondition,
                "AREA_CORRUPT",
                text,
            ),
            attach_case(
                "too small an area",
                Code::ResourceExhausted,
                "AREA_NO_SPACE",
                tiny,
            ),
            attach_case(
                "too large an area",
                Code::ResourceExhausted,
                "AREA_NO_SPACE",
                huge,
            ),
            attach_case(
                "no directory",
                Code::InvalidArgument,
                "INVALID_FIELD",
                nowhere,
            ),
            attach_case(
                "the origin itself",
                Code::FailedPrecondition,
                "AREA_ON_VOLUME",
                itself,
            ),
        ],
    );

    assert_eq!(
        daemon.world().leftovers(),
        before,
        "nothing is half attached"
    );
    assert!(
        !daemon.path("tiny.area").exists(),
        "no new area is left behind"
    );
    assert!(
        !small.join("huge.area").exists(),
        "no new area is left behind"
    );
    let text = std::fs::read_to_string(&text_area).expect("it is still text");
    assert!(
        text.starts_with("notes that somebody"),
        "nothing of it was overwritten"
    );
    let again = attach_request("vol", &origin, &area, 0);
    api.attach(again).expect("its own area is welcome again");
}

#[test]
fn an_area_on_its_own_volume_is_refused() {
    let daemon = Daemon::start();
    let api = daemon.api();
    // An image whose file system is mounted by its loop device, which is to be attached: the area
    // would lie on the volume. It is in use as well, so the image is tried and not the device.
    let origin = daemon.path("vol.img");
    image::sparse(&origin, 64 * MIB);
    FsKind::Ext4.make(&origin);
    let mounted = Mounted::new(FsKind::Ext4, &origin, &daemon.path("mnt"));
    let inside = attach_request("vol", &origin, &mounted.point().join("vol.area"), AREA);
    let before = daemon.world().leftovers();
    let refused = api
        .attach(inside)
        .expect_err("it would deadlock at the first write");
    assert!(
        matches!(refused.reason.as_str(), "AREA_ON_VOLUME" | "ORIGIN_IN_USE"),
        "{refused:?}"
    );
    assert_eq!(
        daemon.world().leftovers(),
        before,
        "nothing is half attached"
    );
    drop(mounted);

    // And on the volume's own mounted device, for a second volume below a stack of the two.
    let volume = daemon.attach("vol", &origin, AREA).expect("an attach");
    let mounted = Mounted::new(
        FsKind::Ext4,
        volume.device_path.as_ref(),
        &daemon.path("mnt"),
    );
    let nested = new_image(&daemon, "nested.img");
    let request = attach_request(
        "nested",
        &nested,
        &mounted.point().join("nested.area"),
        AREA,
    );
    api.attach(request)
        .expect("another volume's file system is a fair place");
    api.detach("nested", false).expect("a detach");
}

#[test]
fn a_mounted_volume_is_neither_detached_nor_overwritten() {
    let daemon = Daemon::start();
    let volume = daemon.attach_new("vol", 64 * MIB, AREA);
    let mounted = Mounted::fresh(
        FsKind::Ext4,
        volume.device_path.as_ref(),
        &daemon.path("mnt"),
    );
    assert_refused(
        &daemon.api(),
        &[
            case("detach", Code::FailedPrecondition, "VOLUME_BUSY", |api| {
                api.detach("vol", false)
            }),
            case(
                "detach by force",
                Code::FailedPrecondition,
                "VOLUME_BUSY",
                |api| api.detach("vol", true),
            ),
            case("restore", Code::FailedPrecondition, "VOLUME_BUSY", |api| {
                restore_to_volume(api, 64 * MIB)
            }),
        ],
    );
    std::fs::write(mounted.point().join("file"), "still here").expect("it is still writable");
    drop(mounted);
    assert_refused(
        &daemon.api(),
        &[case(
            "restore of another size",
            Code::InvalidArgument,
            "INVALID_FIELD",
            |api| restore_to_volume(api, 32 * MIB),
        )],
    );
    daemon.api().detach("vol", false).expect("a detach");
    assert_eq!(
        gone_but_daemon(&daemon),
        Leftovers::default(),
        "nothing stays behind"
    );
}

fn new_image(daemon: &Daemon, name: &str) -> PathBuf {
    let path = daemon.path(name);
    image::filled(&path, BYTES, &mut Random::new(31));
    path
}

fn attach_case(
    what: &'static str,
    code: Code,
    reason: &'static str,
    request: AttachVolumeRequest,
) -> Case {
    case(what, code, reason, move |api| {
        api.attach(request.clone()).map(drop)
    })
}

fn restore_to_volume(api: &Api, capacity_bytes: u64) -> Answer<()> {
    let request = BeginRestoreRequest {
        target: Some(Target::Volume("vol".into())),
        capacity_bytes,
        ..BeginRestoreRequest::default()
    };
    api.call(api.restores().begin_restore(request)).map(drop)
}

fn flip(path: &Path, start: u64, len: usize) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("an area is a file");
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, start)
        .expect("it is that long");
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5A);
    file.write_all_at(&bytes, start).expect("it can be damaged");
}

/// What is left besides the control plane itself.
fn gone_but_daemon(daemon: &Daemon) -> Leftovers {
    let mut left = daemon.world().leftovers();
    left.processes
        .retain(|(_, words)| !words.contains(" serve "));
    left
}

/// A loop device of the test's own.
struct Looped {
    path: PathBuf,
}

impl Looped {
    fn of(image: &Path) -> Self {
        let name = succeed(Command::new("losetup").args(["--find", "--show", &world::text(image)]));
        Self {
            path: name.trim().into(),
        }
    }
}

impl Drop for Looped {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.path).status();
    }
}
