//! The play itself: the volume, its file system, what happens to it, what is taken from it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use tidemark_proto::v1::{
    AttachVolumeRequest, ChangeSpan, CreateSnapshotRequest, FreezeMode, ListChangedExtentsRequest,
    ReleaseSnapshotRequest, Snapshot, StoreConfig,
};
use uuid::Uuid;

use super::{
    DemoArgs, host,
    load::Load,
    proof::{self, Verdict},
    report::{MAP_ROWS, MAP_WIDTH, Report},
    tree,
    undo::Undo,
};
use crate::{
    client::Client,
    cmd::{
        pull::{self, Compress, PullArgs, Summary, Verify},
        push::{self, PushArgs},
        snapshot::Freeze,
    },
    context::Context,
    exit::{Exit, Fault},
    heatmap::HeatMap,
    select::malformed,
    units,
};

/// The volume's name.
const VOLUME: &str = "demo";
/// Of the volume, one part in so many is for the tree: the database and the log grow beside it.
const TREE_SHARE: u64 = 2;
/// How long the load runs by itself between steps.
const BREATH: Duration = Duration::from_secs(1);
/// The second snapshot is read by a pull and by a proof.
const LEASE: Duration = Duration::from_secs(600);

/// A running agent and a place to work.
pub(super) struct Stage {
    /// The demo's directory.
    pub(super) work: PathBuf,
    /// The private agent.
    pub(super) client: Client,
    /// With its socket.
    pub(super) context: Context,
}

impl Stage {
    /// Everything, in order; each step of the first half goes on under load.
    pub(super) async fn play(&self, args: &DemoArgs, undo: &mut Undo) -> anyhow::Result<Report> {
        self.make_volume(args.size, undo).await?;
        let copied = self.fill(args).await?;
        undo.load = Some(Load::start(&self.mount_point()).await?);
        self.breathe(undo).await?;

        self.tell("full pull, while the database works");
        let before = committed(undo);
        let full = self.pull(VOLUME).await?;
        let mut verdicts = vec![Verdict::new(
            "full pull: image equals the frozen view (BLAKE3 by the agent)",
            full.verified == "all",
            format!(
                "{} in {}",
                units::bytes(full.capacity_bytes),
                units::span(full.duration)
            ),
        )];
        let mut transactions = [committed(undo) - before, 0];

        self.change(copied, undo).await?;
        self.tell("incremental pull, while the database works");
        let before = committed(undo);
        let snapshot = self.cut().await?;
        let after = committed(undo) + 1;
        let map = self.map(&full, &snapshot).await?;
        let incremental = self.pull(&snapshot.id).await?;
        transactions[1] = committed(undo) - before;
        verdicts.push(Verdict::new(
            "incremental pull: image equals the frozen view (BLAKE3 by the agent)",
            incremental.verified == "all" && incremental.mode() == "incremental",
            format!("{} pull: {}", incremental.mode(), incremental.why),
        ));
        verdicts.push(self.compare_with_view(&snapshot).await?);
        if let Some(load) = undo.load.take() {
            load.stop().await?;
        }
        self.release(snapshot).await?;
        let pushed = self.restore(&mut verdicts).await?;
        self.look_inside(before, after, &mut verdicts).await?;
        Ok(Report {
            full,
            incremental,
            transactions,
            pushed,
            map,
            verdicts,
        })
    }

    fn tell(&self, step: &str) {
        self.context.out.note(format!("- {step}"));
    }

    fn mount_point(&self) -> PathBuf {
        self.work.join("mnt")
    }

    fn image(&self) -> PathBuf {
        self.work.join("pulled.img")
    }

