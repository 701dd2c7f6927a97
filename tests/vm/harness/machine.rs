//! One boot of a guest: `Machine` says what it has, `Guest` is it while it runs.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    accel::Accel,
    borrowed::Files,
    cache, debian,
    disk::Disk,
    initramfs,
    kernel::Kernel,
    outcome::{Ended, Outcome},
};
use crate::{MIB, image, programs};

/// How the guest's lines to the harness begin.
const SIGN: &str = "@@tidemark ";
/// Results come back on a disk of this size, sparse.
const RESULTS_BYTES: u64 = 512 * MIB;
/// A safety net for hung guests, not a measure of anything. Longer than a story may take.
const BUDGET: Duration = Duration::from_secs(25 * 60);
/// What every guest is booted with: no reboot loops, no cost of mitigations under emulation, and
/// all of the kernel's words on the first serial line.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=7 panic=-1 panic_on_oops=1 mitigations=off \
    random.trust_cpu=on tsc=reliable net.ifnames=0 printk.devkmsg=on";

/// What a guest boots into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    /// A script beside the host's programs, all of it in memory.
    Script,
    /// The Debian on the first disk.
    Debian,
}

/// What a guest is made of.
#[derive(Debug)]
pub struct Machine {
    kernel: Kernel,
    system: System,
    memory_mib: u64,
    disks: Vec<Disk>,
    files: Files,
    budget: Duration,
    echo: bool,
    command_line: String,
}

impl Machine {
    /// Two processors and 2 GiB of memory.
    pub fn new(kernel: &Kernel) -> Self {
        Self {
            kernel: kernel.clone(),
            system: System::Script,
            memory_mib: 2048,
            disks: Vec::new(),
            files: Files::new(),
            budget: BUDGET,
            echo: false,
            command_line: COMMAND_LINE.to_owned(),
        }
    }

    /// Boots the Debian on the first disk, whose systemd runs the script when it has come up.
    pub fn debian(self) -> Self {
        let machine = self.parameter(debian::COMMAND_LINE);
        Self {
            system: System::Debian,
            ..machine
        }
    }

    /// Other than 2 GiB. What the guest boots from takes some 400 MiB of it.
    pub fn memory_mib(mut self, mib: u64) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Adds a disk: the first is /dev/vda, the second /dev/vdb.
    pub fn disk(mut self, disk: &Disk) -> Self {
        self.disks.push(disk.clone());
        self
    }

    /// Adds a file of the host at a path of the guest; programs come with their libraries.
    pub fn file(mut self, guest: &str, host: &Path) -> Self {
        self.files.insert(guest.to_owned(), host.to_owned());
        self
    }

    /// Adds a file in a folder that is on the guest's PATH.
    pub fn with(self, host: &Path) -> Self {
        let name = host.file_name().and_then(|name| name.to_str());
        let name = name.unwrap_or_else(|| panic!("{} has no plain name", host.display()));
        self.file(&format!("/tidemark/with/{name}"), host)
    }

    /// Adds to the kernel's command line.
    pub fn parameter(mut self, words: &str) -> Self {
        self.command_line = format!("{} {words}", self.command_line);
        self
    }

    /// How long it may take before it counts as hung.
    pub fn budget(mut self, bound: Duration) -> Self {
        self.budget = bound;
        self
    }

    /// Prints the console's lines as they come.
    pub fn echo(mut self) -> Self {
        self.echo = true;
        self
    }

    /// Boots it and runs a shell script to its end.
    pub fn run(&self, script: &str) -> (Outcome, TempDir) {
        self.boot(script).finish()
    }

    /// Boots it; the script runs while the caller goes on.
    pub fn boot(&self, script: &str) -> Guest {
        let folder = cache::scratch();
        let path = |name: &str| folder.path().join(name);
        let initrd = path("initrd");
        match self.system {
            System::Script => initramfs::assemble(&self.kernel, script, &self.files, &initrd),
            System::Debian => debian::assemble(&self.kernel, script, &self.files, &initrd),
        }
        image::sparse(&path("results.raw"), RESULTS_BYTES);
        let complaints = fs::File::create(path("qemu.log")).expect("a log can be made");
        let mut child = self
            .qemu(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .unwrap_or_else(|e| panic!("QEMU cannot run: {e}; `make deps` installs it"));
        let lines = follow(child.stdout.take().expect("its output is a pipe"));
        Guest {
            child,
            lines,
            folder: Some(folder),
            console: String::new(),
            status: None,
            deadline: Instant::now() + self.budget,
            budget: self.budget,
            echo: self.echo,
        }
    }

    fn qemu(&self, folder: &Path) -> Command {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(Accel::choose(&self.kernel).options())
            .args(["-smp", "2", "-m", &self.memory_mib.to_string()])
            .args([
                "-nodefaults",
                "-display",
                "none",
                "-monitor",
                "none",
                "-no-reboot",
            ])
            .args(["-device", "virtio-rng-pci"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(folder.join("initrd"))
            .args(["-append", &self.command_line])
            .arg("-serial")
            .arg(format!("file:{}", folder.join("kernel.log").display()))
            .args(["-serial", "stdio"])
            .arg("-serial")
            .arg(format!("file:{}", folder.join("journal.log").display()));
        for (number, disk) in self.disks.iter().enumerate() {
            add_disk(&mut qemu, disk, &format!("disk{number}"));
        }
        let results = Disk::open(&folder.join("results.raw"));
        add_disk(&mut qemu, &results, "results");
        qemu
    }
}

fn add_disk(qemu: &mut Command, disk: &Disk, name: &str) {
    let file = disk.path().display().to_string().replace(',', ",,");
    let format = disk.format();
    qemu.arg("-drive")
        .arg(format!(
            "file={file},format={format},if=none,id={name},cache=writeback,discard=unmap"
        ))
        .arg("-device")
        .arg(format!("virtio-blk-pci,drive={name},serial={name}"));
}

/// Lines of a pipe, read by a thread of their own so that the guest never waits for us.
fn follow(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut bytes = Vec::new();
        while output
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|read| read > 0)
        {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            if sender.send(line).is_err() {
                return;
            }
            bytes.clear();
        }
    });
    receiver
}

