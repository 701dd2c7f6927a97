//! Where the agent's sockets, views and state live: the one home of these names.

use std::path::{Path, PathBuf};

/// The directories of one agent. Several agents on a host need different ones.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Sockets, views, logs: gone at a reboot. `/run/tidemark`.
    pub runtime_dir: PathBuf,
    /// The catalog: survives a reboot. `/var/lib/tidemark`.
    pub state_dir: PathBuf,
}

impl Paths {
    /// The public gRPC socket.
    pub fn public_socket(&self) -> PathBuf {
        self.runtime_dir.join("tidemark.sock")
    }

    /// Metrics, by HTTP.
    pub fn metrics_socket(&self) -> PathBuf {
        self.runtime_dir.join("metrics.sock")
    }

    /// The control plane's SQLite database.
    pub fn catalog(&self) -> PathBuf {
        self.state_dir.join("catalog.db")
    }

    /// Everything of one volume.
    pub fn volume(&self, name: &str) -> VolumePaths {
        VolumePaths {
            dir: self.runtime_dir.join("volumes").join(name),
        }
    }
}

/// The files of one volume under the runtime directory.
#[derive(Clone, Debug)]
pub struct VolumePaths {
    dir: PathBuf,
}

impl VolumePaths {
    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The private protocol's socket.
    pub fn control_socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Locked by the volume server for as long as it lives.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// The volume server's log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// There once the volume was taken from its servers, which had died again and again; holds
    /// the cause.
    pub fn fallen_back(&self) -> PathBuf {
        self.dir.join("fallen-back")
    }

    /// There from before a hook brings the volume's applications to rest until they are awake again.
    pub fn at_rest(&self) -> PathBuf {
        self.dir.join("at-rest")
    }

    /// Mount point of the portable transport; with ublk a folder of links to devices.
    pub fn mount_point(&self) -> PathBuf {
        self.dir.join("fs")
    }

    /// The live volume as a file.
    pub fn live(&self) -> PathBuf {
        self.mount_point().join("live")
    }

    /// A snapshot's view as a read-only file, or a link to a read-only device.
    pub fn view(&self, snapshot: &str) -> PathBuf {
        self.views().join(snapshot)
    }

    /// Where the views are.
    pub fn views(&self) -> PathBuf {
        self.mount_point().join("snapshots")
    }

    /// Whether the volume is presented by links to devices, which outlive a server.
    pub fn has_links(&self) -> bool {
        self.live().is_symlink()
    }

    /// Whether the host has the volume from us, though its server may be dead.
    pub fn is_presented(&self) -> bool {
        self.device_link().is_symlink()
    }

    /// Symbolic link to the block device that is to be mounted.
    pub fn device_link(&self) -> PathBuf {
        self.dir.join("device")
    }
}
