//! Proof that an image holds what it should: against what was sent, or against the snapshot.

use std::io;

use anyhow::Context as _;
use indicatif::ProgressBar;
use tidemark_proto::v1::{HashExtentsRequest, HashExtentsResponse};
use tokio::sync::mpsc;
use tonic::Status;

use super::retry::{Patience, truncated};
use crate::{
    client::Client,
    context::Interrupt,
    exit::{Exit, Fault},
    image::Image,
};

/// The piece that the agent hashes: as large as a batch.
const PIECE_BYTES: u32 = 1 << 20;
/// What is read at a time when looking for bytes that are not zero.
const ZERO_PROBE_BYTES: usize = 256 << 10;
/// Messages of hashes that may wait for the disk.
const QUEUE: usize = 4;

/// A range that was written; no hash means zeros.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// First byte.
    pub(crate) offset: u64,
    /// Number of bytes.
    pub(crate) length: u64,
    /// BLAKE3 of what was written.
    pub(crate) hash: Option<blake3::Hash>,
}

/// Reads back what was written. Call it after a sync, else the cache answers.
pub(crate) fn compare_written(image: &Image, written: &[Written]) -> anyhow::Result<()> {
    if let (Some(first), Some(last)) = (written.first(), written.last()) {
        let end = last.offset.saturating_add(last.length);
        image.drop_cache(first.offset, end.saturating_sub(first.offset));
    }
    let mut buffer = Vec::new();
    for piece in written {
        let context = || {
            format!(
                "reading {} back at {}",
                image.path().display(),
                piece.offset
            )
        };
        let same = match &piece.hash {
            None => reads_zero(image, piece.offset, piece.length).with_context(context)?,
            Some(hash) => {
                buffer.resize(usize::try_from(piece.length)?, 0);
                image
                    .read_at(&mut buffer, piece.offset)
                    .with_context(context)?;
                blake3::hash(&buffer) == *hash
            }
        };
        if !same {
            return Err(differs(
                image,
                piece.offset,
                piece.length,
                "what was written",
            ));
        }
    }
    Ok(())
}

/// Whether a range reads as zeros; holes need no reading.
fn reads_zero(image: &Image, offset: u64, length: u64) -> io::Result<bool> {
    let end = offset.saturating_add(length);
    let mut at = offset;
    let mut buffer = vec![0; ZERO_PROBE_BYTES];
    while let Some((start, stop)) = image.next_data(at, end)? {
        at = start;
        while at < stop {
            let step = usize::try_from(stop - at)
                .map_or(ZERO_PROBE_BYTES, |left| left.min(ZERO_PROBE_BYTES));
            let Some(part) = buffer.get_mut(..step) else {
                break;
            };
            image.read_at(part, at)?;
            if part.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += step as u64;
        }
    }
    Ok(true)
}

fn differs(image: &Image, offset: u64, length: u64, from: &str) -> anyhow::Error {
    Fault::new(
        Exit::Integrity,
        format!(
            "{} differs from {from} in {offset}+{length}",
            image.path().display()
        ),
    )
    .advise("the image is not valid: pull again (it will be full), and check memory and disks")
    .into()
}

/// The snapshot to compare with.
#[derive(Clone, Debug)]
pub(crate) struct Against {
    /// Its id.
    pub(crate) snapshot_id: String,
    /// Its size.
    pub(crate) capacity: u64,
}

