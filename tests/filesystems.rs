//! Real file systems in use: what is pulled is what was there, to the byte.
//!
//! Each story mounts a file system on a volume whose size is no multiple of any block, keeps fio
//! and a churn of files going, and takes snapshots at random moments. What it pulls must equal the
//! view, be sound for the file system's own checker, and be the same whether it came in one piece
//! or as a chain of increments.

use std::{path::PathBuf, time::Duration};

use tidemark_proto::v1::{Checkpoint, Consistency, Snapshot};
use tidemark_tests::{
    Api, Daemon, Fio, FsKind, MIB, Mounted, Random, churn::Churn, fio, image, pull, world,
};

const ROUNDS: usize = 4;
const AREA_BYTES: u64 = 512 * MIB;

#[test]
fn ext4_pulled_under_load_is_exact_and_sound() {
    Story::new(FsKind::Ext4, 160 * MIB + 3 * 512).tell();
}

#[test]
fn ext4_on_a_size_that_no_sector_divides() {
    Story::new(FsKind::Ext4, 160 * MIB + 777).tell();
}

#[test]
fn xfs_pulled_under_load_is_exact_and_sound() {
    Story::new(FsKind::Xfs, 320 * MIB + 5 * 512).tell();
}

#[test]
fn btrfs_pulled_under_load_is_exact_and_sound() {
    Story::new(FsKind::Btrfs, 288 * MIB + 3 * 512 + 1).tell();
}

struct Story {
    daemon: Daemon,
    api: Api,
    kind: FsKind,
    random: Random,
    device: PathBuf,
    /// The image that grows by increments.
    chain: PathBuf,
    base: Option<Checkpoint>,
}

impl Story {
    fn new(kind: FsKind, bytes: u64) -> Self {
        let daemon = Daemon::start();
        let random = Random::announced(kind.name());
        let volume = daemon.attach_new("vol", bytes, AREA_BYTES);
        assert_eq!(volume.capacity_bytes, bytes);
        Self {
            api: daemon.api(),
            kind,
            random,
            device: volume.device_path.into(),
            chain: daemon.path("chain.img"),
            base: None,
            daemon,
        }
    }

    fn tell(mut self) {
        let point = self.daemon.path("mnt");
        let mounted = Mounted::fresh(self.kind, &self.device, &point);
        let load = point.join("fio");
        std::fs::create_dir(&load).expect("a directory can be made");
        let mut fio = Fio::verifying(&load, &self.daemon.path("fio.json"), 32 * MIB).start();
        let churn = Churn::start(&point.join("churn"), self.random.next_u64());
        fio::await_load(&load);

        for round in 0..ROUNDS {
            let pause = self.random.between(50, 1500);
            std::thread::sleep(Duration::from_millis(pause));
            if round % 2 == 1 {
                mounted.trim();
            }
            self.round();
            fio.assert_busy();
        }

        assert!(churn.stop() > 0, "files were changed");
        assert!(fio.stop().written_bytes() > 0, "fio wrote");
        drop(mounted);
        self.end();
    }

    /// One snapshot, pulled as an increment and whole, both held against the view.
    fn round(&mut self) {
        let snapshot = self.api.snapshot("vol");
        assert_eq!(snapshot.consistency(), Consistency::FileSystem);
        self.extend_chain(&snapshot);
        image::assert_same(snapshot.view_path.as_ref(), &self.chain);

        let whole = self.daemon.path("whole.img");
        pull::pull(&self.api, &snapshot, None, &whole).expect("a full pull");
        image::assert_same(&whole, &self.chain);

        let by_command = self.daemon.world().text("command.img");
        self.daemon.cli().ok(&["pull", &snapshot.id, &by_command]);
        image::assert_same(by_command.as_ref(), &self.chain);

        self.kind.assert_sound(&self.chain, self.daemon.world());
        self.api.release(&snapshot.id).expect("a release");
    }

    fn extend_chain(&mut self, snapshot: &Snapshot) {
        let since = self.base.take();
        let incremental = since.is_some();
        let pulled = pull::pull(&self.api, snapshot, since, &self.chain).expect("a pull");
        if incremental {
            assert!(
                pulled.data_bytes < snapshot.capacity_bytes,
                "an increment is not the whole volume"
            );
        }
        self.base.clone_from(&snapshot.checkpoint);
    }

    /// At rest, the last increment makes the chain equal to the origin itself.
    fn end(mut self) {
        let snapshot = self.api.snapshot("vol");
        assert_eq!(
            snapshot.consistency(),
            Consistency::Crash,
            "nothing is mounted"
        );
        self.extend_chain(&snapshot);
        self.api.release(&snapshot.id).expect("a release");
        self.api.detach("vol", false).expect("a detach");
        image::assert_same(&self.daemon.path("vol.img"), &self.chain);
        self.kind.assert_sound(&self.chain, self.daemon.world());

        // Nothing is mounted now, so that every kind can show that its files read well.
        let point = self.daemon.path("restored");
        let restored = Mounted::new(self.kind, &self.chain, &point);
        let words = ["-r", "-q", ".", &world::text(restored.point())].map(str::to_owned);
        let read = std::process::Command::new("grep").args(&words).status();
        assert!(
            read.is_ok_and(|status| status.code() == Some(0)),
            "files can be read"
        );
    }
}
