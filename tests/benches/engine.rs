//! The engine alone on disks in memory: requests a second and core, what marking and preserving
//! cost, memory a TiB, and the listing of a large diff.

use std::{
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use futures_lite::future::block_on;
use tidemark_agent::disk::{Disk, memory::MemoryDisk};
use tidemark_store::units::Id;
use tidemark_tests::{
    MIB, Random,
    engine::{BLOCK, Engine, Void},
    table::{Table, median, ratio},
};

const VOLUME: u64 = 512 * MIB;
const BLOCKS: u64 = VOLUME / BLOCK;
const ROUNDS: usize = 5;
const TIB: u64 = 1 << 40;

fn main() {
    // Before the others leave memory with the allocator.
    memory();
    requests();
    listing();
}

/// Time a request in nanoseconds, each block of the volume once in random order.
#[derive(Default)]
struct Costs {
    bare_write: Vec<f64>,
    first_mark: Vec<f64>,
    marked: Vec<f64>,
    first_touch: Vec<f64>,
    preserved: Vec<f64>,
    bare_read: Vec<f64>,
    read: Vec<f64>,
}

fn requests() {
    let mut costs = Costs::default();
    let order = shuffled(BLOCKS);
    let bytes = [0x5A; 4096];
    for round in 0..ROUNDS {
        measure(&mut costs, &order, &bytes, round);
    }
    print_requests(costs);
}

fn measure(costs: &mut Costs, order: &[u64], bytes: &[u8], round: usize) {
    let bare = written(order, bytes);
    costs.bare_write.push(time(order, |block| {
        block_on(bare.write(block * BLOCK, bytes, false)).expect("memory takes a write");
    }));
    let mut into = [0; 4096];
    costs.bare_read.push(time(order, |block| {
        block_on(bare.read(block * BLOCK, &mut into)).expect("memory gives a read");
    }));
    drop(bare);

    // As large as the volume and something for the area's own: nothing is dropped.
    let engine = Engine::open(written(order, bytes), MemoryDisk::new(VOLUME + 64 * MIB));
    costs
        .first_mark
        .push(time(order, |block| engine.write(block, bytes)));
    costs
        .marked
        .push(time(order, |block| engine.write(block, bytes)));
    costs
        .read
        .push(time(order, |block| engine.read(block, &mut into)));
    let id = Id([u8::try_from(round + 1).expect("few rounds"); 16]);
    engine.cut(Some(id));
    costs
        .first_touch
        .push(time(order, |block| engine.write(block, bytes)));
    costs
        .preserved
        .push(time(order, |block| engine.write(block, bytes)));
    let kept = engine.volume.status().counters.preserved_bytes;
    assert_eq!(kept, VOLUME, "each block was kept once");
    black_box(into);
}

/// A disk whose memory is there, so that no run pays for the kernel's pages.
fn written(order: &[u64], bytes: &[u8]) -> MemoryDisk {
    let disk = MemoryDisk::new(VOLUME);
    for block in order {
        block_on(disk.write(block * BLOCK, bytes, false)).expect("memory takes a write");
    }
    disk
}

fn time(order: &[u64], mut request: impl FnMut(u64)) -> f64 {
    let start = Instant::now();
    for block in order {
        request(*block);
    }
    nanoseconds(start.elapsed()) / count(order.len())
}

fn print_requests(costs: Costs) {
    let (bare_write, bare_read) = (median(costs.bare_write), median(costs.bare_read));
    let mut table = Table::new(
        "Engine alone, one core, 4 KiB random requests on a disk in memory:",
        &[
            "request",
            "ns",
            "requests/s",
            "ratio to the bare disk",
            "added ns",
        ],
    );
    for (name, cost, bare) in [
        ("write, bare disk", bare_write, bare_write),
        (
            "write, first mark of a block",
            median(costs.first_mark),
            bare_write,
        ),
        ("write, block marked", median(costs.marked), bare_write),
        (
            "write, first touch under a snapshot",
            median(costs.first_touch),
            bare_write,
        ),
        (
            "write, block preserved",
            median(costs.preserved),
            bare_write,
        ),
        ("read, bare disk", bare_read, bare_read),
        ("read", median(costs.read), bare_read),
    ] {
        table.row(&[
            name.into(),
            format!("{cost:.0}"),
            format!("{:.0}", 1e9 / cost),
            ratio(bare, cost),
            format!("{:.0}", cost - bare),
        ]);
    }
    println!("{table}");
}

/// The memory of a volume of 1 TiB with a change in each page of its change map.
fn memory() {
    let before = resident();
    let engine = Engine::open(
        Void { capacity: TIB },
        Void {
            capacity: 512 * MIB,
        },
    );
    let empty = resident() + held_by(engine.state.path()) - before;
    let page_of_map = 4096 * 8;
    for block in (0..TIB / BLOCK).step_by(page_of_map) {
        engine.write(block, &[1; 4096]);
    }
    let marked = resident() + held_by(engine.state.path()) - before;
    println!(
        "\nMemory for tracking 1 TiB: {:.1} MiB with a change in each page of the map, {:.1} MiB with none.",
        mebibytes(marked),
        mebibytes(empty)
    );
}

/// The diff of 1 TiB with a million extents, as the server pages through it.
fn listing() {
    const EXTENTS: u64 = 1_000_000;
    const PAGE: usize = 4096;
    let engine = Engine::open(
        Void { capacity: TIB },
        Void {
            capacity: 512 * MIB,
        },
    );
    let since = engine.cut(None).checkpoint;
    let step = TIB / BLOCK / EXTENTS;
    for number in 0..EXTENTS {
        engine.write(number * step, &[1; 4096]);
    }
    let until = engine.cut(None).checkpoint;
    let mut table = Table::new(
        "Listing the diff of 1 TiB with a million extents:",
        &["listing", "seconds", "extents"],
    );
    for (name, until) in [
        ("between two checkpoints, first", Some(until.epoch)),
        ("between two checkpoints, again", Some(until.epoch)),
        ("until now", None),
    ] {
        let start = Instant::now();
        let (mut from, mut extents) = (Some(0), 0);
        while let Some(offset) = from {
            let page = engine
                .volume
                .changes(Some(since.lineage), since.epoch, until, offset, PAGE)
                .expect("a diff");
            extents += page.extents.len();
            from = page.next;
        }
        let seconds = start.elapsed().as_secs_f64();
        table.row(&[name.into(), format!("{seconds:.3}"), extents.to_string()]);
    }
    println!("{table}");
}

fn shuffled(blocks: u64) -> Vec<u64> {
    let mut random = Random::new(1);
    let mut order: Vec<u64> = (0..blocks).collect();
    for last in (1..order.len()).rev() {
        let other = random.below(u64::try_from(last + 1).expect("an index fits"));
        order.swap(last, usize::try_from(other).expect("an index fits"));
    }
    order
}

/// Anonymous memory of this process in bytes; mapped state is counted by its files.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process has a status");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("the kernel counts memory") * 1024
}

fn held_by(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).expect("a directory can be listed");
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => held_by(&entry.path()),
            Ok(data) => data.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("a count of this benchmark fits"))
}

fn mebibytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1024).expect("less than 4 TiB")) / 1024.0
}
