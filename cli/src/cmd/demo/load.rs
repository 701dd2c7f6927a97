//! Work that goes on while pulls are taken: database transactions and a growing log.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::sleep,
};

use crate::host::program::find_in_path;

/// Where the database is, from the mount point on.
pub(super) const DATABASE: &str = "db/orders.db";
/// The log, from the mount point on.
const LOG: &str = "log/app.log";
/// New rows of one transaction.
const ROWS: u32 = 25;
/// One row in so many is updated by each transaction.
const UPDATED: u64 = 61;
/// Between transactions: busy, but not for the sake of it.
const PAUSE: Duration = Duration::from_millis(4);

/// The work, going on until it is stopped.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Load {
    /// Makes the database and starts.
    pub(super) async fn start(mount: &Path) -> anyhow::Result<Self> {
        let mut shell = Shell::open(&mount.join(DATABASE)).await?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(mount.join(LOG));
        let log = log.context("the log")?;
        shell.transaction(SCHEMA, 0).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let committed = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(work(shell, log, Arc::clone(&stop), Arc::clone(&committed)));
        Ok(Self {
            stop,
            committed,
            task,
        })
    }

    /// Transactions that were committed so far.
    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Fails when the work failed; it never ends by itself.
    pub(super) async fn check(&mut self) -> anyhow::Result<()> {
        if !self.task.is_finished() {
            return Ok(());
        }
        (&mut self.task).await??;
        bail!("the load ended by itself")
    }

    /// Stops it and waits for its end.
    pub(super) async fn stop(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Release);
        self.task.await??;
        Ok(self.committed.load(Ordering::Acquire))
    }
}

const SCHEMA: &str = "\
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER, amount INTEGER, note TEXT);
CREATE INDEX by_customer ON orders (customer);
CREATE TABLE transactions (n INTEGER PRIMARY KEY);
";

async fn work(
    mut shell: Shell,
    mut log: File,
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let mut n = 0;
    while !stop.load(Ordering::Acquire) {
        n += 1;
        shell.transaction(&transaction(n), n).await?;
        committed.store(n, Ordering::Release);
        writeln!(log, "transaction {n} committed: {ROWS} orders").context("the log")?;
        sleep(PAUSE).await;
    }
    shell.close().await
}

fn transaction(n: u64) -> String {
    format!(
        "BEGIN;\n\
         WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {ROWS})\n\
         INSERT INTO orders (customer, amount, note)\n\
         SELECT abs(random()) % 5000, i * {n}, hex(randomblob(60)) FROM c;\n\
         UPDATE orders SET amount = amount + 1 WHERE id % {UPDATED} = {};\n\
         INSERT INTO transactions VALUES ({n});\n\
         COMMIT;\n",
        n % UPDATED
    )
}

/// The sqlite3 program, fed through a pipe.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Shell {
    async fn open(database: &Path) -> anyhow::Result<Self> {
        let program = find_in_path("sqlite3").unwrap_or_else(|| PathBuf::from("sqlite3"));
        let mut child = Command::new(program)
            .args(["-batch", "-bail"])
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .context("sqlite3")?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => Ok(Self {
                child,
                input,
                output: BufReader::new(output).lines(),
            }),
            _ => bail!("sqlite3 has no pipes"),
        }
    }

    /// Sends statements and waits until sqlite3 says that it did them.
    async fn transaction(&mut self, sql: &str, n: u64) -> anyhow::Result<()> {
        let done = format!("done {n}");
        let text = format!("{sql}SELECT '{done}';\n");
        let sent = self.input.write_all(text.as_bytes()).await;
        while sent.is_ok()
            && let Some(line) = self.output.next_line().await?
        {
            if line == done {
                return Ok(());
            }
        }
        let mut told = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let read = tokio::io::AsyncReadExt::read_to_string(&mut stderr, &mut told);
            let _ = tokio::time::timeout(Duration::from_secs(1), read).await;
        }
        bail!("sqlite3 stopped at transaction {n}: {}", told.trim())
    }

    async fn close(mut self) -> anyhow::Result<()> {
        drop(self.input);
        let status = self.child.wait().await?;
        if !status.success() {
            bail!("sqlite3 ended with {status}");
        }
        Ok(())
    }
}
