//! What layers cost over the same disk, as ratios within one run: `make bench-vm`.
//!
//! Over memory (brd), and over a null_blk that takes 100 us a request, like an SSD. The guest's
//! time is counted (`vm::accel`): a second run gives the same, whatever else the host does.
//!
//! | variable | what it does |
//! |---|---|
//! | `TIDEMARK_BENCH_LAYERS` | only layers whose name begins with one of these, between commas |
//! | `TIDEMARK_BENCH_CASES` | only cases whose name begins with one of these |

mod interposer;
mod layers;
mod mapped;
mod measure;
mod rublk;

use std::{path::PathBuf, process::Command};

use layers::LAYERS;
use measure::{CASES, Case};
use tidemark_tests::{
    MIB,
    lvm::mapped_device,
    programs::succeed,
    table::{Table, ratio},
};

/// What is used of each disk under measurement.
const SIZE_MIB: u64 = 256;
const SECTORS: u64 = SIZE_MIB * 2048;
/// The first 16 MiB of the second disk are for metadata, the rest for old data.
const META_SECTORS: u64 = 16 * 2048;
const COW_SECTORS: u64 = 640 * 2048;

/// A disk to measure on, and one of its kind for what a layer keeps.
struct Disks {
    main: PathBuf,
    /// Parts of the second disk.
    meta: PathBuf,
    cow: PathBuf,
    _parts: mapped::Stack,
}

impl Disks {
    fn new(main: &str, second: &str) -> Self {
        let mut parts = mapped::Stack::default();
        let table = format!("0 {META_SECTORS} linear {second} 0");
        parts.add("bench-meta", &table);
        let table = format!("0 {COW_SECTORS} linear {second} {META_SECTORS}");
        parts.add("bench-cow", &table);
        Self {
            main: main.into(),
            meta: mapped_device("bench-meta"),
            cow: mapped_device("bench-cow"),
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

/// Not a story: nothing is asserted, and it takes minutes.
#[test]
#[ignore = "is run by make bench-vm"]
fn over_memory() {
    let size = format!("rd_size={}", (SIZE_MIB + 512) * MIB / 1024);
    succeed(Command::new("modprobe").args(["brd", "rd_nr=2", &size]));
    compare("memory (brd)", &Disks::new("/dev/ram0", "/dev/ram1"));
}

#[test]
#[ignore = "is run by make bench-vm"]
fn over_a_disk_of_100_us() {
    let words = "null_blk nr_devices=2 gb=1 memory_backed=1 irqmode=2 completion_nsec=100000";
    succeed(Command::new("modprobe").args(words.split(' ')));
    compare(
        "100 us (null_blk)",
        &Disks::new("/dev/nullb0", "/dev/nullb1"),
    );
}

/// Prints a row of ratios for each layer.
fn compare(what: &str, disks: &Disks) {
    let cases: Vec<&Case> = CASES
        .iter()
        .filter(|case| chosen("TIDEMARK_BENCH_CASES", case.name))
        .collect();
    let mut columns = vec![what];
    columns.extend(cases.iter().map(|case| case.name));
    let mut table = Table::new("Requests a second, as ratios to the bare disk", &columns);
    measure::fill(&disks.main);
    let bare = measure::bare(&disks.main, &cases);
    let mut cells = vec!["(bare, requests a second)".to_owned()];
    cells.extend(bare.iter().map(|iops| format!("{iops:.0}")));
    print(&mut table, &cells);
    let layers = LAYERS
        .iter()
        .filter(|(name, _)| chosen("TIDEMARK_BENCH_LAYERS", name));
    for (name, make) in layers {
        disks.clear();
        let Some(mut layer) = make(disks) else {
            println!("{name}: cannot be measured here");
            continue;
        };
        measure::fill(layer.device());
        let mut cells = vec![(*name).to_owned()];
        for (case, bare) in cases.iter().zip(&bare) {
            let found = measure::on(&mut *layer, case);
            cells.push(found.map_or_else(|| "-".to_owned(), |iops| ratio(iops, *bare)));
        }
        print(&mut table, &cells);
        if let Some(note) = layer.note() {
            println!("{note}");
        }
    }
    println!("{table}");
}

/// Into the table, and at once for who waits.
fn print(table: &mut Table, cells: &[String]) {
    println!("{}", cells.join(" | "));
    table.row(cells);
}

fn chosen(variable: &str, name: &str) -> bool {
    std::env::var(variable).map_or(true, |wanted| {
        wanted.split(',').any(|begin| name.starts_with(begin))
    })
}
