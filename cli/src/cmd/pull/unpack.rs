//! A data extent's bytes: unpacked, and held against their hash.

use std::borrow::Cow;

use tidemark_proto::v1::{Compression, DataExtent};

use crate::exit::{Exit, Fault};

/// The plain bytes of an extent with their BLAKE3, which is the one that came with them. Holds at
/// most `max_bytes` of them, whatever the extent claims.
pub(crate) fn unpack(
    extent: &DataExtent,
    max_bytes: u64,
) -> anyhow::Result<(Cow<'_, [u8]>, blake3::Hash)> {
    let at = || format!("extent {}+{}", extent.offset_bytes, extent.length_bytes);
    let plain = decode(extent, max_bytes)?;
    if plain.len() as u64 != extent.length_bytes {
        return Err(corrupt(format!("{} holds {} bytes", at(), plain.len())));
    }
    let hash = blake3::hash(&plain);
    if extent.blake3 != hash.as_bytes()[..] {
        return Err(corrupt(format!("{} does not match its BLAKE3", at())));
    }
    Ok((plain, hash))
}

fn decode(extent: &DataExtent, max_bytes: u64) -> anyhow::Result<Cow<'_, [u8]>> {
    let at = || format!("extent {}+{}", extent.offset_bytes, extent.length_bytes);
    if extent.length_bytes > max_bytes {
        return Err(corrupt(format!("{} is longer than an extent may be", at())));
    }
    match Compression::try_from(extent.compression) {
        Ok(Compression::None | Compression::Unspecified) => Ok(Cow::Borrowed(&extent.data)),
        Ok(Compression::Zstd) => {
            // Bounded by the length that was announced: a bomb ends in an error.
            let length = usize::try_from(extent.length_bytes)?;
            zstd::bulk::decompress(&extent.data, length)
                .map(Cow::Owned)
                .map_err(|error| corrupt(format!("{} cannot be decompressed: {error}", at())))
        }
        Err(_) => Err(corrupt(format!("{} is compressed in an unknown way", at()))),
    }
}

/// Bytes that came are not what they should be.
pub(crate) fn corrupt(message: String) -> anyhow::Error {
    Fault::new(Exit::Integrity, message)
        .advise(
            "what was written is not valid: run it again (a pull will be full), and check memory and disks",
        )
        .into()
}

#[cfg(test)]
mod tests {
    use tidemark_proto::v1::ExtentKind;

    use super::*;

    const MAX_BYTES: u64 = 8 << 20;

    fn extent(data: Vec<u8>, length: u64, compression: Compression) -> DataExtent {
        DataExtent {
            offset_bytes: 0,
            length_bytes: length,
            kind: ExtentKind::Data.into(),
            data: data.into(),
            compression: compression.into(),
            blake3: Vec::new().into(),
        }
    }

    #[test]
    fn decompression_is_bounded() {
        let packed = zstd::bulk::compress(&vec![0; 1 << 20], 3).unwrap();
        let sent = extent(packed.clone(), 1 << 20, Compression::Zstd);
        let good = decode(&sent, MAX_BYTES).unwrap();
        assert_eq!(good.len(), 1 << 20);
        assert!(decode(&extent(packed.clone(), 4096, Compression::Zstd), MAX_BYTES).is_err());
        assert!(decode(&extent(packed, u64::MAX, Compression::Zstd), MAX_BYTES).is_err());
        assert!(decode(&extent(vec![1, 2, 3], 4096, Compression::Zstd), MAX_BYTES).is_err());
    }

    #[test]
    fn an_unknown_compression_is_refused() {
        let mut odd = extent(vec![0; 8], 8, Compression::None);
        odd.compression = 77;
        assert!(decode(&odd, MAX_BYTES).is_err());
    }
}
