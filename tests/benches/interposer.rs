//! fio through the whole interposer, against the same transport with nothing behind it.
//!
//! Both sides are a FUSE file under a loop device over an image on the same disk; the difference
//! is tracking and preserving, and that the interposer is a process of its own. Runs are
//! interleaved, so that a slow moment of the host hits both.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tidemark_agent::{
    disk::{Disk, Run, file::FileDisk},
    request::{Errno, Request},
    transport::{
        Backend, View,
        portable::{Options, Portable},
    },
};
use tidemark_proto::v1::{Snapshot, TrackingDurability};
use tidemark_store::units::Id;
use tidemark_tests::{
    Api, Daemon, Fio, MIB, Random,
    api::attach_request,
    host, image,
    table::{Table, median, ratio},
};

const BYTES: u64 = 512 * MIB;
const ROUNDS: usize = 3;
/// Of one run of fio.
const SECONDS: u32 = 3;

/// Reads and writes of the image, and nothing else.
struct PassThrough {
    origin: FileDisk,
}

impl Backend for PassThrough {
    fn capacity(&self) -> u64 {
        self.origin.capacity()
    }

    fn discard_zeroes(&self) -> bool {
        self.origin.discard_zeroes()
    }

    async fn serve(&self, request: Request<'_>) -> Result<(), Errno> {
        match request {
            Request::Read { offset, into } => self.origin.read(offset, into).await,
            Request::Write { offset, from, fua } => self.origin.write(offset, from, fua).await,
            Request::ReadRegistered { offset, into } => {
                self.origin.read_registered(offset, into).await
            }
            Request::WriteRegistered { offset, from, fua } => {
                self.origin.write_registered(offset, from, fua).await
            }
            Request::Flush => self.origin.flush().await,
            Request::Discard { range } => self.origin.discard(range).await,
            Request::WriteZeroes {
                range,
                fua,
                may_unmap,
            } => self.origin.write_zeroes(range, fua, may_unmap).await,
        }
    }

    fn views(&self) -> Vec<View> {
        Vec::new()
    }

    async fn read_view(&self, _id: Id, _offset: u64, _into: &mut [u8]) -> Result<(), Errno> {
        Err(Errno(libc::ESTALE))
    }

    async fn view_run(&self, _id: Id, _offset: u64) -> Result<Run, Errno> {
        Err(Errno(libc::ESTALE))
    }
}

/// One line of the table.
struct Load {
    name: &'static str,
    pattern: &'static str,
    block: &'static str,
    depth: u32,
}

const LOADS: [Load; 6] = [
    load("4 KiB random write, depth 1", "randwrite", "4k", 1),
    load("4 KiB random write, depth 32", "randwrite", "4k", 32),
    load("4 KiB random read, depth 1", "randread", "4k", 1),
    load("4 KiB random read, depth 32", "randread", "4k", 32),
    load("128 KiB sequential write", "write", "128k", 8),
    load("128 KiB sequential read", "read", "128k", 8),
];

const fn load(name: &'static str, pattern: &'static str, block: &'static str, depth: u32) -> Load {
    Load {
        name,
        pattern,
        block,
        depth,
    }
}

impl Load {
    fn writes(&self) -> bool {
        self.pattern.ends_with("write")
    }

    /// Requests a second. Each block is touched at most once when `once` is set.
    fn run(&self, device: &Path, report: &Path, once: bool) -> f64 {
        let fio = Fio::new(report)
            .option(&format!("filename={}", device.display()))
            .option(&format!("rw={}", self.pattern))
            .option(&format!("bs={}", self.block))
            .option(&format!("iodepth={}", self.depth))
            .option(&format!("size={}m", BYTES / MIB))
            .option(&format!("runtime={SECONDS}"))
            .option("direct=1")
            .option("ioengine=libaio");
        let fio = if once { fio } else { fio.option("time_based") };
        let report = fio.run();
        report.read_iops() + report.write_iops()
    }
}

/// The two devices that are compared.
struct Bench {
    daemon: Daemon,
    api: Api,
    bare: PathBuf,
    /// Its tracking ends with the host.
    volatile: PathBuf,
    interposed: PathBuf,
    /// Its snapshots outlive the host.
    kept: PathBuf,
    report: PathBuf,
    _transport: Portable,
}

