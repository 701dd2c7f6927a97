//! Reads an image as extents: data with its hash, and zeros where there is nothing to send.

use std::io;

use anyhow::Context;
use indicatif::ProgressBar;
use tidemark_proto::v1::{Compression, DataExtent, ExtentKind, WriteRestoreRequest};
use tokio::sync::mpsc::Sender;

use crate::{digest::StreamDigest, image::Image};

/// The most data of one extent, and of one message.
const EXTENT_BYTES: usize = 1 << 20;
/// Zeros are looked for in pieces of this size: smaller ones make more extents than they save bytes.
const PROBE_BYTES: usize = 64 << 10;
/// An extent of zeros has no payload; this keeps the far side's unit of work bounded.
const ZERO_EXTENT_BYTES: u64 = 1 << 30;
/// What zstd makes of a mebibyte at its default level costs less than moving it.
const ZSTD_LEVEL: i32 = 3;

/// What was read.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Over the extents in the order they were sent.
    pub(crate) digest: blake3::Hash,
    /// Number of extents.
    pub(crate) extents: u64,
    /// Plain bytes of data.
    pub(crate) data_bytes: u64,
    /// Bytes of zeros.
    pub(crate) zero_bytes: u64,
    /// Payload as sent.
    pub(crate) sent_bytes: u64,
}

/// Reads an image from start to end and sends it.
#[derive(Debug)]
pub(crate) struct Reader {
    image: Image,
    capacity: u64,
    restore_id: String,
    compress: bool,
    send: Sender<WriteRestoreRequest>,
    bar: ProgressBar,
    digest: StreamDigest,
    sums: Sums,
    /// Zeros that were met and not sent yet.
    zeros: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Sums {
    extents: u64,
    data_bytes: u64,
    zero_bytes: u64,
    sent_bytes: u64,
}

/// The far side ended the call; it says why itself.
#[derive(Debug, thiserror::Error)]
#[error("the agent ended the restore")]
pub(crate) struct Ended;

impl Reader {
    /// Reads `image`, of `capacity` bytes, for one restore.
    pub(crate) fn new(
        image: Image,
        capacity: u64,
        restore_id: String,
        compress: bool,
        send: Sender<WriteRestoreRequest>,
        bar: ProgressBar,
    ) -> Self {
        Self {
            image,
            capacity,
            restore_id,
            compress,
            send,
            bar,
            digest: StreamDigest::default(),
            sums: Sums::default(),
            zeros: None,
        }
    }

    /// Sends everything; blocks.
    pub(crate) fn run(mut self) -> anyhow::Result<Sent> {
        let mut at = 0;
        let mut buffer = vec![0; EXTENT_BYTES];
        while at < self.capacity {
            let found = self
                .image
                .next_data(at, self.capacity)
                .with_context(|| self.place(at))?;
            let (start, end) = found.unwrap_or((self.capacity, self.capacity));
            self.zero(at, start - at)?;
            at = start;
            while at < end {
                let step =
                    usize::try_from(end - at).map_or(EXTENT_BYTES, |left| left.min(EXTENT_BYTES));
                let part = buffer
                    .get_mut(..step)
                    .ok_or_else(|| io::Error::other("buffer"))?;
                self.image
                    .read_at(part, at)
                    .with_context(|| self.place(at))?;
                self.piece(at, &buffer, step)?;
                at += step as u64;
            }
        }
        self.flush_zeros()?;
        Ok(Sent {
            digest: self.digest.finish(),
            extents: self.sums.extents,
            data_bytes: self.sums.data_bytes,
            zero_bytes: self.sums.zero_bytes,
            sent_bytes: self.sums.sent_bytes,
        })
    }

    fn place(&self, at: u64) -> String {
        format!("reading {} at {at}", self.image.path().display())
    }

