//! Entries of systemd's journal, in its native protocol: a datagram of fields.
//!
//! Fields of tracing's events become `TIDEMARK_NAME`, so `volume = "home"` is found by
//! `journalctl TIDEMARK_VOLUME=home`; the message has them too, for people. The protocol:
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.

use std::{
    fmt::{self, Write},
    io,
    os::unix::net::UnixDatagram,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// Of a field's value in bytes: with a message and a dozen fields an entry fits a datagram, whose
/// bound is some 200 KiB.
const MAX_VALUE: usize = 8 << 10;

/// Sends every event as an entry; `send` must not wait.
pub(super) struct Journal<S> {
    /// Fields that every entry has.
    same: Vec<u8>,
    send: S,
}

impl<S: Fn(Vec<u8>)> Journal<S> {
    /// `identifier` is what journalctl shows before a message.
    pub(super) fn new(identifier: &str, fields: &[(&str, &str)], send: S) -> Self {
        let mut same = Vec::new();
        put(&mut same, "SYSLOG_IDENTIFIER", identifier);
        for (name, value) in fields {
            put(&mut same, name, value);
        }
        Self { same, send }
    }

    fn entry(&self, event: &Event<'_>) -> Vec<u8> {
        let metadata = event.metadata();
        let mut told = Told::default();
        event.record(&mut told);
        let mut entry = self.same.clone();
        put(&mut entry, "PRIORITY", priority(*metadata.level()));
        put(
            &mut entry,
            "MESSAGE",
            &format!("{}{}", told.message, told.beside),
        );
        put(&mut entry, "TIDEMARK_TARGET", metadata.target());
        for (name, value) in &told.fields {
            put(&mut entry, name, value);
        }
        entry
    }
}

impl<C: Subscriber, S: Fn(Vec<u8>) + 'static> Layer<C> for Journal<S> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, C>) {
        (self.send)(self.entry(event));
    }
}

/// As syslog numbers them.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// That entries were dropped, as an entry.
pub(super) fn lost(identifier: &str, count: u64) -> Vec<u8> {
    let mut entry = Vec::new();
    put(&mut entry, "SYSLOG_IDENTIFIER", identifier);
    put(&mut entry, "PRIORITY", "4");
    let message = format!("{count} entries of the log were dropped");
    put(&mut entry, "MESSAGE", &message);
    entry
}

/// Sends to the journal and never waits for it: what it does not take is dropped, and told of once it takes
/// something again.
pub(super) fn unwaiting(path: &Path) -> io::Result<impl Fn(Vec<u8>) + Send + Sync + use<>> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    // An empty entry is none, and tells whether somebody listens.
    socket.send_to(&[], path)?;
    let (path, dropped) = (path.to_owned(), AtomicU64::new(0));
    Ok(move |entry: Vec<u8>| {
        let before = dropped.swap(0, Ordering::Relaxed);
        let told = before == 0
            || socket
                .send_to(&lost("tidemark-volume", before), &path)
                .is_ok();
        if !told {
            dropped.fetch_add(before, Ordering::Relaxed);
        }
        if !told || socket.send_to(&entry, &path).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    })
}

/// `NAME=value`, or with the length where the value has lines.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let cut = value.floor_char_boundary(MAX_VALUE);
    let value = value.get(..cut).unwrap_or_default();
    entry.extend_from_slice(name.as_bytes());
    match value.contains('\n') {
        false => entry.push(b'='),
        true => {
            entry.push(b'\n');
            entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        }
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// An event's message and fields.
#[derive(Default)]
struct Told {
    message: String,
    /// The other fields, as people read them behind the message.
    beside: String,
    fields: Vec<(String, String)>,
}

impl Told {
    fn add(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
            return;
        }
        if value.is_empty() {
            return;
        }
        // A String takes everything.
        let _ = write!(self.beside, " {}={value}", field.name());
        let letters = field.name().chars();
        let name: String = letters
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        self.fields
            .push((format!("TIDEMARK_{}", name.to_ascii_uppercase()), value));
    }
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::{Registry, layer::SubscriberExt};

    use super::*;

    fn logged(log: impl FnOnce()) -> Vec<u8> {
        let entries = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&entries);
        let fields = [("TIDEMARK_VOLUME", "home")];
        let journal = Journal::new("me", &fields, move |entry| {
            kept.lock().unwrap().extend(entry);
        });
        tracing::subscriber::with_default(Registry::default().with(journal), log);
        entries.lock().unwrap().clone()
    }

    #[test]
    fn an_event_is_an_entry_with_fields() {
        let error = io::Error::other("no space");
        let entry = logged(|| {
            tracing::warn!(
                target: "tidemark",
                snapshot = %"ab",
                none = "",
                bytes = 7,
                %error,
                "not kept"
            );
        });
        assert_eq!(
            String::from_utf8(entry).unwrap(),
            "SYSLOG_IDENTIFIER=me\nTIDEMARK_VOLUME=home\nPRIORITY=4\n\
             MESSAGE=not kept snapshot=ab bytes=7 error=no space\nTIDEMARK_TARGET=tidemark\n\
             TIDEMARK_SNAPSHOT=ab\nTIDEMARK_BYTES=7\nTIDEMARK_ERROR=no space\n"
        );
    }

    #[test]
    fn lines_cannot_make_fields() {
        let mut entry = Vec::new();
        put(&mut entry, "MESSAGE", "a\nPRIORITY=0");
        assert_eq!(entry, b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n");
        let mut long = Vec::new();
        put(&mut long, "M", &"\u{e9}".repeat(MAX_VALUE));
        assert_eq!(long.len(), MAX_VALUE + 3);
    }

    /// As the data plane needs it: the journal's socket is full, and nobody reads it.
    #[test]
    fn a_journal_that_hangs_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let send = unwaiting(&path).unwrap();
        for _ in 0..10_000 {
            send(b"MESSAGE=x\n".to_vec());
        }
        let mut taken = 0_u64;
        let mut bytes = [0; 4096];
        journal.set_nonblocking(true).unwrap();
        while journal.recv(&mut bytes).is_ok() {
            taken += 1;
        }
        assert!(taken < 10_000, "the socket took all");
        send(b"MESSAGE=y\n".to_vec());
        let len = journal.recv(&mut bytes).unwrap();
        // The empty one, which asked whether somebody listens, was taken as well.
        assert_eq!(bytes[..len], lost("tidemark-volume", 10_001 - taken)[..]);
        let len = journal.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"MESSAGE=y\n");
    }

    #[test]
    fn where_nobody_listens_it_is_told() {
        assert!(unwaiting(Path::new("/no/such/socket")).is_err());
    }
}
