//! Tests that others wrote, on a bare logical volume and on an interposed one: the same programs
//! must come to the same results. Beside them a snapshot is live, so that each first write is
//! preserved, and in the end an incremental pull must still be right.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use tidemark_tests::{
    Api, Daemon, DoubleEntry, Fio, Frozen, FsKind, MIB, Mounted, image,
    lvm::{Group, guest_disk},
    programs::{printed, run, succeed},
    pull,
};

const AREA_BYTES: u64 = 384 * MIB;
/// A safety net for a stressor that hangs, in seconds; each ends by its count of operations.
const STRESSOR_BOUND: &str = "120s";
/// stress-ng's word for what this kernel or file system does not have.
const NOT_THERE: i32 = 4;

/// Its name, its operations, and further options.
type Stressor = (&'static str, u32, &'static [&'static str]);

/// Stressors of stress-ng's class "filesystem" and some of its class "io".
const STRESSORS: [Stressor; 31] = [
    (
        "hdd",
        256,
        &[
            "--hdd-bytes",
            "4m",
            "--hdd-opts",
            "direct,dsync,rd-rnd,wr-rnd",
        ],
    ),
    ("fallocate", 4, &["--fallocate-bytes", "4m"]),
    ("sync-file", 4, &["--sync-file-bytes", "2m"]),
    ("rename", 200, &[]),
    ("xattr", 4, &[]),
    ("iomix", 50, &["--iomix-bytes", "4m"]),
    ("aiol", 64, &[]),
    ("seek", 200, &["--seek-size", "4m"]),
    ("revio", 64, &["--revio-bytes", "4m"]),
    ("access", 8, &[]),
    ("chattr", 4, &[]),
    ("chmod", 20, &[]),
    ("chown", 20, &[]),
    ("dentry", 512, &["--dentries", "128"]),
    ("dir", 256, &["--dir-dirs", "64"]),
    ("dirdeep", 64, &["--dirdeep-inodes", "200"]),
    ("dirmany", 64, &[]),
    ("fiemap", 20, &["--fiemap-bytes", "2m"]),
    ("filename", 20, &[]),
    ("flock", 50, &[]),
    ("fsize", 4, &[]),
    ("fstat", 20, &[]),
    ("getdent", 20, &[]),
    ("handle", 20, &[]),
    ("io", 20, &[]),
    ("link", 2, &[]),
    ("lockf", 50, &[]),
    ("mknod", 20, &[]),
    ("open", 100, &[]),
    ("touch", 100, &[]),
    ("utime", 50, &[]),
];
const SHORT_STRESSORS: usize = 6;

#[test]
#[ignore = "runs in a guest"]
fn programs_on_ext4() {
    tell(FsKind::Ext4, 96, SHORT_STRESSORS);
}

#[test]
#[ignore = "runs in a guest"]
fn programs_on_ext4_at_length() {
    tell(FsKind::Ext4, 96, STRESSORS.len());
}

#[test]
#[ignore = "runs in a guest"]
fn programs_on_xfs_at_length() {
    tell(FsKind::Xfs, 320, STRESSORS.len());
}

fn tell(kind: FsKind, mib: u64, stressors: usize) {
    let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
    let (bare, origin) = (group.linear("bare", mib), group.linear("lv", mib));
    let daemon = Daemon::start();
    let api = daemon.api();
    let results = {
        let mounted = Mounted::fresh(kind, &bare, &daemon.path("bare"));
        results_on(mounted.point(), &STRESSORS[..stressors], &daemon)
    };
    println!("bare: {results:?}");
    kind.assert_device_sound(&bare);

    let mounted = Mounted::fresh(kind, &origin, &daemon.path("mnt"));
    let point = mounted.point().to_owned();
    daemon
        .attach("vol", &origin, AREA_BYTES)
        .expect("an attach while mounted");
    let mut books = {
        let _quiet = Frozen::new(&point);
        DoubleEntry::open(&api, "vol")
    };
    let base = api.snapshot("vol");
    let frozen = image::digest(base.view_path.as_ref());
    let target = daemon.path("pulled.img");
    pull::pull(&api, &base, None, &target).expect("a full pull");
    assert_eq!(
        results_on(&point, &STRESSORS[..stressors], &daemon),
        results
    );
    {
        let _quiet = Frozen::new(&point);
        println!("{} sectors booked alike", books.assert(&api));
    }
    assert_eq!(image::digest(base.view_path.as_ref()), frozen);
    let last = api.snapshot("vol");
    pull::pull(&api, &last, base.checkpoint.clone(), &target).expect("an incremental pull");
    assert_eq!(
        image::digest(&target),
        image::digest(last.view_path.as_ref())
    );
    kind.assert_sound(&target, daemon.world());
    release_and_detach(&api, &[base.id, last.id]);
    drop(mounted);
    kind.assert_device_sound(&origin);
}

fn release_and_detach(api: &Api, snapshots: &[String]) {
    for id in snapshots {
        api.release(id).expect("a release");
    }
    api.detach("vol", false).expect("a detach");
}

/// What each program came to in a folder.
fn results_on(point: &Path, stressors: &[Stressor], daemon: &Daemon) -> BTreeMap<String, i32> {
    let mut results = BTreeMap::new();
    for (name, operations, options) in stressors {
        let status = stress(point, name, *operations, options);
        results.insert((*name).to_owned(), status);
    }
    let files = point.join("fs_mark");
    let made = succeed(
        Command::new("fs_mark")
            .args(["-d", &files.display().to_string()])
            .args(["-n", "200", "-s", "10240", "-S", "3", "-k"])
            .arg("-l")
            .arg(daemon.path("fs_mark.log")),
    );
    assert!(made.contains("Files/sec"), "{made}");
    let kept = files_below(&files);
    assert!(kept.iter().all(|(_, bytes)| *bytes == 10_240), "{kept:?}");
    results.insert("fs_mark's files".to_owned(), count(kept.len()));
    results
}

fn count(number: usize) -> i32 {
    i32::try_from(number).expect("a count fits")
}

fn files_below(folder: &Path) -> Vec<(PathBuf, u64)> {
    let entries = std::fs::read_dir(folder).expect("a folder can be read");
    let files = entries.map(|entry| {
        let entry = entry.expect("an entry can be read");
        let data = entry.metadata().expect("an entry has a size");
        (entry.path(), data.len())
    });
    files.collect()
}

fn stress(point: &Path, name: &str, operations: u32, options: &[&str]) -> i32 {
    let folder = point.join("stress");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let output = run(Command::new("stress-ng")
        .arg("--temp-path")
        .arg(&folder)
        .args(["--verify", "--timeout", STRESSOR_BOUND])
        .args([&format!("--{name}"), "1"])
        .args([&format!("--{name}-ops"), &operations.to_string()])
        .args(options));
    let status = output.status.code().unwrap_or(-1);
    assert!(
        status == 0 || status == NOT_THERE,
        "{name} ended with {}:\n{}",
        output.status,
        printed(&output)
    );
    status
}

/// fio's own checks on the device itself: sizes from a sector up, with fsyncs and with trims.
#[test]
#[ignore = "runs in a guest"]
fn verifying_jobs_of_fio() {
    let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
    let (bare, origin) = (group.linear("bare", 24), group.linear("lv", 24));
    let daemon = Daemon::start();
    let api = daemon.api();
    let expected: Vec<u64> = (0..JOBS.len())
        .map(|job| verify(&bare, job, &daemon))
        .collect();
    daemon
        .attach("vol", &origin, AREA_BYTES)
        .expect("an attach");
    let mut books = DoubleEntry::open(&api, "vol");
    let target = daemon.path("pulled.img");
    let mut base = api.snapshot("vol");
    pull::pull(&api, &base, None, &target).expect("a full pull");
    for (job, expected) in expected.into_iter().enumerate() {
        let before = image::digest(base.view_path.as_ref());
        assert_eq!(verify(&origin, job, &daemon), expected, "{:?}", JOBS[job]);
        println!(
            "{:?}: {} sectors booked alike",
            JOBS[job],
            books.assert(&api)
        );
        assert_eq!(image::digest(base.view_path.as_ref()), before);
        let next = api.snapshot("vol");
        pull::pull(&api, &next, base.checkpoint.clone(), &target).expect("an incremental pull");
        assert_eq!(
            image::digest(&target),
            image::digest(next.view_path.as_ref())
        );
        api.release(&base.id).expect("a release");
        base = next;
    }
    release_and_detach(&api, &[base.id]);
}

const JOBS: [&[&str]; 4] = [
    &[
        "rw=randwrite",
        "bsrange=512-64k",
        "verify=crc32c",
        "fsync=16",
    ],
    &[
        "rw=randrw",
        "bsrange=4k-128k",
        "verify=sha1",
        "fdatasync=8",
        "rwmixread=30",
    ],
    &["rw=trimwrite", "bs=16k", "verify=crc32c", "fsync=8"],
    &["rw=randtrim", "bs=16k"],
];

/// Runs a job on a device; gives how much it wrote.
fn verify(device: &Path, job: usize, daemon: &Daemon) -> u64 {
    let fio = Fio::new(&daemon.path("fio.json"))
        .option(&format!("filename={}", device.display()))
        .option("size=12m")
        .option("offset=4m")
        .option("direct=1")
        .option("ioengine=libaio")
        .option("iodepth=16")
        .option("randseed=7")
        .option("verify_fatal=1");
    let fio = JOBS[job].iter().fold(fio, |fio, option| fio.option(option));
    fio.run().written_bytes()
}
