//! A queue whose writer may be stuck: those who log go on, and what does not fit is dropped and counted.
//!
//! Standard error may go to a file on a file system that is being frozen, and the journal's may be
//! frozen too: a task that wrote there would wait for the thaw that it has to bring about.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait. At about 200 bytes each: 800 KiB.
const MAX_WAITING: usize = 4096;

/// Starts the thread that writes with `send`; `lost` makes an entry of how many were dropped before it.
pub(super) fn start(
    send: impl Fn(&[u8]) + Send + 'static,
    lost: impl Fn(u64) -> Vec<u8> + Send + 'static,
) -> io::Result<Queue> {
    let (sender, receiver) = sync_channel(MAX_WAITING);
    let queue = Queue {
        sender,
        dropped: Arc::default(),
    };
    let dropped = Arc::clone(&queue.dropped);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_out(&receiver, &dropped, &send, &lost))?;
    Ok(queue)
}

fn write_out(
    lines: &Receiver<Vec<u8>>,
    dropped: &AtomicU64,
    send: &dyn Fn(&[u8]),
    told: &dyn Fn(u64) -> Vec<u8>,
) {
    for line in lines {
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            send(&told(lost));
        }
        send(&line);
    }
}

/// Where entries are put. Clones share it.
#[derive(Clone)]
pub(super) struct Queue {
    sender: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    /// Puts an entry in, or drops it; never waits.
    pub(super) fn put(&self, entry: Vec<u8>) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(entry) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            queue: self,
            text: Vec::new(),
        }
    }
}

/// One line; put when it is complete.
pub(super) struct Line<'a> {
    queue: &'a Queue,
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
        self.queue.put(std::mem::take(&mut self.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_log_drops_and_counts() {
        let (sender, receiver) = sync_channel(1);
        let queue = Queue {
            sender,
            dropped: Arc::default(),
        };
        for _ in 0..3 {
            queue.make_writer().write_all(b"line\n").unwrap();
        }
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 2);
        assert_eq!(receiver.recv().unwrap(), b"line\n");
    }

    #[test]
    fn what_was_dropped_is_told_before_what_follows() {
        let (sender, receiver) = sync_channel(2);
        let dropped = AtomicU64::new(3);
        sender.send(b"next".to_vec()).unwrap();
        drop(sender);
        let written = std::sync::Mutex::new(Vec::new());
        let send = |entry: &[u8]| {
            let text = String::from_utf8_lossy(entry).into_owned();
            written.lock().unwrap().push(text);
        };
        let told = |lost: u64| format!("{lost} lost").into_bytes();
        write_out(&receiver, &dropped, &send, &told);
        assert_eq!(*written.lock().unwrap(), ["3 lost", "next"]);
    }
}
