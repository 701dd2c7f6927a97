//! One volume server as a child process, and a client of its private protocol.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tidemark_agent::{
    host::memory_dir,
    paths::{Paths, VolumePaths},
    server::{
        outcome::{Outcome, StartFailure},
        wire,
    },
};
use tidemark_proto::private::{
    Cut, CutReply, Describe, Description, ExtentPage, FailureKind, Hello, Hold, Reply, Request,
    reply::Result as Answer, request::Call,
};
use tidemark_store::units::Id;

/// Size of the origin: neither a multiple of a block nor of a sector.
pub(super) const SIZE: u64 = (8 << 20) + 1_234;

/// The command line of one volume server.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) name: String,
    pub(super) runtime_dir: PathBuf,
    pub(super) origin: PathBuf,
    pub(super) area: PathBuf,
    pub(super) area_size: u64,
    pub(super) block_bytes: u32,
    pub(super) volume_id: Id,
}

impl Setup {
    /// `None` where the host cannot.
    pub(super) fn new(dir: &Path) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("skipped: needs root and /dev/fuse");
            return None;
        }
        let origin = dir.join("origin");
        File::create(&origin).unwrap().set_len(SIZE).unwrap();
        Some(Self {
            name: "data".to_owned(),
            runtime_dir: dir.join("run"),
            origin,
            area: dir.join("area"),
            area_size: 16 << 20,
            block_bytes: 4096,
            volume_id: Id(*b"volume identity."),
        })
    }

    pub(super) fn agent(&self) -> Paths {
        Paths {
            runtime_dir: self.runtime_dir.clone(),
            state_dir: PathBuf::new(),
        }
    }

    pub(super) fn paths(&self) -> VolumePaths {
        self.agent().volume(&self.name)
    }

    pub(super) fn spawn(&self) -> (Child, Outcome) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidemarkd"))
            .args(["volume", &self.name])
            .arg("--runtime-dir")
            .arg(&self.runtime_dir)
            .arg("--origin")
            .arg(&self.origin)
            .arg("--area")
            .arg(&self.area)
            .args(["--area-size", &self.area_size.to_string()])
            .args(["--block-bytes", &self.block_bytes.to_string()])
            .args(["--volume-id", &self.volume_id.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let outcome = Outcome::parse(&line).unwrap_or_else(|| panic!("no outcome: {line:?}"));
        (child, outcome)
    }

    pub(super) fn start(&self) -> Server {
        let (child, outcome) = self.spawn();
        let server = Server {
            child,
            setup: self.clone(),
        };
        assert!(matches!(outcome, Outcome::Ready { .. }), "{outcome:?}");
        server
    }

    fn state_dir(&self) -> PathBuf {
        memory_dir::locate(&self.agent(), &self.name).unwrap()
    }

    pub(super) fn refused(&self) -> StartFailure {
        let (mut child, outcome) = self.spawn();
        assert!(
            !matches!(outcome, Outcome::Ready { .. }) || child.kill().is_err(),
            "it started"
        );
        assert!(!child.wait().unwrap().success());
        // A refused server left nothing in it; another one's state keeps it.
        drop(self.state_dir().parent().map(fs::remove_dir));
        match outcome {
            Outcome::Failed { kind, .. } => kind,
            Outcome::Ready { .. } => unreachable!(),
        }
    }
}

/// A running server; nothing of it is left when it is dropped.
pub(super) struct Server {
    pub(super) child: Child,
    pub(super) setup: Setup,
}

impl Server {
    pub(super) fn client(&self) -> Client {
        let mut client = Client::connect(&self.setup.paths());
        let hello = Hello {
            version: wire::VERSION,
        };
        assert!(matches!(client.ask(Call::Hello(hello)), Answer::Hello(_)));
        client
    }

    pub(super) fn live(&self) -> File {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.setup.paths().live())
            .unwrap()
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    pub(super) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        let device = fs::read_link(self.setup.paths().device_link());
        let mut was_mounted = false;
        while umount2(&self.setup.paths().mount_point(), MntFlags::MNT_DETACH).is_ok() {
            was_mounted = true;
        }
        if let Ok(device) = device
            && was_mounted
        {
            Command::new("losetup")
                .arg("-d")
                .arg(device)
                .status()
                .unwrap();
        }
        let state = self.setup.state_dir();
        // Gone already where all went well.
        drop(fs::remove_dir_all(&state));
        drop(state.parent().map(fs::remove_dir));
    }
}

pub(super) struct Client(pub(super) UnixStream);

impl Client {
    pub(super) fn connect(paths: &VolumePaths) -> Self {
        Self(UnixStream::connect(paths.control_socket()).unwrap())
    }

    pub(super) fn ask(&mut self, call: Call) -> Answer {
        wire::write(&mut self.0, &Request { call: Some(call) }).unwrap();
        wire::read::<Reply>(&mut self.0)
            .unwrap()
            .unwrap()
            .result
            .unwrap()
    }

    pub(super) fn refusal(&mut self, call: Call) -> FailureKind {
        match self.ask(call) {
            Answer::Failure(failure) => failure.kind(),
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(super) fn describe(&mut self) -> Description {
        match self.ask(Call::Describe(Describe {})) {
            Answer::Description(description) => description,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn hold(&mut self) -> u64 {
        match self.ask(Call::Hold(Hold {
            max_hold_us: 5_000_000,
        })) {
            Answer::Held(held) => held.token,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn snapshot(&mut self, id: Id) -> CutReply {
        let token = self.hold();
        match self.ask(Call::Cut(Cut {
            token,
            snapshot_id: id.0.to_vec().into(),
        })) {
            Answer::Cut(cut) => cut,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn page(&mut self, call: Call) -> ExtentPage {
        match self.ask(call) {
            Answer::Extents(page) => page,
            other => panic!("{other:?}"),
        }
    }
}
