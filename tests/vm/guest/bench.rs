//! What layers of device-mapper cost over the same disk, as ratios within one run: `make bench-vm`.
//!
//! Over memory (brd), and over a null_blk that takes 100 us a request, like an SSD. Emulated
//! numbers mean nothing by themselves. A new row is one more entry in `LAYERS`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tidemark_tests::{
    Fio,
    lvm::mapped_device,
    programs::{run, succeed},
    table::{Table, ratio},
};

/// What fio uses of each disk, and the sectors of it.
const SIZE_MIB: u64 = 128;
const SECTORS: u64 = SIZE_MIB * 2048;
/// The first 16 MiB of the second disk are for metadata, the rest for old data.
const META_SECTORS: u64 = 16 * 2048;
const COW_SECTORS: u64 = 384 * 2048;
const SECONDS: u32 = 2;

/// Columns: a name, and fio's options. The last two touch each 64 KiB once, which is what a
/// snapshot costs at the first write.
const CASES: [(&str, &str); 10] = [
    ("4k write q1", "rw=randwrite bs=4k iodepth=1"),
    ("4k write q32", "rw=randwrite bs=4k iodepth=32"),
    ("4k read q1", "rw=randread bs=4k iodepth=1"),
    ("4k read q32", "rw=randread bs=4k iodepth=32"),
    ("128k write q1", "rw=write bs=128k iodepth=1"),
    ("128k write q32", "rw=write bs=128k iodepth=32"),
    ("128k read q1", "rw=read bs=128k iodepth=1"),
    ("128k read q32", "rw=read bs=128k iodepth=32"),
    (
        "first touch q1",
        "rw=randwrite bs=4k ba=64k io_size=8m iodepth=1",
    ),
    (
        "first touch q32",
        "rw=randwrite bs=4k ba=64k io_size=8m iodepth=32",
    ),
];
const FIRST_TOUCH: &str = "first touch";

