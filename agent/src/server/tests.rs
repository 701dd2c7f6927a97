//! The volume server in one piece: the real engine, FUSE, loop devices and the private protocol.
//! Needs root and /dev/fuse; without them each test says so and passes.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::{
        fs::{FileExt, MetadataExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver},
    thread::{self, JoinHandle},
};

use tidemark_proto::private::{
    Allocated, Changes, Cut, CutReply, Describe, Description, ExtentPage, FailureKind, Hello, Hold,
    ReleaseSnapshot, Reply, Request, Stop, Unhold, WaitEvents, reply::Result as Answer,
    request::Call,
};
use tidemark_store::units::Id;

use super::{
    PolicyArg, VolumeArgs, listen,
    outcome::StartFailure,
    served::{StopRequest, failure},
    start::{self, Running},
    start_error::StartError,
    stop, wire,
};
use crate::paths::{Paths, VolumePaths};

// Neither a multiple of a block nor of a sector.
const SIZE: u64 = (8 << 20) + 1_234;

struct Setup {
    args: VolumeArgs,
    dir: tempfile::TempDir,
}

impl Setup {
    /// `None` where the host cannot.
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("skipped: needs root and /dev/fuse");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let origin = dir.path().join("origin");
        File::create(&origin).unwrap().set_len(SIZE).unwrap();
        let args = VolumeArgs {
            name: "data".to_owned(),
            runtime_dir: dir.path().join("run"),
            origin,
            area: dir.path().join("area"),
            area_size: Some(16 << 20),
            block_bytes: 4096,
            policy: PolicyArg::Drop,
            max_write_delay_ms: 0,
            volume_id: Id(*b"volume identity."),
            queues: 4,
        };
        Some(Self { args, dir })
    }

    fn paths(&self) -> VolumePaths {
        let paths = Paths {
            runtime_dir: self.args.runtime_dir.clone(),
            state_dir: PathBuf::new(),
        };
        paths.volume(&self.args.name)
    }

    fn try_start(&self) -> Result<(Running, Receiver<StopRequest>), StartError> {
        let (stop, stops) = mpsc::channel();
        let (wake, _) = mpsc::sync_channel(1);
        Ok((start::start(&self.args, stop, wake)?, stops))
    }

    fn start(&self) -> Server {
        let (running, stops) = self.try_start().unwrap();
        let (listener, served) = running.door().unwrap();
        thread::spawn(move || listen::accept(&listener, &served));
        Server {
            running,
            stops,
            paths: self.paths(),
        }
    }

    fn refused(&self) -> StartFailure {
        match self.try_start() {
            Ok(_) => panic!("it started"),
            Err(error) => {
                eprintln!("refused: {error}");
                error.kind()
            }
        }
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        let agent = Paths {
            runtime_dir: self.args.runtime_dir.clone(),
            state_dir: PathBuf::new(),
        };
        if let Err(error) = crate::host::memory_dir::remove(&agent, &self.args.name) {
            eprintln!("state left behind: {error}");
        }
    }
}

struct Server {
    running: Running,
    stops: Receiver<StopRequest>,
    paths: VolumePaths,
}

impl Server {
    fn client(&self) -> Client {
        let mut client = Client::connect(&self.paths);
        assert!(matches!(
            client.ask(Call::Hello(Hello {
                version: wire::VERSION
            })),
            Answer::Hello(_)
        ));
        client
    }

    /// Serves stops in a thread of its own; gives the server back when the last one succeeded.
    fn serve(mut self) -> JoinHandle<Running> {
        thread::spawn(move || {
            stop::serve_until_stopped(&mut self.running, &self.stops).unwrap();
            self.running
        })
    }

    fn live(&self) -> File {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.paths.live())
            .unwrap()
    }
}

struct Client(UnixStream);

impl Client {
    fn connect(paths: &VolumePaths) -> Self {
        Self(UnixStream::connect(paths.control_socket()).unwrap())
    }

