//! The volume that everything lies on, the agent's own program included, while memory is short:
//! whatever the server needs must be in memory already, or it waits for itself.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tidemark_proto::v1::{GetServerInfoRequest, Volume};
use tidemark_tests::{
    Api, FsKind, Load, MIB, Mounted, World,
    api::attach_request,
    host, image,
    lvm::{Group, guest_disk},
    programs::{run, succeed},
    pull,
    tree::forget_cached,
};

/// How much of the free memory is taken, in per cent.
const SHARE: u64 = 85;
const SECONDS: u64 = 20;

/// A system of its own on a mounted volume: every process in it has its program and its libraries
/// from there.
struct Rooted {
    root: PathBuf,
    daemon: Child,
}

impl Rooted {
    fn start(root: &Path) -> Self {
        for folder in ["/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr"] {
            if Path::new(folder).exists() {
                succeed(Command::new("cp").arg("-a").arg(folder).arg(root));
            }
        }
        for folder in ["dev", "proc", "sys", "run", "tmp"] {
            let point = root.join(folder);
            std::fs::create_dir_all(&point).expect("a mount point can be made");
            let mut mount = Command::new("mount");
            match folder {
                "run" | "tmp" => mount.args(["-t", "tmpfs", "none"]),
                _ => mount.arg("--bind").arg(Path::new("/").join(folder)),
            };
            succeed(mount.arg(&point));
        }
        let daemon = Command::new("chroot")
            .arg(root)
            .args(["tidemarkd", "serve", "--runtime-dir", "/run/tm"])
            .args([
                "--state-dir",
                "/run/tm-state",
                "--group",
                "root",
                "--config",
                "/dev/null",
            ])
            .stdin(Stdio::null())
            .spawn()
            .expect("a daemon can be started");
        let root = root.to_owned();
        Self { root, daemon }
    }

    fn api(&self) -> Api {
        let api = Api::new(self.root.join("run/tm/tidemark.sock"));
        host::eventually("the daemon answers", || {
            api.call(api.agent().get_server_info(GetServerInfoRequest {}))
                .is_ok()
        });
        api
    }

    fn program_of(volume: &Volume) -> PathBuf {
        let link = format!("/proc/{}/exe", volume.server_pid);
        std::fs::read_link(link).expect("a process has a program")
    }
}

impl Drop for Rooted {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        for folder in ["tmp", "run", "sys", "proc", "dev"] {
            run(Command::new("umount").arg("-l").arg(self.root.join(folder)));
        }
    }
}

fn free_memory() -> u64 {
    let told = std::fs::read_to_string("/proc/meminfo").expect("the kernel tells");
    let line = told.lines().find(|line| line.starts_with("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("it tells what is free")
        * 1024
}

#[test]
#[ignore = "runs in a guest"]
fn a_system_on_its_own_interposed_volume_bears_short_memory_at_length() {
    let world = World::new();
    let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
    let origin = group.linear("root", 640);
    let mounted = Mounted::fresh(FsKind::Ext4, &origin, &world.path("root"));
    let rooted = Rooted::start(mounted.point());
    let api = rooted.api();
    let area = Path::new("/run/area");
    let request = attach_request("root", &origin, area, 192 * MIB);
    let volume = api.attach(request).expect("an attach of the root");
    let program = Rooted::program_of(&volume);
    assert!(program.starts_with(mounted.point()), "{program:?}");

    let load = Load::start(mounted.point());
    let snapshot = api.snapshot("root");
    let view = rooted.root.join(snapshot.view_path.trim_start_matches('/'));
    let view = std::fs::read_link(&view).expect("a view is a link to a device");
    let frozen = image::digest(&view);
    let bytes = free_memory() / 100 * SHARE;
    println!("taking {} MiB", bytes / MIB);
    let jobs = load.jobs();
    forget_cached();
    succeed(
        Command::new("stress-ng")
            .args(["--vm", "2", "--vm-keep", "--vm-method", "write64"])
            .args(["--vm-bytes", &format!("{}k", bytes / 1024)])
            .args(["--timeout", &format!("{SECONDS}s"), "--oomable", "--quiet"]),
    );
    host::eventually("the load goes on", || load.jobs() > jobs + 1);
    load.assert_busy();

    let alive = api.volume("root").expect("a status");
    assert_eq!(alive.server_pid, volume.server_pid, "nobody killed it");
    forget_cached();
    assert_eq!(image::digest(&view), frozen);
    let target = world.path("pulled.img");
    let of_view = tidemark_proto::v1::Snapshot {
        view_path: view.display().to_string(),
        ..snapshot.clone()
    };
    pull::pull(&api, &of_view, None, &target).expect("a full pull");
    assert_eq!(image::digest(&target), frozen);
    std::fs::remove_file(&target).expect("an image can be removed");
    api.release(&snapshot.id).expect("a release");
    api.detach("root", false).expect("a detach");
    println!("{:?}", load.finish());
    drop(rooted);
    drop(mounted);
    FsKind::Ext4.assert_device_sound(&origin);
}
