//! fio on a layer and on the bare disk in turns.

use std::{path::Path, process::Command};

use tidemark_tests::{Fio, programs::succeed, table};

use super::{SIZE_MIB, layers::Layer};

const SECONDS: u32 = 1;
const ROUNDS: usize = 3;

/// A column: a name, and fio's options.
pub(super) struct Case {
    pub(super) name: &'static str,
    options: &'static str,
    /// Each run writes to each 64 KiB of the volume once, under a snapshot that has kept nothing.
    /// In ascending order: fio's random offsets would meet some twice and some never.
    first_touch: bool,
}

const fn steady(name: &'static str, options: &'static str) -> Case {
    Case {
        name,
        options,
        first_touch: false,
    }
}

const fn first_touch(name: &'static str, options: &'static str) -> Case {
    Case {
        name,
        options,
        first_touch: true,
    }
}

/// A write to each 64 KiB.
const FIRST_TOUCHES: u64 = SIZE_MIB * 16;

/// Steady ones first: they want a snapshot whose old data is all kept.
pub(super) const CASES: [Case; 10] = [
    steady("4k write q1", "rw=randwrite bs=4k iodepth=1"),
    steady("4k write q32", "rw=randwrite bs=4k iodepth=32"),
    steady("4k read q1", "rw=randread bs=4k iodepth=1"),
    steady("4k read q32", "rw=randread bs=4k iodepth=32"),
    steady("128k write q1", "rw=write bs=128k iodepth=1"),
    steady("128k write q32", "rw=write bs=128k iodepth=32"),
    steady("128k read q1", "rw=read bs=128k iodepth=1"),
    steady("128k read q32", "rw=read bs=128k iodepth=32"),
    first_touch("first touch q1", "rw=write:60k bs=4k io_size=16m iodepth=1"),
    first_touch(
        "first touch q32",
        "rw=write:60k bs=4k io_size=16m iodepth=32",
    ),
];

/// What a case gave.
#[derive(Clone, Copy)]
pub(super) struct Measured {
    ratio: f64,
    /// Requests a second of the bare disk.
    pub(super) bare: f64,
}

/// Bare, layer, bare, layer, bare: the middle of the ratios. `None` where the case has no
/// meaning for the layer.
pub(super) fn interleaved(bare: &Path, layer: &mut dyn Layer, case: &Case) -> Option<Measured> {
    if case.first_touch && !layer.has_snapshot() {
        return None;
    }
    let mut before = measure(bare, case);
    let mut bares = vec![before];
    let mut ratios = Vec::new();
    for _ in 0..rounds() {
        if case.first_touch {
            layer.renew();
        }
        let found = measure(layer.device(), case);
        if case.first_touch {
            layer.touched(FIRST_TOUCHES);
        }
        let after = measure(bare, case);
        ratios.push(found / f64::midpoint(before, after));
        bares.push(after);
        before = after;
    }
    Some(Measured {
        ratio: table::median(ratios),
        bare: table::median(bares),
    })
}

fn rounds() -> usize {
    let told = std::env::var("TIDEMARK_BENCH_ROUNDS").ok();
    told.and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

/// Requests a second.
fn measure(device: &Path, case: &Case) -> f64 {
    let reports = tempfile::tempdir().expect("a temporary folder can be made");
    let fio = case.options.split(' ').fold(
        Fio::new(&reports.path().join("fio.json"))
            .option(&format!("filename={}", device.display()))
            .option(&format!("size={SIZE_MIB}m"))
            .option("ioengine=libaio")
            .option("direct=1"),
        Fio::option,
    );
    let report = if case.first_touch {
        fio.run()
    } else {
        fio.option("time_based")
            .option("norandommap")
            .option(&format!("runtime={SECONDS}"))
            .run()
    };
    report.read_iops() + report.write_iops()
}

/// Writes all of a device, and waits for what that sets off.
pub(super) fn fill(device: &Path) {
    let (to, count) = (
        format!("of={}", device.display()),
        format!("count={SIZE_MIB}"),
    );
    succeed(Command::new("dd").args(["if=/dev/zero", &to, "bs=1M", &count, "oflag=direct"]));
    succeed(&mut Command::new("sync"));
}

/// A ratio for the table.
pub(super) fn cell(measured: Option<&Measured>) -> String {
    measured.map_or_else(|| "-".to_owned(), |one| format!("{:.2}", one.ratio))
}

/// The middle of numbers for the table.
pub(super) fn middle(numbers: Vec<f64>) -> String {
    format!("{:.0}", table::median(numbers))
}
