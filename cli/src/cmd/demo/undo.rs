//! Puts the host back as it was. Each step of the demo is written down here before it is taken;
//! every undoing holds also when its step was never reached or stopped half way.
//!
//! Order: the load stops first (it keeps the file system busy), then the file system is
//! unmounted, the volume detached (which needs the agent), the agent ended, and what is left of
//! any of it swept away: agents that were given the demo's directories, mounts and loop devices
//! under them. Only when nothing is mounted under them any more are the directories removed.

use std::{path::PathBuf, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tidemark_proto::v1::DetachVolumeRequest;
use tokio::{
    process::Child,
    time::{sleep, timeout},
};

use super::{host, load::Load};
use crate::client::Client;

/// How long each step may take before the rougher one.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// What there is to undo.
#[derive(Default)]
pub(super) struct Undo {
    /// Directories that are the demo's own: every agent, mount and loop device of the demo has a
    /// path under one of them.
    roots: Vec<PathBuf>,
    /// Stays after the end.
    keep: Option<PathBuf>,
    /// The agent.
    pub(super) agent: Option<Child>,
    /// To detach by, with the agent's socket.
    pub(super) attached: Option<(PathBuf, String)>,
    /// The work going on.
    pub(super) load: Option<Load>,
}

impl Undo {
    /// Nothing to undo yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A directory that was made for the demo.
    pub(super) fn root(&mut self, dir: PathBuf) {
        self.roots.push(dir);
    }

    /// Leaves this directory where it is.
    pub(super) fn keep(&mut self, dir: PathBuf) {
        self.keep = Some(dir);
    }

    /// Undoes everything; what could not be undone.
    pub(super) async fn unwind(mut self) -> Vec<String> {
        let mut left = Vec::new();
        if let Some(load) = self.load.take() {
            // Why it ended does not matter any more.
            let _ = load.stop().await;
        }
        let views = |point: &PathBuf| !point.ends_with("fs");
        self.unmount_all(views).await;
        if let Some((socket, name)) = self.attached.take()
            && let Err(error) = detach(socket, name).await
            && self.agent.is_some()
        {
            left.push(format!(
                "the volume was not detached properly ({error:#}); its server was ended instead"
            ));
        }
        self.end_agent().await;
        self.end_processes().await;
        self.unmount_all(|_| true).await;
        self.detach_loops(&mut left).await;
        self.remove(&mut left);
        left
    }

    async fn end_agent(&mut self) {
        let Some(mut agent) = self.agent.take() else {
            return;
        };
        if let Some(pid) = agent.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if timeout(PATIENCE, agent.wait()).await.is_err() {
            let _ = agent.kill().await;
        }
    }

    /// Ends what still bears our directories in its arguments: a volume server, a helper.
    async fn end_processes(&self) {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            for pid in host::agents_with(&self.roots) {
                let _ = kill(Pid::from_raw(pid), signal);
            }
            if self
                .until(|| host::agents_with(&self.roots).is_empty())
                .await
            {
                return;
            }
        }
    }

    /// Unmounts innermost first; what stays busy is unmounted lazily.
    async fn unmount_all(&self, wanted: impl Fn(&PathBuf) -> bool) {
        let mut points = host::mounts_under(&self.roots);
        points.retain(&wanted);
        for point in points.iter().rev() {
            if !self
                .until(|| host::unmount(point, false) != Err(nix::Error::EBUSY))
                .await
            {
                let _ = host::unmount(point, true);
            }
        }
    }

    async fn detach_loops(&self, left: &mut Vec<String>) {
        for device in host::loops_under(&self.roots) {
            if let Err(error) = host::run("losetup", &[&"-d", &device]).await {
                left.push(format!("{error:#}"));
            }
        }
        // The kernel lets a busy one go when its last user does.
        if !self
            .until(|| host::loops_under(&self.roots).is_empty())
            .await
        {
            left.push(format!(
                "loop devices stay: {:?}",
                host::loops_under(&self.roots)
            ));
        }
    }

    /// Never through a mount: that would delete what is mounted.
    fn remove(&self, left: &mut Vec<String>) {
        for root in self
            .roots
            .iter()
            .filter(|root| self.keep.as_ref() != Some(root))
        {
            let inside = host::mounts_under(std::slice::from_ref(root));
            if !inside.is_empty() {
                left.push(format!("{} stays: {inside:?} are mounted", root.display()));
                continue;
            }
            match std::fs::remove_dir_all(root) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    left.push(format!("{}: {error}", root.display()));
                }
                _ => {}
            }
        }
    }

    /// Waits until `done`, with an end.
    async fn until(&self, mut done: impl FnMut() -> bool) -> bool {
        let wait = async {
            while !done() {
                sleep(POLL).await;
            }
        };
        timeout(PATIENCE, wait).await.is_ok()
    }
}

async fn detach(socket: PathBuf, name: String) -> anyhow::Result<()> {
    let work = async {
        let client = Client::connect(&socket).await?;
        let known = crate::cmd::volume::list(&client).await?;
        if !known.iter().any(|volume| volume.name == name) {
            return Ok(());
        }
        let request = DetachVolumeRequest { name, force: true };
        client.volumes().detach_volume(request).await?;
        Ok(())
    };
    timeout(PATIENCE, work).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn directories_go_and_kept_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (gone, kept) = (dir.path().join("gone"), dir.path().join("kept"));
        let mut undo = Undo::new();
        for root in [&gone, &kept] {
            std::fs::create_dir_all(root.join("deep/er")).unwrap();
            undo.root(root.clone());
        }
        undo.root(dir.path().join("never made"));
        undo.keep(kept.clone());
        assert!(undo.unwind().await.is_empty());
        assert!(!gone.exists() && kept.join("deep/er").exists());
    }

    #[tokio::test]
    async fn agents_that_were_given_our_directories_are_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (path, program) = (dir.path().join("x"), dir.path().join("tidemarkd"));
        std::fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink("/usr/bin/tail", &program).unwrap();
        let mut child = tokio::process::Command::new(program)
            .arg("-f")
            .arg(&path)
            .spawn()
            .unwrap();
        let mut undo = Undo::new();
        undo.root(dir.path().to_owned());
        // The kernel lets the parent go on a moment before the child's arguments can be read.
        assert!(
            undo.until(|| !host::agents_with(&undo.roots).is_empty())
                .await
        );
        let wait = tokio::spawn(async move { child.wait().await });
        assert!(undo.unwind().await.is_empty());
        assert!(!wait.await.unwrap().unwrap().success());
    }
}