/// Compares the whole image with the agent's hashes of the snapshot. Survives the agent's
/// restarts as a pull does.
pub(crate) async fn compare_all(
    client: &Client,
    image: Image,
    against: &Against,
    mut patience: Patience,
    interrupt: &Interrupt,
    bar: &ProgressBar,
) -> anyhow::Result<Image> {
    let mut comparer = Comparer {
        image,
        capacity: against.capacity,
        position: 0,
        bar: bar.clone(),
    };
    while comparer.position < against.capacity {
        let request = HashExtentsRequest {
            snapshot_id: against.snapshot_id.clone(),
            start_offset_bytes: comparer.position,
            piece_bytes: PIECE_BYTES,
        };
        let before = comparer.position;
        let (send, receive) = mpsc::channel(QUEUE);
        let worker = tokio::task::spawn_blocking(move || {
            let outcome = comparer.run(receive);
            (comparer, outcome)
        });
        let fed = feed(client, request, send, interrupt).await;
        let outcome;
        (comparer, outcome) = worker.await?;
        outcome?;
        if comparer.position > before {
            patience.progress();
        }
        match fed? {
            Some(status) => patience.pause(status, interrupt).await?,
            None if comparer.position < against.capacity => {
                patience.pause(truncated(), interrupt).await?
            }
            None => {}
        }
    }
    Ok(comparer.image)
}

/// Passes messages on; gives the status that cut the stream, if one did.
async fn feed(
    client: &Client,
    request: HashExtentsRequest,
    send: mpsc::Sender<HashExtentsResponse>,
    interrupt: &Interrupt,
) -> anyhow::Result<Option<Status>> {
    let mut stream = match client.data().hash_extents(request).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => return Ok(Some(status)),
    };
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = interrupt.wait() => return Err(Fault::interrupted().into()),
        };
        match message {
            Ok(Some(message)) => {
                // The comparer stops at the first difference and tells why itself.
                if send.send(message).await.is_err() {
                    return Ok(None);
                }
            }
            Ok(None) => return Ok(None),
            Err(status) => return Ok(Some(status)),
        }
    }
}

struct Comparer {
    image: Image,
    capacity: u64,
    /// Everything below was compared.
    position: u64,
    bar: ProgressBar,
}

impl Comparer {
    fn run(&mut self, mut messages: mpsc::Receiver<HashExtentsResponse>) -> anyhow::Result<()> {
        let mut buffer = Vec::new();
        while let Some(message) = messages.blocking_recv() {
            if message.offset_bytes != self.position || message.capacity_bytes != self.capacity {
                return Err(Fault::new(
                    Exit::Integrity,
                    format!(
                        "asked for hashes of {} bytes from {}, got {} from {}",
                        self.capacity, self.position, message.capacity_bytes, message.offset_bytes
                    ),
                )
                .into());
            }
            for hash in &message.blake3 {
                self.piece(hash, message.piece_bytes, &mut buffer)?;
            }
        }
        Ok(())
    }

    fn piece(&mut self, hash: &[u8], piece_bytes: u32, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
        let length = u64::from(piece_bytes).min(self.capacity - self.position);
        if length == 0 || piece_bytes > PIECE_BYTES * 16 {
            return Err(
                Fault::new(Exit::Integrity, "the agent hashed past the volume's end").into(),
            );
        }
        buffer.resize(usize::try_from(length)?, 0);
        let context = || {
            format!(
                "reading {} at {}",
                self.image.path().display(),
                self.position
            )
        };
        self.image
            .read_at(buffer, self.position)
            .with_context(context)?;
        if hash != &blake3::hash(buffer).as_bytes()[..] {
            return Err(differs(&self.image, self.position, length, "the snapshot"));
        }
        self.position += length;
        self.bar.inc(length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (image, _) = Image::open_target(&dir.path().join("i")).unwrap();
        image.prepare_full(1 << 20).unwrap();
        let hash = Some(blake3::hash(&[5; 4096]));
        image.write_at(&[5; 4096], 8192).unwrap();
        let written = [
            Written {
                offset: 0,
                length: 8192,
                hash: None,
            },
            Written {
                offset: 8192,
                length: 4096,
                hash,
            },
            Written {
                offset: 12288,
                length: (1 << 20) - 12288,
                hash: None,
            },
        ];
        compare_written(&image, &written).unwrap();
        image.write_at(&[1], 700_000).unwrap();
        assert!(compare_written(&image, &written).is_err());
        image.zero(700_000, 1).unwrap();
        image.write_at(&[6], 8200).unwrap();
        assert!(compare_written(&image, &written).is_err());
    }
}
