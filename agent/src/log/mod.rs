//! Logging that makes nobody wait: to systemd's journal with fields, where it is what standard error
//! leads to, and as lines to standard error otherwise.
//!
//! ```text
//! control plane   event -> queue -> thread -> journal or standard error; a full queue drops and counts
//! volume server   event -> journal's socket, never waited for: what it does not take is dropped and counted
//!                 event -> standard error, where that is not the journal
//! ```
//!
//! The crates that speak to the journal wait for it without a bound; while a file system is frozen that
//! may be for ever.

mod journal;
mod queue;

use std::{
    fs, io,
    os::{linux::fs::MetadataExt, unix::net::UnixDatagram},
    path::Path,
};

use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use journal::Journal;

/// Where the journal takes entries.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The directives are none.
    #[error(
        "\"{filter}\" says not what to log: {source}; write a level such as info, or tracing's directives"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is no thread, or no socket.
    #[error("logging: {0}")]
    Io(#[from] io::Error),
    /// Somebody logs already.
    #[error("logging: {0}")]
    Again(#[from] tracing_subscriber::util::TryInitError),
}

/// Logs for the control plane; `filter` is in the form of tracing's directives.
pub fn start(filter: &str) -> Result<(), LogError> {
    let parsed = EnvFilter::try_new(filter).map_err(|source| LogError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let all = Registry::default().with(parsed);
    if is_journal() {
        let socket = UnixDatagram::unbound()?;
        // Nobody waits for the thread, which may wait for the journal.
        let send = move |entry: &[u8]| drop(socket.send_to(entry, SOCKET));
        let queue = queue::start(send, |lost| journal::lost("tidemarkd", lost))?;
        all.with(Journal::new("tidemarkd", &[], move |entry| {
            queue.put(entry)
        }))
        .try_init()?;
        return Ok(());
    }
    let send = |line: &[u8]| {
        // A log that cannot be written has nobody to tell.
        let _ = io::Write::write_all(&mut io::stderr().lock(), line);
    };
    let told = |lost| format!("({lost} lines of the log were dropped)\n").into_bytes();
    let queue = queue::start(send, told)?;
    all.with(fmt::layer().with_ansi(false).with_writer(queue))
        .try_init()?;
    Ok(())
}

/// Logs for the server of a volume.
pub fn start_volume(volume: &str, filter: EnvFilter) {
    let all = Registry::default().with(filter);
    let journal = is_journal().then(|| journal::unwaiting(Path::new(SOCKET)));
    // Either fails only where a subscriber is set already, as in tests.
    match journal {
        Some(Ok(send)) => {
            let fields = [("TIDEMARK_VOLUME", volume)];
            let layer = Journal::new("tidemark-volume", &fields, send);
            drop(all.with(layer).try_init());
        }
        Some(Err(_)) | None => {
            let layer = fmt::layer().with_writer(io::stderr).with_ansi(false);
            drop(all.with(layer).try_init());
        }
    }
}

/// Whether standard error is the stream that systemd made for the journal.
fn is_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    fs::metadata("/proc/self/fd/2")
        .is_ok_and(|found| stream == *format!("{}:{}", found.st_dev(), found.st_ino()))
}
