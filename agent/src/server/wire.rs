//! Framing of the private protocol: each message is preceded by its length as a varint.
//!
//! Both sides use this file: the server reads blocking, the control plane's client decodes the
//! same lengths from its own buffers. A length is believed only up to [`MAX_MESSAGE_BYTES`], and
//! before a byte is allocated for it.

use std::io::{self, Read, Write};

use prost::Message;

/// The one version both sides must speak.
pub const VERSION: u32 = 1;

/// Largest message in bytes. Its biggest tenant is a page of [`MAX_RANGES`] ranges.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Longest length prefix in bytes: three of seven bits reach 2,097,151.
pub const MAX_PREFIX_BYTES: usize = 3;

/// Most ranges of one page: each takes at most 26 bytes (two varints of 10 with their tags, a
/// kind of 2, a tag and a length of 2), which leaves room for the rest in 1 MiB.
pub const MAX_RANGES: usize = 32_768;

/// A message could not be passed. The connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The socket failed, or ended inside a message.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The message is too long, or its length is not one.
    #[error("a message longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
    /// The bytes are not a message of the expected kind.
    #[error("not a message of this protocol: {0}")]
    Malformed(#[from] prost::DecodeError),
}

/// A message with its length before it.
pub fn encode(message: &impl Message) -> Result<Vec<u8>, WireError> {
    if message.encoded_len() > MAX_MESSAGE_BYTES {
        return Err(WireError::TooLong);
    }
    Ok(message.encode_length_delimited_to_vec())
}

/// The length of a message whose bytes begin with `prefix`, and how many bytes the length itself
/// takes. `None` when `prefix` ends before the length does.
pub fn decode_length(prefix: &[u8]) -> Result<Option<(usize, usize)>, WireError> {
    let mut len = 0;
    for (index, byte) in prefix.iter().enumerate().take(MAX_PREFIX_BYTES) {
        len |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if len > MAX_MESSAGE_BYTES {
                return Err(WireError::TooLong);
            }
            return Ok(Some((len, index + 1)));
        }
    }
    if prefix.len() < MAX_PREFIX_BYTES {
        Ok(None)
    } else {
        Err(WireError::TooLong)
    }
}

/// Writes one message.
pub fn write(to: &mut impl Write, message: &impl Message) -> Result<(), WireError> {
    to.write_all(&encode(message)?)?;
    to.flush()?;
    Ok(())
}

/// Reads one message; `None` when the other side has closed between two.
pub fn read<M: Message + Default>(from: &mut impl Read) -> Result<Option<M>, WireError> {
    let Some(len) = read_length(from)? else {
        return Ok(None);
    };
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes)?;
    Ok(Some(M::decode(bytes.as_slice())?))
}

fn read_length(from: &mut impl Read) -> Result<Option<usize>, WireError> {
    let mut prefix = [0; MAX_PREFIX_BYTES];
    for have in 0..MAX_PREFIX_BYTES {
        let (known, rest) = prefix.split_at_mut(have);
        let next = rest.get_mut(..1).unwrap_or_default();
        match from.read_exact(next) {
            Ok(()) => {}
            Err(error) if known.is_empty() && error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        if let Some((len, _)) = decode_length(prefix.get(..=have).unwrap_or_default())? {
            return Ok(Some(len));
        }
    }
    Err(WireError::TooLong)
}

#[cfg(test)]
mod tests {
    use prost::encoding::encode_varint;
    use tidemark_proto::private::{ExtentPage, Hello, Range, RangeKind, Request, request::Call};

    use super::*;

    fn hello() -> Request {
        Request {
            call: Some(Call::Hello(Hello { version: VERSION })),
        }
    }

    #[test]
    fn messages_come_back_one_by_one() {
        let mut bytes = Vec::new();
        write(&mut bytes, &hello()).unwrap();
        write(&mut bytes, &Request::default()).unwrap();
        let mut from = bytes.as_slice();
        assert_eq!(read::<Request>(&mut from).unwrap(), Some(hello()));
        assert_eq!(
            read::<Request>(&mut from).unwrap(),
            Some(Request::default())
        );
        assert_eq!(read::<Request>(&mut from).unwrap(), None);
    }

    #[test]
    fn a_truncated_message_is_an_error_and_not_an_end() {
        let bytes = encode(&hello()).unwrap();
        for cut in 1..bytes.len() {
            let mut from = bytes.get(..cut).unwrap();
            assert!(
                matches!(read::<Request>(&mut from), Err(WireError::Io(_))),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_allocated() {
        for len in [MAX_MESSAGE_BYTES as u64 + 1, 1 << 21, 1 << 40, u64::MAX] {
            let mut bytes = Vec::new();
            encode_varint(len, &mut bytes);
            bytes.extend([0; 64]);
            let mut from = bytes.as_slice();
            assert!(
                matches!(read::<Request>(&mut from), Err(WireError::TooLong)),
                "{len}"
            );
        }
        let mut endless = [0xff; 64].as_slice();
        assert!(matches!(
            read::<Request>(&mut endless),
            Err(WireError::TooLong)
        ));
    }

    #[test]
    fn lengths_decode_as_their_bytes_arrive() {
        let mut bytes = Vec::new();
        encode_varint(MAX_MESSAGE_BYTES as u64, &mut bytes);
        assert_eq!(bytes.len(), MAX_PREFIX_BYTES);
        assert_eq!(decode_length(&bytes[..2]).unwrap(), None);
        assert_eq!(decode_length(&bytes).unwrap(), Some((MAX_MESSAGE_BYTES, 3)));
        assert_eq!(decode_length(&[]).unwrap(), None);
    }

    #[test]
    fn a_full_page_of_ranges_fits() {
        let range = Range {
            offset_bytes: u64::MAX,
            length_bytes: u64::MAX,
            kind: RangeKind::Discarded.into(),
        };
        let page = ExtentPage {
            ranges: vec![range; MAX_RANGES],
            next_bytes: u64::MAX,
            last: false,
            over_report_bytes: u64::MAX,
        };
        let reply = tidemark_proto::private::Reply {
            result: Some(tidemark_proto::private::reply::Result::Extents(page)),
        };
        assert!(encode(&reply).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_refused_or_read_but_never_panics(bytes: Vec<u8>) {
            let mut from = bytes.as_slice();
            while let Ok(Some(_)) = read::<Request>(&mut from) {}
        }
    }
}
