//! `tidemark demo`: the whole job on a throw-away volume, under load, each step proven.
//!
//! A private agent, an image file, ext4 mounted through the interposer, real files and a database
//! at work; a full pull, changes, an incremental pull, a restore, proofs. [`undo`] knows of every
//! step before it is taken, so that nothing stays behind however the demo ends.

mod host;
mod load;
mod proof;
mod report;
mod tree;
mod undo;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use tidemark_proto::v1::{
    AttachVolumeRequest, ChangeSpan, CreateSnapshotRequest, FreezeMode, ListChangedExtentsRequest,
    ReleaseSnapshotRequest, Snapshot, StoreConfig,
};
use tokio::process::Command;
use uuid::Uuid;

use load::Load;
use proof::Verdict;
use report::{MAP_ROWS, MAP_WIDTH, Report};
use undo::Undo;

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
/// An ext4 below this has no room for a tree and a database.
const MIN_SIZE: u64 = 64 << 20;
/// Of the volume, for the tree: the database and the log grow beside it.
const TREE_SHARE: u64 = 2;
/// How long the load runs by itself between steps.
const BREATH: Duration = Duration::from_secs(1);
/// How long the agent may take to answer.
const AGENT_START: Duration = Duration::from_secs(30);
/// The second snapshot is read by a pull and by a proof.
const LEASE: Duration = Duration::from_secs(600);

#[derive(clap::Args, Debug)]
pub(crate) struct DemoArgs {
    /// Keep the images and the agent's log
    #[arg(long)]
    keep: bool,
    /// Where the picture of what changed is drawn
    #[arg(long, value_name = "FILE", default_value = "tidemark-demo.svg")]
    svg: PathBuf,
    /// Size of the volume
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, default_value = "256M")]
    size: u64,
    /// Directory tree to copy onto it, as much as fits; one of the usual ones otherwise
    #[arg(long, value_name = "DIR")]
    tree: Option<PathBuf>,
}

/// Runs the demo, puts everything away, and fails unless every claim was proven.
pub(crate) async fn run(args: DemoArgs, context: &Context) -> anyhow::Result<()> {
    if args.size < MIN_SIZE {
        let message = format!("--size is at least {}", units::bytes(MIN_SIZE));
        return Err(Fault::new(Exit::Usage, message).into());
    }
    let agent = host::check()?;
    let mut undo = Undo::new();
    let outcome = prepare(&args, agent, context, &mut undo).await;
    let outcome = match outcome {
        Ok(mut stage) => stage.play(&args, &mut undo).await,
        Err(error) => Err(error),
    };
    if outcome.is_err() {
        context.out.note("putting everything away");
    }
    for left in undo.unwind().await {
        context.out.note(format!("not put away: {left}"));
    }
    let report = outcome?;
    report.print(&context.out, &args.svg);
    context.out.document(&report.json(&args.svg));
    if report.holds() {
        context.out.line("\nverdict: identical, clean and sound");
        return Ok(());
    }
    Err(Fault::new(Exit::Integrity, "not every claim of the demo holds").into())
}

/// Makes the directories and starts the agent.
async fn prepare(
    args: &DemoArgs,
    agent: PathBuf,
    context: &Context,
    undo: &mut Undo,
) -> anyhow::Result<Stage> {
    let work = host::make_work_dir(args.size)?;
    undo.root(work.clone());
    if args.keep {
        undo.keep(work.clone());
        context
            .out
            .note(format!("everything stays in {}", work.display()));
    }
    let runtime = host::make_runtime_dir(&work)?;
    undo.root(runtime.clone());
    let log = File::create(work.join("agent.log")).context("the agent's log")?;
    let child = Command::new(agent)
        .arg("serve")
        .arg("--runtime-dir")
        .arg(&runtime)
        .arg("--state-dir")
        .arg(work.join("state"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("starting the agent")?;
    undo.agent = Some(child);
    let socket = runtime.join("tidemark.sock");
    let connect = context.interrupt.guard(wait_for_agent(&socket, undo));
    let client = connect.await.with_context(|| agent_log(&work))?;
    let context = Context {
        socket,
        out: context.out.twin(),
        interrupt: context.interrupt.clone(),
    };
    Ok(Stage {
        work,
        client,
        context,
    })
}

async fn wait_for_agent(socket: &Path, undo: &mut Undo) -> anyhow::Result<Client> {
    let work = async {
        loop {
            if let Some(agent) = &mut undo.agent
                && let Some(status) = agent.try_wait()?
            {
                anyhow::bail!("the agent ended with {status}");
            }
            if let Ok(client) = Client::connect(socket).await {
                return Ok(client);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(AGENT_START, work)
        .await
        .context("the agent does not answer")?
}

/// What the agent said last, for a failure of its start.
fn agent_log(work: &Path) -> String {
    let text = std::fs::read_to_string(work.join("agent.log")).unwrap_or_default();
    format!(
        "agent: {}",
        text.trim().lines().last().unwrap_or("it said nothing")
    )
}

/// A running agent and a place to work.
struct Stage {
    work: PathBuf,
    client: Client,
    /// With the private agent's socket.
    context: Context,
}

impl Stage {
    async fn play(&mut self, args: &DemoArgs, undo: &mut Undo) -> anyhow::Result<Report> {
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
        std::fs::write(&args.svg, map.svg(MAP_WIDTH, &title(&incremental)))
            .with_context(|| args.svg.display().to_string())?;
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

fn title(pull: &Summary) -> String {
    format!(
        "{} of {} changed between two pulls; {} sent",
        units::bytes(pull.changed_bytes()),
        units::bytes(pull.capacity_bytes),
        units::bytes(pull.counts.sent_bytes)
    )
}
