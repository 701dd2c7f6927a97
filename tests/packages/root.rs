//! A clean Debian in a folder, and a shell in it.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use tidemark_tests::{
    World,
    programs::{printed, run, succeed},
    vm::{cache, packages::mirror},
};

/// What the package depends on, so that it installs without a network; and who mounts what FUSE serves.
const INCLUDED: &str = "systemd,systemd-sysv,udev,kmod,fuse3,e2fsprogs";
/// Ends what a command printed, before its exit status.
const MARK: &str = "--ended-with--";

/// Releases that the package is for.
pub(crate) const RELEASES: [&str; 2] = ["bookworm", "trixie"];

/// A release's smallest system with what the package needs, in a namespace of its own: no
/// network, no process of the host. Gone when dropped, with all that runs in it.
pub(crate) struct Root {
    world: World,
    shell: Child,
    says: ChildStdin,
    hears: BufReader<ChildStdout>,
}

impl Root {
    /// A clean one, in which nothing was done yet.
    pub(crate) fn of(release: &str) -> Self {
        let world = World::new();
        let folder = world.path("root");
        fs::create_dir(&folder).expect("a folder can be made");
        succeed(
            Command::new("tar")
                .arg("-xf")
                .arg(base(release))
                .arg("-C")
                .arg(&folder),
        );
        // Devices are the host's: FUSE and loop devices are used in here.
        let enter = format!(
            "set -e; cd {0}; mount --rbind /dev dev; mount -t proc proc proc; \
             mount -t sysfs sysfs sys; mount -t tmpfs tmpfs run; exec chroot . /bin/sh",
            folder.display()
        );
        let mut shell = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--net"])
            .args(["sh", "-c", &enter])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        Self {
            says: shell.stdin.take().expect("it was piped"),
            hears: BufReader::new(shell.stdout.take().expect("it was piped")),
            shell,
            world,
        }
    }

    /// A path in it, as the host has it.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.world.path("root").join(inside.trim_start_matches('/'))
    }

    /// Puts a file of the host into it.
    pub(crate) fn put(&self, file: &Path, inside: &str) {
        fs::copy(file, self.path(inside)).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }

    /// Runs a command; gives its exit status and all that it printed.
    pub(crate) fn run(&mut self, command: &str) -> (i32, String) {
        let whole =
            format!("{{ {command}\n}} </dev/null 2>&1; status=$?; echo; echo {MARK} $status\n");
        self.says
            .write_all(whole.as_bytes())
            .and_then(|()| self.says.flush())
            .expect("the shell listens");
        let mut printed = String::new();
        loop {
            let before = printed.len();
            let read = self.hears.read_line(&mut printed).expect("it prints UTF-8");
            assert!(read > 0, "the shell ended in: {command}\n{printed}");
            if let Some(status) = printed[before..].strip_prefix(MARK) {
                let status = status.trim().parse().expect("a status is a number");
                printed.truncate(before);
                println!("# {command}\n{printed}[{status}]");
                return (status, printed);
            }
        }
    }

    /// Runs a command that must succeed; gives what it printed.
    pub(crate) fn ok(&mut self, command: &str) -> String {
        let (status, printed) = self.run(command);
        assert_eq!(status, 0, "{command}\n{printed}");
        printed
    }

    /// Runs the host's rpm over it; gives what it said, which is an error where it failed.
    pub(crate) fn rpm(&self, words: &[&str]) -> Result<String, String> {
        let root = self.path("/");
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.shell.id()));
        // The shell's processes are those of unshare's children.
        let inside = format!("--pid=/proc/{}/ns/pid_for_children", self.shell.id());
        command.args(["--mount", "--net", &inside, "rpm", "--root"]);
        command.arg(root).args(["--dbpath", "/rpm"]).args(words);
        let output = run(&mut command);
        let said = printed(&output);
        println!("# rpm {words:?}\n{said}[{}]", output.status);
        if output.status.success() {
            Ok(said)
        } else {
            Err(said)
        }
    }

    /// Installs or upgrades to the package.
    pub(crate) fn install(&mut self, deb: &Path) -> String {
        self.put(deb, "/package.deb");
        let said = self.ok("apt-get -qq --yes --no-install-recommends install /package.deb");
        self.ok("rm /package.deb");
        said
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // A server that is killed under a mounted file system is, as the last in its namespace, the one
        // that unmounts it, and waits for itself: until then no sync on this host ends.
        let _ = self.says.write_all(b"umount /mnt\nexit\n");
        for _ in 0..100 {
            if matches!(self.shell.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        // The first process of the namespace: the others end with it.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// The release as a tar archive, made when it is not in the cache.
fn base(release: &str) -> PathBuf {
    let content = &blake3::hash(INCLUDED.as_bytes()).to_hex()[..8];
    let path = cache::folder("roots").join(format!("{release}-{content}.tar"));
    cache::ensure(&path, |work| {
        succeed(
            Command::new("mmdebstrap")
                .args(["--variant=minbase", "--quiet", "--format=tar"])
                .arg(format!("--include={INCLUDED}"))
                .arg(release)
                .arg(work)
                .arg(mirror())
                .env("LC_ALL", "C"),
        );
    })
}