fn main() {
    let bench = Bench::set_up();
    bench.warm_up();
    let mut table = Table::new(
        "fio through the interposer; ratio to the same transport with nothing behind it (median of 3):",
        &[
            "load",
            "pass-through IOPS",
            "tracking, volatile",
            "tracking, durable",
            "first touch under a snapshot",
            "first touch, durable snapshots",
            "snapshot live, steady",
        ],
    );
    for load in &LOADS {
        table.row(&bench.compare(load));
    }
    println!("{table}");
}

impl Bench {
    fn set_up() -> Self {
        let daemon = Daemon::start();
        let mut random = Random::new(1);
        let paths =
            ["bare.img", "volatile.img", "vol.img", "kept.img"].map(|name| daemon.path(name));
        for path in &paths {
            image::filled(path, BYTES, &mut random);
        }
        let [under_bare, under_volatile, origin, under_kept] = paths;
        let backend = Arc::new(PassThrough {
            origin: FileDisk::open(&under_bare).expect("an image opens"),
        });
        let transport = Portable::mount(&daemon.path("bare"), backend, &Options::default())
            .expect("a transport mounts");
        let device = transport.device_path().expect("the host has loop devices");
        let volume = daemon.attach("vol", &origin, 2 * BYTES).expect("an attach");
        let api = daemon.api();
        let area = daemon.path("volatile.area");
        let mut asked = attach_request("volatile", &under_volatile, &area, BYTES);
        let store = asked.store.as_mut().expect("a store is asked for");
        store.durability = TrackingDurability::Volatile.into();
        let volatile = api.attach(asked).expect("an attach");
        let area = daemon.path("kept.area");
        let mut asked = attach_request("kept", &under_kept, &area, 2 * BYTES);
        let store = asked.store.as_mut().expect("a store is asked for");
        store.durable_snapshots = true;
        let kept = api.attach(asked).expect("an attach");
        Self {
            api,
            bare: device.to_owned(),
            volatile: volatile.device_path.into(),
            interposed: volume.device_path.into(),
            kept: kept.device_path.into(),
            report: daemon.path("fio.json"),
            daemon,
            _transport: transport,
        }
    }

    /// Both images in the page cache, so that neither side's first run pays for the disk.
    fn warm_up(&self) {
        for device in [&self.bare, &self.volatile, &self.interposed, &self.kept] {
            for direction in ["read", "write"] {
                self.pass_over(device, direction);
            }
        }
    }

    fn compare(&self, load: &Load) -> [String; 7] {
        let [
            mut bare,
            mut volatile,
            mut durable,
            mut first,
            mut kept,
            mut steady,
        ] = [const { Vec::new() }; 6];
        for _ in 0..ROUNDS {
            let base = load.run(&self.bare, &self.report, false);
            bare.push(base);
            volatile.push(load.run(&self.volatile, &self.report, false) / base);
            durable.push(load.run(&self.interposed, &self.report, false) / base);
            let snapshot = self.api.snapshot("vol");
            if load.writes() {
                first.push(load.run(&self.interposed, &self.report, true) / base);
                self.pass_over(&self.interposed, "write");
                let durable = self.api.snapshot("kept");
                kept.push(load.run(&self.kept, &self.report, true) / base);
                self.end("kept", &durable);
            }
            steady.push(load.run(&self.interposed, &self.report, false) / base);
            self.end("vol", &snapshot);
        }
        let of_writes = |ratios: Vec<f64>| match ratios.is_empty() {
            true => "-".into(),
            false => ratio(median(ratios), 1.0),
        };
        [
            load.name.into(),
            format!("{:.0}", median(bare)),
            ratio(median(volatile), 1.0),
            ratio(median(durable), 1.0),
            of_writes(first),
            of_writes(kept),
            ratio(median(steady), 1.0),
        ]
    }

    /// Each block once.
    fn pass_over(&self, device: &Path, direction: &str) {
        Fio::new(&self.report)
            .option(&format!("filename={}", device.display()))
            .option(&format!("rw={direction}"))
            .option("bs=1m")
            .option("direct=1")
            .run();
    }

    /// A snapshot that lived to the end of a run is released.
    fn end(&self, volume: &str, snapshot: &Snapshot) {
        let now = self.api.get_snapshot(&snapshot.id).expect("it is there");
        assert!(!now.view_path.is_empty(), "the snapshot lived: {now:?}");
        self.api.release(&snapshot.id).expect("a release");
        host::eventually("the store is empty", || self.used_bytes(volume) == 0);
    }

    fn used_bytes(&self, volume: &str) -> u64 {
        let volume = self.daemon.api().volume(volume).expect("a volume");
        volume.store_status.expect("a store").used_bytes
    }
}
