//! What layers cost over the same disk, as ratios within one run: `make bench-vm`.
//!
//! Over memory (brd), and over a null_blk that takes 100 us a request, like an SSD. Each number is
//! the middle of some ratios, each of a run on the layer to the runs on the bare disk before and
//! after it: emulated numbers mean nothing by themselves, and the host has other things to do.
//!
//! | variable | what it does |
//! |---|---|
//! | `TIDEMARK_BENCH_LAYERS` | only layers whose name begins with one of these, between commas |
//! | `TIDEMARK_BENCH_CASES` | only cases whose name begins with one of these |
//! | `TIDEMARK_BENCH_ROUNDS` | ratios a number is the middle of, 3 unless told |

mod interposer;
mod layers;
mod mapped;
mod measure;
mod rublk;

use std::{path::PathBuf, process::Command};

use layers::{LAYERS, Layer};
use measure::{CASES, Case, Measured};
use tidemark_tests::{MIB, lvm::mapped_device, programs::succeed, table::Table};

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
    let mut bare = vec![Vec::new(); cases.len()];
    let layers = LAYERS
        .iter()
        .filter(|(name, _)| chosen("TIDEMARK_BENCH_LAYERS", name));
    measure::fill(&disks.main);
    for (name, make) in layers {
        disks.clear();
        let Some(mut layer) = make(disks) else {
            println!("{name}: cannot be measured here");
            continue;
        };
        measure::fill(layer.device());
        let found = row(disks, &mut *layer, &cases);
        for (all, one) in bare.iter_mut().zip(&found) {
            all.extend(one.iter().map(|measured| measured.bare));
        }
        let mut cells = vec![(*name).to_owned()];
        cells.extend(found.iter().map(|one| measure::cell(one.as_ref())));
        println!("{}", cells.join(" | "));
        table.row(&cells);
    }
    let mut cells = vec!["(bare, requests a second)".to_owned()];
    cells.extend(bare.into_iter().map(measure::middle));
    table.row(&cells);
    println!("{table}");
}

fn row(disks: &Disks, layer: &mut dyn Layer, cases: &[&Case]) -> Vec<Option<Measured>> {
    let row = cases
        .iter()
        .map(|case| measure::interleaved(&disks.main, layer, case))
        .collect();
    if let Some(note) = layer.note() {
        println!("{note}");
    }
    row
}

fn chosen(variable: &str, name: &str) -> bool {
    std::env::var(variable).map_or(true, |wanted| {
        wanted.split(',').any(|begin| name.starts_with(begin))
    })
}