    /// An image file, attached, with a mounted file system.
    async fn make_volume(&self, size: u64, undo: &mut Undo) -> anyhow::Result<()> {
        self.tell(&format!(
            "a volume of {}, ext4, mounted through the interposer",
            units::bytes(size)
        ));
        let origin = self.work.join("volume.img");
        File::create(&origin)?.set_len(size)?;
        undo.attached = Some((self.context.socket.clone(), VOLUME.to_owned()));
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let request = AttachVolumeRequest {
            name: VOLUME.to_owned(),
            origin_path: text(origin),
            store: Some(StoreConfig {
                area_path: text(self.work.join("area")),
                area_size_bytes: size,
                ..Default::default()
            }),
            request_id: Uuid::new_v4().to_string(),
            ..Default::default()
        };
        let reply = self.client.volumes().attach_volume(request).await?;
        let volume = reply
            .into_inner()
            .volume
            .ok_or_else(|| malformed("AttachVolume", "volume"))?;
        if volume.device_path.is_empty() {
            return Err(
                Fault::new(Exit::Failed, "no loop device could be made for the volume")
                    .advise("`losetup -f` says why; `tidemark doctor` looks further")
                    .into(),
            );
        }
        let device = PathBuf::from(volume.device_path);
        let point = self.mount_point();
        std::fs::create_dir(&point)?;
        let guard = &self.context.interrupt;
        guard
            .guard(host::run("mkfs.ext4", &[&"-q", &"-F", &device]))
            .await?;
        guard
            .guard(host::run("mount", &[&"-t", &"ext4", &device, &point]))
            .await?;
        for dir in ["db", "log"] {
            std::fs::create_dir(point.join(dir))?;
        }
        Ok(())
    }

    /// Copies real files onto the volume.
    async fn fill(&self, args: &DemoArgs) -> anyhow::Result<tree::Copied> {
        let (from, to) = (args.tree.clone(), self.mount_point().join("tree"));
        let budget = args.size / TREE_SHARE;
        let interrupt = self.context.interrupt.clone();
        let work = move || tree::copy(from.as_deref(), &to, budget, &interrupt);
        let copied = tokio::task::spawn_blocking(work).await??;
        // The first trim of a file system discards all its free space: not to be taken for a
        // change between the pulls.
        self.trim().await;
        self.tell(&format!(
            "{} files of {} ({}), and a database with transactions going on",
            copied.files.len(),
            copied.from.display(),
            units::bytes(copied.bytes)
        ));
        Ok(copied)
    }

    /// Discards what the file system does not use; what fstrim said. Where that cannot be done
    /// it is no matter: the diff holds the deletions either way.
    async fn trim(&self) -> Option<String> {
        let said = host::run("fstrim", &[&"-v", &self.mount_point()])
            .await
            .ok()?;
        let (_, what) = said.trim().rsplit_once(": ")?;
        Some(what.to_owned())
    }

    /// Changes files while the load goes on.
    async fn change(&self, copied: tree::Copied, undo: &mut Undo) -> anyhow::Result<()> {
        let to = self.mount_point().join("tree");
        let interrupt = self.context.interrupt.clone();
        let work = move || tree::change(&copied, &to, &interrupt);
        let changed = tokio::task::spawn_blocking(work).await??;
        let trimmed = self.trim().await.map(|said| format!("; fstrim: {said}"));
        self.tell(&format!(
            "changes: {} files edited, {} lengthened, {} deleted, {} added{}",
            changed.edited,
            changed.appended,
            changed.deleted,
            changed.added,
            trimmed.unwrap_or_default()
        ));
        self.breathe(undo).await
    }

    /// Lets the load run by itself for a while.
    async fn breathe(&self, undo: &mut Undo) -> anyhow::Result<()> {
        let pause = async {
            tokio::time::sleep(BREATH).await;
            Ok(())
        };
        self.context.interrupt.guard(pause).await?;
        match &mut undo.load {
            Some(load) => load.check().await,
            None => Ok(()),
        }
    }