    fn ask(&mut self, call: Call) -> Answer {
        wire::write(&mut self.0, &Request { call: Some(call) }).unwrap();
        wire::read::<Reply>(&mut self.0)
            .unwrap()
            .unwrap()
            .result
            .unwrap()
    }

    fn refusal(&mut self, call: Call) -> FailureKind {
        match self.ask(call) {
            Answer::Failure(failure) => failure.kind(),
            other => panic!("not refused: {other:?}"),
        }
    }

    fn describe(&mut self) -> Description {
        match self.ask(Call::Describe(Describe {})) {
            Answer::Description(description) => description,
            other => panic!("{other:?}"),
        }
    }

    fn hold(&mut self) -> u64 {
        match self.ask(Call::Hold(Hold {
            max_hold_us: 5_000_000,
        })) {
            Answer::Held(held) => held.token,
            other => panic!("{other:?}"),
        }
    }

    fn snapshot(&mut self, id: Id) -> CutReply {
        let token = self.hold();
        match self.ask(Call::Cut(Cut {
            token,
            snapshot_id: id.0.to_vec().into(),
        })) {
            Answer::Cut(cut) => cut,
            other => panic!("{other:?}"),
        }
    }

    fn page(&mut self, call: Call) -> ExtentPage {
        match self.ask(call) {
            Answer::Extents(page) => page,
            other => panic!("{other:?}"),
        }
    }
}

const SNAPSHOT: Id = Id([0xab; 16]);

#[test]
fn a_volume_is_written_snapshotted_read_and_stopped() {
    let Some(setup) = Setup::new() else { return };
    let server = setup.start();
    let (live, mut client) = (server.live(), server.client());
    live.write_all_at(&[1; 10_000], 5_000).unwrap();
    let before = fs::read(setup.paths().live()).unwrap();
    let cut = client.snapshot(SNAPSHOT);
    live.write_all_at(&[2; 4_096], 8_192).unwrap();
    live.sync_all().unwrap();
    assert_eq!(
        cut.view_path,
        setup
            .paths()
            .view(&SNAPSHOT.to_string())
            .display()
            .to_string()
    );
    assert!(fs::read(&cut.view_path).unwrap() == before);
    let told = client.describe();
    assert_eq!(
        (told.capacity_bytes, told.block_bytes, told.epoch),
        (SIZE, 4096, 2)
    );
    assert_eq!((told.snapshots.len(), told.checkpoints.len()), (1, 1));
    let counted = told.counters.unwrap();
    assert!(
        counted.write_bytes >= 14_096 && counted.preserved_bytes == 4_096,
        "{counted:?}"
    );
    assert_eq!(
        fs::read_link(setup.paths().device_link()).unwrap(),
        Path::new(&told.device_path)
    );
    let changes = client.page(Call::Changes(Changes {
        since_epoch: cut.epoch,
        ..Changes::default()
    }));
    let ranges: Vec<_> = changes
        .ranges
        .iter()
        .map(|r| (r.offset_bytes, r.length_bytes))
        .collect();
    assert_eq!((ranges, changes.last), (vec![(8_192, 4_096)], true));
    let held = client.page(Call::Allocated(Allocated {
        snapshot_id: SNAPSHOT.0.to_vec().into(),
        ..Allocated::default()
    }));
    assert!(held.last && !held.ranges.is_empty());
    drop(live);

    let stopping = server.serve();
    assert_eq!(
        client.refusal(Call::Stop(Stop { force: false })),
        FailureKind::Busy
    );
    let snapshot_id = SNAPSHOT.0.to_vec();
    let released = client.ask(Call::ReleaseSnapshot(ReleaseSnapshot {
        snapshot_id: snapshot_id.into(),
    }));
    assert!(matches!(released, Answer::Done(_)));
    assert!(!Path::new(&cut.view_path).exists());
    assert!(matches!(
        client.ask(Call::Stop(Stop { force: false })),
        Answer::Done(_)
    ));
    drop(stopping.join().unwrap());
    assert!(!setup.paths().mount_point().exists() && !setup.paths().device_link().exists());
    assert_eq!(fs::read(&setup.args.origin).unwrap()[8_192], 2);
    // The area is nobody's now: another volume may have it.
    let mut other = setup.args.clone();
    other.volume_id = Id([9; 16]);
    let again = Setup {
        args: other,
        dir: tempfile::tempdir().unwrap(),
    };
    drop(again.start());
}

