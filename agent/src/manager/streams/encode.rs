//! Second stage of a stream: hashes, compresses and packs pieces into batches.

use prost::bytes::Bytes;
use tidemark_proto::v1::{Compression, DataBatch, DataExtent, DataTrailer};
use tidemark_store::units::ByteRange;

use super::{
    BATCH_DATA_BYTES, BATCH_EXTENTS, Part,
    digest::{ExtentHash, StreamDigest, to_wire},
    walk::Piece,
};
use crate::{
    manager::Error,
    volume::{Extent, Kind},
};

/// The fastest level proper: on two cores a stream must not wait for its compressor.
const ZSTD_LEVEL: i32 = 1;

/// Packs pieces into batches, and knows the trailer at the end.
///
/// Batches are filled greedily and by plain sizes, so that what a batch holds depends only on
/// where it starts: a stream resumed at its end repeats the rest exactly.
pub struct Encoder {
    zstd: Option<Zstd>,
    /// The last one grows while its neighbours are of its kind and without data.
    open: Vec<Packed>,
    open_data_bytes: u64,
    digest: StreamDigest,
    trailer: DataTrailer,
}

struct Packed {
    extent: Extent,
    data: Bytes,
    compression: Compression,
    hash: ExtentHash,
}

struct Zstd {
    compressor: zstd::bulk::Compressor<'static>,
    scratch: Vec<u8>,
}

impl Encoder {
    /// An encoder for one stream.
    pub fn new(compression: Compression) -> Result<Self, Error> {
        let zstd = match compression {
            Compression::Unspecified | Compression::None => None,
            Compression::Zstd => Some(Zstd {
                compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(Error::internal)?,
                scratch: Vec::new(),
            }),
        };
        Ok(Self {
            zstd,
            open: Vec::new(),
            open_data_bytes: 0,
            digest: StreamDigest::default(),
            trailer: DataTrailer::default(),
        })
    }

    /// Adds a piece; answers with a batch when that piece had no room in it.
    pub fn push(&mut self, piece: Piece) -> Result<Option<DataBatch>, Error> {
        if self.grow_last(piece.extent) {
            return Ok(None);
        }
        let data_bytes = piece.data.len() as u64;
        let full = self.open.len() >= BATCH_EXTENTS
            || self.open_data_bytes + data_bytes > BATCH_DATA_BYTES;
        let batch = if full { self.close_batch() } else { None };
        let packed = self.pack(piece)?;
        self.open_data_bytes += data_bytes;
        self.open.push(packed);
        Ok(batch)
    }

    /// What is left: the last batch, when there is one, and the trailer.
    pub fn finish(mut self) -> impl Iterator<Item = Part> {
        let last = self.close_batch().map(Part::Batch);
        self.trailer.digest = Bytes::copy_from_slice(&self.digest.value());
        last.into_iter().chain([Part::Trailer(self.trailer)])
    }

    fn grow_last(&mut self, extent: Extent) -> bool {
        let Some(last) = self.open.last_mut() else {
            return false;
        };
        let grows = extent.kind != Kind::Data
            && last.extent.kind == extent.kind
            && last.extent.range.end() == extent.range.offset;
        if grows {
            last.extent.range.len += extent.range.len;
        }
        grows
    }

    fn pack(&mut self, piece: Piece) -> Result<Packed, Error> {
        let Piece { extent, data } = piece;
        if extent.kind != Kind::Data {
            return Ok(Packed {
                extent,
                data,
                compression: Compression::Unspecified,
                hash: ExtentHash::default(),
            });
        }
        let hash = *blake3::hash(&data).as_bytes();
        let smaller = match &mut self.zstd {
            Some(zstd) => zstd.smaller(&data)?,
            None => None,
        };
        let (data, compression) = match smaller {
            Some(smaller) => (smaller, Compression::Zstd),
            None => (data, Compression::None),
        };
        Ok(Packed {
            extent,
            data,
            compression,
            hash,
        })
    }

    fn close_batch(&mut self) -> Option<DataBatch> {
        let resume_offset_bytes = self.open.last()?.extent.range.end();
        self.open_data_bytes = 0;
        let packed = std::mem::take(&mut self.open);
        let extents = packed.into_iter().map(|one| self.count(one)).collect();
        Some(DataBatch {
            extents,
            resume_offset_bytes,
        })
    }

    fn count(&mut self, packed: Packed) -> DataExtent {
        let Extent { range, kind } = packed.extent;
        self.digest.add(range, kind, &packed.hash);
        self.trailer.extents += 1;
        self.trailer.sent_bytes += packed.data.len() as u64;
        let blake3 = match kind {
            Kind::Data => {
                self.trailer.data_bytes += range.len;
                Bytes::copy_from_slice(&packed.hash)
            }
            Kind::Zero => {
                self.trailer.zero_bytes += range.len;
                Bytes::new()
            }
            Kind::Discarded => {
                self.trailer.discarded_bytes += range.len;
                Bytes::new()
            }
        };
        let ByteRange { offset, len } = range;
        DataExtent {
            offset_bytes: offset,
            length_bytes: len,
            kind: to_wire(kind).into(),
            data: packed.data,
            compression: packed.compression.into(),
            blake3,
        }
    }
}

impl Zstd {
    /// The compressed bytes, when they are fewer.
    fn smaller(&mut self, plain: &[u8]) -> Result<Option<Bytes>, Error> {
        self.scratch.clear();
        self.scratch
            .reserve(zstd::zstd_safe::compress_bound(plain.len()));
        let len = self
            .compressor
            .compress_to_buffer(plain, &mut self.scratch)
            .map_err(|error| Error::internal(format!("compressing an extent: {error}")))?;
        Ok((len < plain.len()).then(|| Bytes::copy_from_slice(&self.scratch[..len])))
    }
}