    async fn pull(&self, source: &str) -> anyhow::Result<Summary> {
        let args = PullArgs {
            source: source.to_owned(),
            target: self.image(),
            state: None,
            full: false,
            overwrite: false,
            compress: Compress::None,
            verify: Verify::All,
            freeze: Freeze::Require,
            keep_snapshot: false,
            reconnect_for: Duration::from_secs(30),
        };
        pull::pull(&args, &self.context).await
    }

    /// A snapshot that outlives the pull, to look at its view. Not dropped by a signal: a cut
    /// that nobody waits for could leave the file system frozen until the watchdog thaws it.
    async fn cut(&self) -> anyhow::Result<Snapshot> {
        let request = CreateSnapshotRequest {
            volumes: vec![VOLUME.to_owned()],
            freeze: FreezeMode::Require.into(),
            lease: Some(units::to_proto(LEASE)),
            request_id: Uuid::new_v4().to_string(),
            ..Default::default()
        };
        let reply = self.client.snapshots().create_snapshot(request).await?;
        let snapshot = reply.into_inner().snapshots.pop();
        snapshot.ok_or_else(|| malformed("CreateSnapshot", "snapshots"))
    }

    async fn release(&self, snapshot: Snapshot) -> anyhow::Result<()> {
        let request = ReleaseSnapshotRequest { id: snapshot.id };
        self.client.snapshots().release_snapshot(request).await?;
        Ok(())
    }

    /// Where the changes between the first pull and `snapshot` lie.
    async fn map(&self, full: &Summary, snapshot: &Snapshot) -> anyhow::Result<HeatMap> {
        let mut map = HeatMap::new(full.capacity_bytes, MAP_WIDTH * MAP_ROWS);
        let span = ChangeSpan {
            volume: VOLUME.to_owned(),
            since: Some(full.point.checkpoint()),
            until: snapshot.checkpoint.clone(),
        };
        let request = ListChangedExtentsRequest {
            span: Some(span),
            ..Default::default()
        };
        let mut stream = self
            .client
            .changes()
            .list_changed_extents(request)
            .await?
            .into_inner();
        while let Some(reply) = stream.message().await? {
            for extent in reply.extents {
                map.add(extent.offset_bytes, extent.length_bytes);
            }
        }
        Ok(map)
    }

    async fn compare_with_view(&self, snapshot: &Snapshot) -> anyhow::Result<Verdict> {
        proof::same_bytes(
            "pulled image equals the view, read as a file while the volume is written",
            &self.image(),
            Path::new(&snapshot.view_path),
            &self.context.interrupt,
        )
        .await
    }

    /// Pushes the image into a new file, and compares.
    async fn restore(&self, verdicts: &mut Vec<Verdict>) -> anyhow::Result<push::Pushed> {
        self.tell("restore into a new image");
        let restored = self.work.join("restored.img");
        let args = PushArgs {
            image: self.image(),
            target: restored.to_string_lossy().into_owned(),
            state: None,
            compress: Compress::None,
            force: false,
        };
        let pushed = push::push(&args, &self.context).await?;
        let (image, interrupt) = (self.image(), &self.context.interrupt);
        let same = proof::same_bytes(
            "restored image equals the pulled one",
            &image,
            &restored,
            interrupt,
        );
        verdicts.push(same.await?);
        Ok(pushed)
    }

    /// File system and database of the restored image.
    async fn look_inside(
        &self,
        before: u64,
        after: u64,
        verdicts: &mut Vec<Verdict>,
    ) -> anyhow::Result<()> {
        self.tell("a look inside the restored image");
        let restored = self.work.join("restored.img");
        let work = async {
            verdicts.push(proof::file_system(&restored, &self.work).await?);
            let point = self.work.join("check");
            proof::mount_image(&restored, &point).await?;
            verdicts.extend(proof::database(&point, &self.work, before, after).await?);
            Ok(())
        };
        self.context.interrupt.guard(work).await
    }
}

fn committed(undo: &Undo) -> u64 {
    undo.load.as_ref().map_or(0, Load::committed)
}
