//! The loop target of rublk, a ublk server by libublk's author: what ublk itself costs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tidemark_tests::{
    host::eventually,
    programs::{printed, run, succeed},
};

use super::{
    Disks, SECTORS,
    layers::Layer,
    mapped::{self, Stack},
};

/// A ublk device over the disk. Its number is told to the program, for it prints none that is
/// meant to be parsed.
const NUMBER: &str = "77";
const DEVICE: &str = "/dev/ublkb77";

/// The device, alone or as the middle of a stack.
pub(super) struct Rublk {
    device: PathBuf,
    // Dropped in this order.
    _above: Stack,
    _server: Server,
    _below: Stack,
}

impl Rublk {
    /// Straight over the disk.
    pub(super) fn over(disks: &Disks) -> Option<Box<dyn Layer + '_>> {
        let server = Server::start(&disks.main)?;
        Some(Box::new(Self {
            device: DEVICE.into(),
            _above: Stack::default(),
            _server: server,
            _below: Stack::default(),
        }))
    }

    /// Over a dm-linear and under another, as an interposer lies.
    pub(super) fn between(disks: &Disks) -> Option<Box<dyn Layer + '_>> {
        let below = mapped::linear(disks);
        let server = Server::start(below.top())?;
        let mut above = Stack::default();
        let device = above.add("bench-above", &format!("0 {SECTORS} linear {DEVICE} 0"));
        Some(Box::new(Self {
            device,
            _above: above,
            _server: server,
            _below: below,
        }))
    }
}

impl Layer for Rublk {
    fn device(&self) -> &Path {
        &self.device
    }
}

struct Server;

impl Server {
    /// With as many queues, and as deep, as ours has, and without copying where ours does not
    /// copy either. `None` when the guest has no rublk.
    fn start(over: &Path) -> Option<Self> {
        let features = Command::new("rublk").arg("features").output().ok()?;
        let words = ["add", "loop", "-n", NUMBER, "-q", "2", "-d", "64", "-f"];
        let mut add = Command::new("rublk");
        add.args(words).arg(over);
        if printed(&features).contains("AUTO_BUF_REG") {
            add.arg("-z");
        }
        succeed(&mut add);
        let server = Self;
        eventually("rublk has made its device", || Path::new(DEVICE).exists());
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let output = run(Command::new("rublk").args(["del", "-n", NUMBER]));
        if !output.status.success() {
            eprintln!("{DEVICE} stays: {}", printed(&output));
        }
    }
}