/// A guest that runs; killed when dropped.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    lines: Receiver<String>,
    folder: Option<TempDir>,
    console: String,
    status: Option<i32>,
    deadline: Instant,
    budget: Duration,
    echo: bool,
}

/// What came next.
enum Next {
    Line(String),
    End,
    OutOfTime,
}

impl Guest {
    fn next(&mut self) -> Next {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                self.take(&line);
                Next::Line(line)
            }
            Err(RecvTimeoutError::Disconnected) => Next::End,
            Err(RecvTimeoutError::Timeout) => Next::OutOfTime,
        }
    }

    fn take(&mut self, line: &str) {
        if let Some(status) = line
            .strip_prefix(SIGN)
            .and_then(|rest| rest.strip_prefix("exit "))
        {
            self.status = status.parse().ok();
        } else if !line.starts_with(SIGN) {
            self.console.push_str(line);
            self.console.push('\n');
            if self.echo {
                println!("{line}");
            }
        }
    }

    /// Waits until a line of the console begins so and gives it; panics with the guest's words
    /// when it ends without one.
    pub fn await_line(&mut self, beginning: &str) -> String {
        let line = self.line_beginning(beginning);
        line.unwrap_or_else(|| {
            panic!(
                "the guest never said {beginning:?}\n{}\n--- kernel\n{}",
                self.console,
                self.log("kernel.log")
            )
        })
    }

    /// Waits until a line of the console begins so and gives it; None when the guest ended, or its
    /// time did, without one.
    pub fn line_beginning(&mut self, beginning: &str) -> Option<String> {
        loop {
            match self.next() {
                Next::Line(line) if line.starts_with(beginning) => return Some(line),
                Next::Line(_) => {}
                Next::End | Next::OutOfTime => return None,
            }
        }
    }

    /// Pulls the plug: QEMU is killed at once, in the middle of whatever the guest does.
    pub fn kill(mut self) -> (Outcome, TempDir) {
        self.end(Ended::Killed)
    }

    /// Waits for the guest's end.
    pub fn finish(self) -> (Outcome, TempDir) {
        self.follow(|_| false)
    }

    /// Waits for the guest's end. `on_line` sees each line as it comes and says whether it is
    /// progress, with which the guest's time begins anew.
    pub fn follow(mut self, mut on_line: impl FnMut(&str) -> bool) -> (Outcome, TempDir) {
        loop {
            match self.next() {
                Next::Line(line) => {
                    if on_line(&line) {
                        self.deadline = Instant::now() + self.budget;
                    }
                }
                Next::End => {
                    let ended = self.status.map_or(Ended::Died, Ended::Exited);
                    return self.end(ended);
                }
                Next::OutOfTime => return self.end(Ended::OutOfTime(self.budget)),
            }
        }
    }

    fn end(&mut self, ended: Ended) -> (Outcome, TempDir) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What was under way in the pipe.
        while let Ok(line) = self.lines.recv() {
            self.take(&line);
        }
        let kernel_log = self.log("kernel.log");
        let journal = self.log("journal.log");
        let folder = self.folder.take().expect("a guest ends once");
        let outcome = Outcome {
            ended,
            console: std::mem::take(&mut self.console),
            kernel_log,
            journal,
            complaints: fs::read_to_string(folder.path().join("qemu.log")).unwrap_or_default(),
            results: unpack(folder.path()),
        };
        (outcome, folder)
    }

    fn log(&self, name: &str) -> String {
        let Some(folder) = &self.folder else {
            return String::new();
        };
        let bytes = fs::read(folder.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The files that the guest left, if it came so far.
fn unpack(folder: &Path) -> PathBuf {
    let results = folder.join("results");
    fs::create_dir_all(&results).expect("a folder can be made");
    let disk = folder.join("results.raw");
    let magic = fs::File::open(&disk).and_then(|file| {
        let mut bytes = [0; 5];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 257)?;
        Ok(bytes)
    });
    if magic.is_ok_and(|magic| &magic == b"ustar") {
        programs::succeed(
            std::process::Command::new("tar")
                .arg("-C")
                .arg(&results)
                .arg("-xf")
                .arg(&disk),
        );
    }
    results
}