#[test]
fn a_successor_goes_on_where_a_dead_server_stopped() {
    let Some(setup) = Setup::new() else { return };
    let server = setup.start();
    server.live().write_all_at(&[1; 50_000], 0).unwrap();
    let cut = server.client().snapshot(SNAPSHOT);
    server.live().write_all_at(&[2; 50_000], 10_000).unwrap();
    server.running.volume().housekeep();
    drop(server);
    let server = setup.start();
    let told = server.client().describe();
    assert_eq!((told.lineage, told.epoch), (cut.lineage, 2));
    let view = fs::read(&cut.view_path).unwrap();
    assert!(
        view[..50_000].iter().all(|byte| *byte == 1)
            && view[50_000..].iter().all(|byte| *byte == 0)
    );
}

#[test]
fn a_client_that_dies_holds_nobody_up() {
    let Some(setup) = Setup::new() else { return };
    let server = setup.start();
    let mut holder = server.client();
    holder.hold();
    let mut other = server.client();
    assert_eq!(
        other.refusal(Call::Hold(Hold {
            max_hold_us: 1_000_000
        })),
        FailureKind::Busy
    );
    drop(holder);
    let token = loop {
        match other.ask(Call::Hold(Hold {
            max_hold_us: 5_000_000,
        })) {
            Answer::Held(held) => break held.token,
            Answer::Failure(_) => thread::yield_now(),
            other => panic!("{other:?}"),
        }
    };
    other.ask(Call::Unhold(Unhold { token }));
    server.live().write_all_at(&[1; 10], 0).unwrap();
    assert_eq!(
        other.refusal(Call::Cut(Cut {
            token,
            ..Cut::default()
        })),
        FailureKind::CutTimeout
    );
}

#[test]
fn nonsense_is_refused_in_words() {
    let Some(setup) = Setup::new() else { return };
    let server = setup.start();
    let describe = || Call::Describe(Describe {});
    assert_eq!(
        Client::connect(&setup.paths()).refusal(describe()),
        FailureKind::Version
    );
    let newer = Call::Hello(Hello {
        version: wire::VERSION + 1,
    });
    assert_eq!(
        Client::connect(&setup.paths()).refusal(newer),
        FailureKind::Version
    );
    let mut garbage = Client::connect(&setup.paths());
    io::Write::write_all(&mut garbage.0, &[0xff; 32]).unwrap();
    assert!(
        !matches!(wire::read::<Reply>(&mut garbage.0), Ok(Some(_))),
        "the connection ends"
    );
    let mut client = server.client();
    for hold in [0, u64::MAX] {
        assert_eq!(
            client.refusal(Call::Hold(Hold { max_hold_us: hold })),
            FailureKind::Invalid
        );
    }
    let release = |id: &[u8]| {
        Call::ReleaseSnapshot(ReleaseSnapshot {
            snapshot_id: id.to_vec().into(),
        })
    };
    assert_eq!(client.refusal(release(&[1; 15])), FailureKind::Invalid);
    assert_eq!(
        client.refusal(release(&[1; 16])),
        FailureKind::SnapshotNotFound
    );
    let gone = Call::Changes(Changes {
        since_epoch: 77,
        ..Changes::default()
    });
    assert_eq!(client.refusal(gone), FailureKind::CheckpointGone);
    let other = Call::Changes(Changes {
        lineage: vec![1; 16].into(),
        since_epoch: 1,
        ..Changes::default()
    });
    assert_eq!(client.refusal(other), FailureKind::TrackingReset);
    let token = client.hold();
    let wrong = Cut {
        token,
        snapshot_id: vec![1; 3].into(),
    };
    assert_eq!(client.refusal(Call::Cut(wrong)), FailureKind::Invalid);
    client.ask(Call::Unhold(Unhold { token }));
    let events = client.ask(Call::WaitEvents(WaitEvents {
        after_sequence: 0,
        wait_us: 1,
    }));
    assert!(matches!(events, Answer::Events(_)));
    let crowd: Vec<_> = (0..16).map(|_| Client::connect(&setup.paths())).collect();
    let mut turned_away = Client::connect(&setup.paths());
    let reply = wire::read::<Reply>(&mut turned_away.0).unwrap().unwrap();
    let expected = failure(FailureKind::Limit, "").kind;
    assert!(matches!(reply.result, Some(Answer::Failure(told)) if told.kind == expected));
    drop(crowd);
}

