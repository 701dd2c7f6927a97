//! Layers of device-mapper.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tidemark_tests::{
    lvm::mapped_device,
    programs::{printed, run, succeed},
};

use super::{COW_SECTORS, Disks, SECTORS, layers::Layer, measure::fill};

/// Devices made one over the other; removed from the top when dropped.
#[derive(Default)]
pub(super) struct Stack {
    names: Vec<String>,
    top: PathBuf,
}

impl Stack {
    /// Lays one more on top and gives its node.
    pub(super) fn add(&mut self, name: &str, table: &str) -> PathBuf {
        let words = ["create", "--noudevsync", name, "--table"];
        succeed(Command::new("dmsetup").args(words).arg(table));
        self.names.push(name.to_owned());
        self.top = mapped_device(name);
        self.top.clone()
    }

    /// The uppermost.
    pub(super) fn top(&self) -> &Path {
        &self.top
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        for name in self.names.iter().rev() {
            let words = ["remove", "--noudevsync", "--retry", name];
            let output = run(Command::new("dmsetup").args(words));
            if !output.status.success() {
                eprintln!("{name} stays: {}", printed(&output));
            }
        }
    }
}

/// A stack as a layer.
pub(super) struct Mapped<'a> {
    disks: &'a Disks,
    make: fn(&Disks) -> Stack,
    stack: Stack,
    has_snapshot: bool,
}

impl<'a> Mapped<'a> {
    /// Lays one of the stacks below over the disk.
    pub(super) fn boxed(disks: &'a Disks, make: fn(&Disks) -> Stack) -> Box<dyn Layer + 'a> {
        Box::new(Self::over(disks, make, false))
    }

    /// Likewise, one with a snapshot.
    pub(super) fn with_snapshot(
        disks: &'a Disks,
        make: fn(&Disks) -> Stack,
    ) -> Box<dyn Layer + 'a> {
        Box::new(Self::over(disks, make, true))
    }

    fn over(disks: &'a Disks, make: fn(&Disks) -> Stack, has_snapshot: bool) -> Self {
        disks.clear();
        Self {
            disks,
            make,
            stack: make(disks),
            has_snapshot,
        }
    }
}

impl Layer for Mapped<'_> {
    fn device(&self) -> &Path {
        &self.stack.top
    }

    fn has_snapshot(&self) -> bool {
        self.has_snapshot
    }

    fn renew(&mut self) {
        drop(std::mem::take(&mut self.stack));
        self.disks.clear();
        self.stack = (self.make)(self.disks);
    }
}

pub(super) fn linear(disks: &Disks) -> Stack {
    let mut stack = Stack::default();
    let table = format!("0 {SECTORS} linear {} 0", disks.main.display());
    stack.add("bench", &table);
    stack
}

pub(super) fn era(disks: &Disks) -> Stack {
    let mut stack = Stack::default();
    let (meta, main) = (disks.meta.display(), disks.main.display());
    stack.add("bench", &format!("0 {SECTORS} era {meta} {main} 128"));
    stack
}

pub(super) fn snapshot(disks: &Disks) -> Stack {
    let mut stack = Stack::default();
    let (cow, main) = (disks.cow.display(), disks.main.display());
    stack.add(
        "bench-snap",
        &format!("0 {SECTORS} snapshot {main} {cow} P 32"),
    );
    stack.add("bench", &format!("0 {SECTORS} snapshot-origin {main}"));
    stack
}

/// A thin volume that was written whole and then had a snapshot taken; it lies on the second disk
/// alone.
pub(super) fn thin_snapshot(disks: &Disks) -> Stack {
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