/// Rows: a name, and what makes the device over a pair of disks.
type Layer = (&'static str, fn(&Disks) -> Stack);
const LAYERS: [Layer; 5] = [
    ("raw", raw),
    ("dm-linear", linear),
    ("dm-era 64k", era),
    ("dm-snapshot 16k", snapshot),
    ("dm-thin snapshot 64k", thin_snapshot),
];

/// A disk to measure on, and one for what a layer keeps.
struct Disks {
    name: &'static str,
    main: PathBuf,
    /// Parts of the second disk.
    meta: PathBuf,
    cow: PathBuf,
    _parts: Stack,
}

impl Disks {
    fn new(name: &'static str, main: &str, second: &str) -> Self {
        let mut parts = Stack::default();
        let table = format!("0 {META_SECTORS} linear {second} 0");
        let meta = parts.add("bench-meta", &table);
        let table = format!("0 {COW_SECTORS} linear {second} {META_SECTORS}");
        let cow = parts.add("bench-cow", &table);
        Self {
            name,
            main: main.into(),
            meta,
            cow,
            _parts: parts,
        }
    }

    /// Makes the metadata empty, as a new snapshot and a new pool want it.
    fn clear(&self) {
        for disk in [&self.meta, &self.cow] {
            let to = format!("of={}", disk.display());
            let words = ["if=/dev/zero", &to, "bs=64k", "count=4", "oflag=direct"];
            succeed(Command::new("dd").args(words));
        }
    }
}

/// Devices made one over the other; removed from the top when dropped.
#[derive(Default)]
struct Stack {
    names: Vec<String>,
    top: PathBuf,
}

impl Stack {
    fn add(&mut self, name: &str, table: &str) -> PathBuf {
        let words = ["create", "--noudevsync", name, "--table"];
        succeed(Command::new("dmsetup").args(words).arg(table));
        self.names.push(name.to_owned());
        self.top = mapped_device(name);
        self.top.clone()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        for name in self.names.iter().rev() {
            let words = ["remove", "--noudevsync", "--retry", name];
            let output = run(Command::new("dmsetup").args(words));
            if !output.status.success() {
                eprintln!(
                    "{name} stays: {}",
                    tidemark_tests::programs::printed(&output)
                );
            }
        }
    }
}

fn raw(disks: &Disks) -> Stack {
    Stack {
        names: Vec::new(),
        top: disks.main.clone(),
    }
}

fn linear(disks: &Disks) -> Stack {
    let mut stack = Stack::default();
    stack.add(
        "bench",
        &format!("0 {SECTORS} linear {} 0", disks.main.display()),
    );
    stack
}

fn era(disks: &Disks) -> Stack {
    let mut stack = Stack::default();
    let (meta, main) = (disks.meta.display(), disks.main.display());
    stack.add("bench", &format!("0 {SECTORS} era {meta} {main} 128"));
    stack
}

fn snapshot(disks: &Disks) -> Stack {
    let mut stack = Stack::default();
    let (cow, main) = (disks.cow.display(), disks.main.display());
    stack.add(
        "bench-snap",
        &format!("0 {SECTORS} snapshot {main} {cow} P 32"),
    );
    stack.add("bench", &format!("0 {SECTORS} snapshot-origin {main}"));
    stack
}

/// A thin volume that was written whole and then had a snapshot taken; no disk of its own.
fn thin_snapshot(disks: &Disks) -> Stack {
    let mut stack = Stack::default();
    let (meta, cow) = (disks.meta.display(), disks.cow.display());
    let pool = stack.add(
        "bench-pool",
        &format!("0 {COW_SECTORS} thin-pool {meta} {cow} 128 0 1 skip_block_zeroing"),
    );
    let message = |words: &str| {
        succeed(Command::new("dmsetup").args(["message", "bench-pool", "0", words]));
    };
    message("create_thin 0");
    let thin = stack.add("bench", &format!("0 {SECTORS} thin {} 0", pool.display()));
    fill(&thin);
    succeed(Command::new("dmsetup").args(["suspend", "bench"]));
    message("create_snap 1 0");
    succeed(Command::new("dmsetup").args(["resume", "bench"]));
    stack
}

fn fill(device: &Path) {
    let (to, count) = (
        format!("of={}", device.display()),
        format!("count={SIZE_MIB}"),
    );
    succeed(Command::new("dd").args(["if=/dev/zero", &to, "bs=1M", &count, "oflag=direct"]));
}

/// Requests a second.
fn measure(device: &Path, case: (&str, &str)) -> f64 {
    let reports = tempfile::tempdir().expect("a temporary folder can be made");
    let fio = case.1.split(' ').fold(
        Fio::new(&reports.path().join("fio.json"))
            .option(&format!("filename={}", device.display()))
            .option(&format!("size={SIZE_MIB}m"))
            .option("ioengine=libaio")
            .option("direct=1"),
        Fio::option,
    );
    let report = if case.0.starts_with(FIRST_TOUCH) {
        fio.run()
    } else {
        fio.option("time_based")
            .option(&format!("runtime={SECONDS}"))
            .run()
    };
    report.read_iops() + report.write_iops()
}

/// Requests a second of each case. A first touch wants a snapshot that is new; the other cases
/// one whose old data is all kept.
fn row(disks: &Disks, layer: Layer) -> Vec<f64> {
    disks.clear();
    let mut stack = (layer.1)(disks);
    fill(&stack.top);
    let mut found = Vec::new();
    for case in CASES {
        if case.0.starts_with(FIRST_TOUCH) {
            drop(std::mem::take(&mut stack));
            disks.clear();
            stack = (layer.1)(disks);
        }
        found.push(measure(&stack.top, case));
    }
    found
}

/// Not a story: nothing is asserted, and it takes minutes.
#[test]
#[ignore = "is run by make bench-vm"]
fn ratios_to_the_raw_disk() {
    for words in [
        "brd rd_nr=2 rd_size=524288",
        "null_blk nr_devices=2 gb=1 memory_backed=1 irqmode=2 completion_nsec=100000",
    ] {
        succeed(Command::new("modprobe").args(words.split(' ')));
    }
    for disks in [
        || Disks::new("memory (brd)", "/dev/ram0", "/dev/ram1"),
        || Disks::new("100 us (null_blk)", "/dev/nullb0", "/dev/nullb1"),
    ] {
        let disks = disks();
        let mut columns = vec![disks.name];
        columns.extend(CASES.map(|(name, _)| name));
        let mut table = Table::new("Requests a second; below raw as ratios to it", &columns);
        let mut raw = Vec::new();
        for layer in LAYERS {
            let found = row(&disks, layer);
            let mut cells = vec![layer.0.to_owned()];
            if raw.is_empty() {
                cells.extend(found.iter().map(|iops| format!("{iops:.0}")));
                raw = found;
            } else {
                cells.extend(
                    found
                        .iter()
                        .zip(&raw)
                        .map(|(part, whole)| ratio(*part, *whole)),
                );
            }
            println!("{}", cells.join(" | "));
            table.row(&cells);
        }
        println!("{table}");
    }
}