#[test]
fn what_cannot_be_served_is_refused_with_its_reason() {
    let Some(setup) = Setup::new() else { return };
    let with = |change: &dyn Fn(&mut VolumeArgs)| {
        let mut args = setup.args.clone();
        args.name = "other".to_owned();
        args.volume_id = Id([3; 16]);
        change(&mut args);
        Setup {
            args,
            dir: tempfile::tempdir().unwrap(),
        }
        .refused()
    };
    let file = |name: &str, len: u64| {
        let path = setup.dir.path().join(name);
        File::create(&path).unwrap().set_len(len).unwrap();
        path
    };
    let area = setup.dir.path().join("new area");
    let image = file("image", 1 << 20);
    assert_eq!(
        with(&|args| args.origin = "/nonexistent".into()),
        StartFailure::OriginUnsuitable
    );
    assert_eq!(
        with(&|args| args.origin = "/dev/null".into()),
        StartFailure::OriginUnsuitable
    );
    assert_eq!(
        with(&|args| args.origin = file("empty", 0)),
        StartFailure::OriginUnsuitable
    );
    assert_eq!(
        with(&|args| args.block_bytes = 5000),
        StartFailure::OriginUnsuitable
    );
    assert_eq!(
        with(&|args| args.area = args.origin.clone()),
        StartFailure::AreaOnVolume
    );
    assert_eq!(
        with(&|args| args.area_size = Some(1 << 60)),
        StartFailure::AreaNoSpace
    );
    assert_eq!(
        with(&|args| args.area_size = Some(4096)),
        StartFailure::AreaNoSpace
    );
    let junk = file("junk", 0);
    fs::write(&junk, vec![7; 1 << 20]).unwrap();
    assert_eq!(
        with(&|args| args.area = junk.clone()),
        StartFailure::AreaCorrupt
    );
    assert!(
        !setup.args.area.exists(),
        "a failed start leaves no area behind"
    );

    let server = setup.start();
    assert_eq!(
        setup.refused(),
        StartFailure::OriginInUse,
        "a second server"
    );
    assert_eq!(
        with(&|args| args.area = area.clone()),
        StartFailure::OriginInUse,
        "a second volume"
    );
    assert_eq!(
        with(&|args| args.origin = image.clone()),
        StartFailure::AreaInUse
    );
    assert_eq!(
        server.client().describe().name,
        "data",
        "the first is not harmed"
    );
    drop(server);
    assert_eq!(
        with(&|args| args.origin = image.clone()),
        StartFailure::AreaCorrupt,
        "another volume's"
    );
}

#[test]
fn an_aborted_connection_is_noticed() {
    let Some(setup) = Setup::new() else { return };
    let server = setup.start();
    assert!(server.running.is_serving());
    let minor = fs::metadata(setup.paths().mount_point()).unwrap().dev() & 0xff;
    crate::transport::portable::abort_connection(minor);
    while server.running.is_serving() {
        thread::yield_now();
    }
    let Server {
        mut running, stops, ..
    } = server;
    assert!(stop::serve_until_stopped(&mut running, &stops).is_err());
}
