//! fio on a layer and on the bare disk.

use std::{path::Path, process::Command};

use tidemark_tests::{Fio, programs::succeed};

use super::{SIZE_MIB, layers::Layer};

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
    steady(
        "4k write q1",
        "rw=randwrite bs=4k iodepth=1 number_ios=1000",
    ),
    steady(
        "4k write q32",
        "rw=randwrite bs=4k iodepth=32 number_ios=16000",
    ),
    steady("4k read q1", "rw=randread bs=4k iodepth=1 number_ios=1000"),
    steady(
        "4k read q32",
        "rw=randread bs=4k iodepth=32 number_ios=16000",
    ),
    steady("128k write q1", "rw=write bs=128k iodepth=1 number_ios=400"),
    steady(
        "128k write q32",
        "rw=write bs=128k iodepth=32 number_ios=800",
    ),
    steady("128k read q1", "rw=read bs=128k iodepth=1 number_ios=400"),
    steady("128k read q32", "rw=read bs=128k iodepth=32 number_ios=800"),
    first_touch("first touch q1", "rw=write:60k bs=4k iodepth=1 io_size=16m"),
    first_touch(
        "first touch q32",
        "rw=write:60k bs=4k iodepth=32 io_size=16m",
    ),
];

/// Requests a second of each case on the bare disk.
pub(super) fn bare(disk: &Path, cases: &[&Case]) -> Vec<f64> {
    cases.iter().map(|case| measure(disk, case)).collect()
}

/// Requests a second of a case on a layer; `None` where the case has no meaning for it.
pub(super) fn on(layer: &mut dyn Layer, case: &Case) -> Option<f64> {
    if !case.first_touch {
        return Some(measure(layer.device(), case));
    }
    if !layer.has_snapshot() {
        return None;
    }
    layer.renew();
    let found = measure(layer.device(), case);
    layer.touched(FIRST_TOUCHES);
    Some(found)
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
    let report = fio.option("norandommap").run();
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