    /// Sends what was read at `offset`, runs of zeros as such.
    fn piece(&mut self, offset: u64, buffer: &[u8], length: usize) -> anyhow::Result<()> {
        let read = buffer.get(..length).unwrap_or(buffer);
        for run in runs(read) {
            let at = offset + run.start as u64;
            if run.zero {
                self.zero(at, run.data.len() as u64)?;
            } else {
                self.data(at, run.data)?;
            }
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, length: u64) -> anyhow::Result<()> {
        if length == 0 {
            return Ok(());
        }
        match &mut self.zeros {
            Some((_, held)) => *held += length,
            None => self.zeros = Some((offset, length)),
        }
        self.bar.inc(length);
        Ok(())
    }

    fn flush_zeros(&mut self) -> anyhow::Result<()> {
        let Some((mut offset, mut length)) = self.zeros.take() else {
            return Ok(());
        };
        while length > 0 {
            let step = length.min(ZERO_EXTENT_BYTES);
            self.digest.add(offset, step, ExtentKind::Zero, None);
            self.sums.zero_bytes += step;
            self.emit(DataExtent {
                offset_bytes: offset,
                length_bytes: step,
                kind: ExtentKind::Zero.into(),
                ..Default::default()
            })?;
            offset += step;
            length -= step;
        }
        Ok(())
    }

    fn data(&mut self, offset: u64, data: &[u8]) -> anyhow::Result<()> {
        self.flush_zeros()?;
        let hash = blake3::hash(data);
        let length = data.len() as u64;
        self.digest
            .add(offset, length, ExtentKind::Data, Some(&hash));
        self.sums.data_bytes += length;
        self.bar.inc(length);
        let packed = if self.compress {
            Some(zstd::bulk::compress(data, ZSTD_LEVEL)?)
        } else {
            None
        };
        let (bytes, compression) = match packed.filter(|packed| packed.len() < data.len()) {
            Some(packed) => (packed, Compression::Zstd),
            None => (data.to_vec(), Compression::None),
        };
        self.emit(DataExtent {
            offset_bytes: offset,
            length_bytes: length,
            kind: ExtentKind::Data.into(),
            data: bytes.into(),
            compression: compression.into(),
            blake3: hash.as_bytes().to_vec().into(),
        })
    }

    fn emit(&mut self, extent: DataExtent) -> anyhow::Result<()> {
        self.sums.extents += 1;
        self.sums.sent_bytes += extent.data.len() as u64;
        let request = WriteRestoreRequest {
            restore_id: self.restore_id.clone(),
            extents: vec![extent],
        };
        self.send.blocking_send(request).map_err(|_| Ended.into())
    }
}

/// Consecutive pieces of one nature.
struct Run<'a> {
    start: usize,
    data: &'a [u8],
    zero: bool,
}

/// Cuts a buffer into runs that are all zeros and runs that are not.
fn runs(buffer: &[u8]) -> Vec<Run<'_>> {
    let mut found: Vec<Run<'_>> = Vec::new();
    let mut start = 0;
    for piece in buffer.chunks(PROBE_BYTES) {
        let zero = piece.iter().all(|byte| *byte == 0);
        let end = start + piece.len();
        match found.last_mut() {
            Some(last) if last.zero == zero => {
                last.data = buffer.get(last.start..end).unwrap_or(last.data);
            }
            _ => found.push(Run {
                start,
                data: piece,
                zero,
            }),
        }
        start = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_the_buffer_once() {
        let mut buffer = vec![0; PROBE_BYTES * 4 + 100];
        buffer[PROBE_BYTES * 2 + 5] = 1;
        let found = runs(&buffer);
        let shape: Vec<_> = found
            .iter()
            .map(|run| (run.start, run.data.len(), run.zero))
            .collect();
        assert_eq!(
            shape,
            [
                (0, PROBE_BYTES * 2, true),
                (PROBE_BYTES * 2, PROBE_BYTES, false),
                (PROBE_BYTES * 3, PROBE_BYTES + 100, true),
            ]
        );
        assert!(runs(&[]).is_empty());
    }
}
