//! Logging that never makes a task wait.
//!
//! Standard error may go to a file on a file system that is being frozen: a task that writes there
//! would wait for the thaw that it has to bring about. So a thread of its own writes, and when
//! that is stuck, lines are dropped and counted.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use anyhow::Context;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Lines that may wait. At about 200 bytes each: 800 KiB.
const MAX_WAITING: usize = 4096;

/// Sends what is logged to standard error; `filter` is in the form of tracing's directives.
pub(super) fn start(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log \"{filter}\""))?;
    let (sender, receiver) = sync_channel(MAX_WAITING);
    let lines = Lines {
        sender,
        dropped: Arc::default(),
    };
    let dropped = Arc::clone(&lines.dropped);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_out(&receiver, &dropped))
        .context("starting the log's thread")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(lines)
        .try_init()
        .map_err(|error| anyhow::anyhow!("logging: {error}"))
}

fn write_out(lines: &Receiver<Vec<u8>>, dropped: &AtomicU64) {
    for line in lines {
        let lost = dropped.swap(0, Ordering::Relaxed);
        let mut out = io::stderr().lock();
        if lost > 0 {
            // A log that cannot be written has nobody to tell.
            let _ = writeln!(out, "({lost} lines of the log were dropped)");
        }
        let _ = out.write_all(&line);
    }
}

#[derive(Clone)]
struct Lines {
    sender: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            lines: self,
            text: Vec::new(),
        }
    }
}

/// One line; sent when it is complete.
struct Line<'a> {
    lines: &'a Lines,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if let Err(TrySendError::Full(_)) = self.lines.sender.try_send(text) {
            self.lines.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_log_drops_and_counts() {
        let (sender, receiver) = sync_channel(1);
        let lines = Lines {
            sender,
            dropped: Arc::default(),
        };
        for _ in 0..3 {
            lines.make_writer().write_all(b"line\n").unwrap();
        }
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 2);
        assert_eq!(receiver.recv().unwrap(), b"line\n");
    }
}
